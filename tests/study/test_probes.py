"""Surgery with known answers; an inverter that loses nothing but what its eight-pixel thumbnails lose."""

import math

import pytest
import torch
import torch.nn.functional as F

from study import probes


def random_images(n=4, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_logits(n=4, classes=10, seed=0):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


class Halving:
    """Represents images by themselves, inverts to half their contrast about grey; noise is added to the brightness."""

    size, noise_dim = 8, 2

    def represent(self, images):
        return images.flatten(1)

    def invert(self, logits, noise=None):
        images = 0.5 + (logits.unflatten(1, (3, 8, 8)) - 0.5) / 2
        return images if noise is None else (images + 0.01 * noise.sum(1)[:, None, None, None]).clamp(0, 1)

    def reconstruct(self, images, noise=None):
        return self.invert(self.represent(images), noise)

    def sample_noise(self, n, seed=0):
        return torch.randn(n, self.noise_dim, generator=torch.Generator().manual_seed(seed))


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_exact(quarters):
    images = random_images()
    close(probes.rotate(images, 90 * quarters), images.rot90(quarters, dims=(2, 3)))


def test_each_image_turns_by_its_own_angle():
    images = random_images(2)
    close(probes.rotate(images, torch.tensor([0.0, 90.0])), torch.stack([images[0], images[1].rot90(1, dims=(1, 2))]))


def test_a_stretched_image_turns_without_shear():
    disc = (torch.linspace(-15.5, 15.5, 32)[:, None].hypot(torch.linspace(-23.5, 23.5, 48)) < 10).float()
    close(probes.rotate(disc.expand(1, 3, 32, 48), 45).sum(), 3 * disc.sum(), atol=12)
    assert (probes.rotate(disc.expand(1, 3, 32, 48), 45) - disc).abs().mean() < 0.02


def test_whole_pixels_are_moved_exactly_and_the_edge_repeats():
    images = random_images(size=16)
    moved = probes.translate(images, dx=2 / 16, dy=-3 / 16)
    close(moved[..., :13, 2:], images[..., 3:, :14])
    close(moved[..., :13, 0], images[..., 3:, 0])
    close(probes.translate(images, torch.tensor([0.0, 0.5, 0.0, 0.0]))[0], images[0])


def test_a_square_hides_its_share_and_nothing_else():
    images = random_images(size=20) * 0.4
    hidden = probes.occlude(images, torch.tensor([0.0, 0.04, 0.25, 1.0]), seed=3)
    covered = (hidden == 0.5).all(dim=1)
    assert covered.sum((1, 2)).tolist() == [0, 16, 100, 400]
    close(hidden.masked_fill(covered[:, None], 0), images.masked_fill(covered[:, None], 0), atol=0)
    assert torch.equal(hidden, probes.occlude(images, torch.tensor([0.0, 0.04, 0.25, 1.0]), seed=3))
    assert not torch.equal(probes.occlude(images, 0.04, seed=1), probes.occlude(images, 0.04, seed=2))


def test_blur_spreads_a_point_by_sigma():
    point = torch.zeros(1, 3, 41, 41)
    point[..., 20, 20] = 1
    blurred = probes.blur(point, 2.0)[0, 0]
    offset = torch.arange(41.0) - 20
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(0) * offset**2).sum().sqrt().item() == pytest.approx(2, rel=0.02)
    images = random_images(2)
    close(probes.blur(images, torch.tensor([0.0, 1.0])), torch.cat([images[:1], probes.blur(images[1:], 1.0)]), atol=0)


def test_a_third_of_the_circle_makes_red_green_and_greys_stay():
    images = random_images()
    close(probes.recolour(images, 1 / 3), images[:, [2, 0, 1]])
    close(probes.recolour(images, torch.tensor([0.0, 1 / 3, -1 / 3, 1.0]))[2], images[2][[1, 2, 0]])
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    close(probes.recolour(grey, 0.4), grey)


def test_a_blend_lies_between():
    a, b = random_images(2, seed=0), random_images(2, seed=1)
    close(probes.blend(a, b, torch.tensor([0.0, 1.0])), torch.stack([a[0], b[1]]))
    close(probes.blend(a, b, 0.25), 0.75 * a + 0.25 * b)


# ---- logits ----------------------------------------------------------------------------------------------------------


def test_shift_leaves_the_softmax_and_scale_the_ranking():
    logits = random_logits()
    close(probes.shift(logits, 3.0), logits + 3)
    close(probes.shift(logits, torch.arange(4.0)).softmax(1), logits.softmax(1))
    close(probes.scale(logits, torch.tensor([1.0, 2.0, 0.5, 0.0]))[1:3], torch.stack([2 * logits[1], 0.5 * logits[2]]))
    assert torch.equal(probes.scale(logits, 2.0).argsort(1), logits.argsort(1))


def test_noise_has_the_strength_asked_for_in_each_logit():
    logits, std = torch.zeros(4000, 3), torch.tensor([1.0, 2.0, 0.0])
    noisy = probes.perturb(logits, 0.5, std, seed=1)
    assert noisy.std(0).tolist() == pytest.approx([0.5, 1.0, 0.0], rel=0.05)
    close(probes.perturb(logits, 1.0, std, seed=1), 2 * noisy)
    assert not torch.equal(noisy, probes.perturb(logits, 0.5, std, seed=2))


