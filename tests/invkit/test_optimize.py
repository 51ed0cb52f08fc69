"""Inversion by optimisation, on problems whose answers are known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invkit.metrics import psnr
from invkit.network.classifiers import Classifier
from invkit.network.generators import load_generator
from invkit.optimize import invert_features, invert_latents, total_variation


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    return Classifier(model, "tiny", size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def photos():
    g = torch.Generator().manual_seed(3)
    return F.interpolate(torch.rand(3, 3, 4, 4, generator=g), size=16, mode="bicubic").clamp(0, 1)


class LinearGenerator:
    """x = A z + b: Gauss-Newton without damping is exact in one step."""

    latent_dim = 6

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(6, 3 * 8 * 8, generator=g)

    def images(self, latents):
        return (latents @ self.matrix + 0.5).view(-1, 3, 8, 8)


# ---- pixels -----------------------------------------------------------------------------------------------------


def test_total_variation_is_the_mean_squared_slope_of_a_ramp():
    x, y = torch.arange(8.0) / 10, torch.arange(8.0) / 5
    ramp = (x + y[:, None]).expand(1, 3, 8, 8)
    slope = 0.1**2 + 0.2**2
    assert total_variation(ramp, beta=2).item() == pytest.approx(3 * slope, rel=1e-4)
    assert total_variation(ramp, beta=1).item() == pytest.approx(3 * slope**0.5, rel=1e-4)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_gradient_of_total_variation_against_finite_differences(beta):
    g = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 5, 5, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: total_variation(v, beta), images)
    flat = torch.full((1, 3, 5, 5), 0.5, requires_grad=True)
    total_variation(flat, beta).sum().backward()
    assert flat.grad.isfinite().all()


def test_pixels_are_found_again_from_features_that_hold_them(classifier, photos):
    found = invert_features(classifier, classifier.features(photos, 2), 2, steps=200, lr=0.05, tv=0.0)
    assert psnr(found.estimate, photos).min() > 30
    assert found.losses.shape == (201, 3) and (found.losses[-1] < 1e-3 * found.losses[0]).all()
    assert found.estimate.min() >= 0 and found.estimate.max() <= 1
    assert found.seconds > 0


def test_images_of_a_batch_do_not_see_one_another(classifier, photos):
    start = torch.full_like(photos, 0.5)
    features = classifier.features(photos, 2)
    together = invert_features(classifier, features, 2, steps=10, start=start).estimate
    alone = invert_features(classifier, features[1:2], 2, steps=10, start=start[1:2]).estimate
    assert torch.allclose(together[1:2], alone, atol=1e-3)


def test_total_variation_smooths(classifier, photos):
    features = classifier.features(photos, 2)
    rough, smooth = (invert_features(classifier, features, 2, steps=60, tv=tv).estimate for tv in (0.0, 4.0))
    assert (total_variation(smooth) < 0.5 * total_variation(rough)).all()


def test_the_seed_fixes_the_result_and_the_callers_random_numbers_stay(classifier, photos):
    features = classifier.features(photos, 2)
    before = torch.get_rng_state()
    first, again, other = (invert_features(classifier, features, 2, steps=3, seed=s).estimate for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_features_of_another_size_or_depth_are_refused(classifier, photos):
    features = classifier.features(photos, 1)
    with pytest.raises(ValueError, match="pass the size and the depth"):
        invert_features(classifier, features, 1, size=32)
    with pytest.raises(ValueError, match="steps"):
        invert_features(classifier, features, 1, steps=0)


# ---- latents ----------------------------------------------------------------------------------------------------


def test_gauss_newton_solves_a_linear_generator_in_one_step():
    generator = LinearGenerator()
    truth = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    found = invert_latents(generator, generator.images(truth), "gauss-newton", steps=1, damping=0.0)
    assert torch.allclose(found.estimate, truth, atol=1e-4)
    assert found.losses.shape == (2, 10) and found.losses[-1].max() < 1e-9


def test_the_prior_pulls_towards_zero_as_ridge_regression_does():
    generator, prior = LinearGenerator(), 0.5
    truth = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    found = invert_latents(generator, generator.images(truth), "gauss-newton", steps=1, damping=0.0, prior=prior)
    gram = generator.matrix @ generator.matrix.T / 192
    ridge = torch.linalg.solve(gram + prior / 6 * torch.eye(6), gram @ truth.T).T
    assert torch.allclose(found.estimate, ridge, atol=1e-4)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_first_order_methods_reach_the_same_answer(method):
    generator = LinearGenerator()
    truth = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    found = invert_latents(generator, generator.images(truth), method)
    assert torch.allclose(found.estimate, truth, atol=1e-2)


def test_a_face_is_found_again_from_near_its_latent():
    facegan = load_generator("facegan")
    truth = facegan.sample_latents(2, seed=4)
    images = facegan.images(truth)
    near = truth + 0.1 * facegan.sample_latents(2, seed=5)
    found = invert_latents(facegan, images, "gauss-newton", start=near, steps=4)
    assert psnr(facegan.images(near), images).max() < 40
    assert psnr(facegan.images(found.estimate), images).min() > 45
    assert (found.losses[1:] <= found.losses[:-1]).all()


def test_wrong_requests_name_the_fix():
    generator, images = LinearGenerator(), torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="gauss-newton, lbfgs, adam"):
        invert_latents(generator, images, "newton")
    with pytest.raises(ValueError, match=r"\(2, 6\)"):
        invert_latents(generator, images, start=torch.zeros(3, 6))
    with pytest.raises(ValueError, match="steps"):
        invert_latents(generator, images, steps=0)
