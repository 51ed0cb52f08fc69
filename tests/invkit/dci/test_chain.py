"""Divide-and-conquer inversion on a network small enough to know the answers."""

import pytest
import torch
from torch import nn

from invkit import dci
from invkit.dci import synthetic
from invkit.dci.chain import FLOOR, Chain, ChainLossWeights, loss_terms
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8)]
SIZES = [(8, 1), (8, 1)]


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return Classifier(model, "tiny", size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def blocks(classifier):
    return dci.classifier_blocks(classifier)[:2]


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


def test_blocks_are_the_classifiers_own(classifier, blocks):
    images = torch.rand(2, 3, 16, 16)
    hidden = dci.represent(blocks, images, 2)
    assert torch.equal(hidden[0], images)
    for depth in (1, 2):
        torch.testing.assert_close(hidden[depth], classifier.features(images, depth))


def test_log_error_is_the_psnr_up_to_sign_and_scale():
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert dci.log_error(a, b) * -10 == pytest.approx((20 + 40) / 2, abs=0.3)  # FLOOR shaves a little off the 40 dB
    assert dci.log_error(a, b, 0.1) == pytest.approx((0 - 2) / 2, abs=1e-3)


def test_terms_are_switchable_and_vanish_for_a_perfect_reading(blocks):
    hidden = dci.represent(blocks, torch.rand(4, 3, 16, 16), 2)
    perfect = [hidden[1], hidden[0]]
    units = [1.0]
    total, terms = loss_terms(perfect, hidden, blocks, units, ChainLossWeights(1, 1, 1))
    assert set(terms) == {"block", "input", "cycle"}
    assert all(value == pytest.approx(-5, abs=1e-3) for value in terms.values())  # log10 of FLOOR
    assert total == pytest.approx(-15, abs=3e-3)
    for name in ("block", "input", "cycle"):
        alone = ChainLossWeights(**{"block": 0, "input": 0, "cycle": 0, name: 2.0})
        total, terms = loss_terms(perfect, hidden, blocks, units, alone)
        assert set(terms) == {name} and total == pytest.approx(-10, abs=2e-3)


def test_each_term_sees_its_own_error(blocks):
    hidden = dci.represent(blocks, torch.rand(4, 3, 16, 16), 2)
    worse_block = [hidden[1] + 0.3, hidden[0]]
    worse_input = [hidden[1], hidden[0] + 0.1]
    _, block = loss_terms(worse_block, hidden, blocks, [1.0], ChainLossWeights(1, 1, 1))
    _, image = loss_terms(worse_input, hidden, blocks, [1.0], ChainLossWeights(1, 1, 1))
    assert block["block"] == pytest.approx(torch.tensor(0.09).log10().item(), abs=1e-3)
    assert block["input"] == pytest.approx(-5, abs=1e-3)
    assert image["input"] == pytest.approx(-2, abs=1e-2) and image["cycle"] > -4 > image["block"]


def test_gradients_against_finite_differences(blocks):
    torch.manual_seed(1)
    chain = Chain(SHAPES, SIZES).double()
    for p in chain.parameters():
        nn.init.normal_(p, std=0.1)
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    double = [lambda h, block=block: block(h.float()).double() for block in blocks]
    hidden = dci.represent(double, images, 2)
    weight = chain.inverses[0].leave.weight

    def loss():
        # log_error works in float32, so the check is of its double-precision twin for the input term
        reading = chain(hidden[2], 2)[-1]
        return (reading - images).square().flatten(1).mean(1).add(FLOOR).log10().mean()

    analytic = torch.autograd.grad(loss(), weight)[0][0, 0, 0, 0]
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1e-6
        above = loss()
        weight[0, 0, 0, 0] -= 2e-6
        below = loss()
        weight[0, 0, 0, 0] += 1e-6
    assert analytic.item() == pytest.approx((above - below).item() / 2e-6, rel=1e-4)
    terms = loss_terms(chain(hidden[2], 2), hidden, double, [1.0], ChainLossWeights(0, 1, 0))[0]
    assert terms.item() == pytest.approx(loss().item(), abs=1e-5)


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


def test_feedback_removes_systematic_errors():
    """A reading that shrinks its input by a fifth: every step of feedback leaves a fifth of the error before."""

    class Shrinking(nn.Module):
        def forward(self, y, depth):
            return [0.8 * y]

    x = torch.rand(3, 3, 4, 4)
    for steps in range(4):
        reading = dci.invert_representation(Shrinking(), [nn.Identity()], x, 1, (steps, 1.0))
        torch.testing.assert_close(x - reading, x * 0.2 ** (steps + 1), atol=1e-6, rtol=1e-4)
    steps, rate = dci.choose_feedback(Shrinking(), [nn.Identity()], x, 1)
    assert (steps, rate) == (4, 1.0)  # full steps beat half ones, and each earns its 0.1 dB


def test_feedback_that_does_not_help_is_not_chosen():
    class Blind(nn.Module):
        def forward(self, y, depth):
            return [torch.full_like(y, 0.5)]

    assert dci.choose_feedback(Blind(), [nn.Identity()], torch.rand(3, 3, 4, 4), 1, (0, 1))[0] == 0