def test_interpolation_ends_where_it_should():
    a, b = random_logits(seed=0), random_logits(seed=1)
    close(probes.interpolate(a, b, 0.0), a)
    close(probes.interpolate(a, b, 1.0), b)
    close(probes.interpolate(a, b, torch.tensor([0.5, 0, 0, 0]))[0], (a[0] + b[0]) / 2)


def test_top_k_keeps_k_and_the_sum():
    logits = torch.tensor([[5.0, 1.0, 3.0, -1.0]])
    close(probes.keep_top_k(logits, 1), torch.tensor([[5.0, 1.0, 1.0, 1.0]]))
    close(probes.keep_top_k(logits, 2), torch.tensor([[5.0, 0.0, 3.0, 0.0]]))
    close(probes.keep_top_k(logits, 4), logits)


def test_swapping_twice_is_nothing():
    logits = random_logits(2)
    first, second = torch.tensor([0, 3]), torch.tensor([1, 3])
    swapped = probes.swap(logits, first, second)
    close(swapped[0, :2], logits[0, :2].flip(0))
    close(swapped[1], logits[1])
    close(probes.swap(swapped, second, first), logits)
    close(probes.swap(logits, 2, 7)[:, 7], logits[:, 2])


# ---- both ------------------------------------------------------------------------------------------------------------


def test_a_loop_feeds_every_reconstruction_back():
    images = random_images(5, size=8)
    rounds = probes.loop(Halving(), images, 3, batch=2)
    assert len(rounds) == 4 and torch.equal(rounds[0], images)
    close(rounds[3], 0.5 + (images - 0.5) / 8)


def test_a_loop_keeps_the_noise_that_it_is_given():
    images, noise = random_images(5, size=8), Halving().sample_noise(5, seed=1)
    rounds = probes.loop(Halving(), images, 2, batch=2, noise=noise)
    once = Halving().invert(images.flatten(1), noise)
    close(rounds[1], once)
    close(rounds[2], Halving().invert(once.flatten(1), noise))


def test_resampling_varies_with_the_noise_only():
    images = random_images(3, size=8)
    inverter = Halving()
    samples = probes.resample(inverter, images.flatten(1), 4, seed=1, batch=5)
    assert samples.shape == (4, 3, 3, 8, 8)
    close(samples[2, 1], inverter.invert(images.flatten(1), inverter.sample_noise(12, 1)[6:9])[1])
    assert (samples.std(0) > 0).all()


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_brightness_and_contrast_of_a_known_image():
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    images = torch.stack([0.4 + 0.2 * checks, torch.full((8, 8), 0.3)])[:, None].expand(-1, 3, -1, -1)
    assert probes.brightness(images).tolist() == pytest.approx([0.5, 0.3])
    assert probes.contrast(images).tolist() == pytest.approx([0.1, 0.0], abs=1e-6)
    assert probes.sharpness(images).tolist() == pytest.approx([math.sqrt(8), 0.0], abs=1e-5)


@pytest.mark.parametrize("frequency", [1 / 16, 1 / 4])
def test_sharpness_is_the_frequency_whatever_the_contrast(frequency):
    wave = (2 * math.pi * frequency * torch.arange(64)).sin().expand(1, 3, 64, 64)
    faint, strong = (probes.sharpness(0.5 + c * wave).item() for c in (0.05, 0.5))
    assert faint == pytest.approx(strong, rel=1e-3) == pytest.approx(2 * math.sin(math.pi * frequency), rel=0.02)


def test_blur_takes_sharpness_and_contrast_but_no_brightness():
    images = F.interpolate(random_images(4, 8), size=32)
    softer = probes.blur(images, 2.0)
    assert (probes.sharpness(softer) < probes.sharpness(images)).all()
    assert (probes.contrast(softer) < probes.contrast(images)).all()
    close(probes.brightness(softer), probes.brightness(images), atol=0.01)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, z: probes.rotate(x[0], 10), TypeError, r"\(N, 3, H, W\)"),
        (lambda x, z: probes.blur((x * 255).byte(), 1.0), TypeError, "float tensor"),
        (lambda x, z: probes.rotate(x, torch.zeros(3)), ValueError, "one for each of the 4"),
        (lambda x, z: probes.translate(x, float("nan")), ValueError, "finite"),
        (lambda x, z: probes.occlude(x, 1.5), ValueError, "between 0 and 1"),
        (lambda x, z: probes.blend(x, x[..., :8], 0.5), ValueError, "one shape"),
        (lambda x, z: probes.shift(z[0], 1.0), TypeError, r"\(N, classes\)"),
        (lambda x, z: probes.keep_top_k(z, 0), ValueError, "the 10 classes"),
        (lambda x, z: probes.keep_top_k(z, 11), ValueError, "the 10 classes"),
        (lambda x, z: probes.swap(z, 0, 10), ValueError, "from 0 to 9"),
        (lambda x, z: probes.interpolate(z, z[:, :5], 0.5), ValueError, "one shape"),
    ],
)
def test_wrong_input_is_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(random_images(), random_logits())
    assert "\n" not in str(caught.value)
