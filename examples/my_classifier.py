"""A classifier of one's own: a small network, trained for two minutes on a folder of images.

python my_classifier.py photos               # one folder for each class in it; writes my_classifier.safetensors
python -m invkit report my_classifier:network --images folder:photos --out report
"""

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import invkit

WEIGHTS = Path(__file__).with_suffix(".safetensors")


def network(classes=None):
    """The network: untrained where the number of classes is given, else as it was trained and kept."""
    weights = load_file(WEIGHTS) if classes is None else None
    layers = []
    for before, after in ((3, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes or len(weights["14.bias"]))]
    model = nn.Sequential(*layers)
    if weights:
        model.load_state_dict(weights)
    model.size, model.mean, model.std = 64, 0.5, 0.25  # pixels a side, and of each channel: for invkit
    return model


def train(folder, minutes=2.0):
    """Train on the folder's split "train"; the others are left to the inverter and to the test."""
    data, test = (invkit.data.load(f"folder:{folder}", split=split, size=64) for split in ("train", "test"))
    model, end = network(classes=1 + int(data.labels.max())), time.monotonic() + 60 * minutes
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    while time.monotonic() < end:
        rows, (down, right) = torch.randint(len(data), (64,)), torch.randint(-4, 5, (2,)).tolist()
        images = data.images[rows].roll((down, right), (2, 3))  # moved by some pixels, as a few images need
        loss = nn.functional.cross_entropy(model((images - model.mean) / model.std), data.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(model.state_dict(), WEIGHTS)
    found = invkit.Classifier(model).logits(test.images).argmax(1)
    print(f"{(found == test.labels).float().mean():.0%} of {len(test)} test images right; kept in {WEIGHTS}")


if __name__ == "__main__":
    train(sys.argv[1], *map(float, sys.argv[2:]))
