"""Searching behind a reading: towards what was given, every row by itself, wherever it is called."""

import pytest
import torch
from torch import nn

from invkit import dci
from invkit.dci import synthetic
from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.search import DESCENT, FIRST_DESCENT, KEPT, OWN_SHARE, SETTLED, descents, search
from invkit.network.classifiers import Classifier

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8)]


@pytest.fixture(scope="module")
def inverter():
    """A chain trained for a moment: it reads, not well."""
    torch.manual_seed(0)
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


def test_several_descents_end_in_different_images_and_their_mean_is_nearer_than_one(inverter, images, monkeypatch):
    monkeypatch.setattr("invkit.search.FIRST_DESCENT", 40)
    monkeypatch.setattr("invkit.search.DESCENT", 40)
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    own = inverter.invert(y, 2, feedback=False)
    once, twice, often = (
        end(search(inverter.chain, blocks, y, 2, 1, 0, steps=40 + more * 40), own) for more in (0, 1, 9)
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

    monkeypatch.setattr("invkit.search._descend", descend)
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    search(inverter.chain, blocks, y, 2, 2, 0, steps=FIRST_DESCENT + (SETTLED + 3) * DESCENT)
    means = [(b.mean((2, 3)), e.mean((2, 3))) for b, e in zip(begun, ended, strict=True)]
    assert len(means) == SETTLED + 4
    for number in range(1, len(means)):
        held = [end for _, end in means[SETTLED:number]]
        expected = sum(held) / len(held) if held else KEPT * means[number - 1][1]
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
