"""Opponent and rules of chapter 2, where the right answer is known beforehand."""

import torch
from torch import nn

from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import logit_inversion as study


def test_optimisation_finds_an_image_with_these_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5))
    classifier = Classifier(model, "tiny", size=8)
    images = torch.rand(3, 3, 8, 8)
    logits = classifier.logits(images)
    found = study.optimise(classifier, logits, steps=200)
    chance = (classifier.logits(images.flip(0).contiguous()) - logits).square().sum()
    assert found.shape == images.shape and (classifier.logits(found) - logits).square().sum() < 0.05 * chance


def interval(sign):
    return Interval(sign, sign - 0.5, sign + 0.5, 100)


def test_more_than_the_class_needs_every_measure():
    better = {"psnr": interval(1), "found_in_class": interval(1), "perceptual": interval(-1)}
    assert study.more_than_class(better) == "more"
    assert study.more_than_class(better | {"perceptual": interval(0)}) == "partly more"
    assert study.more_than_class(better | {"perceptual": interval(1)}) == "no more"
    assert study.more_than_class(dict.fromkeys(better, interval(0))) == "no more"


def test_more_in_robust_must_hold_against_the_control():
    up, none, down = ({"psnr": interval(s), "found": interval(s)} for s in (1, 0, -1))
    assert study.robust_verdict(up, up) == "more"
    assert study.robust_verdict(up, none).startswith("more, but no more than")
    assert study.robust_verdict(none, up) == study.robust_verdict(up | {"found": interval(0)}, up) == "not told apart"
    assert study.robust_verdict(down, up) == "less"
