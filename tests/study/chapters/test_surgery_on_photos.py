"""Chapter 21: surgery on photos that the classifier is shown larger than they come back, with a known inverter."""

import json
from types import SimpleNamespace

import pytest
import torch

import invkit
from invkit import metrics
from invkit.statistics import Interval
from study import probes
from study.chapters import image_surgery, logit_surgery
from study.chapters import surgery_on_photos as chapter
from study.chapters.image_surgery import SURGERIES
from study.chapters.natural_images import Photos, shrink
from study.notebook import Study
from study.reconstructions import Reconstruction

SHOWN, DRAWN, N = 64, 32, 6


class Shrinking:
    """Loses nothing but size: the logits are the pixels of the photo at the size of the reconstruction."""

    size, noise_dim = DRAWN, 0

    def represent(self, images):
        return shrink(images, DRAWN).flatten(1)

    def invert(self, logits, noise=None):
        return logits.unflatten(1, (3, DRAWN, DRAWN))

    def sample_noise(self, n, seed=0):
        return torch.zeros(n, 0)


class Colour(Shrinking):
    """Tells the mean colour alone."""

    def invert(self, logits, noise=None):
        return super().invert(logits).mean((2, 3), keepdim=True).expand(-1, -1, DRAWN, DRAWN)


class Brightest(chapter.Enlarging):
    """A judge that sees the brightest colour."""

    def __init__(self):
        super().__init__(SimpleNamespace(model=torch.nn.Linear(1, 1)))

    def logits(self, images):
        return images.mean((2, 3))


@pytest.fixture(scope="module")
def photos():
    """Soft spots in colours of their own, away from the centre."""
    x = torch.linspace(-1, 1, SHOWN)
    centre = 0.1 + 0.3 * torch.rand(N, 2, generator=torch.Generator().manual_seed(0))
    radius = (x - centre[:, :1])[:, None, :] ** 2 + 4 * (x - centre[:, 1:])[:, :, None] ** 2
    ink = torch.stack([torch.tensor([0.9, 0.6, 0.2]).roll(k) for k in range(N)])[:, :, None, None]
    ground = torch.linspace(0, 0.3, 3 * N).view(N, 3, 1, 1)
    shown = torch.lerp(ground, ink, torch.exp(-radius / 0.15)[:, None])
    return Photos(shown, shrink(shown, DRAWN), torch.arange(N) % 3)


@pytest.mark.parametrize("name", SURGERIES)
def test_a_reconstruction_that_is_the_small_photo_moves_with_the_large_one(photos, name):
    change = chapter.surgery_at(name, DRAWN)
    response = image_surgery.respond(Shrinking(), photos.shown, change)
    assert response.images.shape == (len(change.amounts), N, 3, DRAWN, DRAWN)
    assert response.slopes(change).mean().item() == pytest.approx(1, abs=0.06)
    assert response.follow.mean() > 0.99  # the small photo as it was changed, not as it was
    assert torch.equal(response.slopes(change), image_surgery.ceiling(photos.shown, change, DRAWN))


def test_a_turn_is_not_seen_in_a_mean_colour_but_another_hue_is(photos):
    turned, recoloured = (
        image_surgery.respond(Colour(), photos.shown, chapter.surgery_at(name, DRAWN)).slopes(SURGERIES[name]).mean()
        for name in ("rotate", "recolour")
    )
    assert abs(turned) < 0.1 < 0.5 < recoloured


def test_blur_is_in_pixels_of_the_small_photo(photos):
    halved = image_surgery.ceiling(photos.shown, SURGERIES["blur"], DRAWN).mean()  # in pixels of the large one
    assert halved < 0.7 < image_surgery.ceiling(photos.shown, chapter.surgery_at("blur", DRAWN), DRAWN).mean()
    assert torch.equal(
        chapter.surgery_at("blur", DRAWN).apply(photos.drawn, 1.5), probes.blur(photos.drawn, 1.5)
    )  # and of it nothing changes


class TestCourse:
    first, last = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)

    def test_a_cross_fade_is_even_and_straight(self):
        images = chapter.crossfade(torch.stack([self.first, self.last]), [0, 0.25, 0.5, 0.75, 1])
        assert {name: x.item() for name, x in chapter.course(images).items()} == pytest.approx(
            {"largest": 1, "detour": 1, "monotone": 1}
        )

    def test_a_jump_takes_one_step_for_all(self):
        images = torch.stack([self.first, self.first, self.first, self.last, self.last])
        assert {name: x.item() for name, x in chapter.course(images).items()} == {
            "largest": 4,
            "detour": 1,
            "monotone": 1,
        }

    def test_a_way_that_turns_back_is_longer_and_not_monotone(self):
        images = torch.stack([self.first, 0.6 * self.last, 0.3 * self.last, self.last])
        found = chapter.course(images)
        assert found["detour"].item() == pytest.approx(1.6) and found["monotone"].item() == 0

    def test_where_both_ends_are_one_image_there_is_no_way(self):
        images = torch.stack([self.first, self.last, self.first])
        assert all(x.isnan().all() for x in chapter.course(images).values())

    def test_several_ways_are_sorted_by_measure(self):
        images = torch.stack([self.first, self.last])
        assert chapter.courses({"a": images, "b": images})["largest"].keys() == {"a", "b"}


