"""The opponents of chapter 2, on a classifier that loses nothing, and the choice of the strongest by each measure."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from invkit import metrics
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import logit_opponents
from study.opponents import SETTINGS
from study.reconstructions import resized

SIZE = 16


class Inverter:
    """Of a classifier whose logits are a quarter of the image's resolution, normalised; it gives grey images."""

    size, noise_dim = SIZE // 2, 0

    def __init__(self):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 2, 2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * (SIZE // 2) ** 2, 192)
        self.classifier = Classifier(nn.Sequential(*layers), "small", SIZE)

    def sample_noise(self, n, seed):
        return torch.zeros(n, 0)

    def invert(self, logits, noise=None):
        return torch.full((len(logits), 3, self.size, self.size), 0.5)


@pytest.fixture(scope="module")
def inverter():
    return Inverter()


def test_logits_are_the_features_of_the_last_block(inverter):
    given = logit_opponents.LogitsAsFeatures(inverter, samples=1)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    logits = inverter.classifier.logits(images)
    assert torch.allclose(given.classifier.features(images, given.depth), logits, atol=1e-5)
    assert given.invert(logits, given.depth).shape == images.shape  # as large as the classifier takes them


def test_every_opponent_comes_nearer_to_the_images_than_grey(inverter, monkeypatch):
    monkeypatch.setattr(logit_opponents, "STEPS", 60)
    for name, settings in SETTINGS.items():
        monkeypatch.setitem(SETTINGS, name, replace(settings, rate=0.03))
    for name, (opponent, _) in logit_opponents.AS_FEATURES.items():
        monkeypatch.setitem(logit_opponents.AS_FEATURES, name, (opponent, {"tv": 1e-4}))
    coarse = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    images = nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    found = logit_opponents.opposed_by(inverter, inverter.classifier.logits(images), samples=1)
    small = resized(images, inverter.size)
    grey = metrics.psnr(torch.full_like(small, 0.5), small).mean()
    assert list(found) == ["batch-norm prior", "deep image prior", "from the reconstruction"]
    for name, made in found.items():
        assert made.mean.shape == small.shape and 0 <= made.mean.min() and made.mean.max() <= 1
        assert metrics.psnr(made.mean, small).mean() > grey + 1, name


def interval(value):
    return Interval(value, value - 0.01, value + 0.01, 60)


def test_the_strongest_is_chosen_by_each_measure_anew():
    kept = {}

    def record_interval(measure, name, value, **more):
        kept[measure] = name, value.value, more["opponent"]

    rows = {
        "blurred": {"psnr": interval(15.0), "perceptual": interval(0.9), "perceptual_second": interval(0.8)},
        "sharp": {"psnr": interval(9.0), "perceptual": interval(0.4), "perceptual_second": interval(0.8)},
        "from the reconstruction": dict.fromkeys(logit_opponents.DECISIVE_FOR_LOGITS, interval(99.0)),
    }
    gains = {name: {measure: interval(1.0) for measure in row} for name, row in rows.items()}
    table = logit_opponents.record_strongest(SimpleNamespace(record_interval=record_interval), rows, gains)
    assert kept["psnr"] == ("over strongest", 1.0, "blurred") and kept["perceptual"][2] == "sharp"
    assert table["PSNR, dB"]["the inverter less it"].endswith("better")
    assert table["perceptual"]["the inverter less it"].endswith("worse")  # a larger distance
