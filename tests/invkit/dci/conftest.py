"""A classifier small enough to know the answers, and its first two blocks."""

import pytest
import torch
from torch import nn

from invkit import dci
from invkit.network.classifiers import Classifier


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
