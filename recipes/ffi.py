"""The recipes of the feedforward inverters of logits, and what they have in common.

All glyph inverters share images, networks and schedule, so that only what the table (`recipes.table`) names differs
between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from invkit import data
from invkit.data import glyphs
from invkit.data.images import as_bytes
from invkit.data.sources import STREAMS
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.invert import finish_generator, train_inverter
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import pairs
from invkit.ffi.training import GeneratorLossWeights
from invkit.network.classifiers import Classifier, load_classifier
from invkit.training import Progress
from recipes.minutes import RecipeBudget


def teaching_images(name: str, n: int, chunk: int = 4000, size: int | None = None, device: str = "cpu") -> Tensor:
    """n images (n, 3, S, S) of a data set's inverter split as uint8, computed by chunks to spare memory.

    Glyphs are rendered on `device` and stay there; all other images are on the CPU.
    """
    source, _, world = name.partition(":")
    parts = []
    for start in range(0, n, chunk):
        count, seed = min(chunk, n - start), start // chunk
        if source == "glyphs" and device != "cpu":
            world, seed = world or "informative", seed + STREAMS["inverter"]
            images = glyphs.draw(count, seed, world, size=size or 32, device=device).images
        else:
            images = data.load(name, split="inverter", n=count, seed=seed, size=size).images
        parts.append(as_bytes(images))
    return torch.cat(parts)


# On a GPU a step has four times the images: with fewer, the GPU would wait for the CPU.
BATCHES = {"cpu": 1, "cuda": 4}
# Glyphs, photographs and faces. What it costs and earns on glyphs: chapter 13, "not asked to be told apart".
IDENTIFY, IDENTIFY_PHOTOS, IDENTIFY_FACES = 0.04, 0.06, 0.6
GLYPHS_GENERATOR = {  # 3.9 MB in half precision
    "channels": (112, 96, 64, 32), "hidden": 192, "shared_dim": 96, "coarse": 16, "coarse_hidden": 512,
}  # fmt: skip
FACES_GENERATOR = {  # 4.6 MB
    "channels": (96, 96, 64, 32, 16), "hidden": 128, "shared_dim": 96, "coarse": 16, "coarse_hidden": 512,
    "coarse_linear": False, "logit_noise": 0.2,
}  # fmt: skip
FACES_SHRINK = 0.1  # of the whitening of their logits
# Two networks besides the inverted one that should see in a reconstruction what they saw in the image: another seed and
# another architecture. The judges of the chapters are none of the three.
CONSISTENT = ("glyphs-standard-1", "glyphs-plain-1")
# Of those for the independent world, which is shown once: an eighteenth of the steps, and no networks but their own.
INDEPENDENT = {"images": 300_000, "coarse_steps": 5000, "steps": 500, "adversarial_share": 0.1, "consistent": ()}


def ffi_glyphs(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, world: str = "glyphs",
    objective: str = "hybrid", kind: str = "logits", images: int = 432_000, coarse_steps: int = 20_000,
    steps: int = 9000, adversarial_share: float = 0.34, consistent: Sequence[str] = CONSISTENT,
    again: int = 0, device: str = "cpu", budget: RecipeBudget | None = None,
) -> LogitInverter:  # fmt: skip
    """An inverter of a classifier of glyphs, 32 pixels; `consistent` names the networks of its consistency term.

    again: how often the same has been trained before; it is added to the seed.
    """
    network = load_classifier(classifier).to(device)
    weights = GeneratorLossWeights(consistency=2.0 if consistent else 0.0)
    n = max(256, round(images * min(1.0, scale)))
    if budget:
        n = budget.amount("glyphs", n, lambda n: logits_too(network, teaching_images(world, n, device=device)), few=500)
        budget.early = _early(network, 32, 32, objective, kind, GLYPHS_GENERATOR, weights, seed + again)
    return train_inverter(
        network, teaching_images(world, n, device=device), objective=objective, kind=kind,
        steps=max(2, round(steps * scale)), batch=48 * BATCHES[device], lr=5e-4, shrink=1e-3,
        coarse_steps=round(coarse_steps * scale), identify=IDENTIFY, adversarial_share=adversarial_share,
        weights=weights, consistent=[load_classifier(name) for name in consistent],
        generator=GLYPHS_GENERATOR, precision="auto", folder=folder, seed=seed + again,
    ).to("cpu")  # fmt: skip


def ffi_lite0_faces(
    folder: Path, seed: int = 0, scale: float = 1.0, *, device: str = "cpu", budget: RecipeBudget | None = None
) -> LogitInverter:
    """Faces of 64 pixels from the 1000 ImageNet logits of lite0, which sees them enlarged to 224.

    The logits of two faces differ little, so they are computed in full precision. The more faces a logit regressor has
    seen, the more it finds (`benchmarks/coarse_readers.py`): their logits take most of this recipe's time.
    """
    network = load_classifier("lite0").to(device)
    n = max(64, round(300_000 * min(1.0, scale)))
    if budget:
        n = budget.amount("faces", n, lambda n: logits_too(network, teaching_images("faces", n)), few=64, share=0.3)
        budget.early = _early(network, 64, 64, "hybrid", "logits", FACES_GENERATOR, GeneratorLossWeights(), seed)
    return train_inverter(
        network, teaching_images("faces", n), objective="hybrid", steps=max(2, round(500 * scale)),
        batch=32 * BATCHES[device], lr=5e-4, shrink=FACES_SHRINK, coarse_steps=round(12_000 * scale),
        identify=IDENTIFY_FACES, identify_late=1.0,
        generator=FACES_GENERATOR, precision="auto", folder=folder, seed=seed,
    ).to("cpu")  # fmt: skip


PHOTOS_GENERATOR = GLYPHS_GENERATOR | {"coarse_hidden": 192, "logit_noise": 0.3}
PHOTOS_WEIGHTS = GeneratorLossWeights(adversary=1.0, reading=1.0, squares=(1, 2, 4, 8))
PHOTOS_VIEWS = 2  # of every photo, since there are few: as it is, and cropped, every other one flipped
FEW_LOGITS = {"generator": PHOTOS_GENERATOR, "shrink": 0.03}
# A thousand logits of 22,500 photos: whitening would enlarge noise, a coarse regressor with a linear part does worse
# (`benchmarks/coarse_readers.py`), and every map has to be narrow to stay within 5 MB.
MANY_LOGITS = {"generator": PHOTOS_GENERATOR | {"hidden": 96, "coarse_linear": False}, "shrink": 1.0}


def ffi_tiny(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, kind: str = "logits",
    objective: str = "hybrid", device: str = "cpu", budget: RecipeBudget | None = None,
) -> LogitInverter:  # fmt: skip
    """Photos of Tiny ImageNet at 32 pixels from the logits of a classifier that sees them at 64 pixels or more.

    Logits do not determine a photo as they do a glyph, so most of the steps have an adversary: the generator learns to
    sample. Without noise it goes on giving its best guess.
    """
    network = load_classifier(classifier).to(device)
    images = _tiny_photos(network, scale, budget)
    logits = MANY_LOGITS if classifier == "lite0" else FEW_LOGITS
    if budget:
        generator = logits["generator"]
        budget.early = _early(network, 32, images.shape[-1], objective, kind, generator, PHOTOS_WEIGHTS, seed)
    return train_inverter(
        network, images, size=32, objective=objective, kind=kind, steps=max(3, round(3000 * scale)),
        batch=48 * BATCHES[device], lr=5e-4, coarse_steps=round(2200 * scale), adversarial_share=0.82,
        adversarial_lr=5e-4, weights=PHOTOS_WEIGHTS, identify=IDENTIFY_PHOTOS, views=PHOTOS_VIEWS, folder=folder,
        seed=seed, precision="auto", **logits,
    ).to("cpu")  # fmt: skip


ADVERSARY_ALONE_GENERATOR = {key: PHOTOS_GENERATOR[key] for key in ("channels", "hidden", "shared_dim")}


def ffi_tiny_adversarial(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, device: str = "cpu",
    budget: RecipeBudget | None = None,
) -> LogitInverter:  # fmt: skip
    """Photos of Tiny ImageNet by the adversarial losses alone, the objective of the paper.

    The generator is that of `ffi_tiny` without its coarse image and without noise on the logits, which are no part of
    the paper.
    """
    network = load_classifier(classifier).to(device)
    images = _tiny_photos(network, scale, budget)
    if budget:
        budget.early = _early(
            network,
            32,
            images.shape[-1],
            "adversarial",
            "logits",
            ADVERSARY_ALONE_GENERATOR,
            GeneratorLossWeights(),
            seed,
        )
    return train_inverter(
        network, images, size=32, objective="adversarial", steps=max(3, round(14_000 * scale)),
        batch=48 * BATCHES[device], adversarial_lr=2e-4, views=PHOTOS_VIEWS, generator=ADVERSARY_ALONE_GENERATOR,
        shrink=FEW_LOGITS["shrink"], folder=folder, seed=seed, precision="auto",
    ).to("cpu")  # fmt: skip


def _tiny_photos(network: Classifier, scale: float, budget: RecipeBudget | None) -> Tensor:
    """Photos to train on, uint8 (N, 3, 64, 64): a share `scale` of all, or as many as the minutes of a budget allow."""
    images, _ = data.load_bytes("tiny-imagenet", split="inverter")
    every = max(1, round(1 / scale))
    if budget:
        n = budget.amount("photos", len(images), lambda n: logits_too(network, images[:n]), few=64, share=0.15)
        every = -(-len(images) // n)
    return images[::every].clone()


def generator_shares(coarse: float, regression: float, adversary: float = 0.0) -> dict[str, float]:
    """The share of the minutes of every phase, by its folder; without an adversary there is no such phase."""
    found = {"coarse": coarse, "regression": regression, "adversary": adversary}
    return {name: share for name, share in found.items() if share}


def logits_too(classifier: Classifier, images: Tensor) -> Tensor:
    """The images' logits, as `train_inverter` computes them: what they cost is part of what an image costs."""
    return pairs(classifier, images).logits


def _early(
    classifier: Classifier, size: int, source_size: int, objective: str, kind: str, generator: dict,
    weights: GeneratorLossWeights, seed: int,
) -> Callable[[Progress], LogitInverter]:  # fmt: skip
    """What `RecipeBudget.early` needs: an inverter with a copy of the generator's moving average."""

    def make(progress: Progress) -> LogitInverter:
        # A new network, not a copy: a copy shares its class with the one in training, and folding changes the class.
        average = progress.averages["generator"].state_dict()
        with torch.random.fork_rng():
            network = LogitGenerator(size, classifier.classes, **generator).to(classifier.device)
        network.load_state_dict(average)
        folded = finish_generator(network, progress.batches, weights, seed)
        card = {
            "method": "ffi",
            "network": classifier.name,
            "classifier_size": classifier.size,
            "classes": classifier.classes,
            "size": size,
            "source_size": source_size,
            "objective": objective,
            "kind": kind,
            "generator": generator | folded,
        }
        return LogitInverter(network, classifier, card)

    return make
