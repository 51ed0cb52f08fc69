"""The search approaches the given representation, row by row; strided depthwise convolutions run densely unchanged."""

import sys

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from invkit import dci
from invkit.dci import synthetic
from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.search import DESCENT, FIRST_DESCENT, OWN_SHARE, SETTLED, DenseDepthwise, descents, search
from invkit.network.classifiers import Classifier

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8)]


@pytest.fixture(scope="module")
def inverter():
    """A chain trained for a moment: it reconstructs, not well."""
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    classifier = Classifier(model, "tiny", size=16)
    chain, pool = Chain(SHAPES, [(8, 1), (8, 1)]), synthetic.draw_pool(32, 32, seed=0)
    schedule = dci.Schedule(divide=20, synchronise=40)
    blocks = dci.classifier_blocks(classifier)[:2]
    dci.train_chain(chain, blocks, lambda step, depth: pool.batch(step, 8, 16), schedule=schedule, progress=False)
    return ClassifierInverter(chain, classifier, {"size": 16})


@pytest.fixture(scope="module")
def images():
    return synthetic.dead_leaves(6, 16, seed=9)


def disagreement(inverter, reading, y):
    return (inverter.represent(reading, 2) - y).square().mean()


def end(found, own):
    """What a search of one descent arrived at: the rest of its answer is the chain's own reading."""
    return (found - OWN_SHARE * own) / (1 - OWN_SHARE)


@pytest.mark.parametrize("through", [1, 2])
def test_a_search_comes_nearer_to_what_was_given(inverter, images, through):
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    own = inverter.invert(y, 2, feedback=False)
    found = search(inverter.chain, blocks, y, 2, through, 0, steps=40)
    assert disagreement(inverter, end(found, own).clamp(0, 1), y) < 0.5 * disagreement(inverter, own, y)
    assert dci.log_error(found, images) < dci.log_error(own, images)
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad


def test_several_descents_end_in_different_images_and_their_mean_is_nearer_than_one(inverter, images):
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    own = inverter.invert(y, 2, feedback=False)
    once, twice, often = (
        end(search(inverter.chain, blocks, y, 2, 1, 0, steps=40 + more * 40, first_descent=40, descent=40), own)
        for more in (0, 1, 9)
    )
    second = 2 * twice - once
    assert disagreement(inverter, second.clamp(0, 1), y) < disagreement(inverter, own, y)
    assert (second - once).square().mean() > 1e-4
    assert dci.log_error(often, images) < dci.log_error(second, images)


def test_the_first_descent_is_long_and_every_step_is_taken():
    for steps in (1, FIRST_DESCENT, FIRST_DESCENT + 1, FIRST_DESCENT + 3 * DESCENT + 7):
        first, *others = descents(steps)
        assert sum((first, *others)) == steps and min(steps, FIRST_DESCENT) <= first < FIRST_DESCENT + DESCENT
        assert set(others) <= {DESCENT}


def test_once_settled_a_descent_begins_with_the_channel_means_that_ends_have_had_and_moves_all_else(
    inverter, images, monkeypatch
):
    begun, ended = [], []

    def descend(place, error, steps):
        begun.append(place)
        ended.append(place + 1 + len(begun) % 3)
        return ended[-1]

    monkeypatch.setattr(sys.modules[search.__module__], "_descend", descend)
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    search(inverter.chain, blocks, y, 2, 2, 0, steps=FIRST_DESCENT + (SETTLED + 3) * DESCENT, kept=0.7)
    means = [(b.mean((2, 3)), e.mean((2, 3))) for b, e in zip(begun, ended, strict=True)]
    assert len(means) == SETTLED + 4
    for number in range(1, len(means)):
        held = [end for _, end in means[SETTLED:number]]
        expected = sum(held) / len(held) if held else 0.7 * means[number - 1][1]
        torch.testing.assert_close(means[number][0], expected)
        moved = begun[number] - ended[number - 1]
        assert (moved - moved.mean((2, 3), keepdim=True)).std() > 0.5


def test_what_is_searched_from_a_cut_is_searched_in_the_network_below_it(inverter, images):
    blocks, y, unbounded = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2), (-1e9, 1e9)
    below = inverter.chain.slice(1, 2)
    own = below(y, 1)[-1]
    last = end(search(below, blocks[1:], y, 1, 1, 0, 40, unbounded), own)
    assert (blocks[1](last) - y).square().mean() < 0.5 * (blocks[1](own) - y).square().mean()
    own, last = (inverter.chain(h, 1)[-1].clamp(0, 1) for h in (own, last))
    found = search(inverter.chain, blocks, y, 2, 2, 1, 40)
    torch.testing.assert_close(found, OWN_SHARE * own + (1 - OWN_SHARE) * last, atol=1e-4, rtol=0)
    assert torch.equal(search(inverter.chain, blocks, y, 2, 2, steps=40), found)  # one less is the default


def test_every_row_is_searched_by_itself_and_in_inference_mode_too(inverter, images):
    y = inverter.represent(images, 2)
    together = inverter.invert(y, 2, search=5)
    torch.testing.assert_close(inverter.invert(y[2:3], 2, search=5), together[2:3], atol=2e-2, rtol=0)
    assert torch.equal(inverter.invert(y, 2, search=5), together)
    with torch.inference_mode():
        assert torch.equal(inverter.reconstruct(images, 2, search=5), together)
    assert all(p.grad is None for p in inverter.chain.parameters())


def test_what_cannot_be_searched_gets_a_sentence(inverter, images):
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    for through, cut, steps in ((3, 0, 5), (0, 0, 5), (1, 1, 5), (2, -1, 5), (1, 0, 0)):
        with pytest.raises(ValueError, match="at least one step, through a depth from 1 to 2"):
            search(inverter.chain, blocks, y, 2, through, cut, steps)


# ---- depthwise convolutions with a stride ----------------------------------------------------------------------------


def run(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        lambda: nn.Conv2d(6, 12, 3, (2, 1), (1, 2), groups=6, bias=False),
        lambda: nn.Conv2d(6, 6, 3, 3, 2, dilation=2, groups=6),
        lambda: Conv2dSame(6, 6, 5, 2, groups=6, bias=False),
    ],
)
def test_outputs_and_gradients_are_those_of_the_convolution_with_its_stride(layer, size):
    torch.manual_seed(0)
    layer, x = layer(), torch.randn(2, 6, size, size)
    plain = run(layer, x)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with DenseDepthwise(), torch.profiler.profile(activities=cpu, record_shapes=True) as seen:
        dense = run(layer, x)
    torch.testing.assert_close(dense, plain)
    # It really is done without: the convolution's own output has more places than the layer's.
    grad = next(e for e in seen.events() if e.name == "aten::convolution_backward").input_shapes[0]
    assert torch.Size(grad).numel() > plain[0].numel()


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1, groups=2), nn.Conv2d(1, 6, 3, 2)])
def test_other_convolutions_are_left_as_they_are(layer):
    x = torch.randn(2, layer.in_channels, 8, 8)
    plain = run(layer, x)
    with DenseDepthwise():
        dense = run(layer, x)
    assert all(map(torch.equal, dense, plain))
