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
from torch.nn import functional as F

import invkit

SIZE = 64  # pixels a side
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
    model.size, model.mean, model.std = SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # for invkit
    return model


def train(folder, minutes=2.0):
    """Train on the folder's split "train"; the others are left to the inverter and to the test."""
    data = invkit.data.load(f"folder:{folder}", split="train", size=SIZE)
    model = network(classes=1 + int(data.labels.max()))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        rows = torch.randint(len(data), (64,))
        images = F.pad(data.images[rows], (4, 4, 4, 4), mode="reflect")
        top, left = torch.randint(9, (2,)).tolist()  # all images of a batch are cropped alike
        images = images[..., top : top + SIZE, left : left + SIZE]
        loss = F.cross_entropy(model((images - 0.5) / 0.25), data.labels[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(model.state_dict(), WEIGHTS)
    test = invkit.data.load(f"folder:{folder}", split="test", size=SIZE)
    right = invkit.Classifier(model, "my classifier", SIZE, model.mean, model.std).logits(test.images).argmax(1)
    print(f"{(right == test.labels).float().mean():.0%} of {len(test)} test images right; kept in {WEIGHTS}")


if __name__ == "__main__":
    train(sys.argv[1], *map(float, sys.argv[2:]))
