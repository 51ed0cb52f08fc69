"""A classifier that can be inverted, and images for it."""

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Its ten logits are random sums of the image's 4x4 thumbnail: they tell, so they can be inverted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    return Classifier(model, "thumbnails", size=16)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """256 images of one colour each, lit from the left or the right."""
    g = torch.Generator().manual_seed(1)
    colour = torch.rand(256, 3, 1, 1, generator=g)
    light = torch.linspace(0.5, 1, 16).expand(256, 1, 16, 16)
    return colour * torch.where(torch.rand(256, 1, 1, 1, generator=g) < 0.5, light, light.flip(-1))
