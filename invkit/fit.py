"""Train an inverter of one's own classifier in a given number of minutes.

>>> inverter = invkit.train_inverter(classifier, minutes=10, folder="mine")  # zero-shot: no image is needed
>>> inverter = invkit.train_inverter(classifier, "folder:photos", minutes=10)  # of the logits, from images
>>> inverter.save("mine")

The settings are those of `recipes`, with the number of images and of steps fitted into the minutes (`invkit.minutes`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invkit import data
from invkit.data.images import Data
from invkit.dci import synthetic
from invkit.dci.chain import ChainLossWeights
from invkit.dci.invert import add_feedback, invert_classifier
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.training import Schedule
from invkit.ffi.invert import train_inverter as train_logit_inverter
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import pairs
from invkit.ffi.training import GeneratorLossWeights
from invkit.minutes import FEEDBACK, Budget
from invkit.network.classifiers import Classifier, load_classifier
from invkit.training import supervised

PIXELS = 2**17  # in a step of zero-shot training
POOL_BYTES = 2**30  # of synthetic images, at most


def train_inverter(
    classifier: Classifier | nn.Module | str,
    images: Tensor | Data | str | None = None,
    *,
    minutes: float = 10,
    depths: int | Sequence[int] | None = None,
    size: int | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> ClassifierInverter | LogitInverter:
    """Train an inverter of a classifier: of its blocks without any image, or of its logits from images.

    Args:
        classifier: the network to invert; an nn.Module is taken for `Classifier(module)`, a string for a name.
        images: None for an inverter of the blocks, trained on synthetic images (`invkit.dci`). For one of the logits,
            images that it was not trained on: a tensor (N, 3, S, S) of uint8 or of floats in
            [0, 1], or `Data`, or the name of a data set, as "folder:PATH", whose split "inverter" is taken.
        minutes: for all of it.
        depths: of the blocks to invert: the first so many, or several numbers, of which the largest decides how many
            inverses are trained; None for all whose output can be inverted. Not for logits.
        size: side of the reconstructions from logits in pixels, a power of two from 8; None for the largest up to 64.
        folder: for checkpoints; the same call goes on from there. None keeps none.
        seed: of everything random.
        precision: "auto", "bf16" or "no", as for `invkit.training.train`.
        progress: show how much time is left.

    Returns:
        A `ClassifierInverter` or a `LogitInverter`, with its weights rounded to half precision, as `save` keeps them.

    Raises:
        TypeError, ValueError: no classifier, no such depths or images, or settings that make no sense.
    """
    classifier = _classifier(classifier)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        place = Path(place) / "training"
        common = {"folder": place, "seed": seed, "precision": precision, "progress": False}
        if images is None:
            depth = _deepest(classifier, depths)
            budget = Budget(minutes, _shares(depth), place, progress=progress)
            with supervised(budget), closing(budget.bar):
                return _invert_blocks(classifier, depth, budget, common)
        budget = Budget(minutes, {"coarse": 0.15, "regression": 0.45, "adversary": 0.4}, place, progress=progress)
        with supervised(budget), closing(budget.bar):
            return _invert_logits(classifier, _images(images, classifier), size, budget, common)


def _classifier(classifier: Classifier | nn.Module | str) -> Classifier:
    if isinstance(classifier, Classifier):
        return classifier
    if isinstance(classifier, nn.Module):
        return Classifier(classifier, type(classifier).__name__)
    return load_classifier(classifier)


# ---- of the blocks ---------------------------------------------------------------------------------------------------


def _deepest(classifier: Classifier, depths: int | Sequence[int] | None) -> int:
    if depths is None:
        return max(block.depth for block in classifier.blocks if len(block.shape) == 3)
    return depths if isinstance(depths, int) else max(depths)


def _shares(depth: int) -> dict[str, float]:
    return {f"divide-{k:02d}": 0.2 / depth for k in range(1, depth + 1)} | {"synchronise": 0.8}


def _invert_blocks(classifier: Classifier, depth: int, budget: Budget, common: dict[str, Any]) -> ClassifierInverter:
    seed, side = common["seed"], min(2 * classifier.size, classifier.size + 96)
    make = partial(synthetic.draw_pool, size=side, seed=seed, device=classifier.device)
    pool = make(budget.amount("leaves", min(4096, POOL_BYTES // (3 * side**2)), make))
    count = max(4, min(24, PIXELS // classifier.size**2))
    schedule = Schedule(divide=60, synchronise=500, divide_lr=2e-3, synchronise_lr=1e-3)
    inverter = invert_classifier(
        classifier, pool, depth=depth, crops=lambda depth: (count, classifier.size), schedule=schedule,
        weights=ChainLossWeights(block=1, input=0, cycle=0),
        synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0), **common,
    )  # fmt: skip
    _round(inverter.chain)
    held_out = synthetic.dead_leaves(8, classifier.size, (seed + 2) * 100_003, device=classifier.device)
    n = budget.amount(
        "held-out", len(held_out), lambda n: add_feedback(inverter, held_out[:n], [depth], progress=False), few=1,
        share=FEEDBACK / depth, least=0,
    )  # fmt: skip
    inverter.card.pop("feedback", None)
    return add_feedback(inverter, held_out[:n], progress=False) if n else inverter


# ---- of the logits ---------------------------------------------------------------------------------------------------

WEIGHTS = GeneratorLossWeights(adversary=1.0, reading=1.0, squares=(1, 2, 4, 8))


def _images(images: Tensor | Data | str, classifier: Classifier) -> Tensor:
    if isinstance(images, str):
        images = data.load(images, split="inverter", size=classifier.size)
    return images.images if isinstance(images, Data) else images


def _invert_logits(
    classifier: Classifier, images: Tensor, size: int | None, budget: Budget, common: dict[str, Any]
) -> LogitInverter:
    size = size or 2 ** min(6, images.shape[-1].bit_length() - 1)
    n = budget.amount("logits", len(images), lambda n: pairs(classifier, images[:n]), few=min(64, len(images)))
    many = classifier.classes > 200
    generator = {"hidden": 96 if many else 192, "coarse": 16, "coarse_hidden": 192, "coarse_linear": not many,
                 "logit_noise": 0.3}  # fmt: skip
    inverter = train_logit_inverter(
        classifier, images[:n], size=size, steps=1000, batch=min(48, n), lr=5e-4, shrink=1.0 if many else 0.03,
        coarse_steps=1000, adversarial_share=0.5, adversarial_lr=5e-4, identify=0.06, generator=generator,
        weights=WEIGHTS, **common,
    )  # fmt: skip
    _round(inverter.generator)
    return inverter


@torch.no_grad()
def _round(network: nn.Module) -> None:
    """Round the weights to half precision, as they are kept, so that what is loaded gives the same numbers."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
