"""The recipes' order: which weights each one loads, and that one misses them rather than take others."""

import json
import math

import pytest
import torch

from invkit import data, store
from invkit.inverters import load_inverter
from recipes import cards, classifiers, dci, factor_regressor, ffi, imagenet, table


class Loaded(Exception):
    """The name of a network that a recipe loads."""


@pytest.mark.parametrize("name", sorted(set(table.names()) - set(imagenet.PLANS)))
def test_a_recipe_needs_what_it_loads(name, tmp_path, monkeypatch):
    """Each runs up to the first network that it loads, or the training of one of its own."""

    def load(loaded, *_, **__):
        raise Loaded(loaded)

    for module in (dci, ffi, classifiers):
        monkeypatch.setattr(module, "load_classifier", load)
    monkeypatch.setattr(dci, "load_generator", load)
    monkeypatch.setattr(classifiers, "train_classifier", lambda *_, **__: load("nothing"))
    monkeypatch.setattr(factor_regressor, "train_factor_regressor", lambda *_, **__: load("nothing"))
    few = data.load("glyphs", n=2)
    monkeypatch.setattr(data, "load", lambda *_, **__: few)
    monkeypatch.setattr(data, "load_bytes", lambda *_, **__: (few.images, few.labels))
    monkeypatch.setattr(classifiers, "glyph_pool", lambda *_: (few.images, few.labels))
    with pytest.raises(Loaded) as loaded:
        table.RECIPES[name].train(tmp_path, 0, 1e-3)
    other = str(loaded.value)
    first, *more = [*table.needs(name), None]
    assert first == (other if other in table.names() else None)
    glyphs = name.startswith("ffi-glyphs-") and "independent" not in name
    consistent = ffi.CONSISTENT if glyphs else ()
    assert [one for one in more if one] == list(consistent)


def test_the_papers_scale_needs_nothing_trained_here_and_unknown_names_are_refused():
    assert not any(table.needs(name) for name in imagenet.PLANS)
    with pytest.raises(ValueError, match="Unknown recipe 'nothing'"):
        table.needs("nothing")


def test_every_shipped_name_has_its_recipe():
    assert set(store.recorded()) <= set(table.names())


def test_a_network_is_trained_by_name_and_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path))
    saves = []
    save = store.save
    monkeypatch.setattr(
        store, "save", lambda folder, *rest, **more: saves.append(folder) or save(folder, *rest, **more)
    )
    card = table.train_recipe("glyphs-reader", tmp_path / "glyphs-reader", seed=2, scale=0.001)
    assert saves == [tmp_path / "glyphs-reader"]
    assert (card["steps"], card["seed"], card["method"], card["data"]) == (2, 2, "reader", "glyphs:independent")
    assert "train glyphs-reader" in card["command"] and card["licence"] == table.GLYPHS
    kept = factor_regressor.load_factor_regressor("glyphs-reader")
    assert kept.card == card == json.loads((tmp_path / "glyphs-reader/card.json").read_text())


class OneWeight:
    """A trained network of no kind that the package knows: what `train` asks of one is a card and `save`."""

    def __init__(self, folder, seed, scale):
        self.card = {"steps": round(100 * scale), "seed": seed}

    def save(self, folder):
        return store.save(folder, {"weight": torch.ones(1)}, self.card)


def test_whatever_has_a_card_and_a_save_can_be_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(table.RECIPES, "mine", table.Recipe(OneWeight, "folder:here", "mine alone"))
    card = table.train_recipe("mine", tmp_path / "mine", seed=3)
    assert (card["data"], card["licence"], card["steps"], card["seed"]) == ("folder:here", "mine alone", 100, 3)
    assert store.load(tmp_path / "mine")[1] == card


