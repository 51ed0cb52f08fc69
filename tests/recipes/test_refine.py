"""Refining deep inverses through windows: what is trained, what stays, what a window is, and how exactly it resumes."""

import pytest
import torch
from torch import nn

from invkit.dci import synthetic
from invkit.dci.chain import Chain, ChainLossWeights
from recipes.refine import refine, windows

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8), (8, 8, 8)]
WEIGHTS = ChainLossWeights(block=0.3, input=1, cycle=0)


@pytest.fixture(scope="module")
def blocks():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
    return [nn.Sequential(layer, nn.ReLU()).requires_grad_(False) for layer in layers]


@pytest.fixture(scope="module")
def pool():
    return synthetic.draw_pool(32, 24, seed=0)


def refined(blocks, pool, steps=40, batches=None, depth=1, window=10, margin=2, weights=WEIGHTS, **settings):
    torch.manual_seed(1)
    chain = Chain(SHAPES, [(8, 1)] * 3)
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    done = refine(
        chain, blocks, batches or (lambda step: pool.batch(step, 8, 16)), depth, window=window, margin=margin,
        steps=steps, lr=3e-3, weights=weights, progress=False, **settings,
    )  # fmt: skip
    return chain, before, done


def test_only_the_inverses_below_the_cut_learn_and_they_do(blocks, pool):
    chain, before, done = refined(blocks, pool, steps=80)
    changed = {name for name, value in chain.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"1", "2"}
    for scalar in ("input", "block"):
        values = [scalars[scalar] for _, scalars in done.history]
        assert sum(values[-5:]) < sum(values[:5])
    assert all(parameter.requires_grad for parameter in chain.parameters())


def test_a_depth_that_is_never_visited_does_not_learn(blocks, pool):
    chain, before, _ = refined(blocks, pool, steps=3, often=(1, 0))
    assert all(torch.equal(p, before[f"inverses.2.{name}"]) for name, p in chain.inverses[2].named_parameters())
    with pytest.raises(ValueError, match="one number for each of the 2"):
        refined(blocks, pool, often=(1,))


def test_refining_resumes_exactly(blocks, pool, tmp_path):
    whole, _, _ = refined(blocks, pool)

    class Cut(Exception):
        pass

    def broken(step):
        if step == 25:
            raise Cut
        return pool.batch(step, 8, 16)

    with pytest.raises(Cut):
        refined(blocks, pool, batches=broken, folder=tmp_path)
    resumed, _, _ = refined(blocks, pool, folder=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_window_shows_the_same_places_of_map_and_image():
    image = torch.arange(24 * 24).view(24, 24).float()
    small = image.view(8, 3, 8, 3).mean((1, 3))  # every place the mean of 3 x 3 pixels
    found = set()
    for seed in range(30):
        places, pixels = windows(8, 24, 4, 3, torch.Generator().manual_seed(seed))
        found.add(tuple(places[0].indices(8)) + tuple(places[1].indices(8)))
        within = small[places][1:-1, 1:-1]  # the margin is one place
        assert torch.equal(image[pixels].view(2, 3, 2, 3).mean((1, 3)), within)
    assert len(found) > 10
    assert windows(8, 24, 8, 0, torch.Generator()) == ((slice(0, 8),) * 2, (slice(0, 24),) * 2)


def test_settings_that_make_no_sense_are_refused(blocks, pool):
    with pytest.raises(ValueError, match="cycle=0"):
        refined(blocks, pool, weights=ChainLossWeights())
    for window, margin in ((17, 0), (0, 0), (4, 2), (4, -1)):
        with pytest.raises(ValueError, match="no window"):
            refined(blocks, pool, window=window, margin=margin)
