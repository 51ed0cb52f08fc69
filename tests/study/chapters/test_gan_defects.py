"""Defect scores and controls, on samples whose defects are known."""

import pytest
import torch

from invkit.network.classifiers import load_classifier
from invkit.network.generators import load_generator
from study.chapters import gan_defects


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_mahalanobis_of_a_gaussian_follows_its_chi_distribution():
    mixing = normal(4, 4, seed=1)
    typical, samples = normal(4000, 4) @ mixing + 3, normal(4000, 4, seed=2) @ mixing + 3
    squared = gan_defects.mahalanobis(samples, typical, shrinkage=0).square()
    assert squared.mean().item() == pytest.approx(4, rel=0.1)  # chi-square with 4 degrees of freedom
    assert squared.var().item() == pytest.approx(8, rel=0.25)


def test_mahalanobis_knows_the_directions_that_never_vary():
    """Equally far in pixels, but one lies along the line that typical samples spread on and the other off it."""
    typical = normal(500, 1) * torch.tensor([[1.0, 1.0]]) + 0.05 * normal(500, 2, seed=1)
    along, off = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    assert gan_defects.mahalanobis(off, typical) > 2 * gan_defects.mahalanobis(along, typical)
    assert gan_defects.mahalanobis(off, typical) > gan_defects.mahalanobis(off, typical, shrinkage=0.5)


def test_fewer_samples_than_features_and_dead_channels_give_finite_scores():
    typical, samples = normal(10, 30), normal(5, 30, seed=1)
    typical[:, 0] = samples[:, 0] = 1
    assert gan_defects.mahalanobis(samples, typical).isfinite().all()


def test_neighbour_distance_by_hand():
    typical = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    assert torch.allclose(gan_defects.neighbour_distance(torch.tensor([[0.0, 0.0]]), typical, k=2), torch.tensor([0.5]))


@pytest.fixture(scope="module")
def faces():
    facegan = load_generator()
    return facegan.images(facegan.sample_latents(80)).split([64, 16])


def test_a_texture_no_face_has_shows_in_features(faces):
    typical, whole = faces
    broken = whole.clone()
    broken[..., 16:40, 16:40] = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    described = gan_defects.pooled_features(load_classifier("lite0"), torch.cat([typical, whole, broken]), 5)
    typical, whole, broken = described.split([64, 16, 16])
    assert (gan_defects.mahalanobis(broken, typical) > gan_defects.mahalanobis(whole, typical)).all()


def test_a_hole_shows_in_thumbnails(faces):
    typical, whole = faces
    broken = whole.clone()
    broken[..., 16:40, 16:40] = 0
    typical, whole, broken = (gan_defects.thumbnails(images) for images in (typical, whole, broken))
    assert (gan_defects.neighbour_distance(broken, typical) > gan_defects.neighbour_distance(whole, typical)).all()


def test_pooled_features_do_not_depend_on_the_batch_and_resize_on_request():
    classifier = load_classifier("lite0")
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    whole = gan_defects.pooled_features(classifier, images, 2)
    assert whole.shape == (3, 16)
    assert torch.allclose(whole, gan_defects.pooled_features(classifier, images, 2, batch=2), atol=1e-4)
    assert not torch.allclose(whole, gan_defects.pooled_features(classifier, images, 2, size=64), atol=1e-3)
    assert gan_defects.pooled_features(classifier, images, len(classifier.blocks)).shape == (3, 1000)


def test_thumbnails_are_block_means():
    images = torch.arange(2 * 3 * 16 * 16.0).view(2, 3, 16, 16)
    assert torch.allclose(
        gan_defects.thumbnails(images, 8).view(2, 3, 8, 8)[:, :, 0, 0], images[:, :, :2, :2].mean((2, 3))
    )


def test_worst_fraction_lists_the_worst_first():
    assert gan_defects.worst_fraction(torch.tensor([3.0, 9.0, 1.0, 5.0]), 0.5).tolist() == [1, 3]
    assert len(gan_defects.worst_fraction(torch.rand(1000), 0.05)) == 50
    assert len(gan_defects.worst_fraction(torch.rand(10), 0.05)) == 1


def test_controls_match_the_length_and_the_move():
    latents, found = normal(20, 100), 0.7 * normal(20, 100, seed=1)
    scaled = gan_defects.with_norm(latents, found)
    assert torch.allclose(scaled.norm(dim=1), found.norm(dim=1), rtol=1e-5)
    assert torch.allclose(torch.cosine_similarity(scaled, latents), torch.ones(20))
    moved = gan_defects.random_move(latents, found, seed=3)
    assert torch.allclose((moved - latents).norm(dim=1), (found - latents).norm(dim=1), rtol=1e-4)
    assert torch.equal(moved, gan_defects.random_move(latents, found, seed=3))
    assert not torch.equal(moved, gan_defects.random_move(latents, found, seed=4))


def test_wrong_requests_name_the_fix():
    with pytest.raises(ValueError, match="typical"):
        gan_defects.mahalanobis(torch.rand(2, 3), torch.rand(5, 4))
    with pytest.raises(ValueError, match="shrinkage"):
        gan_defects.mahalanobis(torch.rand(2, 3), torch.rand(5, 3), shrinkage=2)
    with pytest.raises(ValueError, match="k lies"):
        gan_defects.neighbour_distance(torch.rand(2, 3), torch.rand(5, 3), k=6)
    with pytest.raises(ValueError, match="fraction"):
        gan_defects.worst_fraction(torch.rand(5), 0)
    with pytest.raises(ValueError, match="row by row"):
        gan_defects.with_norm(torch.rand(2, 3), torch.rand(3, 3))
