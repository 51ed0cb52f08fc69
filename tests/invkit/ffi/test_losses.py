"""Losses of a feedforward inverter: each by hand, and what it is least for."""

import math

import pytest
import torch
from torch.nn import functional as F

from invkit.ffi import losses


def test_hinge_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 2.0])
    # E[max(-1, D(fake))] = (-1 + 0 + 2) / 3, E[min(1, D(real))] = (1 + 0.5 - 1) / 3
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(1 / 3 - 0.5 / 3)
    assert losses.generator_loss(fake).item() == pytest.approx(1 / 3)
    beyond = losses.discriminator_loss(torch.tensor([5.0]), torch.tensor([-5.0]))
    assert beyond.item() == -2  # nothing more to gain


def test_energy_score_by_hand_and_least_for_the_right_spread():
    x, a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.3), torch.full((1, 3, 2, 2), -0.5)
    assert losses.energy_score(a, b, x).item() == pytest.approx((0.3 + 0.5 - 0.8) / 2, abs=1e-3)
    assert losses.energy_score(a, a, x).item() == pytest.approx(0.3, abs=1e-3)
    g = torch.Generator().manual_seed(0)
    x, u, v = torch.randn(3, 4000, 3, 1, 1, generator=g).unbind(0)
    scores = [losses.energy_score(s * u, s * v, x).item() for s in (0.0, 0.5, 1.0, 1.6)]
    assert min(scores) == scores[2]  # drawings as spread as the images are


def test_energy_score_of_squares_sees_past_the_pixels_noise():
    g = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(1, 3, 8, 8, generator=g) for _ in range(3))  # alike in nothing but the mean
    square = lambda image: F.avg_pool2d(image, 4)  # noqa: E731
    both = losses.energy_score(a, b, x, squares=(1, 4))
    parts = losses.energy_score(a, b, x), losses.energy_score(*map(square, (a, b, x)))
    assert both.item() == pytest.approx(sum(p.item() for p in parts) / 2, abs=1e-4)
    offset = losses.energy_score(a + 1, b + 1, x) - losses.energy_score(
        a, b, x
    )  # as much brighter as the pixels are noisy
    assert losses.energy_score(a + 1, b + 1, x, (8,)) - losses.energy_score(a, b, x, (8,)) > 1.5 * offset


def test_identification_by_hand_and_by_what_it_asks_for():
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean = x.mean(0, keepdim=True)
    blind = losses.identification(mean + torch.zeros_like(x), x)
    assert blind.item() == pytest.approx(math.log(8), abs=1e-4)  # no reading is like any image more than another
    pale = mean + 0.1 * (x - mean)  # the contrast does not matter
    assert losses.identification(pale, x).item() == pytest.approx(losses.identification(x, x).item(), abs=1e-4)
    assert losses.identification(x, x) < 0.01 < math.log(8) < losses.identification(x.roll(1, 0), x)
    likeness = F.cosine_similarity
    a, b = x[:2], x[:2].flip(0)  # of two images, less their mean, one is the other's negative: likeness is 1 and -1
    centred = (a - a.mean(0)).flatten(1)
    assert likeness(centred[:1], centred[1:]).item() == pytest.approx(-1, abs=1e-5)
    assert losses.identification(b, a, temperature=1.0).item() == pytest.approx(math.log(1 + math.e**2), abs=1e-4)


def test_augmented_images_are_moved_cut_and_differentiable():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 16, 16, requires_grad=True)
    changed = losses.diff_augment(images)
    assert changed.shape == images.shape
    changed.sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}  # every pixel is somewhere, or nowhere
    assert 0.5 < images.grad.mean() < 1
    inside = torch.isin(changed, torch.cat([images.flatten(), torch.zeros(1)]))
    assert inside.all() and not torch.equal(changed, images)


def test_feature_error_is_relative():
    images = torch.rand(2, 3, 8, 8)
    assert losses.feature_error(lambda x: 10 * x, 1.5 * images, images).item() == pytest.approx(0.5, abs=1e-5)


def test_consistency_is_relative_to_the_logits_variance_and_uses_one_augmentation_for_both():
    torch.manual_seed(0)
    images = (torch.rand(256, 1, 1, 1) + 0.1 * torch.rand(256, 3, 16, 16)) / 1.2 + 0.05
    brightness = lambda x: torch.stack([x.mean((1, 2, 3)), 2 * x.mean((1, 2, 3))], 1)  # noqa: E731
    assert losses.consistency_error([brightness], images, images).item() == 0  # moved, covered and noisy alike
    other = losses.consistency_error([brightness], images.roll(1, 0), images)
    assert other.item() == pytest.approx(2, rel=0.2)  # the difference of two independent images has twice the variance
    scaled = losses.consistency_error([lambda x: 10 * brightness(x)], images.roll(1, 0), images)
    assert scaled.item() == pytest.approx(other.item(), rel=0.2)
    grey = images.mean((1, 2, 3), keepdim=True).expand_as(images).clone().requires_grad_()
    losses.consistency_error([brightness, brightness], grey, images).backward()
    assert grey.grad.isfinite().all() and grey.grad.abs().max() > 0
