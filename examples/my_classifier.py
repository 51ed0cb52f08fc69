"""A classifier of one's own: a small network, trained for two minutes on a folder of images.

python my_classifier.py photos               # one folder for each class in it; writes my_classifier.pth
python -m invkit report my_classifier:network --images folder:photos --out report
"""

import sys
import time

import torch
from torch import nn

import invkit

WEIGHTS = __file__.removesuffix("py") + "pth"


def network(classes=None):
    """The network: untrained where the number of classes is given, else as it was trained and kept."""
    kept = None if classes else torch.load(WEIGHTS, weights_only=True)
    widths = ((3, 32), (32, 64), (64, 128), (128, 128))
    units = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in widths]
    model = nn.Sequential(*units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes or len(kept["6.bias"])))
    model.load_state_dict(kept or model.state_dict())  # those that were kept, if any
    model.size, model.mean, model.std = 64, 0.5, 0.25  # pixels a side, and of each channel: for invkit
    return model


def train(folder, minutes=2.0):
    """Train on the folder's split "train"; the others are left to the inverter and to the test."""
    data, test = (invkit.data.load(f"folder:{folder}", split, size=64) for split in ("train", "test"))
    model, end = network(1 + int(data.labels.max())), time.monotonic() + 60 * float(minutes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    while time.monotonic() < end:
        rows, moved = torch.randint(len(data), (64,)), torch.randint(-4, 5, (2,)).tolist()
        images = data.images[rows].roll(moved, (2, 3))  # by some pixels, as a few images need
        loss = nn.functional.cross_entropy(model((images - model.mean) / model.std), data.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(model.state_dict(), WEIGHTS)
    right = invkit.Classifier(model).logits(test.images).argmax(1) == test.labels
    print(f"{right.float().mean():.0%} of {len(test)} test images right; kept in {WEIGHTS}")


if __name__ == "__main__":
    train(*sys.argv[1:])
