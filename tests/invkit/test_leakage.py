from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from invkit import data, leakage
from invkit.leakage import between, cuts, measure_depths, measure_logits, photos_of, scaled, some_depths, where_to_cut

SEES = SimpleNamespace(size=8, channels=3)  # what the photos are chosen for


class Blocks:
    """An "inverter" that returns the image itself at depth 1, its mean colour at depth 2, black at depth 3."""

    size, depths = 16, [1, 2, 3]

    def __init__(self, channels=3):
        shapes = {1: (3, 16, 16), 2: (3,), 3: (1,)}
        blocks = [
            SimpleNamespace(depth=k, name=f"b{k}", shape=shape, convolutions=k, stride=16)
            for k, shape in shapes.items()
        ]
        facts = {"name": "blocks", "size": 16, "blocks": blocks, "device": torch.device("cpu"), "channels": channels}
        self.classifier = SimpleNamespace(**facts, convert=lambda images: images.mean(1, keepdim=True))

    def reconstruct(self, images, depth):
        if self.classifier.channels == 1:
            images = self.classifier.convert(images)
        if depth == 2:
            return images.mean((2, 3), keepdim=True).expand_as(images)
        return images if depth == 1 else torch.zeros_like(images)


class Logits:
    """An "inverter" of logits, the mean colour of an image times ten, to a flat image; noise makes it lighter."""

    size, noise_dim = 16, 1
    classifier = SimpleNamespace(device=torch.device("cpu"))

    def represent(self, images):
        return 10 * images.mean((2, 3))

    def sample_noise(self, n, seed=0):
        return torch.full((n, 1), 0.01 * seed)

    def invert(self, logits, noise=None):
        noise = 0 if noise is None else noise
        return (logits / 10 + noise).clamp(0, 1)[..., None, None].expand(-1, -1, 16, 16)


@pytest.fixture(scope="module")
def photos():
    return data.load("glyphs", n=12, size=16).images


@pytest.fixture(scope="module")
def results(photos):
    return measure_depths(Blocks(), photos, [1, 2, 3])


def test_a_grey_network_is_compared_with_grey_photos(photos):
    photos = photos.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    first, second, _ = measure_depths(Blocks(channels=1), photos, [1, 2, 3])
    assert first.psnr.min() > 60 and first.images.shape == photos.shape  # grey photos come back whole
    assert second.gain.value == pytest.approx(0, abs=1e-3)


def test_depths_are_measured(results):
    first, second, third = results
    assert first.found.value == 1 and first.gain.low > 5 and first.numbers == 1 and not first.quiet
    assert second.gain.value == pytest.approx(0, abs=1e-3) and second.numbers == 3 / 768 and second.trained
    assert third.gain.high < 0 and not third.trained and not third.quiet
    assert [one.block for one in results] == ["b1", "b2", "b3"] and first.images.shape == (12, 3, 16, 16)


def test_depths_are_compared_at_another_side(photos):
    (one,) = measure_depths(Blocks(), photos, [1], side=8)
    assert one.images.shape == (12, 3, 8, 8) and one.psnr.min() == leakage.CEILING


def test_the_reference_is_given_the_same_photos(photos, monkeypatch):
    class Enlarging(Blocks, leakage.ClassifierInverter):
        size = 32

    monkeypatch.setattr(leakage, "load_inverter", lambda name: Enlarging())
    (one,) = leakage.measure_reference(photos)  # its three blocks have one resolution, so the last one stands for it
    assert one.depth == 3 and one.images.shape == (12, 3, 16, 16)


def quiet(*found, trained=True):
    """Results of one depth each: whether photos are found there."""
    interval = SimpleNamespace(value=0.0, n=25)
    return [
        leakage.AtDepth(k, "", 1, None, None, interval, SimpleNamespace(value=share, n=25), trained)
        for k, share in enumerate(found, start=1)
    ]


