"""A classifier of one's own: a small network, trained for two minutes on images.

python my_classifier.py photos  # one folder for each class; writes my_classifier.pth
python -m invkit report my_classifier:network --images folder:photos --out report
"""

import sys
import time

import torch
from torch import nn

import invkit

WEIGHTS = __file__.removesuffix("py") + "pth"


def layer(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())


def network(classes=None):
    """The network: untrained for a number of classes, else as it was kept.

    Its attributes tell invkit its images: pixels a side, mean and spread of a channel.
    """
    kept = None if classes else torch.load(WEIGHTS, weights_only=True)
    layers = map(layer, (3, 32, 64, 128), (32, 64, 128, 128))
    last = nn.Linear(128, classes or len(kept["6.bias"]))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    model.load_state_dict(kept or model.state_dict())  # those that were kept, if any
    model.size, model.mean, model.std = 64, 0.5, 0.25
    return model


def train(folder, minutes=2.0):
    """Train on the folder's split "train"; the others are for inverter and test."""
    data = invkit.data.load(f"folder:{folder}", "train", size=64)
    model = network(1 + int(data.labels.max()))
    end = time.monotonic() + 60 * float(minutes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    while time.monotonic() < end:
        rows, moved = torch.randint(len(data), (64,)), torch.randint(-4, 5, (2,))
        images = data.images[rows].roll(moved.tolist(), (2, 3))  # a few images need it
        logits = model((images - model.mean) / model.std)
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, data.labels[rows]).backward()
        optimiser.step()
    torch.save(model.state_dict(), WEIGHTS)
    test = invkit.data.load(f"folder:{folder}", "test", size=64)
    right = invkit.Classifier(model).logits(test.images).argmax(1) == test.labels
    print(f"{right.float().mean():.0%} of {len(test)} test images right: {WEIGHTS}")


if __name__ == "__main__":
    train(*sys.argv[1:])
