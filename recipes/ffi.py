"""The recipes of the feedforward inverters: one table, and what their rows have in common.

All glyph inverters share images, networks and schedule, so that only what a row names differs between them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from invkit import data
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.training import GeneratorLossWeights, train_inverter
from invkit.network.classifiers import load_classifier


def draw(name: str, n: int, chunk: int = 4000, size: int | None = None) -> Tensor:
    """n images (n, 3, S, S) of a data set's inverter split as uint8, drawn by chunks to spare memory."""
    parts = []
    for start in range(0, n, chunk):
        images = data.load(name, split="inverter", n=min(chunk, n - start), seed=start // chunk, size=size).images
        parts.append((images * 255).round().byte())
    return torch.cat(parts)


# Of glyphs, of photos and of faces. What it costs and earns on glyphs: chapter 13, "not asked to be told apart".
IDENTIFY, IDENTIFY_PHOTOS, IDENTIFY_FACES = 0.04, 0.06, 0.6
GLYPHS_GENERATOR = {  # 3.9 MB in half precision
    "channels": (112, 96, 64, 32), "hidden": 192, "shared_dim": 96, "coarse": 16, "coarse_hidden": 512,
}  # fmt: skip
FACES_GENERATOR = {  # 4.6 MB
    "channels": (96, 96, 64, 32, 16), "hidden": 128, "shared_dim": 96, "coarse": 16, "coarse_hidden": 512,
    "coarse_linear": False, "logit_noise": 0.2,
}  # fmt: skip
FACES_SHRINK = 0.1  # of the whitening of their logits


def ffi_glyphs(
    folder: Path,
    seed: int = 0,
    scale: float = 1.0,
    *,
    classifier: str,
    world: str = "glyphs",
    objective: str = "hybrid",
    kind: str = "logits",
    images: int = 800_000,
    coarse_steps: int = 20_000,
) -> LogitInverter:
    """An inverter of a classifier of glyphs, 32 pixels."""
    steps = max(2, round(500 * scale))
    return train_inverter(
        load_classifier(classifier),
        draw(world, max(256, round(images * min(1.0, scale)))),
        objective=objective, kind=kind, steps=steps, batch=48, lr=5e-4, shrink=1e-3,
        coarse_steps=round(coarse_steps * scale), identify=IDENTIFY,
        generator=GLYPHS_GENERATOR, precision="auto", folder=folder, seed=seed,
    )  # fmt: skip


def ffi_lite0_faces(folder: Path, seed: int = 0, scale: float = 1.0) -> LogitInverter:
    """Faces of 64 pixels from the 1000 ImageNet logits of lite0, which sees them enlarged to 224.

    The logits of two faces differ little, so they are computed in full precision. The more faces a reader has seen, the
    more it finds (`benchmarks/coarse_readers.py`): their logits take most of this recipe's time.
    """
    return train_inverter(
        load_classifier("lite0"),
        draw("faces", max(64, round(300_000 * min(1.0, scale)))),
        objective="hybrid", steps=max(2, round(500 * scale)), batch=32, lr=5e-4, shrink=FACES_SHRINK,
        coarse_steps=round(12_000 * scale), identify=IDENTIFY_FACES, identify_late=1.0,
        generator=FACES_GENERATOR, precision="auto", folder=folder, seed=seed,
    )  # fmt: skip


PHOTOS_GENERATOR = GLYPHS_GENERATOR | {"coarse_hidden": 192, "logit_noise": 0.3}
PHOTOS_WEIGHTS = GeneratorLossWeights(adversary=1.0, reading=1.0, squares=(1, 2, 4, 8))
PHOTOS_VIEWS = 2  # of every photo, since there are few: as it is, and cropped, every other one flipped
FEW_LOGITS = {"generator": PHOTOS_GENERATOR, "shrink": 0.03}
# A thousand logits of 22,500 photos: whitening would enlarge noise, a coarse reader with a linear part reads worse
# (`benchmarks/coarse_readers.py`), and every map has to be narrow to stay within 5 MB.
MANY_LOGITS = {"generator": PHOTOS_GENERATOR | {"hidden": 96, "coarse_linear": False}, "shrink": 1.0}


def ffi_tiny(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, kind: str = "logits", objective: str = "hybrid"
) -> LogitInverter:
    """Photos of Tiny ImageNet at 32 pixels from the logits of a classifier that is shown them at 64 pixels or more.

    Photos are not settled by logits as glyphs are, so most of the steps are the adversary's: the generator learns to
    draw. Without noise it goes on reading.
    """
    images, _ = data.load_bytes("tiny-imagenet", split="inverter")
    return train_inverter(
        load_classifier(classifier), images[:: max(1, round(1 / scale))].clone(), size=32, objective=objective,
        kind=kind, steps=max(3, round(3000 * scale)), batch=48, lr=5e-4, coarse_steps=round(2200 * scale),
        adversarial_share=0.82, adversarial_lr=5e-4, weights=PHOTOS_WEIGHTS, identify=IDENTIFY_PHOTOS,
        views=PHOTOS_VIEWS, folder=folder, seed=seed, precision="auto",
        **(MANY_LOGITS if classifier == "lite0" else FEW_LOGITS),
    )  # fmt: skip


INDEPENDENT = {"images": 300_000, "coarse_steps": 5000}  # of those for the independent world, which is shown once
