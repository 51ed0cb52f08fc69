"""Baselines that reconstruct images from logits, where the right answer is known beforehand."""

import pytest
import torch

from study import baselines
from study.baselines import Examples

SIDE, CLASSES = 32, 6


def flat(colours):
    """(N, 3) -> images of one colour each."""
    return colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()


@pytest.fixture(scope="module")
def examples():
    """The first three of six logits are the colour, stretched; the others are loud and mean nothing."""
    g = torch.Generator().manual_seed(0)
    colours = torch.rand(200, 3, generator=g)
    return Examples(torch.cat([4 * colours - 2, 3 * torch.randn(200, 3, generator=g)], 1), flat(colours))


def test_pairs_must_fit_together():
    with pytest.raises(ValueError, match="one for each"):
        Examples(torch.zeros(20, 3), torch.zeros(21, 3, 8, 8))
    with pytest.raises(ValueError, match="too few"):
        Examples(torch.zeros(1, 3), torch.zeros(1, 3, 8, 8))


def test_the_mean_image_ignores_the_logits(examples):
    images = baselines.mean_image(examples)(torch.randn(5, CLASSES))
    assert images.shape == (5, 3, SIDE, SIDE)
    assert torch.allclose(images, examples.images.mean(0).expand(5, -1, -1, -1))


def test_class_means_are_means_of_the_class():
    images = flat(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]))
    means = baselines.class_means(images, torch.tensor([0, 0, 2]), 4)
    assert means.mean((1, 2, 3)).tolist() == pytest.approx([0.25, 0.5, 1.0, 0.5])  # a class without images: all


def test_the_class_mean_is_that_of_the_class_that_the_logits_name(examples):
    images = baselines.class_mean(examples)(examples.logits[:30])
    classes = examples.logits.argmax(1)
    for reading, label in zip(images, classes[:30], strict=True):
        assert torch.allclose(reading, examples.images[classes == label].mean(0), atol=1e-5)


def test_ridge_recovers_a_linear_map_and_ignores_noise(examples):
    g = torch.Generator().manual_seed(2)
    colours = torch.rand(50, 3, generator=g)
    logits = torch.cat([4 * colours - 2, 3 * torch.randn(50, 3, generator=g)], 1)
    assert torch.allclose(baselines.ridge_regression(examples)(logits), flat(colours), atol=1e-3)


def test_ridge_is_the_closed_form(examples):
    penalty = 0.3
    z, x = examples.logits - examples.logits.mean(0), examples.images.flatten(1) - examples.images.flatten(1).mean(0)
    covariance = z.T @ z / len(z)
    scale = penalty * covariance.diagonal().mean()
    weight = torch.linalg.solve(covariance + scale * torch.eye(CLASSES), z.T @ x / len(z))
    expected = (z @ weight + examples.images.flatten(1).mean(0)).clamp(0, 1).unflatten(1, (3, SIDE, SIDE))
    assert torch.allclose(baselines.ridge_regression(examples, [penalty])(examples.logits), expected, atol=1e-4)


def test_ridge_chooses_the_penalty_on_pairs_it_was_not_fitted_on():
    """With as many logits as examples and nothing to learn, the least penalty fits best and predicts worst."""
    g = torch.Generator().manual_seed(3)
    examples = Examples(torch.randn(60, 40, generator=g), torch.rand(60, 3, 8, 8, generator=g))
    images = baselines.ridge_regression(examples, [1e-6, 100.0])(torch.randn(20, 40, generator=g))
    assert (images - examples.images.mean(0)).abs().max() < 0.1


def test_nearest_returns_the_training_image_itself(examples):
    assert torch.equal(baselines.nearest(examples, batch=7)(examples.logits[20:40]), examples.images[20:40])


def test_nearest_measures_nearness_by_the_angle_where_length_means_nothing():
    g = torch.Generator().manual_seed(4)
    angle, length = 6.28 * torch.rand(400, generator=g), torch.rand(400, 1, generator=g) * 9 + 1
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    images = flat(torch.cat([direction, -direction[:, :1]], 1) / 2 + 0.5)
    images = baselines.nearest(Examples(direction * length, images))(direction[:100] * length[100:200])
    assert (images - images[:100]).abs().mean() < 0.03


def test_several_baselines_are_asked_at_once(examples):
    found = baselines.predict(examples, examples.logits[:3], ["mean image", "ridge"])
    assert list(found) == ["mean image", "ridge"] and found["ridge"].mean is found["ridge"].sample
    torch.testing.assert_close(found["mean image"].mean, examples.images.mean(0).expand(3, -1, -1, -1))


def test_mean_colours_are_flat_and_keep_the_mean_of_every_image():
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    flat = baselines.mean_colours(images)
    assert torch.equal(flat.mean, flat.sample) and flat.mean.shape == images.shape
    assert flat.mean.std((2, 3)).max() < 1e-6
    assert torch.allclose(flat.mean.mean((2, 3)), images.mean((2, 3)))
