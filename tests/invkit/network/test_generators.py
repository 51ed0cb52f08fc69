"""The face generator: its blocks, its latents, its images, and what it refuses."""

import pytest
import torch
from torch import nn

from invkit.network.generators import Generator, load_generator


@pytest.fixture(scope="module")
def facegan():
    return load_generator("facegan")


def test_blocks_lead_from_the_latent_to_the_image(facegan):
    shapes = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    assert [block.shape for block in facegan.blocks] == shapes
    assert [block.convolutions for block in facegan.blocks] == [1, 2, 3, 4, 5]
    latents = facegan.sample_latents(3, seed=1)
    last = facegan.features(latents, 5)
    assert torch.allclose((last + 1) / 2, facegan.images(latents), atol=1e-6)
    assert torch.equal(facegan.blocks[1](facegan.features(latents, 1)), facegan.features(latents, 2))


def test_images_look_like_photographs_of_something(facegan):
    """Wrong weights or batch statistics give grey noise: neighbouring pixels of these images agree, images differ."""
    images = facegan.images(facegan.sample_latents(16))
    assert images.shape == (16, 3, 64, 64)
    assert 0 <= images.min() and images.max() <= 1
    assert images.std(0).mean() > 0.15
    assert (images[..., 1:] - images[..., :-1]).abs().mean() < 0.05


def test_an_image_does_not_depend_on_its_batch(facegan):
    latents = facegan.sample_latents(4)
    assert torch.allclose(facegan.images(latents)[:1], facegan.images(latents[:1]), atol=1e-5)


def test_latents_follow_the_seed_alone(facegan):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    few, many = facegan.sample_latents(3, seed=7), facegan.sample_latents(50, seed=7)
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, facegan.sample_latents(3, seed=8))
    assert torch.equal(before, torch.get_rng_state())
    assert abs(many.mean()) < 0.05 and abs(many.std() - 1) < 0.05


def test_gradients_reach_the_latents_and_stop_at_the_weights(facegan):
    latents = facegan.sample_latents(2).requires_grad_()
    facegan.images(latents).mean().backward()
    assert latents.grad.abs().sum() > 0
    assert all(p.grad is None for p in facegan.model.parameters())


def test_wrong_requests_name_the_fix(facegan):
    with pytest.raises(ValueError, match="'facegan'"):
        load_generator("stylegan")
    with pytest.raises(ValueError, match="sample_latents"):
        facegan.images(torch.zeros(2, 99))
    with pytest.raises(ValueError, match="sample_latents"):
        facegan.images(torch.zeros(2, 100, dtype=torch.int64))
    with pytest.raises(ValueError, match="depths 1 to 5"):
        facegan.features(torch.zeros(2, 100), 6)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        facegan.sample_latents(0)


def test_a_generator_of_ones_own():
    blocks = [("grow", nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)))), ("squash", nn.Tanh())]
    own = Generator(nn.Sequential(blocks[0][1], blocks[1][1]), "mine", 4, blocks)
    assert own.size == 4 and len(own.blocks) == 2
    assert own.images(own.sample_latents(5)).shape == (5, 3, 4, 4)
