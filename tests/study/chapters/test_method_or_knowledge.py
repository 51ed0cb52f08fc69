"""Chapter 18: every cell spends its compute, learns from what it is given, and the words follow their rule."""

import pytest
import torch
from helpers import two_convolutions

from invkit.dci.synthetic import pink_noise
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import method_or_knowledge as chapter
from study.chapters import method_or_knowledge_page as page
from study.chapters.method_or_knowledge import (
    DIVIDED,
    FEEDFORWARD,
    LOGITS,
    NOISE,
    OPTIMISED,
    PENULTIMATE,
    PHOTOS,
    RIDGE,
    SEARCH,
    SYNTHETIC,
    Attack,
    Budget,
    Cell,
    Place,
)  # fmt: skip
from study.scores import Scores

SIZE = 32


@pytest.fixture(scope="module")
def classifier():
    return two_convolutions(SIZE)


@pytest.fixture
def budget(tmp_path):
    return Budget(8e8, 1e-3, 4, search_steps=2, optimisation_steps=2, searched=3, folder=tmp_path)


@pytest.fixture(scope="module")
def candidates():
    return pink_noise(12, SIZE, seed=3)


def cell(psnr, found=1.0):
    n = len(psnr)
    scores = {"psnr": torch.tensor(psnr), "found": torch.full((n,), found)}
    scores |= {"perceptual": torch.full((n,), 0.5), "perceptual_second": torch.full((n,), 0.5)}
    return Cell(torch.rand(n, 3, SIZE, SIZE), Scores(scores), 0.1, 0.2)


