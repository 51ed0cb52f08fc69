"""The recipes of the feedforward inverters: one table, and what their rows have in common.

All glyph inverters share images, networks and schedule, so that only what a row names differs between them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from invkit import data
from invkit.classifiers import load_classifier
from invkit.ffi import train_inverter
from invkit.inverters import LogitInverter


def draw(name: str, n: int, chunk: int = 4000, size: int | None = None) -> Tensor:
    """n images (n, 3, S, S) of a data set's inverter split as uint8, drawn by chunks to spare memory."""
    parts = []
    for start in range(0, n, chunk):
        images = data.load(name, split="inverter", n=min(chunk, n - start), seed=start // chunk, size=size).images
        parts.append((images * 255).round().byte())
    return torch.cat(parts)


GLYPHS_GENERATOR = {  # 4.4 MB in half precision
    "channels": (128, 128, 96, 32), "hidden": 192, "shared_dim": 96, "coarse": 16, "coarse_hidden": 512,
}  # fmt: skip


def ffi_glyphs(
    folder: Path,
    seed: int = 0,
    scale: float = 1.0,
    *,
    classifier: str,
    world: str = "glyphs",
    objective: str = "hybrid",
    kind: str = "logits",
) -> LogitInverter:
    """An inverter of a classifier of glyphs, 32 pixels."""
    steps = max(2, round(500 * scale))
    return train_inverter(
        load_classifier(classifier),
        draw(world, max(256, round(300_000 * min(1.0, scale)))),
        objective=objective, kind=kind, steps=steps, batch=48, lr=5e-4, shrink=1e-3, coarse_steps=round(5000 * scale),
        generator=GLYPHS_GENERATOR, precision="bf16", folder=folder, seed=seed,
    )  # fmt: skip


def ffi_lite0_faces(folder: Path, seed: int = 0, scale: float = 1.0) -> LogitInverter:
    """Faces of 64 pixels from the 1000 ImageNet logits of lite0, which sees them enlarged to 224."""
    steps = max(2, round(1400 * scale))
    return train_inverter(
        load_classifier("lite0"),
        draw("faces", max(64, round(16_000 * min(1.0, scale)))),
        objective="hybrid", steps=steps, batch=48, shrink=0.3,
        generator={"shared_dim": 96, "hidden": 192, "logit_noise": 0.3}, precision="bf16", folder=folder, seed=seed,
    )  # fmt: skip


RECIPES: dict[str, Callable[..., LogitInverter]] = {
    "ffi-glyphs-standard": partial(ffi_glyphs, classifier="glyphs-standard-0"),
    "ffi-glyphs-robust": partial(ffi_glyphs, classifier="glyphs-robust-0"),
    "ffi-glyphs-early": partial(ffi_glyphs, classifier="glyphs-early-0"),
    "ffi-glyphs-plain": partial(ffi_glyphs, classifier="glyphs-plain-0"),
    "ffi-glyphs-onehot": partial(ffi_glyphs, classifier="glyphs-standard-0", kind="one-hot"),
    "ffi-glyphs-regression": partial(ffi_glyphs, classifier="glyphs-standard-0", objective="regression"),
    "ffi-glyphs-independent-standard": partial(
        ffi_glyphs, classifier="glyphs-independent-standard-0", world="glyphs:independent"
    ),
    "ffi-glyphs-independent-robust": partial(
        ffi_glyphs, classifier="glyphs-independent-robust-0", world="glyphs:independent"
    ),
    "ffi-lite0-faces": ffi_lite0_faces,
}
