"""Chapter 20: networks differ in the architecture alone, and the more accurate of a pair is stopped early."""

import pytest

from study.chapters import architecture_and_logits as chapter
from study.chapters import architecture_and_logits_page as page
from study.chapters.architecture_and_logits import Kind
from study.chapters.dose_of_robustness import load_dose_images
from tests.study.chapters.test_dose_of_robustness import inverted

ARCHITECTURES = {
    "residual": ["residual", {"widths": [8, 8], "blocks": [1, 1]}],
    "plain": ["plain", {"widths": [8, 8, 8, 8]}],
}
ALIKE = {"standard_steps": 3, "batch": 16, "augment": False}


@pytest.fixture(scope="module")
def images():
    return load_dose_images("glyphs", 256, 64, 24)


@pytest.fixture
def trainings(images, tmp_path):
    return chapter.trainings_of(ARCHITECTURES, images, tmp_path, **ALIKE)


def test_networks_of_a_seed_see_the_same_batches_and_are_kept_apart(trainings):
    cards = {title: one.standard(0).card for title, one in trainings.items()}
    assert [card["architecture"] for card in cards.values()] == ["residual", "plain"]
    assert {(card["steps"], card["seed"]) for card in cards.values()} == {(3, 0)}
    assert len({one.folder for one in trainings.values()}) == 2


def test_the_more_accurate_of_a_pair_is_stopped_and_stands_beside_the_other(trainings, monkeypatch):
    accuracies = {"residual": 0.6, "plain": 0.4}
    monkeypatch.setattr(
        "study.chapters.dose_of_robustness.DoseTraining.held_out_accuracy",
        lambda self, classifier: accuracies[classifier.name.split()[0]] - 2,  # any network is as accurate as that
    )
    monkeypatch.setattr("recipes.adversarial_training.STOP_EVERY", 1)
    made = []

    def invert(classifier, seed, folder):
        made.append((classifier.name, seed, classifier.card["steps"]))
        return inverted(15.0 + len(made))

    kinds = chapter.train_kinds(trainings, 2, invert)
    assert [name for name, _, _ in made[:4]] == ["residual seed 0", "residual seed 1", "plain seed 0", "plain seed 1"]
    assert made[4:] == [("twin of plain seed 0", 0, 1), ("twin of plain seed 1", 1, 1)]
    own, first = kinds["plain"].equal[0]
    assert own is kinds["plain"].inverted[0] and first is not kinds["residual"].inverted[0]
    assert not kinds["residual"].equal and len(page.every_network(kinds)) == 6


def test_a_pair_whose_accuracy_is_not_reached_is_left_out(trainings, monkeypatch):
    monkeypatch.setattr("study.chapters.dose_of_robustness.DoseTraining.twin", lambda *_: None)
    kinds = chapter.train_kinds(trainings, 2, lambda *_: inverted(15.0))
    assert kinds["plain"].equal == {}
    assert list(page.contrasts_of(kinds, "inverter")) == [("plain", page.AFTER)]


# ---- what is recorded ------------------------------------------------------------------------------------------------


@pytest.fixture
def kinds():
    residual = inverted(16.0, 0.7), inverted(16.2, 0.7)
    plain, stopped = (inverted(15.0), inverted(15.1)), (inverted(16.5), inverted(16.7))
    return {"residual": Kind(residual, {}), "plain": Kind(plain, dict(enumerate(zip(plain, stopped, strict=True))))}


def test_differences_are_to_the_first_architecture_in_pairs_of_seeds(kinds):
    found = page.contrasts_of(kinds, "inverter")
    assert found["plain", page.AFTER]["psnr"].value == pytest.approx(-1.05)
    assert found["plain", page.EQUAL]["psnr"].value == pytest.approx(-1.55)
    assert found["plain", page.AFTER]["found"].value == pytest.approx(-0.2)
    assert page.difference_words(kinds, "plain") == "less"
    assert page.equal_words(kinds, "plain").startswith("the differences are −1.55 [")


def test_pairs_that_are_too_few_are_left_out_and_told(kinds, tmp_path):
    from study.notebook import Study

    lonely = kinds | {"plain": Kind(kinds["plain"].inverted, {})}
    study = Study("20_architecture_and_logits", "quick", tmp_path / "results", tmp_path / "work")
    page.record_kinds(study, lonely)
    kept = study._results
    assert kept["psnr_plain_after_equal_training_inverter"]["value"] == pytest.approx(-1.05)
    assert not any("equal_accuracy" in id for id in kept)
    assert kept["equal_plain"]["text"].startswith("there are too few") and kept["n_seeds"]["text"] == "2"
    assert kept["psnr_inverter_plain"]["by_seed"] == pytest.approx([15.0, 15.1])


def test_the_table_has_a_row_for_every_kind_and_for_each_side_of_a_pair(kinds):
    rows = page.kind_rows(kinds)
    assert list(rows) == [
        ("residual", "whole"),
        ("plain", "whole"),
        ("plain", "as accurate as residual"),
        ("residual", "as accurate as plain"),
    ]
    assert rows["residual", "whole"]["classifiers"] == "2"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (({"residual": ARCHITECTURES["residual"]}, 2), "two architectures or more"),
        ((ARCHITECTURES, 1), "seeds of at least 2"),
        ((ARCHITECTURES | {"odd": ["residual"]}, 2), "'odd'"),
        ((ARCHITECTURES | {"odd": ["recurrent", {}]}, 2), "no architecture 'recurrent'"),
        ((ARCHITECTURES | {"odd": ["plain", {"depth": 3}]}, 2), "does not take these options"),
        ((ARCHITECTURES | {"odd": ["plain", {"widths": 5}]}, 2), "does not take these options"),
        ((ARCHITECTURES | {"odd": None}, 2), "'odd' as "),
        ((ARCHITECTURES | {"odd": [["plain"], {}]}, 2), "'odd' as "),
        ((ARCHITECTURES | {"odd": ["plain", {"widths": []}]}, 2), "'odd' lists of whole numbers"),
        ((ARCHITECTURES | {"odd": ["plain", {"widths": [8, 0]}]}, 2), "'odd' lists of whole numbers"),
        ((ARCHITECTURES | {"odd": ["plain", {"widths": [8.5]}]}, 2), "'odd' lists of whole numbers"),
        ((ARCHITECTURES | {"odd": ["plain", {"widths": [10**9]}]}, 2), "'odd' lists of whole numbers"),
    ],
)
def test_architectures_that_decide_nothing_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        chapter.check_architectures(*given, 100)
