"""How well a generator is inverted, what that costs, and whether it mends defective samples (Dong et al. 2021, §4).

Three ways to find the latent behind an image meet here: a trained inverse, `invkit.optimize.invert_latents` from a
random start, and the second started from the first. All are scored against the latent that made the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from invkit import dci, metrics, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import GeneratorInverter
from invkit.dci.training import Schedule
from invkit.network.generators import Generator
from invkit.optimize import Inversion
from invkit.statistics import Interval
from study.chapters import gan_defects

CEILING = 100.0  # dB: beyond it a PSNR says more of float32 than of the method

# ---- how well latents are recovered ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """Per latent (N,): cosine with the true one, explained share (their mean is R²), PSNR in dB and perceptual distance
    of its image."""

    cosine: Tensor
    explained: Tensor
    psnr: Tensor
    perceptual: Tensor


@torch.no_grad()
def regenerate(generator: Generator, latents: Tensor, batch: int = 64) -> Tensor:
    """Images (N, 3, size, size) in [0, 1] of latents (N, latent_dim)."""
    return torch.cat([generator.images(part) for part in latents.split(batch)])


@torch.no_grad()
def invert(inverter: GeneratorInverter, images: Tensor, batch: int = 64, feedback: bool = True) -> Tensor:
    """Latents (N, latent_dim) of images (N, 3, H, W), feedforward; without feedback, in one pass."""
    return torch.cat([inverter.invert(part, feedback=feedback) for part in images.split(batch)])


def recovery(generator: Generator, found: Tensor, latents: Tensor) -> Recovery:
    """Latents found (N, latent_dim) against the true ones."""
    images, again = regenerate(generator, latents), regenerate(generator, found)
    variance = (latents - latents.mean(0)).square().sum(1).mean()
    explained = 1 - (found - latents).square().sum(1) / variance
    psnr = metrics.psnr(again, images).clamp_max(CEILING)
    return Recovery(metrics.cosine(found, latents), explained, psnr, metrics.perceptual(again, images))


# ---- what an optimisation reaches, and when --------------------------------------------------------------------------


def psnr_path(inversion: Inversion) -> Tensor:
    """PSNR (steps + 1, N) in dB before every step and after the last, of an `invert_latents` without prior."""
    return (-10 * inversion.losses.log10()).clamp_max(CEILING)


def psnr_within(path: Tensor, seconds: float, budgets: Sequence[float], before: float = 0.0) -> list[Interval | None]:
    """Median PSNR over images, 95 % bootstrap interval, that so many seconds an image buy; None where they buy no step.

    path: (steps + 1, N) as from `psnr_path`. seconds: of the whole path, an image, spread evenly over its steps.
    before: seconds an image that the start took. What a longer budget adds after the last step is nothing.
    """
    steps = len(path) - 1
    if steps < 1 or not seconds > 0:
        raise ValueError(f"Give a path of at least one step that took time, not {steps} steps in {seconds} s.")
    done = [math.floor((budget - before) / seconds * steps + 1e-9) for budget in budgets]
    return [statistics.bootstrap(path[min(k, steps)], statistic="median") if k >= 1 else None for k in done]


# ---- training at equal compute ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One way to train the same chain of inverses.

    divide: steps of each inverse by itself, with the block term alone. synchronise: steps of the chain as a whole, at
    learning rate `rate`, with `weights`. often: how often they visit each depth; see `dci.Schedule`.
    """

    divide: int
    synchronise: int
    weights: ChainLossWeights
    often: tuple[float, ...]
    rate: float = 1e-3

    def schedule(self) -> Schedule:
        return Schedule(self.divide, self.synchronise, 2e-3, self.rate, self.often)


def train_arm(
    generator: Generator, arm: Arm, sizes: Sequence[tuple[int, int]], batch: int, **options
) -> GeneratorInverter:
    """Train one arm on latents of the prior; options (folder, seed, precision, …) as for `dci.train_chain`."""
    return dci.invert_generator(
        generator, sizes=sizes, batch=batch, schedule=arm.schedule(), weights=ChainLossWeights(1, 0, 0),
        synchronise_weights=arm.weights, progress=False, **options,
    )  # fmt: skip


def operations(generator: Generator, arm: Arm, sizes: Sequence[tuple[int, int]], batch: int) -> float:
    """Floating-point operations of an arm's training: generator, inverses and backward pass, counted by PyTorch.

    One step of every kind is run with two latents; an operation is a multiplication or an addition in a convolution.
    """
    two = 2  # the inverses take their units from a first batch, which must vary

    def count(divide: int, synchronise: int, often: tuple[float, ...]) -> int:
        with FlopCounterMode(display=False) as counter:
            train_arm(generator, replace(arm, divide=divide, synchronise=synchronise, often=often), sizes, two)
        return counter.get_total_flops()

    def only(depth: int) -> tuple[float, ...]:
        return tuple(float(k == depth) for k in range(len(sizes)))

    start = count(0, 0, arm.often)
    total = arm.divide * (count(1, 0, arm.often) - start) if arm.divide else 0.0
    for depth, weight in enumerate(arm.often):
        if weight and arm.synchronise:
            visits = arm.synchronise * weight / sum(arm.often)
            total += visits * (count(0, 1, only(depth)) - start)
    return total * batch / two


def with_compute(generator: Generator, arm: Arm, sizes: Sequence[tuple[int, int]], batch: int, compute: float) -> Arm:
    """The arm with as many `synchronise` steps as `compute` operations pay for after its `divide` steps.

    Raises:
        ValueError: they pay for none.
    """
    one, none = (operations(generator, replace(arm, synchronise=k), sizes, batch) for k in (1, 0))
    steps = int((compute - none) / (one - none))
    if steps < 1:
        raise ValueError(f"{compute:.3g} operations pay for no step of the chain: give at least {one:.3g}.")
    return replace(arm, synchronise=steps)


# ---- mending defective samples ---------------------------------------------------------------------------------------


class Judge:
    """Two defect scores of images that share nothing, both distances to typical samples; lower is more typical.

    "features": Mahalanobis distance in a classifier's pooled features at `depth`, images resized to `size`.
    "thumbnail": mean distance to the nearest typical 8 x 8 thumbnails; no network.
    """

    def __init__(self, classifier, typical: Tensor, depth: int, size: int | None = None):
        self.classifier, self.depth, self.size = classifier, depth, size
        self._features, self._thumbnails = self._described(typical)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """{"features": (N,), "thumbnail": (N,)} of images (N, 3, H, W), which must not be among the typical ones."""
        features, thumbnails = self._described(images)
        return {
            "features": gan_defects.mahalanobis(features, self._features),
            "thumbnail": gan_defects.neighbour_distance(thumbnails, self._thumbnails),
        }

    def _described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = gan_defects.pooled_features(self.classifier, images, self.depth, self.size)
        return features, gan_defects.thumbnails(images)


def verdict(changes: Mapping[str, Interval], against: Mapping[str, Mapping[str, Interval]]) -> str:
    """Does regenerating mend defective samples? By a rule that is fixed before the numbers.

    changes: for each score, regenerated minus original. against: for each control, for each score, regenerated minus
    control. Scores are lower for better samples.

    Returns "mends" if every interval lies below 0; "mends no better than a control" if only those of `changes` do;
    else "does not mend".
    """
    if not all(change.high < 0 for change in changes.values()):
        return "does not mend"
    if all(gain.high < 0 for scores in against.values() for gain in scores.values()):
        return "mends"
    return "mends no better than a control"
