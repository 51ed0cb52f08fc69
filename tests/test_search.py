"""Searching behind a reading: towards what was given, every row by itself, wherever it is called."""

import pytest
import torch
from torch import nn

from invkit import dci, synthetic
from invkit.classifiers import Classifier
from invkit.dci import Chain
from invkit.inverters import ClassifierInverter
from invkit.search import search

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


@pytest.mark.parametrize("through", [1, 2])
def test_a_search_comes_nearer_to_what_was_given(inverter, images, through):
    blocks, y = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2)
    first = inverter.invert(y, 2, feedback=False)
    found = search(inverter.chain, blocks, y, 2, through, 0, steps=40)
    last = (2 * found - first).clamp(0, 1)  # the answer is the mean of the first reading and the last
    assert disagreement(inverter, last, y) < 0.5 * disagreement(inverter, first, y)
    assert dci.log_error(found, images) < dci.log_error(first, images)
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad


def test_what_is_searched_from_a_cut_is_searched_in_the_network_below_it(inverter, images):
    blocks, y, unbounded = dci.classifier_blocks(inverter.classifier), inverter.represent(images, 2), (-1e9, 1e9)
    below = inverter.chain.part(1, 2)
    first = below(y, 1)[-1]
    last = 2 * search(below, blocks[1:], y, 1, 1, 0, 40, bounds=unbounded) - first
    assert (blocks[1](last) - y).square().mean() < 0.5 * (blocks[1](first) - y).square().mean()
    images = [inverter.chain(h, 1)[-1].clamp(0, 1) for h in (first, last)]
    found = search(inverter.chain, blocks, y, 2, 2, 1, 40)
    torch.testing.assert_close(found, (images[0] + images[1]) / 2, atol=1e-4, rtol=0)
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