@pytest.mark.parametrize(
    ("found", "depth"), [((1, 0.1, 0.1), 2), ((1, 0.1, 0.5, 0.2), 4), ((0, 0, 1), None), ((0.2,), 1), ((0.21,), None)]
)
def test_where_to_cut(found, depth):
    cut = where_to_cut(quiet(*found))
    assert (cut and cut.depth) == depth


def test_an_untrained_inverter_says_nothing_of_where_to_cut():
    assert where_to_cut(quiet(0, 0, trained=False)) is None


def test_cuts():
    rows = cuts(Blocks().classifier)
    assert rows[0] == {"depth": 1, "block": "b1", "output": "3 × 16 × 16", "convolutions": 1, "numbers": 1}


def test_some_depths():
    inverter = SimpleNamespace(depths=list(range(1, 31)), classifier=SimpleNamespace(name="deep"))
    every = some_depths(inverter)
    assert len(every) == leakage.MOST_DEPTHS and (every[0], every[-1]) == (1, 30)
    assert some_depths(inverter, 3) == [1, 2, 3] and some_depths(inverter, (9, 4)) == [4, 9]
    with pytest.raises(ValueError, match=r"deep is inverted at depths .*, not \[31\]"):
        some_depths(inverter, [1, 31])


def test_photos_are_the_readers_own_or_bundled(tmp_path):
    found, which = photos_of(None, SEES, n=4)
    assert found.images.shape == (4, 3, 8, 8) and len(set(found.names)) == 4 and "4 bundled photos" in which
    found, which = photos_of("glyphs", SEES, n=3)
    assert len(found) == 3 and "3 images of glyphs" in which
    for i in range(30):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"{i}.png")
    found, _ = photos_of(f"folder:{tmp_path}", SEES)
    assert set(found.names) == set(data.load(f"folder:{tmp_path}", "test").names)
    assert len(photos_of(f"folder:{tmp_path}", SEES, n=2)[0]) == 2


def test_a_grey_network_is_given_grey_photos():
    sees_grey = SimpleNamespace(size=8, channels=1, convert=lambda images: images.mean(1, keepdim=True))
    (grey, _), (colour, _) = (photos_of("glyphs", one, n=3) for one in (sees_grey, SEES))
    assert grey.images.shape == (3, 3, 8, 8) and torch.equal(grey.images[:, 0], grey.images[:, 2])
    assert torch.allclose(grey.images[:, 0], colour.images.mean(1)) and not torch.equal(grey.images, colour.images)


def test_a_network_of_other_channels_gets_one_sentence():
    with pytest.raises(ValueError, match="four takes images of 4 channels, which photos do not have: call"):
        photos_of(None, SimpleNamespace(size=8, channels=4, name="four"))


def test_a_single_photo_is_not_enough(tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    monkeypatch.setattr(leakage, "labelled_images", lambda folder, split: [(tmp_path / "one.png", -1)])
    with pytest.raises(ValueError, match="1 image for testing: give more"):
        photos_of(f"folder:{tmp_path}", SEES)


def test_from_logits(photos):
    result = measure_logits(Logits(), photos, samples=3)
    assert result.samples.shape == (3, 12, 3, 16, 16) and result.guess.shape == (12, 3, 16, 16)
    assert result.gain.value == pytest.approx(0, abs=1e-3)
    assert 0 < result.spread < 0.1


def test_multiplied_logits(photos):
    images, same = scaled(Logits(), photos, (0.5, 1))
    assert images.shape == (2, 12, 3, 16, 16) and same.all()  # a darker colour has the same largest channel
    torch.testing.assert_close(images[0], images[1] / 2)


def test_between_two_images_of_different_classes():
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.9, 0.1, 0.1], [0.2, 0.2, 0.8]])
    way = between(Logits(), colours[:, :, None, None].expand(-1, -1, 16, 16), steps=3)
    torch.testing.assert_close(way[:, :, 0, 0], torch.tensor([[0.8, 0.2, 0.2], [0.5, 0.2, 0.5], [0.2, 0.2, 0.8]]))
