"""How all that is shipped was trained, exactly: `python -m invkit train NAME --folder FOLDER` runs one recipe.

`invert_classifier` and `invert_generator` are the two ways to train a divide-and-conquer inverter of one's own,
`ffi.train_inverter` trains a feedforward inverter of logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from invkit import store
from invkit.attacks import save_classifier
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from recipes import cards, classifiers, ffi, imagenet
from recipes.dci import dci_facegan, dci_lite0, dci_small
from recipes.factor_regressor import FactorRegressor, train_glyph_factor_regressor


def glyphs_reader(folder: Path, seed: int = 0, scale: float = 1.0) -> FactorRegressor:
    """The reader of glyphs' factors that judges invariances (`factors.train_glyph_factor_regressor`); it inverts nothing."""
    reader = train_glyph_factor_regressor(folder, seed, scale)
    reader.card = store.load(folder)[1]
    return reader


Recipe = Callable[..., ClassifierInverter | GeneratorInverter | LogitInverter | Classifier | FactorRegressor]
RECIPES: dict[str, Recipe] = {
    "dci-facegan": dci_facegan,
    "dci-lite0": dci_lite0,
    **{f"dci-tiny-{kind}": partial(dci_small, classifier=f"tiny-{kind}") for kind in ("standard", "robust")},
    **ffi.RECIPES,
    **classifiers.RECIPES,
    **imagenet.RECIPES,
    "glyphs-reader": glyphs_reader,
}


def names() -> list[str]:
    """Names that `train` knows."""
    return sorted(RECIPES)


def needs(name: str) -> list[str]:
    """Names of the recipes whose weights this one loads: the classifier that it inverts, starts from or is matched to.

    They are loaded from `store.weights_folder()`: the shipped ones, or those in the folder INVKIT_WEIGHTS. Raises
    ValueError for an unknown name.
    """
    given = getattr(_recipe(name), "keywords", {})  # of the table's partial
    kind = given.get("kind")
    before = {"robust": "standard", "early": "robust"}.get(kind)  # of classifiers; kinds of inverters are others
    others = [given.get("classifier"), name.replace(kind, before) if before else None]
    return [other for other in others if other in RECIPES]


def train(name: str, folder: str | Path, seed: int = 0, scale: float = 1.0) -> dict:
    """Train what is shipped by this name from nothing into `folder` (checkpoints: `folder`/training); returns its card.

    scale: share of the published number of steps, 1 for all of them. A stopped run goes on where it was.

    Raises:
        ValueError: an unknown name or a scale that leaves no step.
    """
    recipe = _recipe(name)
    if not scale > 0:
        raise ValueError(f"scale is a share of the published steps and must be above 0, not {scale}.")
    folder = Path(folder)
    trained = recipe(folder / "training", seed, scale)
    if int(os.environ.get("RANK", 0)):  # under `accelerate launch` the first process writes
        return trained.card
    command = f"python -m invkit train {name} --folder FOLDER --seed {seed} --scale {scale:g}"
    card = cards.complete(trained.card | {"name": name, "command": command})
    if isinstance(trained, Classifier):
        return save_classifier(folder, trained, **card)
    if isinstance(trained, FactorRegressor):
        return store.save(folder, trained.state_dict(), card, half=True)
    network = trained.generator if isinstance(trained, LogitInverter) else trained.chain
    store.save(folder, network.state_dict(), card, half=True)
    return card | {"metrics": cards.measure(folder)} if scale == 1 else card


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}: choose from {', '.join(names())}.")
    return RECIPES[name]
