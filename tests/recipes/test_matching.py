"""Batch-norm matching: what the distance knows, its gradients, classes that images show."""

import pytest
import torch
from torch import nn

from invkit.dci import synthetic
from invkit.network.classifiers import Classifier
from recipes import matching


@pytest.fixture
def classifier():
    """Two convolutions whose batch norms have seen 1/f noise."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    for norm in (model[1], model[4]):
        norm.momentum = None
    for seed in range(8):
        model(synthetic.pink_noise(32, 32, seed=seed))
    return Classifier(model.eval(), "tiny", size=32)


def test_statistics_distance_knows_what_the_network_saw(classifier):
    seen = matching.statistics_distance(classifier, synthetic.pink_noise(64, 32, seed=99))
    unseen = matching.statistics_distance(classifier, synthetic.white_noise(64, 32, seed=99))
    assert seen < 0.02 < 0.1 < unseen
    last_only = matching.statistics_distance(classifier, synthetic.white_noise(64, 32, seed=99), skip=1)
    assert last_only != unseen


def test_batch_norm_matching_brings_the_statistics_closer(classifier):
    start = synthetic.white_noise(16, 32, seed=1)
    before = matching.statistics_distance(classifier, start)
    matched = matching.batch_norm_matched(classifier, 16, 32, steps=40, lr=0.2, start=start)
    after = matching.statistics_distance(classifier, matched)
    assert after < before / 5
    assert matched.min() >= 0 and matched.max() <= 1 and not matched.requires_grad
    with pytest.raises(ValueError, match="start must have shape"):
        matching.batch_norm_matched(classifier, 8, 32, start=start)


def test_moments_are_those_of_the_library_and_so_are_their_gradients():
    h = torch.randn(3, 5, 4, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0)) + 10
    mean, variance = matching._Moments.apply(h)
    torch.testing.assert_close(mean, h.mean((0, 2, 3)))
    torch.testing.assert_close(variance, h.var((0, 2, 3), correction=0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(matching._Moments.apply(h.float())[1], variance.float())
    assert torch.autograd.gradcheck(matching._Moments.apply, h.requires_grad_())


def test_images_that_are_to_show_a_class_show_it(classifier):
    classes = torch.arange(16) % 5
    made = {
        confidence: matching.batch_norm_matched(
            classifier, 16, 32, seed=3, steps=40, lr=0.2, classes=classes, confidence=confidence
        )
        for confidence in (0.0, 1.0)
    }
    likely = {
        c: classifier.logits(images).log_softmax(1).gather(1, classes[:, None]).mean() for c, images in made.items()
    }
    assert likely[1.0] > likely[0.0] + 0.1
    again = matching.batch_norm_matched(classifier, 16, 32, seed=3, steps=40, lr=0.2, classes=classes, confidence=1.0)
    assert torch.equal(again, made[1.0])
    with pytest.raises(ValueError, match="one index for each of 16 images"):
        matching.batch_norm_matched(classifier, 16, 32, classes=classes[:3])


def test_a_network_without_batch_norm_is_refused():
    plain = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "plain", size=16)
    with pytest.raises(ValueError, match="no batch norm"):
        matching.statistics_distance(plain, synthetic.white_noise(2, 16))
