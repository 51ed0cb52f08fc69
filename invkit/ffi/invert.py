"""Train an inverter of a classifier's logits for a classifier of one's own (Teterwak et al. 2021, arXiv 2103.07470).

inverter = ffi.train_inverter(classifier, images, steps=500, folder="runs/mine")
inverter.save("weights/mine")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invkit import store
from invkit.checks import checked
from invkit.data.images import Data
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import Pairs, condition, pairs
from invkit.ffi.training import WEIGHTS, GeneratorLossWeights, fit_coarse_images, random_noise, train_generator
from invkit.ffi.whitening import Whitening
from invkit.identity import identity
from invkit.network.classifiers import Classifier


@checked
def train_inverter(
    classifier: Classifier, images: Tensor | Data, *, steps: int, batch: int = 64, objective: str = "hybrid",
    kind: str = "logits", size: int | None = None, views: int = 1, generator: dict | None = None,
    discriminator: dict | None = None, shrink: float = 1e-3, coarse_steps: int = 0, identify: float = 0.0,
    identify_late: float = 0.0, weights: GeneratorLossWeights = WEIGHTS, consistent: Sequence[Classifier] = (),
    folder: str | Path | None = None, seed: int = 0, precision: str = "auto", progress: bool = True, **training,
) -> LogitInverter:  # fmt: skip
    """Train an inverter of a classifier's logits on images that the classifier was not trained on.

    Args:
        classifier: the network to invert.
        images: squares, (N, 3, S, S), uint8 or float in [0, 1]; or Data.
        steps: training steps of the generator.
        batch: images in a step.
        objective: "hybrid", "regression" or "adversarial", see `invkit.ffi.training`.
        kind: what the generator gets of the logits, see `condition`.
        size: side of the reconstructions in pixels, 8, 16, 32, …; None for that of the images.
        views: how many views of every image are trained on, see `pairs`.
        generator: arguments of `LogitGenerator` other than its sizes.
        discriminator: arguments of `ProjectionDiscriminator` other than its sizes.
        shrink: of the whitening of the logits.
        coarse_steps: training steps of the network that regresses coarse images, where `generator` has "coarse_hidden".
        identify: weight of `losses.identification` in the training of coarse images and in the regression.
        identify_late: its weight beside an adversary.
        weights: of all other loss terms.
        consistent: further classifiers of the same images, which measure nothing later. They and the inverted one are
            asked whether they see in a reconstruction what they saw in the image, if `weights.consistency` is above 0.
        folder: for the logits and for checkpoints; a stopped run goes on from there. None keeps nothing.
        seed: of the initial weights, the batches and the noise.
        precision: "auto", "bf16" or "no", as for `invkit.training.train`.
        progress: show progress bars.
        training: further arguments of `train_generator`.

    Raises:
        TypeError, ValueError: no images to train on (`pairs`), or settings that make no sense.
    """
    made = pairs(classifier, images, views=views, size=size, seed=seed, folder=folder, progress=progress)
    made = Pairs(made.images, condition(made.logits.flatten(0, 1), kind).reshape(made.logits.shape))
    made = made.to(classifier.device)  # where all batches are then gathered
    size = made.images.shape[-1]
    every_image, every_z = made.images.flatten(0, 1), made.logits.flatten(0, 1)
    options = None if objective == "regression" else discriminator or {}
    g, d = _networks(size, classifier.classes, generator or {}, options, seed)
    for network in filter(None, (g, d)):
        network.to(classifier.device)
        if isinstance(network.whitening, Whitening):
            network.whitening.fit(every_z, shrink)
    weights = replace(weights, identify=identify, identify_late=identify_late)
    before = []
    common: dict[str, Any] = {"folder": folder, "seed": seed, "precision": precision, "progress": progress}
    if g.coarse:
        before = fit_coarse_images(g, every_image, every_z, coarse_steps, identify=identify, **common)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        pixels, z = made.batch(step, batch, seed)
        return pixels.contiguous(memory_format=torch.channels_last), z

    networks = [network.to(classifier.device).logits for network in (classifier, *consistent)]
    record = train_generator(
        g, batches, steps=steps, objective=objective, discriminator=d, weights=weights, consistent=networks, **common,
        **training,
    )  # fmt: skip
    folded = finish_generator(g, batches, weights, seed)
    card = {
        "method": "ffi",
        "network": classifier.name,
        "classifier_size": classifier.size,
        "classifier": identity(classifier),
        "classes": classifier.classes,
        "size": size,
        "source_size": (images.images if isinstance(images, Data) else images).shape[-1],
        "objective": objective,
        "kind": kind,
        "generator": (generator or {}) | folded,
        "training": {"generator": generator or {}, "discriminator": discriminator or {}}
        | {key: value for key, value in training.items() if isinstance(value, int | float | str)}
        | {"coarse_steps": coarse_steps, "shrink": shrink}
        | {key: value for key, value in asdict(weights).items() if value != getattr(WEIGHTS, key)},
        "consistent": [network.name for network in consistent],
        "images": made.images.shape[1],
        "views": views,
        "batch": batch,
        "steps": steps if record.failure else sum(phase.steps for phase in record.phases),
        "seed": seed,
        "failure": record.failure,
        "hours": round(sum(phase.seconds for phase in [*before, *record.phases]) / 3600, 4),
        "machine": store.machine_class(),
        "code": store.code_version(),
    }
    return LogitInverter(g, classifier, card)


def _networks(
    size: int, classes: int, generator: dict, discriminator: dict | None, seed: int
) -> tuple[LogitGenerator, ProjectionDiscriminator | None]:
    """A new generator and, for arguments that are not None, a discriminator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g = LogitGenerator(size, classes, **generator)
        return g, None if discriminator is None else ProjectionDiscriminator(size, classes, **discriminator)


def finish_generator(
    generator: LogitGenerator, batches: Callable[[int], tuple[Tensor, Tensor]], weights: GeneratorLossWeights, seed: int
) -> dict:
    """Make a trained generator ready for use, in place: standing statistics of its batch norms, constant maps folded.

    Args:
        generator: as training leaves it.
        batches: batches(step) returns (images, conditions); the statistics are those of the first 32 steps.
        weights: those it was trained with, which say whether a third of its samples had no noise.
        seed: of the noise.

    Returns:
        The arguments of `LogitGenerator` that folding changed, for the card.
    """

    def noise(z: Tensor) -> Tensor:
        values = random_noise(generator, z)
        if weights.reading:
            values[::3] = 0
        return values

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator.set_standing_statistics((noise(z), z) for _, z in map(batches, range(32)))
    return generator.fold()