def test_figures_on_the_card_of_a_full_training_are_those_of_the_file(tmp_path, monkeypatch):
    """Weights are stored in half precision: what is measured before they are written is what a reader of them gets."""
    monkeypatch.setattr(cards, "HELD_OUT", 40)

    def train(folder, seed, scale):
        inverter = load_inverter("ffi-glyphs-standard")
        with torch.no_grad():
            for parameter in inverter.generator.parameters():
                parameter.mul_(1.0003)  # numbers that half precision has not
        return inverter

    monkeypatch.setitem(table.RECIPES, "mine", table.Recipe(train, "glyphs", table.GLYPHS))
    card = table.train_recipe("mine", tmp_path / "mine")
    assert cards.figures(load_inverter(tmp_path / "mine"), "glyphs") == card["metrics"]


@pytest.mark.parametrize("world", ["glyphs", "glyphs-independent", "tiny"])
def test_inverters_that_are_compared_were_trained_alike(world):
    """Those of other classifiers, and those told the class alone or left without an adversary: they differ in that.

    The one that the adversary alone trained differs in its objective, and with it in all of its training.
    """
    names = [name for name in store.recorded() if name.startswith(f"ffi-{world}-") and "adversarial" not in name]
    names = [name for name in names if ("independent" in name) == ("independent" in world)]
    cards = [json.loads((store.weights_folder() / name / store.CARD).read_text()) for name in names]
    for name, card in zip(names, cards, strict=True):
        card["training"].pop("logits_precision", None)  # "no" on cards of a time when it could be another
        card["seed"] -= name.endswith("seed-1")
    alike = ("training", "consistent", "images", "views", "batch", "steps", "seed", "size", "numbers")
    settings = {name: [card.get(key) for key in alike] for name, card in zip(names, cards, strict=True)}
    alone = "independent" in world  # there only two classifiers are compared, with each other
    assert len(names) >= (2 if alone else 3) and (alone or f"ffi-{world}-onehot" in names)
    assert all(setting == settings[names[0]] for setting in settings.values())
    kinds = {name: (card["kind"], card["objective"]) for name, card in zip(names, cards, strict=True)}
    special = {f"ffi-{world}-onehot": ("one-hot", "hybrid"), f"ffi-{world}-regression": ("logits", "regression")}
    assert kinds == {name: special.get(name, ("logits", "hybrid")) for name in names}
    identify = ffi.IDENTIFY_PHOTOS if world == "tiny" else ffi.IDENTIFY
    assert cards[0]["training"]["identify"] == identify


def test_the_adversary_alone_has_no_other_term_and_the_same_photos():
    folder = store.weights_folder()
    alone, hybrid = (
        json.loads((folder / f"ffi-tiny-{name}" / store.CARD).read_text()) for name in ("adversarial", "standard")
    )
    assert (alone["kind"], alone["objective"], alone["failure"]) == ("logits", "adversarial", None)
    assert not {"coarse", "logit_noise"} & alone["training"]["generator"].keys()
    assert not {"identify", "pixel", "reading"} & alone["training"].keys()
    same = ("network", "images", "views", "batch", "size", "source_size", "seed")
    assert [alone[key] for key in same] == [hybrid[key] for key in same]


def test_unknown_names_and_scales_that_leave_no_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match="choose from dci-facegan"):
        table.train_recipe("nope", tmp_path)
    (tmp_path / "file").touch()
    for wrong, words in (
        *(
            ({"scale": scale}, "must be above 0, 1000 at most")
            for scale in (0, -1, float("nan"), float("inf"), 1e6, "a")
        ),
        *(({"seed": seed}, "seed must be") for seed in (-1, 1.5, 10**40)),
        *(({"minutes": minutes}, "minutes must be above 0") for minutes in (0, -1, math.nan, math.inf)),
        ({"minutes": "ten"}, "minutes is a number"),
        ({"folder": 5}, "int is no name or path"),
        ({"folder": tmp_path / "file"}, "is a file, or lies in one: name a folder"),
        ({"folder": "/proc/x"}, "/proc/x cannot be made"),
        ({"folder": "a" * 5000}, "is no path"),
    ):
        with pytest.raises((ValueError, TypeError, OSError), match=words):
            table.train_recipe("dci-lite0", **{"folder": tmp_path / "out"} | wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
