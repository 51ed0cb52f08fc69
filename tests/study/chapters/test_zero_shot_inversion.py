"""Evaluation at every depth: on a small network of our own and its untrained inverter, so that nothing is loaded."""

import math

import pytest
import torch
from torch import nn

from invkit import metrics
from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
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


def test_every_depth_reads_what_the_inverter_reads_whatever_the_batch(inverter, photos):
    readings = zero_shot_inversion.read_every_depth(inverter, photos, batch=2)
    assert list(readings) == [1, 2]
    for depth, reading in readings.items():
        assert torch.allclose(reading.images, inverter.reconstruct(photos, depth), atol=1e-5)
        assert 0 < reading.seconds < 10


def test_only_the_depths_asked_for_are_read(inverter, photos):
    assert list(zero_shot_inversion.read_every_depth(inverter, photos, depths=[2])) == [2]


def test_photos_of_another_size_are_refused(inverter):
    with pytest.raises(ValueError, match="32 pixels"):
        zero_shot_inversion.read_every_depth(inverter, torch.rand(2, 3, 40, 40))


def test_scores_are_those_of_the_metrics(photos):
    readings = (photos + 0.1).clamp(0, 1)
    scores = zero_shot_inversion.score(readings, photos)
    assert torch.equal(scores.psnr, metrics.psnr(readings, photos))
    assert scores.found.all()
    intervals = scores.intervals()
    assert intervals["psnr"].low < intervals["psnr"].value < intervals["psnr"].high
    assert intervals["found"].value == 1 and intervals["found"].low < 1


def test_shuffled_readings_are_not_found(photos):
    assert not zero_shot_inversion.score(photos.roll(1, 0).clamp(0.01, 0.99), photos).found.any()


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


def test_training_pays_for_itself_where_it_is_faster():
    assert zero_shot_inversion.break_even(1, seconds=1, rival_seconds=37) == 100
    assert zero_shot_inversion.break_even(1, seconds=2, rival_seconds=2) == math.inf


def test_a_verdict_needs_an_interval_without_zero():
    assert zero_shot_inversion.verdict(Interval(1, 0.5, 2, 9)) == "better"
    assert zero_shot_inversion.verdict(Interval(-1, -2, -0.5, 9)) == "worse"
    assert zero_shot_inversion.verdict(Interval(1, -0.1, 2, 9)) == "not told apart"