def test_a_place_is_a_map_the_penultimate_features_or_the_logits(classifier):
    images = torch.rand(2, 3, SIZE, SIZE)
    maps, features, logits = (Place.of(classifier, where) for where in (2, PENULTIMATE, LOGITS))
    assert maps.title == "depth 2" and not maps.is_vector and maps.represent(images).shape == (2, 5, 16, 16)
    last = [module for module in classifier.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.testing.assert_close(last(features.represent(images)), classifier.logits(images))
    torch.testing.assert_close(logits.represent(images), classifier.logits(images))
    assert features.is_vector and logits.is_vector
    for where in (9, 0, "somewhere"):
        with pytest.raises(ValueError, match="A place is a depth from 1 to 2"):
            Place.of(classifier, where)


def test_attackers_learn_from_as_many_images_of_each_kind_and_these_differ_in_what_they_know():
    known = {kind: chapter.known_images(kind, "glyphs", 40, 32) for kind in chapter.KNOWLEDGE}
    assert {(tuple(images.shape), images.dtype) for images in known.values()} == {((40, 3, 32, 32), torch.uint8)}
    # white noise differs from pixel to pixel, synthetic images and drawn characters do not
    rough = {kind: images.float().diff(dim=3).abs().mean().item() for kind, images in known.items()}
    assert rough[NOISE] > 3 * rough[SYNTHETIC] and rough[NOISE] > 3 * rough[PHOTOS]
    draw = chapter.batches_of(known[PHOTOS], torch.device("cpu"))
    torch.testing.assert_close(draw(3, 1), draw(3, 2), rtol=0, atol=0)
    assert not torch.equal(draw(3, 1), draw(4, 1)) and draw(0, 1).max() <= 1


def test_a_generator_costs_more_the_larger_its_images_and_too_little_compute_says_how_much_would_do(
    classifier, budget, candidates
):
    small, large = chapter.generator_cost(16, 10), chapter.generator_cost(32, 10)
    assert large[1] > 2 * small[1] and 0 < small[0] == large[0]
    poor = Budget(1e6, 1e-3, 4, 2, 2, 3, budget.folder)
    with pytest.raises(ValueError, match="train no generator: give at least"):
        chapter.train_generator_at(Place.of(classifier, LOGITS), (255 * candidates).byte(), "poor", poor)


def test_every_method_that_a_place_takes_is_trained_and_measured(classifier, budget, candidates, monkeypatch):
    chapter.generator_cost.cache_clear()
    monkeypatch.setattr(chapter, "CHANNELS", (4, 4, 4, 4))  # for speed
    monkeypatch.setattr(chapter, "GENERATOR", chapter.GENERATOR | {"batch": 2})
    # A card rounds to four digits, by which a tenth of a second is no hour at all.
    monkeypatch.setattr("invkit.dci.invert.round", lambda hours, digits: hours, raising=False)
    known = (255 * pink_noise(24, SIZE, seed=4)).byte()
    grid = chapter.fill_grid(
        {"net": classifier}, {"net": [1, LOGITS]}, {SYNTHETIC: known, PHOTOS: known.flip(0)}, candidates, 6, budget
    )
    maps, logits = grid["net", "depth 1"], grid["net", LOGITS]
    both = {(method, kind) for method in (DIVIDED, SEARCH, FEEDFORWARD) for kind in (SYNTHETIC, PHOTOS)}
    assert maps.keys() == both | {(OPTIMISED, NOISE)}
    assert logits.keys() == maps.keys() | {(RIDGE, SYNTHETIC), (RIDGE, PHOTOS)}
    assert len(maps[DIVIDED, PHOTOS].scores.psnr) == 6 and len(maps[SEARCH, PHOTOS].scores.psnr) == 3
    assert maps[DIVIDED, PHOTOS].hours > 0 and maps[OPTIMISED, NOISE].hours == logits[RIDGE, PHOTOS].hours == 0
    # the first block leaves nearly all of the image, the logits little: the instrument sees the difference
    assert maps[DIVIDED, PHOTOS].scores.psnr.mean() > logits[DIVIDED, PHOTOS].scores.psnr.mean() + 1
    figure = page.grid_chart(grid, "psnr", page.floor_scores(candidates[:6]))
    assert [axis.get_title() for axis in figure.axes[:3]] == [f"net: {m}" for m in (DIVIDED, FEEDFORWARD, SEARCH)]
    rows, captions, columns = page.grid_pictures(grid, "net", candidates[0])
    assert columns == ["1", "logits"] and captions[f"{RIDGE}, {PHOTOS}"][0] == ""
    assert torch.equal(rows[f"{RIDGE}, {PHOTOS}"][0], torch.ones(3, SIZE, SIZE))


def cells(divided, whole, better, spread=0.5):
    """A place where photos are worth `better` dB, and divide and conquer is worth `divided` - `whole` dB."""
    noise = [spread * x for x in torch.linspace(-1, 1, 60).tolist()]
    return {
        (method, kind): cell([base + extra + x for x in noise])
        for method, base in ((DIVIDED, divided), (FEEDFORWARD, whole))
        for kind, extra in ((SYNTHETIC, 0.0), (PHOTOS, better))
    }


def test_what_matters_more_is_the_effect_that_is_surely_larger_in_size():
    low = Scores({"psnr": torch.zeros(60)})
    photos, dividing = (f(cells(12, 11, 3), "psnr") for f in (chapter.worth_of_photos, chapter.worth_of_dividing))
    assert photos.value == pytest.approx(3, abs=1e-4) and dividing.value == pytest.approx(1, abs=1e-4)
    assert page.what_matters(cells(12, 11, 3), low, "psnr") == "knowledge"
    assert page.what_matters(cells(11, 15, 3), low, "psnr") == "method"  # a loss counts by its size
    assert page.what_matters(cells(12, 11, 3), Scores({"psnr": torch.full((60,), 40.0)}), "psnr") == "nothing decided"
    wide = Interval(1.0, -1.0, 3.0, 60), Interval(0.5, 0.4, 0.6, 60)
    assert chapter.which_matters(*wide) == "not told apart" == chapter.which_matters(*wide[::-1])


def test_the_words_count_every_place_once():
    words = page.Counter({"knowledge": 3, "method": 1})
    assert page._counted(words, 4) == (
        "what is known of images matters more at 3 of 4 places and the method matters more at 1 of 4 places"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((["a"], {}, [SYNTHETIC, PHOTOS], 64, 10, 100), "Give places for every network, such as {a:"),
        (([], {}, [SYNTHETIC, PHOTOS], 64, 10, 100), "Give places"),
        ((["a"], {"a": [1]}, [NOISE, PHOTOS], 64, 10, 100), "with or without 'no images'"),
        ((["a"], {"a": [1]}, [SYNTHETIC, PHOTOS, "rumours"], 64, 10, 100), "not .*rumours"),
        ((["a"], {"a": [1]}, [SYNTHETIC, PHOTOS], 64, 1, 100), "at least 2 photos"),
        ((["a"], {"a": [1]}, [SYNTHETIC, PHOTOS], 48, 10, 100), "size=32 or size=64, not 48"),
    ],
)
def test_parameters_that_do_not_fit_together_are_told_before_anything_is_trained(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        chapter.check_grid(*given)


def test_a_network_that_ends_otherwise_has_no_penultimate_features():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match="no penultimate features"):
        Place.of(Classifier(model, "odd", size=SIZE), PENULTIMATE)


def test_attack_scores_the_first_photos_among_all(classifier, budget, candidates):
    attack = Attack(Place.of(classifier, 1), candidates, 4, budget)
    perfect = attack.cell(lambda y: candidates[:4])
    assert perfect.scores.found.mean() == 1 and perfect.scores.psnr.min() > 90
    assert attack.cell(lambda y: candidates[1:5]).scores.found.mean() == 0
