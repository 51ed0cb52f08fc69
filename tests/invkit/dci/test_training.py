"""Divide, conquer and re-synchronise: every depth learns, what a term costs, resuming, settings."""

import pytest
import torch

from invkit import dci
from invkit.dci import synthetic
from invkit.dci.chain import Chain, ChainLossWeights
from invkit.dci.training import Schedule

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8)]
SIZES = [(8, 1), (8, 1)]


@pytest.fixture(scope="module")
def pool():
    return synthetic.draw_pool(64, 32, seed=0)


def train(blocks, pool, schedule, folder=None, **settings):
    torch.manual_seed(0)
    chain = Chain(SHAPES, SIZES)
    done = dci.train_chain(
        chain, blocks, lambda step, depth: pool.batch(step, 8, 16), schedule=schedule, folder=folder, progress=False,
        **settings,
    )  # fmt: skip
    return chain, done


def error(chain, blocks, depth):
    images = synthetic.dead_leaves(32, 16, seed=77)
    with torch.no_grad():
        return dci.log_error(chain(dci.represent(blocks, images, depth)[-1], depth)[-1], images).item()


def test_training_reads_images_back_from_every_depth(blocks, pool):
    untrained, _ = train(blocks, pool, Schedule(divide=1, synchronise=0))
    chain, done = train(blocks, pool, Schedule(divide=60, synchronise=60, synchronise_lr=2e-3))
    assert [phase.steps for phase in done] == [60, 60, 60]
    for depth in (1, 2):
        assert error(chain, blocks, depth) < error(untrained, blocks, depth) - 0.2
    assert error(chain, blocks, 1) < error(chain, blocks, 2)  # deeper is harder


def test_dividing_leaves_the_other_inverses_alone(blocks, pool):
    chain, _ = train(blocks, pool, Schedule(divide=3, synchronise=0))
    before = {k: v.clone() for k, v in chain.inverses[0].state_dict().items()}
    chain2, _ = train(blocks, pool, Schedule(divide=3, synchronise=5))
    after = chain2.inverses[0].state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)  # synchronising trains it
    again, _ = train(blocks, pool, Schedule(divide=3, synchronise=0))
    assert all(torch.equal(before[k], v) for k, v in again.inverses[0].state_dict().items())  # dividing repeats exactly


def test_a_term_without_weight_costs_no_pass_through_the_network(blocks, pool):
    calls = []
    counting = [lambda h: (calls.append(1), blocks[0](h))[1], blocks[1]]
    train(counting, pool, Schedule(divide=2, synchronise=0), weights=ChainLossWeights(1, 0, 0))
    without = len(calls)
    calls.clear()
    train(counting, pool, Schedule(divide=2, synchronise=0), weights=ChainLossWeights(1, 0, 1))
    assert len(calls) == without + 4  # one more pass in each of two steps at each of two depths


def test_cycle_every_thins_the_cycle_term_out(blocks, pool):
    calls = []
    counting = [lambda h: (calls.append(1), blocks[0](h))[1], blocks[1]]
    train(counting, pool, Schedule(divide=0, synchronise=8, cycle_every=4))
    assert len(calls) == 2 + 8 + 2  # calibration, the steps' own passes, the cycle in steps 0 and 4


def test_end_to_end_decoder_is_a_chain_undivided(blocks, pool):
    schedule = Schedule(divide=0, synchronise=80, synchronise_lr=2e-3, often=(0, 1))
    chain, done = train(blocks, pool, schedule, weights=ChainLossWeights(0, 1, 0))
    assert len(done) == 1 and done[0].steps == 80
    start, _ = train(blocks, pool, Schedule(divide=0, synchronise=1, often=(0, 1)))
    assert error(chain, blocks, 2) < error(start, blocks, 2) - 0.1


def test_a_finished_folder_gives_the_same_chain_without_training(blocks, pool, tmp_path):
    schedule = Schedule(divide=3, synchronise=4)
    first, _ = train(blocks, pool, schedule, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["divide-01", "divide-02", "synchronise"]

    def no_batches(step, depth):
        assert step == 0, "a finished run must not train"
        return pool.batch(step, 8, 16)

    torch.manual_seed(9)
    second = Chain(SHAPES, SIZES)
    dci.train_chain(second, blocks, no_batches, schedule=schedule, folder=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_settings_that_make_no_sense_are_refused(blocks, pool):
    with pytest.raises(ValueError, match="not all zero"):
        ChainLossWeights(0, 0, 0)
    with pytest.raises(ValueError, match="need 3 shapes"):
        Chain(SHAPES[:2], SIZES)
    with pytest.raises(ValueError, match="one number for each of the 2"):
        train(blocks, pool, Schedule(divide=0, synchronise=1, often=(1.0,)))
