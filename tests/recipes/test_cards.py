"""Cards say what was trained on, under which licence, and what it reaches."""

import json
import shutil

import pytest

from invkit import store
from recipes import cards, table

CARDS = {name: json.loads((store.weights_folder() / name / store.CARD).read_text()) for name in store.recorded()}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_data_licence_and_figures(name):
    card, recipe = CARDS[name], table.RECIPES[name]
    assert (card["data"], card["licence"]) == (recipe.data, recipe.licence)
    if "network" in card:
        assert all(
            low <= figure["value"] <= high for figure in card["metrics"].values() for low, high in [figure["ci95"]]
        )
        assert name in card["command"]


def copied(shipped, folder, **changes):
    """The shipped weights of this name in another folder, with another card; None takes a key away."""
    shutil.copytree(store.find(shipped), folder)
    card = CARDS[shipped] | changes
    store.save_card(folder, {key: value for key, value in card.items() if value is not None})
    return folder


def test_measuring_writes_the_figures_on_the_card(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "HELD_OUT", 60)
    folder = copied("ffi-glyphs-standard", tmp_path / "mine", metrics=None)
    figures = cards.measure_inverter(folder)
    assert figures["psnr"]["n"] == 60
    assert figures["psnr"]["value"] > figures["psnr_of_the_mean_image"]["value"]
    assert json.loads((folder / store.CARD).read_text())["metrics"] == figures
    store.load(folder)  # the card still fits its weights


@pytest.mark.parametrize("name", ["my-faces-v3", "ffi-tiny-mine"])
def test_nothing_is_guessed_from_the_name_of_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cards, "HELD_OUT", 60)
    folder = copied("ffi-glyphs-standard", tmp_path / name, data=None, licence=None, name=None, metrics=None)
    with pytest.raises(ValueError, match='add "data" to it, or pass --data NAME'):
        cards.measure_inverter(folder)
    assert "data" not in json.loads((folder / store.CARD).read_text())
    cards.measure_inverter(folder, "glyphs")
    card = json.loads((folder / store.CARD).read_text())
    assert card["data"] == "glyphs" and "licence" not in card and "name" not in card


def test_comparing_sets_figures_side_by_side(tmp_path, monkeypatch):
    def card(folder, name, **facts):
        (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name / store.CARD).write_text(json.dumps(facts))

    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path / "weights"))
    card("weights", "dci-small", metrics={"psnr": {"value": 20, "ci95": [19, 21], "unit": "dB", "n": 9}})
    card("weights", "glyphs", accuracy={"clean": 0.99, "pgd20": 0.5, "validation": 0.98, "epsilon": 0.03, "n": 9})
    card("weights", "not-again", accuracy={"clean": 0.99})
    (tmp_path / "again").mkdir()
    with pytest.raises(FileNotFoundError, match="no weights of a shipped name"):
        cards.compare_with_shipped(tmp_path / "again")
    card("again", "dci-small", method="dci")
    card("again", "glyphs", accuracy={"clean": 0.9, "pgd20": 0.25})
    card("again", "not-shipped", accuracy={"clean": 0.9})
    assert cards.compare_with_shipped(tmp_path / "again") == [
        ("dci-small", "psnr", "20.00 (19.00 to 21.00) dB", "-"),
        ("glyphs", "accuracy, clean", "0.990", "0.900"),
        ("glyphs", "accuracy, pgd20", "0.500", "0.250"),
        ("glyphs", "accuracy, validation", "0.980", "-"),
    ]
