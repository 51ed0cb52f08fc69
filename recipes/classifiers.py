"""How each shipped classifier was trained: `python -m recipes train glyphs-robust-0 --folder FOLDER` runs one.

Of glyphs, in the informative world (three seeds) and the independent one:
- "standard": on the images as they are; "robust": fine-tuned from it on attacked images, L-infinity 8/255;
- "early": a standard run stopped as soon as it is about as accurate as the robust one, a control for accuracy;
- "plain": the standard schedule with another family of networks.
They all see the same images, and a robust or early one needs the shipped weights of the one that it is named after.

Of Tiny ImageNet, 64 pixels: "tiny-standard" and "tiny-robust", 4/255.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from invkit import data
from invkit.attacks import clean_accuracy, robust_accuracy
from invkit.data.images import as_bytes
from invkit.network.classifiers import Classifier, load_classifier
from invkit.seeds import generator_for
from recipes.adversarial_training import train_classifier

WORLDS = {"informative": "glyphs", "independent": "glyphs:independent"}
GLYPHS_EPSILON, TINY_EPSILON = 8 / 255, 4 / 255
POOL, BATCH = 80_000, 128
STANDARD_STEPS, ROBUST_STEPS = 1500, 1200
EARLY_MARGIN = 0.005  # how close to the robust one's accuracy an early one comes
TINY_STEPS = {"standard": 3000, "robust": 2000}
TINY_NETWORK = {"widths": (48, 96, 128), "blocks": (2, 2, 2)}  # a million numbers
HELD_OUT, VALIDATION = 1000, 2000  # images that the accuracies on a card are measured on


def glyphs(folder: Path, seed: int = 0, scale: float = 1.0, *, kind: str, world: str, number: int) -> Classifier:
    """A classifier of the 100 characters, 32 pixels. number: the last part of its name, added to the seed."""
    source, seed = WORLDS[world], number + seed
    prefix = "glyphs" if world == "informative" else f"glyphs-{world}"
    images, labels = glyph_pool(source, max(BATCH, round(POOL * min(1.0, scale))))
    validation = data.load(source, split="validation", n=VALIDATION)
    schedule = {"steps": max(2, round((ROBUST_STEPS if kind == "robust" else STANDARD_STEPS) * scale))}
    if kind == "robust":
        schedule |= {"start": load_classifier(f"{prefix}-standard-{number}"), "epsilon": GLYPHS_EPSILON, "lr": 2e-3}
    if kind == "early":
        target = load_classifier(f"{prefix}-robust-{number}").card["accuracy"]["validation"] - EARLY_MARGIN
        if scale >= 1:  # a rehearsal is too short to reach any accuracy
            schedule |= {"stop_at": (validation.images, validation.labels, target)}
    classifier = train_classifier(
        "plain" if kind == "plain" else "residual", shuffled_batches(images, labels, BATCH, seed),
        classes=100, size=32, folder=folder, seed=seed, precision="auto", name=f"{prefix}-{kind}-{number}", **schedule,
    )  # fmt: skip
    return _measure(classifier, source, validation, GLYPHS_EPSILON)


def tiny(folder: Path, seed: int = 0, scale: float = 1.0, *, kind: str) -> Classifier:
    """A classifier of Tiny ImageNet, however many of its classes there are, with flips and shifted crops."""
    images, labels = data.load_bytes("tiny-imagenet", split="train")
    validation = data.load("tiny-imagenet", split="validation")
    schedule = {"steps": max(2, round(TINY_STEPS[kind] * scale))}
    if kind == "robust":
        schedule |= {"start": load_classifier("tiny-standard"), "epsilon": TINY_EPSILON, "lr": 2e-3}
    classifier = train_classifier(
        "residual", shuffled_batches(images, labels, BATCH, seed, augment=True), options=TINY_NETWORK,
        classes=int(labels.max()) + 1, size=64, weight_decay=0.1, folder=folder, seed=seed, precision="auto",
        name=f"tiny-{kind}", **schedule,
    )  # fmt: skip
    return _measure(classifier, "tiny-imagenet", validation, TINY_EPSILON)


@cache
def glyph_pool(source: str, n: int, chunk: int = 4000) -> tuple[Tensor, Tensor]:
    """n training glyphs as bytes (n, 3, 32, 32) and their labels, drawn once a process."""
    parts = [
        data.load(source, split="train", n=min(chunk, n - start), seed=start // chunk) for start in range(0, n, chunk)
    ]
    return torch.cat([as_bytes(part.images) for part in parts]), torch.cat([p.labels for p in parts])


def shuffled_batches(
    images: Tensor, labels: Tensor, batch: int, seed: int, augment: bool = False
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """batches(step) for `train_classifier`: random rows; with `augment`, half of them flipped and all shifted by up to
    an eighth of the side, the edge repeated."""

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = generator_for(seed, step)
        rows = torch.randint(len(images), (batch,), generator=g)
        chosen = images[rows]
        if augment:
            side = chosen.shape[-1]
            shift = torch.randint(-(side // 8), side // 8 + 1, (batch, 2, 1), generator=g)
            y, x = (torch.arange(side) + shift).clamp(0, side - 1).unbind(1)
            x = torch.where(torch.rand(batch, 1, generator=g) < 0.5, x.flip(1), x)
            chosen = chosen[torch.arange(batch)[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        return chosen, labels[rows]

    return batches


def _measure(classifier: Classifier, source: str, validation: data.Data, epsilon: float) -> Classifier:
    """The classifier, its card saying what it reaches on the first test images and on the validation images."""
    test = data.load(source, split="test", n=HELD_OUT)

    def share(right: Tensor) -> float:
        return round(right.float().mean().item(), 4)

    classifier.card |= {
        "data": source,
        "accuracy": {
            "clean": share(clean_accuracy(classifier, test.images, test.labels)),
            "pgd20": share(robust_accuracy(classifier, test.images, test.labels, epsilon)),
            "validation": share(clean_accuracy(classifier, validation.images, validation.labels)),
            "epsilon": epsilon,
            "n": len(test),
        },
    }
    return classifier
