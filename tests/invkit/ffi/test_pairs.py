"""Pairs of images and logits: conditions, views, order of batches, what is kept on disk, bad input."""

import math

import pytest
import torch
from torch import nn

from invkit import store
from invkit.ffi.pairs import condition, logits_of, pairs
from invkit.network.classifiers import Classifier


def test_conditions():
    z = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    assert torch.equal(condition(z), z)
    assert torch.equal(condition(z, "one-hot"), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    torch.testing.assert_close(condition(z, "probabilities"), z.exp() / z.exp().sum())
    assert torch.equal(condition(z, "top-2"), torch.tensor([[2.0, 3.0, 2.0, 2.0]]))
    assert torch.equal(condition(z, "top-4"), z)
    for kind in ("top-5", "top-0", "top", "softmax"):
        with pytest.raises(ValueError, match="K from 1 to 4"):
            condition(z, kind)


def test_pairs_are_images_with_their_own_logits(classifier, images, tmp_path):
    made = pairs(classifier, images[:20], views=3, seed=1, folder=tmp_path)
    assert made.images.shape == (3, 20, 3, 16, 16) and made.images.dtype == torch.uint8
    assert torch.equal(made.images[0], (images[:20] * 255).round().byte())  # the first view is the image
    assert not torch.equal(made.images[1], made.images[2])
    seen = made.images.flatten(0, 1).float() / 255
    torch.testing.assert_close(made.logits.flatten(0, 1), classifier.logits(seen), atol=1e-5, rtol=1e-5)
    pixels, z = made.batch(3, 8)
    torch.testing.assert_close(classifier.logits(pixels), z, atol=1e-5, rtol=1e-5)
    again, _ = made.batch(3, 8)
    assert torch.equal(pixels, again)


def test_every_image_comes_once_before_any_comes_again(classifier, images):
    made = pairs(classifier, images[:20])
    first = torch.cat([made.batch(step, 8)[1] for step in range(5)])  # 40 of 20 images: two rounds
    for part in (first[:20], first[20:]):
        assert len(part.unique(dim=0)) == 20
    assert not torch.equal(first[:20], first[20:])


def test_logits_are_computed_once_and_again_when_anything_changes(classifier, images, tmp_path, monkeypatch):
    asked = []
    logits = Classifier.logits
    monkeypatch.setattr(Classifier, "logits", lambda self, x: asked.append(len(x)) or logits(self, x))
    pairs(classifier, images[:8], folder=tmp_path)
    pairs(classifier, images[:8], folder=tmp_path)
    assert sum(asked) == 8
    pairs(classifier, images[1:9], folder=tmp_path)
    changed = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)), "thumbnails", size=16)
    pairs(changed, images[:8], folder=tmp_path)
    assert len(list(tmp_path.glob("logits-*.safetensors"))) == 3
    assert store.content_hash([torch.ones(2)]) != store.content_hash([torch.ones(2, 1)])


def test_only_showing_resizes(classifier, images):
    assert torch.equal(logits_of(classifier, images[:2]), classifier.logits(images[:2]))
    assert logits_of(classifier, torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_a_classifier_with_broken_logits_is_refused(images):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    nn.init.constant_(model[2].bias, math.inf)
    with pytest.raises(ValueError, match="not finite"):
        pairs(Classifier(model, "broken", size=16), images[:4])
