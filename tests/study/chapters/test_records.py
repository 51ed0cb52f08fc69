"""What chapters 9, 10, 11 and 13 record and tabulate: the ids, the words and the rows, of scores made up by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from invkit.statistics import Interval
from study.chapters import (
    gan_inversion,
    gan_inversion_page,
    leakage,
    leakage_page,
    logit_ablations,
    natural_images,
    natural_images_page,
    what_makes_it_work,
)
from study.chapters.leakage import Cost, DefenceOutcome
from study.notebook import slug
from study.scores import Scores


class Recorder:
    """Stands in for a `Study`: keeps what is recorded by its id."""

    name = "10_leakage"

    def __init__(self):
        self.kept = {}

    def record(self, id, value, **more):
        assert id not in self.kept
        self.kept[id] = value

    def record_interval(self, measure, name, interval, **more):
        self.record(f"{measure}_{slug(name)}", interval)

    def record_text(self, id, text, compared=True):
        self.record(id, f"{text}")


@pytest.fixture
def recorder():
    return Recorder()


def scores(offset=0.0, found=1.0, n=6):
    psnr = torch.linspace(18, 20, n) + offset
    by_measure = {"psnr": psnr, "found": torch.full((n,), found), "perceptual": psnr / -100 + 1}
    return Scores(by_measure | {"ssim": psnr / 100})


def outcome(name, strength, correct=1.0, offset=0.0, found=1.0):
    as_was, tuned = scores(offset, found), scores(offset + 1, found)
    return DefenceOutcome(
        name, strength, Cost((torch.arange(50) < 50 * correct).float(), torch.zeros(50)), as_was, tuned, {}
    )


# ---- leakage ---------------------------------------------------------------------------------------------------------


def test_attackers_are_compared_where_both_were_measured(recorder):
    scored = {
        "zero-shot": {1: scores(3), 2: scores(-3)},
        "optimised": {1: scores(), 2: scores()},
        "trained on glyphs": {2: scores()},
    }
    pairs = leakage.attacker_differences(scored, scores(-5))
    assert list(pairs) == [
        (1, "zero-shot", "optimised"),
        (2, "zero-shot", "optimised"),
        (2, "trained on glyphs", "zero-shot"),
        (2, "trained on glyphs", "optimised"),
        (2, "trained on glyphs", "mean image"),
    ]
    classifier = type("Classifier", (), {"blocks": [None, None]})
    leakage_page.record_attackers(recorder, classifier, pairs)
    assert recorder.kept["psnr_zero_minus_optimised_1"].value == pytest.approx(3)
    assert recorder.kept["psnr_fed_minus_mean"].value == pytest.approx(5)
    assert recorder.kept["against_words"].startswith("By PSNR zero-shot is better at depth 1; worse at the logits;")
    rows = leakage_page.attacker_rows(classifier, pairs)
    assert rows["the logits", "zero-shot − optimised"]["PSNR, dB"].endswith("worse")


def test_a_defence_that_costs_too_much_is_not_chosen(recorder):
    plain, cheap, dear = outcome("none", 0), outcome("noise", 0.5, 1.0, -2, 0.0), outcome("dropout", 0.5, 0.5, -9, 0.0)
    choices = leakage.choices_of({2: [plain, cheap, dear]}, tolerated=0.02)
    assert choices[2, "noise"].outcome is cheap and choices[2, "dropout"] is None
    leakage_page.record_choices(recorder, choices)
    assert recorder.kept["hiding"] == 1 and recorder.kept["found_noise_chosen_2"].value == -1
    assert recorder.kept["hiding_words"] == "noise at depth 2 lets fewer be found (by 100 % at most)"
    rows = leakage_page.choice_rows(choices)
    assert rows["2", "noise, 0.5 s.d."]["verdict"] == "fewer found" and rows["2", "dropout: none is tolerated"] == {}
    assert leakage.picked([plain, cheap, dear], choices, 2) == [plain, cheap, dear]


def test_every_outcome_is_recorded_under_its_defence_and_depth(recorder):
    leakage_page.record_outcomes(recorder, {2: [outcome("none", 0), outcome("noise", 0.25, 0.5)]})
    assert {"accuracy_none_0_depth_2", "found_tuned_noise_025_depth_2", "psnr_won_back_2"} <= recorder.kept.keys()
    assert recorder.kept["costliest_accuracy"].value == 50
    assert recorder.kept["psnr_longer_2"].value == pytest.approx(1)


# ---- natural images --------------------------------------------------------------------------------------------------


def test_each_network_is_compared_with_its_own_baselines():
    scored = {"standard": scores(2), "one-hot": scores(), "ridge, standard": scores(1), "mean image": scores(-1)}
    against = natural_images.differences_to(scored, ["standard"])["standard"]
    gains = {by: round(differences["psnr"].value, 3) for by, differences in against.items()}
    assert gains == {"mean image": 3, "one-hot": 2, "ridge": 1}
    assert list(natural_images.who_knows_the_class(against)) == ["one-hot"]


def test_targets_say_what_was_measured(recorder):
    scored = {"standard": scores(2), "mean image": scores()}
    against = natural_images.differences_to(scored, ["standard"])
    rows = natural_images.target_rows({"standard": {"gain": 0.5}, "unknown": {"gain": 1}}, scored, against)
    row = rows["standard", "PSNR over the mean image"]
    assert row == {"at least": "0.5 dB", "measured": "2.00 [2.00, 2.00] dB", "verdict": "reached"}
    assert list(rows) == [("standard", "PSNR over the mean image")]


def test_robust_against_standard_is_recorded_with_its_verdict(recorder):
    contrast = natural_images.robust_minus_standard({"robust": scores(1), "standard": scores(found=0.0)})
    natural_images_page.record_robust(recorder, contrast)
    assert list(contrast) == ["inverter"] and recorder.kept["psnr_robust_minus_standard"].value == pytest.approx(1)
    assert recorder.kept["robust_words"] == "yes" and "not tried" in recorder.kept["ridge_words"]


def test_without_an_adversary_alone_there_are_no_rows(recorder, tmp_path):
    alone = natural_images.adversary_alone(None, None, 1, 0, tmp_path)
    assert natural_images_page.record_adversary(recorder, alone, {}, "standard") == {}
    assert "left out" in recorder.kept["adversarial_words"]
    assert (
        natural_images_page.adversary_grid(alone, {}) is None and natural_images_page.curve_chart({}, scores()) is None
    )


# ---- designs of logit inversion --------------------------------------------------------------------------------------


def test_designs_are_compared_with_the_full_one_and_their_findings_are_sentences():
    psnr = torch.linspace(18, 20, 8)[None]
    measured = {logit_ablations.FULL: {"psnr": psnr}, "one-hot": {"psnr": psnr - 1}}
    effects = logit_ablations.effects_of(measured)
    verdicts = logit_ablations.verdicts_of(effects)
    assert verdicts == {"one-hot": "hurts"} and effects["one-hot"]["psnr"][0].value == pytest.approx(-1)
    text = logit_ablations.findings(effects, verdicts)
    assert "*one-hot* hurts: PSNR -1.00 [-1.00, -1.00] dB." in text and "not run here" in text
    with pytest.raises(ValueError, match="full design"):
        logit_ablations.effects_of({"one-hot": {"psnr": psnr}})


def test_ridge_words_follow_the_differences(recorder):
    some = {"logits": scores(), "features": scores(1)}
    logit_ablations.record_ridge(recorder, some, {"psnr": Interval(1, 0.5, 1.5, 6)})
    assert recorder.kept["ridge_words"] == "also finds more in the features"
    assert recorder.kept["psnr_ridge_features"].value == pytest.approx(20)


# ---- a generator's defects -------------------------------------------------------------------------------------------


def test_mending_is_measured_in_standard_deviations_of_all_faces(recorder):
    everyone = {"features": torch.arange(10.0), "thumbnail": torch.arange(10.0)}
    chosen = torch.tensor([9, 8, 7])
    judged = {name: {s: v[chosen] - step for s, v in everyone.items()}
              for name, step in (("regenerated", 3), ("shrunk", 1), ("moved", -1))}  # fmt: skip
    mended = gan_inversion.mending(everyone, chosen, judged, {name: torch.tensor([0.1, 0.2, 0.3]) for name in judged})
    step = 1 / everyone["features"].std().item()
    assert mended.changes("regenerated")["features"].value == pytest.approx(-3 * step)
    assert mended.changes("regenerated", "shrunk")["features"].value == pytest.approx(-2 * step)
    rows = gan_inversion_page.record_mending(recorder, mended)
    assert recorder.kept["verdict"] == "mends" and list(rows) == ["regenerated", "shrunk", "moved"]
    gan_inversion_page.record_agreement(recorder, mended, chosen)
    assert recorder.kept["agreement"] == pytest.approx(1) and recorder.kept["degree"] == "strongly"
    assert gan_inversion_page.defect_captions(mended, 1)["original"] == [f"{4.5 * step:+.1f}, {4.5 * step:+.1f}"]


# ---- floors, and what photos are worth -------------------------------------------------------------------------------


def test_the_floors_of_designs_are_the_mean_image_and_each_images_own_colour(recorder):
    unseen = torch.stack([torch.full((3, 4, 4), grey) for grey in (0.25, 0.75)])
    unseen[:, :, :2] += 0.1  # structure, which no mean colour has
    rows = logit_ablations.floor_rows(recorder, torch.full((5, 3, 4, 4), 0.5), unseen)
    assert list(rows) == [("no logits", "mean image"), ("no logits", "own mean colour")]
    assert recorder.kept["psnr_own_mean_colour"].value == pytest.approx(-20 * math.log10(0.05), abs=1e-3)
    assert recorder.kept["psnr_mean_image"].value < 13


class OffBy:
    """An inverter of two blocks whose reconstructions are off by so much, more after the second."""

    depths, device = [1, 2], torch.device("cpu")

    def __init__(self, error):
        self.error = error

    def reconstruct(self, images, depth, feedback=False):
        return images + depth * self.error


def test_what_synthetic_images_fall_short_of_photos_is_told_for_every_depth(recorder):
    blocks = [SimpleNamespace(convolutions=3), SimpleNamespace(convolutions=9)]
    images, classifier = torch.full((4, 3, 4, 4), 0.5), SimpleNamespace(blocks=blocks)
    inverters = {"full method": [OffBy(0.1)], what_makes_it_work.PHOTOS: [OffBy(0.05)]}
    rows = what_makes_it_work.gap_rows(recorder, classifier, inverters, images)
    assert (
        list(rows) == [3, 9] and rows[3]["photos, dB"].startswith("26.0") and rows[9]["photos, dB"].startswith("20.0")
    )
    for id in ("gap_3", "gap_9"):
        assert recorder.kept[id].value == pytest.approx(-20 * math.log10(2), abs=1e-3)
    assert not what_makes_it_work.gap_rows(recorder, classifier, {"full method": [OffBy(0.1)]}, images)


def test_the_mean_colour_of_an_image_has_no_verdict(recorder):
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    psnr = {"full method": torch.full((1, 5), 30.0)} | what_makes_it_work.without_structure(images)
    found = what_makes_it_work.compare_variants(recorder, psnr, "photos")
    rows = what_makes_it_work.rows(found, list(psnr), "the part …")
    assert rows["mean colour"]["the part …"] == "" and recorder.kept["psnr_mean_colour_photos"].value < 15
