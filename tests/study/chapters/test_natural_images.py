"""Comparing networks on photos: sizes, kinds of cuts, the budget curve, and the rules, where the answer is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier
from invkit.network.small import build
from invkit.statistics import Interval
from study import probes
from study.chapters import natural_images as study
from study.chapters.natural_images import MIXED, NO, PARTLY, UNTESTED, YES
from study.scores import SAME, Scores, score

ABOVE, BELOW, AROUND = Interval(2, 1, 3, 9), Interval(-2, -3, -1, 9), Interval(0, -1, 1, 9)


def noise(n, side=32, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def scores(psnr, found):
    return Scores({"psnr": psnr, "found": found})


# ---- photos


def test_sizes_are_what_is_shown_and_what_is_drawn():
    tool = SimpleNamespace(source_size=64, size=32)
    assert study.sizes({"a": tool, "b": tool}) == (64, 32)
    assert study.sizes({"a": SimpleNamespace(size=32)}) == (32, 32)
    with pytest.raises(ValueError, match="same sizes"):
        study.sizes({"a": tool, "b": SimpleNamespace(source_size=64, size=64)})
    with pytest.raises(ValueError, match="no inverter"):
        study.sizes({})


def test_photos_come_at_both_sizes():
    photos = study.load_photos("photos", "test", 3, 0, 64, 32)
    assert photos.shown.shape == (3, 3, 64, 64) and photos.drawn.shape == (3, 3, 32, 32) and len(photos.labels) == 3
    assert torch.allclose(photos.drawn.mean((2, 3)), photos.shown.mean((2, 3)), atol=0.02)
    assert study.shrink(photos.shown, 64) is photos.shown


def test_shrinking_averages_what_a_pixel_covers():
    stripes = (torch.arange(64) % 2).float().expand(2, 3, 64, 64)  # without antialiasing: all black or all white
    assert (study.shrink(stripes, 32) - 0.5).abs().max() < 0.2


def test_only_some_data_sets_teach():
    assert study.teaches("tiny-imagenet:somewhere") and study.teaches("glyphs") and not study.teaches("photos")
    assert not study.teaches("no such data")


# ---- scores


def test_one_image_for_all_finds_none():
    images = noise(6)
    near = score((images + 0.05 * noise(6, seed=1)).clamp(0, 1), images, measures=("psnr", "found"))
    same = score(study.same_for_all(images.mean(0), 6), images, measures=("psnr", "found"))
    assert same.found.sum() == 0 and near.found.all() and (near.psnr > same.psnr).all()


def test_logits_are_those_of_the_photos_as_shown_and_are_kept(tmp_path):
    network = Classifier(build("residual", 10, 64, widths=(8, 12, 16)), "small", 64)
    shown = (noise(5, 64) * 255).round() / 255
    made = study.cached_logits(SimpleNamespace(classifier=network), shown, tmp_path)
    assert torch.allclose(made, network.logits(shown), atol=1e-4) and len(list(tmp_path.iterdir())) == 1
    network.model.forward = None  # a second call must not need it
    assert torch.equal(study.cached_logits(SimpleNamespace(classifier=network), shown, tmp_path), made)


# ---- depths


def test_cuts_are_told_apart_by_what_they_hand_on():
    network = Classifier(build("residual", 10, 64, widths=(8, 12, 16)), "small", 64)
    kinds = {block.name: study.cut_kind(block) for block in network.blocks}
    assert kinds["stem.0"] == "after a ReLU" and kinds["stem.3"] == "no activation after the convolution"
    assert kinds["blocks.0"] == kinds["blocks.4"] == "residual stream" and kinds["head"] == "vector"
    zeros = [probes.share_of_zeros(network, noise(2, 64), depth) for depth in (1, 3)]
    assert zeros[0] > 0.1 and zeros[1] < 0.01


def test_blocks_cut_by_hand_are_named_so():
    assert study.cut_kind(SimpleNamespace(shape=(3, 8, 8), body=nn.ReLU())) == "cut by hand"


def test_differences_by_depth_are_paired():
    photos = noise(8)
    good, bad = ((photos + s * (noise(8, seed=2) - 0.5)).clamp(0, 1) for s in (0.1, 0.8))
    a, b = ({1: score(images, photos)} for images in (good, bad))
    found = study.depth_differences(a, b)[1]
    assert found["psnr"].low > 0 and study.word("perceptual", found["perceptual"]) == "better"
    with pytest.raises(ValueError, match="same depths"):
        study.depth_differences(a, {2: b[1]})
    assert study.depth_gaps({"robust": a, "standard": b})[1] == found
    assert study.depth_gaps({"standard": b}) == {}  # one network alone has no other to be compared with


# ---- the budget


def test_every_budget_holds_the_smaller_ones(monkeypatch):
    seen = []

    def train_inverter(classifier, images, **training):
        seen.append(images)
        return len(images), training["steps"]

    monkeypatch.setattr(study.ffi, "train_inverter", train_inverter)
    images = study.in_random_order(noise(20, 8), seed=1)
    assert images.dtype == torch.uint8 and not torch.equal(images, study.in_random_order(noise(20, 8), seed=2))
    curve = study.budget_curve(None, images, [5, 20], lambda made: made, steps=7)
    assert curve == {5: (5, 7), 20: (20, 7)} and torch.equal(seen[1][:5], seen[0])


@pytest.mark.parametrize("budgets", ([], [1, 5], [5, 5], [8, 4], [5, 21]))
def test_budgets_that_make_no_curve_are_refused(budgets):
    with pytest.raises(ValueError, match="rising numbers of images"):
        study.budget_curve(None, noise(20, 8), budgets, len)


def test_only_the_last_step_of_a_curve_says_whether_it_climbs():
    g = torch.Generator().manual_seed(0)
    base = 10 + torch.randn(50, generator=g)
    low, middle, high = (base + shift + 0.1 * torch.randn(50, generator=g) for shift in (-5, 0, 1))
    still = torch.zeros(50)
    differences, words = study.climbing({1: scores(low, still), 2: scores(middle, still), 3: scores(high, still)})
    assert 0.9 < differences["psnr"].value < 1.1 and words["psnr"] == "still climbing"
    assert words["found"] == "no longer climbing that we could tell"
    assert study.climbing({1: scores(high, still), 2: scores(low, still)})[1]["psnr"] == "falling"
    with pytest.raises(ValueError, match="two numbers"):
        study.climbing({1: scores(low, still)})


# ---- the rules


@pytest.mark.parametrize(
    "words, verdict",
    [
        (["better", "better"], YES),
        (["better", SAME], PARTLY),
        (["better", "worse"], MIXED),
        ([SAME, "worse"], NO),
        ([SAME, SAME], SAME),
        ([], UNTESTED),
    ],
)
def test_several_words_make_one_verdict(words, verdict):
    assert study.one_word(words) == verdict


def test_more_than_the_class_takes_every_measure_against_every_opponent():
    wins = {"psnr": ABOVE, "found": ABOVE, "perceptual": BELOW}
    assert study.beyond_class({"one-hot": wins, "class mean": wins}) == YES
    assert study.beyond_class({"one-hot": wins, "class mean": wins | {"found": AROUND}}) == PARTLY
    assert study.beyond_class({"one-hot": wins, "class mean": wins | {"perceptual": ABOVE}}) == MIXED
    assert study.beyond_class({}) == UNTESTED


def test_easier_looks_at_psnr_and_retrieval_alone():
    assert study.easier({"psnr": ABOVE, "found": ABOVE, "perceptual": ABOVE}) == YES
    assert study.easier({"psnr": BELOW, "found": AROUND, "perceptual": BELOW}) == NO


def test_a_target_reached_in_the_mean_may_be_open_in_the_interval():
    assert study.target_words(ABOVE, 1) == "reached" and study.target_words(BELOW, 0) == "missed"
    assert study.target_words(ABOVE, 1.5) == "reached, though the interval leaves it open"
    assert study.target_words(AROUND, 0.5) == "missed, though the interval leaves it open"


def test_the_answer_says_every_verdict_and_what_was_not_run():
    said = study.answer(1000, {"standard": YES, "robust": YES, "lite0": PARTLY}, SAME, ["better", SAME, "worse"])
    assert "yes for standard and robust, in part for lite0" in said and "1,000 photos" in said
    assert "is not told apart from it" in said and "easier at 1 of 3 depths and harder at 1" in said
    assert "not compared" in study.answer(25, {}, UNTESTED, [])
    for verdict in (YES, PARTLY, MIXED, SAME, NO, UNTESTED):
        assert study.answer(2, {"standard": verdict}, verdict, [])
