"""Evaluation at every depth: on a small network of our own and its untrained inverter, so that nothing is loaded."""

import pytest
import torch
from torch import nn

from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.network.classifiers import Classifier
from study.chapters import zero_shot_inversion

SIZE = 32


@pytest.fixture(scope="module")
def inverter():
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), head)
    classifier = Classifier(model, "small", size=SIZE)
    shapes = [(3, SIZE, SIZE), *(tuple(block.shape) for block in classifier.blocks[:2])]
    chain = Chain(shapes, [(8, 1), (8, 1)])
    return ClassifierInverter(chain, classifier, {"size": SIZE})


@pytest.fixture(scope="module")
def photos():
    return torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_mean_colour_is_flat_and_keeps_the_mean(photos):
    flat = zero_shot_inversion.mean_colour(photos)
    assert flat.shape == photos.shape
    assert flat.std((2, 3)).max() < 1e-6
    assert torch.allclose(flat.mean((2, 3)), photos.mean((2, 3)))


def test_a_depth_is_found_by_its_convolutions(inverter):
    assert zero_shot_inversion.depth_of(inverter.classifier, 1) == 1
    assert zero_shot_inversion.depth_of(inverter.classifier, 9) == 2
    with pytest.raises(ValueError, match="first block"):
        zero_shot_inversion.depth_of(inverter.classifier, 0)


def test_numbers_per_number_counts_both_sides(inverter):
    assert zero_shot_inversion.numbers_per_number(inverter.classifier, 1) == pytest.approx(6 * 16 * 16 / (3 * 32 * 32))
