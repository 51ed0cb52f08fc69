"""The names that others call stay: what they are called, what they take, what they return."""

import inspect

import pytest
import torch
from torch import nn

import invkit
from invkit import dci, store
from invkit.dci import synthetic
from invkit.dci.training import Schedule


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 5))


@pytest.fixture(scope="module")
def classifier():
    return invkit.Classifier(network(), "small", size=16)


@pytest.fixture(scope="module")
def inverter(classifier):
    pool = synthetic.draw_pool(4, 16)
    return dci.invert_classifier(classifier, pool, depth=2, schedule=Schedule(1, 1), progress=False)


def test_a_classifier(classifier):
    images = torch.rand(2, 3, 16, 16)
    assert isinstance(classifier.model, nn.Module) and classifier.size == 16
    assert classifier.preprocess(images).shape == images.shape and classifier.logits(images).shape == (2, 5)
    torch.testing.assert_close(classifier.features(images, depth=3), classifier.logits(images))
    block = classifier.blocks[1]
    assert (block.depth, block.shape, block.convolutions) == (2, (4, 8, 8), 2) and isinstance(block.name, str)


def test_an_inverter(classifier, inverter):
    images = torch.rand(2, 3, 16, 16)
    assert inverter.classifier is classifier and inverter.card["method"] == "dci"
    representation = inverter.represent(images, depth=2)
    assert torch.equal(inverter.invert(representation), inverter.invert(representation, depth=2, noise=None))
    assert torch.equal(inverter.reconstruct(images, depth=2), inverter.invert(representation, depth=2))


def test_data():
    glyphs = invkit.data.load("glyphs", split="test", n=3, seed=0)
    assert glyphs.images.shape == (3, 3, 32, 32) and glyphs.labels.dtype == torch.int64 and "ink" in glyphs.factors
    faces = invkit.data.load("faces", n=2)
    assert faces.images.shape == (2, 3, 64, 64) and len(faces.latents) == 2


def test_metrics():
    a, b = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    for name in ("psnr", "ssim", "perceptual"):
        assert getattr(invkit.metrics, name)(a, b).shape == (3,), name
    assert invkit.metrics.retrieval_accuracy(a, a) == 1


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (invkit.load_classifier, ["pretrained", "size"]),
        (invkit.data.load, ["split", "n", "seed", "size"]),
    ],
)
def test_what_is_called_by_position_stays_in_its_place(function, parameters):
    assert list(inspect.signature(function).parameters)[1 : len(parameters) + 1] == parameters  # after the name


def test_the_shipped_inverters():
    names = "dci-lite0 dci-facegan ffi-glyphs-standard ffi-glyphs-robust ffi-lite0-faces ffi-lite0-tiny"
    assert {*names.split(), "ffi-tiny-standard", "ffi-tiny-robust"} <= set(store.shipped())
