"""Inverses that read the image at once: what is trained, that it learns, how exactly it resumes, how it is used."""

import pytest
import torch
from torch import nn

from invkit import recipes, store, synthetic
from invkit.classifiers import load_classifier
from invkit.dci import Chain, Schedule
from invkit.inverters import load_inverter
from invkit.networks import InverseBlock, WholeInverse
from invkit.whole import train_whole

SHAPES = [(3, 16, 16), (6, 16, 16), (12, 4, 4), (24, 2, 2)]


@pytest.fixture(scope="module")
def blocks():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 12, 4, 4), nn.Conv2d(12, 24, 3, 2, 1)
    return [nn.Sequential(layer, nn.ReLU()).requires_grad_(False) for layer in layers]


@pytest.fixture(scope="module")
def pool():
    return synthetic.draw_pool(32, 24, seed=0)


def trained(blocks, pool, steps=40, batches=None, **settings):
    torch.manual_seed(1)
    chain = Chain(SHAPES, [(8, 1)] * 3, whole=1)
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    batches = batches or (lambda step: pool.batch(step, 8, 16))
    done = train_whole(chain, blocks, batches, steps=steps, lr=3e-3, progress=False, **settings)
    return chain, before, done


def test_a_chain_reads_its_deep_depths_at_once():
    chain = Chain(SHAPES, [(8, 1)] * 3, whole=1)
    assert [type(g) for g in chain.inverses] == [InverseBlock, WholeInverse, WholeInverse]
    for depth in (1, 2, 3):
        (reading,) = chain(torch.rand(2, *SHAPES[depth]), depth)
        assert reading.shape == (2, 3, 16, 16)


def test_they_learn_and_the_others_stay(blocks, pool):
    chain, before, done = trained(blocks, pool, steps=80)
    changed = {name for name, value in chain.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"1", "2"}
    for depth in (2, 3):
        values = [scalars[f"depth {depth}"] for _, scalars in done.history]
        assert sum(values[-5:]) < sum(values[:5])


def test_it_resumes_exactly(blocks, pool, tmp_path):
    whole, _, _ = trained(blocks, pool)

    class Cut(Exception):
        pass

    def broken(step):
        if step == 25:
            raise Cut
        return pool.batch(step, 8, 16)

    with pytest.raises(Cut):
        trained(blocks, pool, batches=broken, folder=tmp_path)
    resumed, _, _ = trained(blocks, pool, folder=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_chain_without_them_is_refused(blocks, pool):
    with pytest.raises(ValueError, match="whole=DEPTH"):
        train_whole(Chain(SHAPES, [(8, 1)] * 3), blocks, lambda step: pool.batch(step, 8, 16), steps=1)


def test_an_inverter_learns_to_read_deeper_and_is_saved(tmp_path):
    classifier = load_classifier("glyphs-standard-0")
    size, sides = classifier.size, [block.shape[-1] for block in classifier.blocks if len(block.shape) == 3]
    depth = next(k for k, side in enumerate(sides) if 4 * side <= size)  # the last that is not read at once
    pool = synthetic.draw_pool(16, 2 * size)
    schedule = Schedule(divide=1, synchronise=1)
    first = recipes.invert_classifier(
        classifier, pool, depth=depth, schedule=schedule, crops=lambda depth: (2, size), progress=False
    )
    images = torch.rand(2, 3, size, size)
    before, steps = first.reconstruct(images, depth), first.card["steps"]
    both = recipes.read_deeper(first, [(4, 1)], lambda step: pool.batch(step, 4, size), steps=3, progress=False)
    assert both.depths == [*range(1, depth + 2)] and both.card["whole"] == depth and both.card["steps"] == steps + 3
    torch.testing.assert_close(both.reconstruct(images, depth), before)
    store.save(tmp_path / "mine", both.chain.state_dict(), both.card)
    again = load_inverter(tmp_path / "mine")
    torch.testing.assert_close(again.reconstruct(images), both.reconstruct(images), atol=2e-2, rtol=0)
