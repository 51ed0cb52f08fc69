"""Synthetic images: their statistics, their seeds, and the pool that batches are cut from."""

import pytest
import torch

from invkit.dci import synthetic

SOURCES = [synthetic.white_noise, synthetic.pink_noise, synthetic.dead_leaves]


@pytest.mark.parametrize("source", SOURCES)
def test_images_are_in_range_and_follow_the_seed(source):
    images = source(3, 48, seed=1)
    assert images.shape == (3, 3, 48, 48) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, source(3, 48, seed=1))
    assert not torch.allclose(images, source(3, 48, seed=2))
    assert images.std() > 0.05


@pytest.mark.parametrize("source", SOURCES)
def test_impossible_requests_are_refused(source):
    with pytest.raises(ValueError, match="must be a whole number of at least"):
        source(0, 48)
    with pytest.raises(ValueError, match="size must be a whole number of at least 8, not 4"):
        source(1, 4)


def spectral_slope(images):
    """Exponent of the amplitude spectrum between 2 and 16 cycles an image."""
    grey = images.mean(1) - images.mean((1, 2, 3))[:, None, None]
    power = torch.fft.fft2(grey).abs().square().mean(0)
    size = images.shape[-1]
    f = torch.fft.fftfreq(size) * size
    radius = (f[:, None] ** 2 + f[None] ** 2).sqrt().round()
    rings = torch.arange(2, 17)
    ring = torch.stack([power[radius == r].mean() for r in rings]).log() / 2
    x = rings.float().log()
    x = x - x.mean()
    return float((x * ring).sum() / (x * x).sum())


def test_spectra_fall_as_in_photographs_except_white_noise():
    assert abs(spectral_slope(synthetic.white_noise(16, 64))) < 0.1
    assert spectral_slope(synthetic.pink_noise(32, 64)) == pytest.approx(-1, abs=0.2)
    assert -2 < spectral_slope(synthetic.dead_leaves(32, 64)) < -0.8


def test_leaves_occlude_one_another():
    flat = synthetic.Leaves(texture=0, light=0, blur=0)
    image = synthetic.dead_leaves(1, 96, seed=3, leaves=flat)[0]
    same = (image[:, :, 1:] == image[:, :, :-1]).all(0).float().mean()
    assert 0.4 < same < 0.999  # flat leaves with sharp borders: most neighbours are equal, not all
    with pytest.raises(ValueError, match="0 or more"):
        synthetic.Leaves(contrast=-1)


@pytest.mark.parametrize("source", SOURCES)
def test_an_image_depends_on_its_number_and_the_seed_alone(source):
    images = source(7, 40, seed=4)
    torch.testing.assert_close(source(2, 40, seed=4), images[:2], rtol=0, atol=1e-6)
    torch.testing.assert_close(source(3, 40, seed=4, first=4), images[4:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [64, 128, 320])
def test_two_leaves_in_five_are_boxes_in_every_image(size, monkeypatch):
    """Of the leaves handed to the rasteriser, and of the pixels that each kind covers when it is drawn alone."""
    shares = []

    def count(depth_buffer, ranks, leaf, *rest, **named):
        shares.append(leaf["box"].float().mean(1))

    monkeypatch.setattr(synthetic, "_scatter", count)
    synthetic.dead_leaves(8, size, seed=2)
    smallest_band = shares[0]  # of thousands of leaves
    assert (smallest_band - 0.4).abs().max() < 0.1


@pytest.mark.parametrize("box, area", [(True, 4 * 0.8**2), (False, torch.pi)])
def test_a_leaf_covers_the_area_of_its_kind_wherever_it_stands(box, area):
    size, r, count = 96, 12.0, 40
    for place in range(0, count, 13):
        leaf = {key: torch.full((1, count), value) for key, value in {"r": r, "angle": 0.4, "aspect": 0.7}.items()}
        leaf |= {key: torch.full((1, count), 48.0) for key in "xy"}
        leaf["box"] = torch.full((1, count), not box)
        leaf["box"][0, place] = box
        ranks = torch.zeros(1, count, dtype=torch.int32)
        ranks[0, place] = 1
        depth_buffer = torch.zeros(size * size, dtype=torch.int32)
        synthetic._scatter(depth_buffer, ranks, leaf, size, reach=12)
        assert depth_buffer.sum().item() == pytest.approx(area * r * r * 0.7, rel=0.03)


def test_pool_batches_depend_on_the_step_alone():
    pool = synthetic.draw_pool(20, 64, seed=5)
    first = pool.batch(7, 4, 32)
    assert first.shape == (4, 3, 32, 32) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, pool.batch(7, 4, 32))
    assert not torch.equal(first, pool.batch(8, 4, 32))
    assert torch.equal(first, synthetic.draw_pool(20, 64, seed=5).batch(7, 4, 32))
    longer = synthetic.draw_pool(40, 64, seed=5, pink=0.05)  # two images of noise in both
    assert (longer.images[:20].int() - pool.images.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="larger pool"):
        pool.batch(0, 4, 65)


def test_a_pool_of_its_own_size_gives_its_own_images():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    batch = (synthetic.Pool(images).batch(0, 5, 16) * 255).round().to(torch.uint8)
    turned = torch.cat([images, images.transpose(2, 3)])
    assert all(any(torch.equal(crop, whole) for whole in turned) for crop in batch)