def test_a_judge_sees_small_images_as_large_as_it_takes_them(photos):
    network = invkit.load_classifier("tiny-standard")
    judge = chapter.Enlarging(network)
    large = torch.nn.functional.interpolate(photos.drawn, (64, 64), mode="bilinear", antialias=True)
    assert torch.allclose(judge.logits(photos.drawn), network.logits(large), atol=1e-4)
    assert not torch.allclose(judge.logits(photos.drawn), network.logits(photos.drawn), atol=1e-1)


def test_logits_are_moved_aside_as_far_as_by_the_factor():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    for factor in (0.25, 1.0, 4.0):
        moved = chapter.aside(logits, factor, seed=3) - logits
        scaled = factor * logits - logits
        assert torch.allclose(moved.square().mean(1), scaled.square().mean(1), atol=1e-5)
    assert not torch.allclose(moved, scaled, atol=0.5)


def test_subjects_have_the_logits_of_large_photos_and_are_compared_with_small_ones(photos):
    tool = Colour()
    logits = {"own": tool.represent(photos.shown)}
    subject = chapter.subjects_of({"own": tool}, photos, logits, 4)["own"]
    assert torch.equal(subject.images, photos.drawn[:4]) and torch.equal(subject.logits, logits["own"][:4])
    still = logit_surgery.alter({"own": subject}, lambda s, x: s.logits).measured["own"]
    assert torch.equal(still.images[0], tool.invert(logits["own"][:4]))
    assert still.measures["distance"][0] == pytest.approx(metrics.distance(still.images[0], photos.drawn[:4]))


def test_the_check_has_the_floor_the_small_photos_and_the_reconstructions(photos):
    tools = {"a": Shrinking(), "b": Colour()}
    for tool in tools.values():
        tool.represent = lambda images: images.mean((2, 3))
    logits = {name: photos.shown.mean((2, 3)) for name in tools}
    colours = photos.drawn.mean((2, 3), keepdim=True).expand_as(photos.drawn)
    made = {"a": Reconstruction(photos.drawn, photos.drawn), "b": Reconstruction(colours, 1 - colours)}
    checked = chapter.check_on_photos(tools, {"a": Brightest()}, photos, logits, made, made["b"])
    assert checked["a", "photo"].keys() == {"same_class", "independent"}
    assert checked["b", "reconstruction"].keys() == {"same_class", "found", "psnr", chapter.OVER}
    assert checked["a", "reconstruction"]["same_class"].value == 1  # shrunk, the brightest colour stays
    assert checked["b", "reconstruction"]["same_class"].value == 0  # of the sample, not of the guess
    assert checked["a", "reconstruction"][chapter.OVER].value > 30
    assert checked["b", "reconstruction"][chapter.OVER].value == 0


def test_the_outcome_of_the_check_names_the_inverters_that_fail():
    def own(*values):
        return {name: Interval(x, x, x, 100) for name, x in zip("ab", values, strict=False)}

    assert chapter.check_outcome(own(0.1, 0.2)) == "The instrument fails its check"
    assert chapter.check_outcome(own(0.9, 0.2)) == "The instrument fails its check for b"
    assert chapter.check_outcome(own(0.9, 0.85)) == "The instrument passes its check"


def test_the_changes_that_surely_exceed_the_class_alone_are_named():
    spread = torch.linspace(-0.1, 0.1, 30)
    slopes = {
        "rotate": {"own": 0.5 + spread, "class alone": spread},
        "blur": {"own": 0.5 + spread, "class alone": 0.5 - spread},
        "blend": {"own": 0.9 + spread, "class alone": 1.2 + spread},
        "recolour": {"own": 0.9 - spread, "class alone": spread},
    }
    assert chapter.moved_words(slopes, "own", "class alone") == "rotation and recolouring"
    assert chapter.moved_words({"blur": slopes["blur"]}, "own", "class alone") == "none of them"


