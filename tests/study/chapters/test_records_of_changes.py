"""What chapters 5 to 8 record and tabulate: the ids, the words and the rows, of values made up by hand."""

import pytest
import torch
from torch import nn

from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study import probes
from study.chapters import image_surgery, logit_surgery, what_makes_it_work, zero_shot_inversion
from study.chapters.what_makes_it_work import ChainBudget, ChainVariant, StepCost
from study.notebook import Study
from study.scores import Scores
from study.surgery import compare, labelled

SIZE = 8


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A real one, which writes its results to a folder of the test and glues nothing."""
    monkeypatch.setattr("study.notebook._glue", lambda id, text: None)
    return Study("07_zero_shot_inversion", "quick", tmp_path, tmp_path / "work")


def results(study):
    return study._results


# ---- surgery: chapters 5 and 6 ---------------------------------------------------------------------------------------


class Pixels:
    """Loses nothing: the logits are the pixels."""

    size, noise_dim = SIZE, 1

    def represent(self, images):
        return images.flatten(1)

    def invert(self, logits, noise=None):
        return logits.unflatten(1, (3, SIZE, SIZE))


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def test_the_floor_of_what_is_told_knows_all_of_the_colour_and_no_classifier(images):
    told = {
        "photos": {"all": image_surgery.told(Pixels(), images), "mean colour": image_surgery.told_by_colour(images)}
    }
    measured = {measure: kinds["photos"] for measure, kinds in image_surgery.by_measure(told).items()}
    assert torch.allclose(measured["gain"]["all"], torch.ones(6)) and measured["found"]["all"].all()
    assert (measured["gain"]["mean colour"] < 0.5).all()
    assert list(measured["confidence"]) == ["all"]
    variance = images.mean((2, 3)).var(0, correction=0).sum()
    if variance > image_surgery.ONE_COLOUR:
        assert torch.allclose(measured["colour"]["mean colour"], torch.ones(6))


def test_series_are_compared_in_pairs_over_the_images_that_both_have(study):
    a, b = torch.tensor([1.0, 2.0, 3.0, torch.nan]), torch.tensor([2.0, 3.0, torch.nan, 9.0])
    table = compare(study, "shift", {"contrast": {"plain": a, "robust": b}}, {"contrast": "the contrast"})
    kept = results(study)
    assert list(kept) == ["shift_contrast_plain", "shift_contrast_robust", "shift_contrast_difference"]
    assert kept["shift_contrast_plain"]["value"] == 2 and kept["shift_contrast_plain"]["n"] == 3
    assert kept["shift_contrast_difference"]["value"] == 1 and kept["shift_contrast_difference"]["n"] == 2
    assert kept["shift_contrast_difference"]["verdict"] == "robust higher"
    assert list(table.index) == ["the contrast"] and list(table.columns) == ["plain", "robust", "robust − plain"]
    assert table.iloc[0, 2].endswith("robust higher")


def test_shares_have_wilsons_interval_and_intervals_are_taken_as_they_are(study):
    seen = {"seen": {"a": torch.ones(10)}}
    compare(study, "", seen, shares={"seen"})
    compare(study, "kid", {"faces": {"images": Interval(0.5, 0.4, 0.6, 9)}}, pairs={})
    assert results(study)["seen_a"]["ci95"][0] < 0.8 and results(study)["seen_a"]["ci95"][1] == 1
    assert results(study)["kid_faces_images"]["ci95"] == [0.4, 0.6]


def test_pairs_are_those_asked_for(study):
    values = {name: torch.full((4,), float(i)) for i, name in enumerate(("standard", "robust", "onehot"))}
    compare(study, "slope", {"rotate": values}, pairs={"robust over class": ("robust", "onehot")})
    assert results(study)["slope_rotate_robust_over_class"]["value"] == -1
    assert "slope_rotate_difference" not in results(study)


def test_values_in_words():
    assert labelled({"standard": "12 %", "robust": "8 %"}) == "12 % (standard) and 8 % (robust)"


def test_a_mixture_of_two_images_is_a_double_exposure_of_them(images):
    subjects = {"pixels": logit_surgery.Subject.of(Pixels(), images)}
    between = logit_surgery.alter(subjects, lambda s, x: probes.interpolate(s.logits, s.next, x), [0.0, 0.5, 1.0])
    values = logit_surgery.half_way(between)
    assert torch.allclose(values["ghost"]["pixels"], torch.ones(6), atol=1e-4)
    assert values["contrast_kept"]["pixels"].max() < 1
    same = subjects["pixels"].classes == subjects["pixels"].following
    assert torch.equal(values["neither"]["pixels"].isnan(), same)


def test_an_exchange_of_two_logits_shows_the_other_class_and_little_else(images):
    subjects = {"pixels": logit_surgery.Subject.of(Pixels(), images)}
    plain = logit_surgery.alter(subjects, lambda s, _: s.logits)
    swap = logit_surgery.alter(subjects, lambda s, _: probes.swap(s.logits, s.classes, s.following))
    values = {name: by["pixels"] for name, by in logit_surgery.after_swap(plain, swap).items()}
    apart = ~values["swap_new_itself"].isnan()
    assert (
        apart.sum() > 1 and values["swap_new_itself"][apart].min() == 1 and values["swap_old_itself"][apart].max() == 0
    )
    assert values["swap_moved"][apart].max() < 0.5
    assert values["found_plain"].min() == 1 and torch.equal(
        values["found_cost"], values["found_swap"] - values["found_plain"]
    )


def test_a_series_has_measures_slopes_and_charts(images):
    subjects = {"pixels": logit_surgery.Subject.of(Pixels(), images)}
    scale = logit_surgery.alter(subjects, lambda s, x: probes.scale(s.logits, x), [0.5, 1.0])
    assert torch.allclose(scale.slopes()["brightness"]["pixels"], images.mean((1, 2, 3)), atol=1e-5)
    assert torch.equal(scale.at(1)["distance"]["pixels"], torch.zeros(6))
    names = ["brightness", "contrast", "sharpness", "distance", "class kept, seen by itself"]
    titles = [axis.get_title() for axis in scale.chart("factor").axes]
    assert titles[:3] == names[:3] and len(titles) == 6


def test_a_kind_of_one_colour_has_no_row_of_colours(images):
    told = {
        kind: {"pixels": image_surgery.told(Pixels(), x)}
        for kind, x in {
            "test images": images.sqrt() * torch.linspace(0, 1, 6).view(6, 1, 1, 1),
            "grey": images * 0 + 0.5,
        }.items()
    }
    values = image_surgery.by_measure(told)
    assert list(values) == ["gain", "found", "colour", "confidence"]
    assert list(values["colour"]) == ["test images"] and list(values["gain"]) == ["test images", "grey"]
    assert torch.equal(values["gain"]["test images"]["pixels"], torch.ones(6))


def test_slopes_that_differ_are_named():
    slopes = {
        "rotate": {"a": torch.tensor([0.1, 0.2, 0.1]), "b": torch.tensor([0.6, 0.8, 0.7])},
        "blur": {"a": torch.tensor([0.9, 0.8, 1.0]), "b": torch.tensor([0.2, 0.1, 0.3])},
    }
    words = image_surgery.differing_in_words(slopes, "b", "a")
    assert words == "the b one moves more for rotate and the b one moves less for blur"
    assert image_surgery.slopes_in_words(slopes, ["b"]) == "b: rotate 0.70, blur 0.20"
    same = {"blur": {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([1.0, 0.0])}}
    assert image_surgery.differing_in_words(same, "b", "a") == "no difference between the two is certain"


# ---- zero-shot inversion: chapter 7 ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inverter():
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), head)
    classifier = Classifier(model, "small", size=32)
    shapes = [(3, 32, 32), *(tuple(block.shape) for block in classifier.blocks[:2])]
    return ClassifierInverter(Chain(shapes, [(8, 1), (8, 1)]), classifier, {"size": 32})


def scores(offset):
    psnr = torch.tensor([18.0, 19.0, 20.0, 21.0]) + offset
    return Scores({"psnr": psnr, "ssim": psnr / 30, "perceptual": 1 - psnr / 30, "found": torch.ones(4)})


def test_the_better_reconstruction_is_named(study):
    row = zero_shot_inversion.record_gain(study, "gain", scores(2.0), scores(0.0))
    kept = results(study)["gain"]
    assert kept["value"] == pytest.approx(2) and kept["unit"] == "dB" and kept["verdict"] == "better"
    assert row["photos"] == 4 and row["ours, dB"] == "21.5" and row["theirs, dB"] == "19.5"
    assert row["perceptual, ours − theirs"].endswith("better")


def test_captions_are_psnrs_of_all_rows_but_the_originals():
    photos = torch.full((2, 3, 8, 8), 0.5)
    rows = {"photo": photos, "ours": photos + 0.1}
    assert zero_shot_inversion.captions(rows, photos) == {"ours": ["20.0", "20.0"]}


def test_the_headline_is_recorded_in_the_measures_units_by_what_the_network_has(study, inverter):
    means = {1: scores(2.0).intervals(), 2: scores(0.0).intervals()}
    gains = {1: Interval(3.0, 2.0, 4.0, 4), 2: Interval(0.5, -1.0, 2.0, 4)}
    photos = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    zero_shot_inversion.record_headline(study, inverter, means, {1: 25.0, 2: 20.0}, gains, photos)
    kept = results(study)
    assert {id for id in kept if id.startswith("psnr")} == {"psnr_1", "psnr_2", "psnr_middle"}
    assert kept["psnr_1"]["value"] == 21.5 and kept["psnr_2"]["value"] == 19.5 and kept["psnr_2"]["unit"] == "dB"
    assert kept["found_2"]["value"] == 100 and kept["found_2"]["unit"] == "%"
    assert kept["psnr_middle"]["value"] == 19.5 and kept["psnr_middle"]["tolerance"] is None
    assert kept["number_middle"] == {"text": "2"} and kept["network"] == {"text": "small"}
    assert kept["unit"] == {"text": "convolutions"} and kept["zeros_words"] == {"text": "at 2 of the 2 depths"}
    assert kept["depths_above_mean_colour"]["value"] == 1 and kept["deepest_above_mean_colour"]["value"] == 1


def test_two_networks_are_compared_at_the_last_block_of_each_resolution(study, inverter):
    live = {"linear bottlenecks": inverter, "after ReLU": inverter}
    better, worse = torch.tensor([20.0, 21.0, 22.0]), torch.tensor([10.0, 11.0, 12.0])
    psnr = {name: dict.fromkeys((1, 2), values) for name, values in zip(live, (better, worse), strict=True)}
    rows = zero_shot_inversion.live_gains(study, live, psnr)
    assert results(study)["live_gain_2"]["value"] == 10 and results(study)["live_after_ReLU_4"]["value"] == 11
    assert list(rows) == ["1/2", "1/4"] and rows["1/2"]["difference, dB"].endswith("linear bottlenecks better")


def test_a_live_plan_has_a_size_for_every_block_and_shares_the_steps(inverter):
    plan = zero_shot_inversion.live_plan(inverter.classifier, stride=4, steps=60)
    assert plan["depth"] == 2 and plan["sizes"] == [(24, 2), (48, 2)] and plan["crops"](1) == (8, 32)
    assert plan["schedule"].divide == 10 and plan["schedule"].synchronise == 40


# ---- what makes it work: chapter 8 -----------------------------------------------------------------------------------


def test_every_variant_is_compared_with_the_full_method(study):
    full = torch.tensor([[20.0, 21.0, 22.0]])
    psnr = {"full method": full, "no block term": full - 2, "end to end, rate 0.002": full + 1}
    found = what_makes_it_work.compare_variants(study, psnr, "photos")
    kept = results(study)
    assert kept["psnr_full_photos"]["value"] == 21 and "gain_full_photos" not in kept
    assert kept["gain_no_block_term_photos"]["verdict"] == "helps" and kept["gain_no_block_term_photos"]["by_seed"] == [
        2
    ]
    assert kept["gain_end_to_end_rate_0_002_photos"]["verdict"] == "hurts"
    rows = what_makes_it_work.rows(found, list(psnr), "the part …")
    assert rows["no block term"]["the part …"] == "helps" and list(rows["full method"]) == ["psnr"]


def test_what_helps_is_said_in_words():
    def one(verdict):
        return what_makes_it_work.Comparison(Interval(20, 19, 21, 3), Interval(1, 0, 2, 3), verdict)

    found = dict.fromkeys(what_makes_it_work.PARTS, one("no difference seen"))
    found |= {"no block term": one("helps"), "rival": one("hurts")}
    words = what_makes_it_work.parts_in_words(found, "rival")
    assert words.startswith("what helps is the block term; what hurts is divide-and-conquer rather than")
    assert "no difference is seen for the image term, the cycle term" in words


def test_variants_that_differ_only_in_their_images_are_counted_once(monkeypatch):
    counted = []

    def step_cost(budget, variant):
        counted.append(variant)
        return StepCost(10.0, 20.0)

    monkeypatch.setattr(what_makes_it_work, "step_cost", step_cost)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    budget = ChainBudget(Classifier(model, "tiny", size=8), 1, ((6, 0),), 2, 8, 1e3)
    variants = {"full method": ChainVariant(), "other images": ChainVariant(source="white noise")}
    variants["no block term"] = ChainVariant().without("block")
    plans, costs = what_makes_it_work.plan_all(budget, variants)
    assert len(counted) == 2 and costs["other images"] is costs["full method"]
    assert plans["full method"].divide == 30 and plans["full method"].synchronise == 35


def test_few_images_of_a_source_are_not_measured_again(monkeypatch):
    monkeypatch.setattr(what_makes_it_work.matching, "statistics_distance", lambda classifier, x: x.mean())
    images = {"leaves": torch.full((4, 3, 2, 2), 255, dtype=torch.uint8), "few leaves": torch.zeros(1, 3, 2, 2)}
    assert what_makes_it_work.statistics_distances(None, images, 2) == {"leaves": 1.0}
