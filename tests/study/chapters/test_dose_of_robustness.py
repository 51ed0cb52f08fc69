"""Chapter 17: classifiers differ in the dose alone, seeds are compared in pairs, and bad doses are refused."""

import math

import pytest
import torch

from study.chapters import dose_of_robustness as chapter
from study.chapters import dose_of_robustness_page as page
from study.chapters.dose_of_robustness import Dose, DoseTraining, Inverted, Rung
from study.scores import Scores


@pytest.fixture(scope="module")
def images():
    return chapter.load_dose_images("glyphs", 256, 128, 24)


@pytest.fixture
def training(images, tmp_path):
    return DoseTraining(images, {"widths": [8, 8], "blocks": [1, 1]}, 4, 16, False, tmp_path, dose_steps=3)


def test_no_image_serves_two_ends(images):
    parts = [images.train, images.known, *((100 * part.images).byte() for part in (images.validation, images.test))]
    assert images.train.dtype == torch.uint8 and images.train.shape[1:] == (3, 32, 32)
    assert images.classes == 100 and len(images.labels) == 256
    for i, one in enumerate(parts[:2]):
        for other in parts[:i]:
            assert not (one[:, None].flatten(2) == other[None].flatten(2)).all(2).any()
    assert len(images.test.images) == 24


def test_doses_of_a_seed_go_on_from_one_network_and_differ_in_the_attack_alone(training):
    standard = training.standard(0)
    none, some = (training.dosed(standard, Dose(radius), 0) for radius in (0, 8))
    assert none.card["start"] == some.card["start"] == standard.name
    assert (none.card["epsilon"], some.card["epsilon"]) == (0, 8 / 255) and none.card["steps"] == some.card["steps"]
    euclidean = training.dosed(standard, Dose(0.5, "L2"), 0)
    assert (euclidean.card["epsilon"], euclidean.card["norm"]) == (0.5, "L2")
    weights = [next(one.model.parameters()).detach() for one in (none, some, euclidean)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_a_twin_is_left_out_where_its_accuracy_is_not_reached(training, monkeypatch):
    standard, other = training.standard(0), training.standard(1)
    monkeypatch.setattr(chapter, "MARGIN", -2.0)  # as if a classifier were right of more than all images
    assert training.twin(standard, 0) is None
    monkeypatch.setattr(chapter, "MARGIN", 2.0)
    monkeypatch.setattr("recipes.adversarial_training.STOP_EVERY", 1)
    assert training.twin(other, 0).card["steps"] == 1


# ---- what is recorded ------------------------------------------------------------------------------------------------


def inverted(psnr, found=0.5, n=40):
    values = {"psnr": torch.full((n,), psnr), "found": torch.arange(n) < found * n}
    some = Scores(values | {key: torch.full((n,), 0.5) for key in ("perceptual", "perceptual_second")})
    worse = Scores({"psnr": torch.full((n,), psnr - 1), "found": torch.arange(n) < found * n / 2})
    right = torch.arange(n) < n / 2
    return Inverted(
        right, right, {"inverter": some, "ridge": some, "class mean": some}, worse, torch.zeros(8, 3, 4, 4), 0.5
    )


@pytest.fixture
def rungs():
    return [
        Rung(Dose(0), (inverted(15.0), inverted(15.2), inverted(15.1)), (None, None, None)),
        Rung(Dose(4), (inverted(16.0, 0.7), inverted(16.3, 0.7)), (inverted(15.5), inverted(15.7))),
        Rung(Dose(8), (inverted(17.0, 0.9),), (None,)),
        Rung(Dose(0.5, "L2"), (inverted(12.0),), (None,)),
    ]


def test_contrasts_pair_the_seeds_and_leave_euclidean_doses_out(rungs):
    assert page.main_rung(rungs).dose == Dose(4)
    found = page.contrasts(rungs, "inverter")
    assert found["robust minus standard"]["psnr"].value == pytest.approx(1.05)
    assert found["robust minus twin"]["psnr"].value == pytest.approx(0.55)
    assert page.dose_slopes(rungs, "inverter")["psnr"].value == pytest.approx(
        0.99, abs=0.03
    )  # 12 dB is not on the line
    checks = page.inverter_checks(rungs[0].robust)
    assert checks["found_undisturbed"].value == pytest.approx(0.25) and checks["psnr_between_seeds"].value < 0
    lonely = [rungs[0], Rung(Dose(4), rungs[1].robust, (rungs[1].twins[0], None)), *rungs[2:]]
    assert "robust minus twin" not in page.contrasts(lonely, "ridge")


def test_hours_are_those_of_all_trainings(rungs, training):
    training.standard(0)
    training.hours["another"] = 2.0
    assert page.training_hours(page.every_inverted(rungs), [training]) == pytest.approx(2 + 9 * 0.5, abs=0.01)


def test_the_table_has_a_row_for_every_kind_of_classifier(rungs):
    rows = page.dose_rows(rungs, Dose(4))
    assert list(rows) == [
        ("0", "standard"),
        ("4", "attacked"),
        ("4", "twin"),
        ("8", "attacked"),
        ("L2 0.5", "attacked"),
    ]
    assert rows["4", "attacked"]["classifiers"] == "2" and rows["4", "twin"]["under attack at 4/255, %"] == "50.0"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([0, 4, 8], [2, 2], []), "a number of classifiers for each dose"),
        (([0, 4, 8], [2, 2, 0], []), "a number of classifiers for each dose"),
        (([0, 8, 4], [2, 2, 1], []), "rising from 0"),
        (([1, 4, 8], [2, 2, 1], []), "rising from 0"),
        (([0, 4, 8], [2, 1, 1], []), "at least two"),
        (([0, 4, 8], [1, 2, 1], []), "the most classifiers"),
        (([0, 4, 8], [2, 2, 1], [0.0]), "above 0"),
        (([0, 4, 8], [2, 2, 1], [math.nan]), "above 0 and finite"),
        (([0, 4, 8], [2, 2, 1], [math.inf]), "above 0 and finite"),
        (([0, 4, math.nan], [2, 2, 1], []), "to below 255"),
        (([0, 4, 300], [2, 2, 1], []), "to below 255"),
    ],
)
def test_doses_that_decide_nothing_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        chapter.check_doses(*given)
    assert chapter.check_doses([0, 4, 8], [2, 2, 1], [0.5])[-1] == Dose(0.5, "L2")
