"""Cards say what was trained on, under which licence, and what it reaches."""

import json
import shutil

import pytest

from invkit import cards, recipes, store

CARDS = {name: json.loads((store.weights_folder() / name / store.CARD).read_text()) for name in store.shipped()}


@pytest.mark.parametrize("name", recipes.names())
def test_the_data_of_every_recipe_have_a_licence(name):
    assert cards.data_of(name) in cards.LICENCES


def test_data_are_told_by_the_name():
    assert cards.data_of("ffi-lite0-tiny") == "tiny-imagenet"
    assert cards.data_of("ffi-lite0-faces") == "faces"
    assert cards.data_of("glyphs-independent-robust-0") == "glyphs:independent"
    assert cards.data_of("dci-tiny-robust") == "synthetic"
    with pytest.raises(ValueError, match="add its data to the table"):
        cards.data_of("mine")


@pytest.mark.parametrize("name", CARDS)
def test_a_shipped_card_says_data_licence_and_figures(name):
    card = CARDS[name]
    assert card["data"] == cards.data_of(name) and card["licence"] == cards.LICENCES[card["data"]]
    if "network" in card:
        assert all(
            low <= figure["value"] <= high for figure in card["metrics"].values() for low, high in [figure["ci95"]]
        )
        assert name in card["command"]


def test_measuring_writes_the_figures_on_the_card(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "HELD_OUT", 60)
    folder = tmp_path / "ffi-glyphs-standard"
    shutil.copytree(store.find("ffi-glyphs-standard"), folder)
    figures = cards.measure(folder)
    assert figures["psnr"]["n"] == 60
    assert figures["psnr"]["value"] > figures["psnr_of_the_mean_image"]["value"]
    assert json.loads((folder / store.CARD).read_text())["metrics"] == figures
    store.load(folder)  # the card still fits its weights