def test_mistakes_are_compared_with_right_predictions_photo_by_photo(photos, monkeypatch):
    for name in ("perceptual", "perceptual_squeezenet"):
        monkeypatch.setattr(metrics, name, metrics.distance)
    means = torch.stack([photos.drawn[photos.labels == k].mean(0) for k in range(3)])
    places, other = torch.tensor([4, 1]), torch.tensor([2, 0])
    logits = Shrinking().represent(photos.shown)
    chosen = {"mistakes": (places, other), "right true": (places.flip(0), other)}
    groups = chapter.examine_photos(Shrinking(), logits, photos, means, Brightest(), chosen, 2, 0)
    assert torch.equal(groups["mistakes"].targets["input"], photos.drawn[places])
    assert torch.equal(groups["mistakes"].targets["other mean"], means[other])
    assert groups["mistakes"].true.tolist() == photos.labels[places].tolist()
    assert groups["mistakes"].pixel["input"].max() < 1e-6 < groups["mistakes"].pixel["other mean"].min()
    rows = chapter.mistake_rows({"standard": groups})
    row = rows["standard", "right, same true class"]
    assert row["studied"] == 2 and row["mistakes farther by"].value == pytest.approx(0, abs=1e-6)


def test_the_sentence_on_mistakes_says_when_there_are_none_and_which_way_a_difference_goes():
    assert chapter.mistake_words({}) == chapter.UNLABELLED
    near = torch.linspace(0.1, 0.2, 40)

    def group(pixel):
        return SimpleNamespace(pixel={"input": pixel})

    words = chapter.mistake_words({"standard": {"mistakes": group(near + 0.05), "right true": group(near)}})
    assert "standard classifier's mistakes are farther from their photos (+0.05" in words
    words = chapter.mistake_words({"robust": {"mistakes": group(near), "right true": group(near.flip(0))}})
    assert "neither surely nearer to nor surely farther from" in words


@pytest.fixture
def looks():
    """Looks that a shift moves by 2 and a scaling by 4 for a unit, random directions by 1 and 3, noise by 0."""
    spread = torch.linspace(-0.1, 0.1, 20)
    names = [look.__name__ for look in logit_surgery.LOOKS]

    def series(size):
        return SimpleNamespace(swings=lambda x: {name: {"own": size / len(x) + spread} for name in names})

    changes = {"shift": (series(2), series(1), [1.0]), "scale": (series(4), series(3), [1.0])}
    found = {f"{change}_{name}_{way}": 0 * spread for change in changes for name in names for way in ("drawn", "noise")}
    return chapter.look_values(changes, {"own": found})


def test_looks_are_compared_with_random_directions_and_other_noise(looks, tmp_path):
    assert looks[""]["scale contrast "]["own"].mean().item() == pytest.approx(4)
    assert looks["random"]["shift brightness random"]["own"].mean().item() == pytest.approx(1)
    assert looks["noise"]["scale sharpness noise"]["own"].abs().max() == 0
    study = Study("21_surgery_on_photos", "quick", tmp_path / "results", tmp_path / "work")
    chapter.record_beyond(study, looks)
    results = json.loads((tmp_path / "results" / "21_surgery_on_photos.results.json").read_text())
    assert results["beyond_shift_contrast_own"]["value"] == pytest.approx(1, abs=1e-5)
    assert len(results) == 6


def test_the_chart_of_looks_shows_every_value(looks):
    """Panels share their axis, so its ends must hold the values of both."""
    figure = chapter.look_chart(looks)
    for axis in figure.axes:
        low, high = axis.get_xlim()
        assert low < 0 and high > 4


def test_the_ceiling_is_drawn_without_an_interval_that_a_few_grey_photos_would_widen():
    slopes = torch.ones(40)
    slopes[3] = -1.0
    bars = chapter.slope_bars({"own": slopes, "ceiling": slopes})
    assert bars["ceiling"] == pytest.approx(0.95) == bars["own"].value and bars["own"].low < 0.95


def test_pictures_have_the_changed_photo_above_its_reconstructions(photos):
    responses = {
        name: {"own": image_surgery.respond(Shrinking(), photos.shown, chapter.surgery_at(name, DRAWN))}
        for name in ("rotate", "blend")
    }
    rows = chapter.surgery_pictures(photos.shown, responses, {"own": photos.drawn}, 2)
    assert list(rows) == ["photo", "own", "photo ", "own "]
    assert rows["photo"].shape == (3, 3, SHOWN, SHOWN) and rows["own"].shape == (3, 3, DRAWN, DRAWN)
    for mark in ("", " "):
        small = shrink(rows["photo" + mark], DRAWN)
        assert torch.allclose(small, rows["own" + mark], atol=1e-5)
    half = probes.blend(photos.shown, photos.shown.roll(-1, 0), SURGERIES["blend"].amounts[-3])
    assert torch.equal(rows["photo"][2], half[0])


def test_a_loop_is_told_by_its_first_and_last_round():
    path = {"distance": torch.tensor([[0.1, 0.3], [0.2, 0.4], [0.4, 0.6]])}
    assert chapter.loop_words({"own": path}) == "from 0.20 to 0.50 (own)"
    assert chapter.by_round(path, [1, 3])["round 3"].value == pytest.approx(0.5)
