"""Baselines and depths of chapter 7, on a small network of our own, so that nothing is loaded."""

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier
from study.chapters import zero_shot_inversion

SIZE = 32


@pytest.fixture(scope="module")
def classifier():
    """Two convolutions, 3 -> 6 channels and 6 -> 8, each at half the resolution of its input."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return Classifier(model.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(8, 4)), "small", SIZE)


def test_mean_colour_is_flat_and_keeps_the_mean():
    photos = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    flat = zero_shot_inversion.mean_colour(photos)
    assert flat.shape == photos.shape
    assert flat.std((2, 3)).max() < 1e-6
    assert torch.allclose(flat.mean((2, 3)), photos.mean((2, 3)))


def test_a_depth_is_found_by_its_convolutions(classifier):
    assert zero_shot_inversion.depth_of(classifier, 1) == 1
    assert zero_shot_inversion.depth_of(classifier, 9) == 2
    with pytest.raises(ValueError, match="first block"):
        zero_shot_inversion.depth_of(classifier, 0)


def test_numbers_per_number_counts_both_sides(classifier):
    assert zero_shot_inversion.numbers_per_number(classifier, 1) == pytest.approx(6 * 16 * 16 / (3 * 32 * 32))
