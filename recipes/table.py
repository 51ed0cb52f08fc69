"""The table of everything that is shipped: how each network was trained, on what, and under which licence.

    python -m recipes train NAME --folder FOLDER

A recipe is data plus one call. `train_recipe` runs the call of a name and keeps what it returns, whatever kind it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from invkit.arguments import check_minutes
from invkit.checks import check_seed
from invkit.store import as_path, folder_made, whole
from invkit.training import supervised
from recipes import classifiers, dci, ffi, imagenet
from recipes.factor_regressor import train_glyph_factor_regressor
from recipes.minutes import RecipeBudget

GLYPHS = "glyphs drawn from the fonts of matplotlib: DejaVu (Bitstream Vera licence), Computer Modern and STIX (OFL)"
FACES = "samples of the face generator in the wheel gan-face-generate (MIT)"
TINY = "Tiny ImageNet (Stanford CS231n), photos of ImageNet: for research and education, not commercial"
IMAGENET = "ImageNet-1k: for research and education, not commercial"
SYNTHETIC = "synthetic images and latents alone, free of rights"
MOST_SCALE = 1000  # some draw as many times the images


class Trainable(Protocol):
    """What every recipe returns: a trained network that says how it was made and knows how to save itself."""

    card: dict

    def save(self, folder: Path) -> dict:
        """Write weights and card into a folder, from which the package can load them; returns the card."""


@dataclass(frozen=True)
class Recipe:
    """How one shipped network is trained.

    Attributes:
        train: train(folder, seed, scale) -> the network. Checkpoints go into the folder; a stopped call goes on from
            there. scale is the share of the published steps (and, below 1, of the images).
        data: name of the data set that it is trained and measured on (`invkit.data`); "synthetic" for computed images.
        licence: of these data.
        needs: names of the networks whose weights it loads: the classifier that it inverts, or starts from.
        shares: of its minutes, of every phase of training by its folder, for a training of given length: the published
            steps times the relative cost of a step. Without them there is none.
    """

    train: Callable[..., Trainable]
    data: str
    licence: str
    needs: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)


def _glyph_classifier(kind: str, number: int, world: str = "informative", needs: tuple[str, ...] = ()) -> Recipe:
    train = partial(classifiers.glyphs, kind=kind, world=world, number=number)
    return Recipe(train, classifiers.WORLDS[world], GLYPHS, needs)


# Of the minutes of an inverter of glyphs: as most are trained, without an adversary, and with few steps.
USUAL, REGRESSION = ffi.generator_shares(0.13, 0.39, 0.48), ffi.generator_shares(0.18, 0.82)
BRIEF = ffi.generator_shares(0.48, 0.41, 0.11)


def _glyph_inverter(classifier: str, world: str = "glyphs", shares: dict = USUAL, **options) -> Recipe:
    train = partial(ffi.ffi_glyphs, classifier=classifier, world=world, **options)
    return Recipe(train, world, GLYPHS, (classifier, *options.get("consistent", ffi.CONSISTENT)), shares)


def _photo_inverter(classifier: str, needs: tuple[str, ...], **options) -> Recipe:
    train = partial(ffi.ffi_tiny, classifier=classifier, **options)
    return Recipe(train, "tiny-imagenet", TINY, needs, ffi.generator_shares(0.05, 0.1, 0.85))


def _small_zero_shot(classifier: str) -> Recipe:
    train = partial(dci.dci_small, classifier=classifier)
    return Recipe(train, "synthetic", SYNTHETIC, (classifier,), dci.chain_shares(8, 0.2, 0.8))


def _network(classifier: str, **settings) -> Recipe:
    train = partial(dci.dci_network, classifier=classifier, **settings)
    return Recipe(train, "synthetic", SYNTHETIC, shares={"divide": 0.2, "synchronise": 0.8})


RECIPES: dict[str, Recipe] = {
    # zero-shot inverters of every block
    "dci-facegan": Recipe(dci.dci_facegan, "synthetic", SYNTHETIC),
    "dci-lite0": Recipe(
        dci.dci_lite0, "synthetic", SYNTHETIC, shares=dci.chain_shares(18, 0.15, 0.4, shallow=0.25, deep=0.2)
    ),
    "dci-resnet50-thin": _network("resnet50-thin", depth=14, divide=300, synchronise=2000),
    "dci-squeezenet": _network("squeezenet", depth=17, divide=300, synchronise=2000),
    "dci-tiny-standard": _small_zero_shot("tiny-standard"),
    "dci-tiny-robust": _small_zero_shot("tiny-robust"),
    # feedforward inverters of logits
    "ffi-glyphs-standard": _glyph_inverter("glyphs-standard-0"),
    "ffi-glyphs-standard-seed-1": _glyph_inverter("glyphs-standard-0", again=1),
    "ffi-glyphs-robust": _glyph_inverter("glyphs-robust-0"),
    "ffi-glyphs-early": _glyph_inverter("glyphs-early-0"),
    "ffi-glyphs-plain": _glyph_inverter("glyphs-plain-0"),
    "ffi-glyphs-onehot": _glyph_inverter("glyphs-standard-0", kind="one-hot"),
    "ffi-glyphs-regression": _glyph_inverter("glyphs-standard-0", shares=REGRESSION, objective="regression"),
    "ffi-glyphs-independent-standard": _glyph_inverter(
        "glyphs-independent-standard-0", "glyphs:independent", BRIEF, **ffi.INDEPENDENT
    ),
    "ffi-glyphs-independent-robust": _glyph_inverter(
        "glyphs-independent-robust-0", "glyphs:independent", BRIEF, **ffi.INDEPENDENT
    ),
    "ffi-lite0-faces": Recipe(ffi.ffi_lite0_faces, "faces", FACES, shares=ffi.generator_shares(0.2, 0.6, 0.2)),
    "ffi-lite0-tiny": _photo_inverter("lite0", ()),
    "ffi-tiny-standard": _photo_inverter("tiny-standard", ("tiny-standard",)),
    "ffi-tiny-robust": _photo_inverter("tiny-robust", ("tiny-robust",)),
    "ffi-tiny-onehot": _photo_inverter("tiny-standard", ("tiny-standard",), kind="one-hot"),
    "ffi-tiny-adversarial": Recipe(
        partial(ffi.ffi_tiny_adversarial, classifier="tiny-standard"),
        "tiny-imagenet",
        TINY,
        ("tiny-standard",),
        ffi.generator_shares(0.0, 0.0, 1.0),
    ),
    # classifiers
    **{f"glyphs-standard-{n}": _glyph_classifier("standard", n) for n in range(3)},
    **{f"glyphs-robust-{n}": _glyph_classifier("robust", n, needs=(f"glyphs-standard-{n}",)) for n in range(3)},
    **{f"glyphs-early-{n}": _glyph_classifier("early", n, needs=(f"glyphs-robust-{n}",)) for n in range(3)},
    **{f"glyphs-plain-{n}": _glyph_classifier("plain", n) for n in range(3)},
    "glyphs-independent-standard-0": _glyph_classifier("standard", 0, "independent"),
    "glyphs-independent-robust-0": _glyph_classifier(
        "robust", 0, "independent", needs=("glyphs-independent-standard-0",)
    ),
    "tiny-standard": Recipe(partial(classifiers.tiny, kind="standard"), "tiny-imagenet", TINY),
    "tiny-robust": Recipe(partial(classifiers.tiny, kind="robust"), "tiny-imagenet", TINY, ("tiny-standard",)),
    # the instrument of the invariance profile
    "glyphs-reader": Recipe(train_glyph_factor_regressor, "glyphs:independent", GLYPHS),
    # the papers' scale
    **{
        name: Recipe(partial(imagenet.invert_logits, plan=plan), "imagenet", IMAGENET)
        for name, plan in imagenet.LOGIT_PLANS.items()
    },
    **{
        name: Recipe(partial(imagenet.invert_blocks, plan=plan), "synthetic", SYNTHETIC)
        for name, plan in imagenet.BLOCK_PLANS.items()
    },
}


def names() -> list[str]:
    """Names that `train_recipe` knows."""
    return sorted(RECIPES)


def needs(name: str) -> list[str]:
    """Names of the recipes whose weights this one loads.

    They are loaded from `store.weights_folder()`: the shipped ones, or those in the folder INVKIT_WEIGHTS. Raises
    ValueError for an unknown name.
    """
    return list(_recipe(name).needs)


def train_recipe(
    name: str, folder: str | Path, seed: int = 0, scale: float = 1.0, *, device: str | None = None,
    minutes: float | None = None,
) -> dict:  # fmt: skip
    """Train what is shipped by this name from nothing, keep it in a folder and return its card.

    Args:
        name: one of `names()`.
        folder: gets the weights and the card; checkpoints lie in `folder`/training, and a stopped run goes on there.
        seed: of everything random.
        scale: share of the published number of steps, 1 for all of them. Inverters trained in full are measured, and
            the figures stand on their card.
        device: "cpu", "cuda", or None for a GPU where there is one.
        minutes: instead of a scale, how long all of it may take (`invkit.minutes`). The weights are then written a
            first time when a third of it has passed, and `folder`/pace.json says how fast each phase was.

    Raises:
        ValueError: an unknown name, a scale that leaves no step, a device that is not there, or minutes for a recipe
            that cannot be trained by the clock.
    """
    recipe, folder = _recipe(name), as_path(folder)
    if not isinstance(scale, int | float) or not 0 < scale <= MOST_SCALE:
        raise ValueError(f"scale, a share of the published steps, must be above 0, {MOST_SCALE} at most, not {scale}.")
    check_seed(seed)
    if minutes is not None:
        check_minutes(minutes)
        if not recipe.shares:
            able = ", ".join(one for one in names() if RECIPES[one].shares)
            raise ValueError(f"{name} cannot be trained for a number of minutes; these can: {able}.")
    device = _device(device)
    length = f"--scale {scale:g}" if minutes is None else f"--device {device} --minutes {minutes:g}"
    facts = {
        "name": name,
        "command": f"python -m recipes train {name} --folder FOLDER --seed {seed} {length}",
        "data": recipe.data,
        "licence": recipe.licence,
    }
    options = {"device": device} if name.startswith(("dci-", "ffi-")) and name not in imagenet.PLANS else {}
    folder_made(folder)  # before images are drawn for minutes
    if minutes is not None:
        return _train_by_the_clock(recipe, folder, seed, minutes, facts, options)
    trained = recipe.train(folder / "training", seed, scale, **options)
    trained.card |= facts
    if int(os.environ.get("RANK", 0)):  # under `accelerate launch` the first process writes
        return trained.card
    if scale == 1:
        from recipes import cards  # what measuring needs is not imported by a training alone

        cards.add_figures(trained)
    return trained.save(folder)


def _train_by_the_clock(
    recipe: Recipe, folder: Path, seed: int, minutes: float, facts: dict, options: dict
) -> dict:  # fmt: skip
    def keep(early: Trainable) -> None:
        early.card |= facts | {"early": True}
        early.save(folder)

    budget = RecipeBudget(minutes, recipe.shares, folder / "training", keep=keep)
    with supervised(budget):
        trained = recipe.train(folder / "training", seed, 1.0, budget=budget, **options)
    pace = budget.pace(options["device"])
    trained.card |= facts | {"device": pace["device"], "minutes": minutes}
    card = trained.save(folder)
    with whole(folder / "pace.json") as file:
        file.write_text(json.dumps(pace, indent=2) + "\n", encoding="utf-8")
    return card


def _device(device: str | None) -> str:
    """ "cpu" or "cuda", which Accelerate is then told too."""
    there = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in (None, "cpu", there):
        raise ValueError(f"There is no device {device!r} here: choose from {', '.join(sorted({'cpu', there}))}.")
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif there == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches have one of a few shapes
        torch.backends.cudnn.allow_tf32 = False  # what is in float32 is meant so; the rest is in bfloat16
    return device or there


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}: choose from {', '.join(names())}.")
    return RECIPES[name]
