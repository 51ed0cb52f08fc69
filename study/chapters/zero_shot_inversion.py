"""What one inverter recovers of photos at every depth, and what that costs: the evaluation of Dong et al. (2021).

A reading is an image made from the representation alone. It is scored against its photo by `invkit.metrics`, beside two
opponents: optimisation of the photo itself (`invkit.optimize.invert_features`) and the photo's mean colour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invkit import metrics, statistics
from invkit.statistics import Interval


@dataclass(frozen=True)
class Reading:
    """N photos read back from one depth: (N, 3, size, size) in [0, 1], and the seconds that took per photo."""

    images: Tensor
    seconds: float


@dataclass(frozen=True)
class Scores:
    """Per photo (N,): PSNR in dB, SSIM, perceptual distance, and whether the reading finds its own photo among N."""

    psnr: Tensor
    ssim: Tensor
    perceptual: Tensor
    found: Tensor

    def intervals(self) -> dict[str, Interval]:
        """Means over photos with 95 % intervals: Wilson's for `found`, the bootstrap's for the others."""
        means = {name: statistics.bootstrap(getattr(self, name)) for name in ("psnr", "ssim", "perceptual")}
        return means | {"found": statistics.proportion(self.found)}


@torch.no_grad()
def read_every_depth(
    inverter, photos: Tensor, depths: Sequence[int] | None = None, batch: int = 5
) -> dict[int, Reading]:
    """Photos (N, 3, size, size) read back from each depth (default: all), `batch` at a time.

    Only the inversion is timed: the representation is what one is given. Raises ValueError for photos of another size.
    """
    depths = list(depths or inverter.depths)
    if photos.shape[-2:] != (inverter.size, inverter.size):
        raise ValueError(
            f"This inverter reads photos of {inverter.size} pixels, not {tuple(photos.shape)}: resize them first."
        )
    images, seconds = {depth: [] for depth in depths}, dict.fromkeys(depths, 0.0)
    for part in photos.split(batch):
        h = inverter.classifier.preprocess(part)
        for block in inverter.classifier.blocks[: max(depths)]:
            h = block(h)
            if block.depth in images:
                began = time.perf_counter()
                images[block.depth].append(inverter.invert(h, block.depth))
                seconds[block.depth] += time.perf_counter() - began
    return {depth: Reading(torch.cat(images[depth]), seconds[depth] / len(photos)) for depth in depths}


def search_every_photo(inverter, photos: Tensor, depth: int, steps: int, batch: int = 8) -> Reading:
    """Photos (N, 3, size, size) read back from a depth with so many steps of `invkit.search`, `batch` at a time."""
    with torch.no_grad():
        given = torch.cat([inverter.represent(part, depth) for part in photos.split(batch)])
    began = time.perf_counter()
    images = torch.cat([inverter.invert(y, depth, search=steps) for y in given.split(batch)])
    return Reading(images, (time.perf_counter() - began) / len(photos))


def score(readings: Tensor, photos: Tensor) -> Scores:
    """Readings (N, 3, H, W) against their photos, pair by pair; N of at least 2, because each is also looked for."""
    return Scores(
        metrics.psnr(readings, photos),
        metrics.ssim(readings, photos),
        metrics.perceptual(readings, photos),
        metrics.retrieval_ranks(readings, photos) == 1,
    )


def mean_colour(photos: Tensor) -> Tensor:
    """Each photo replaced by its own mean colour, same shape: what a reading without any structure would score."""
    return photos.mean((2, 3), keepdim=True).expand_as(photos)


def depth_of(classifier, convolutions: int) -> int:
    """The deepest block that ends after at most so many convolutions, pooling and logits excluded."""
    depths = [b.depth for b in classifier.blocks if len(b.shape) == 3 and b.convolutions <= convolutions]
    if not depths:
        first = classifier.blocks[0].convolutions
        raise ValueError(
            f"The first block of {classifier.name} has {first} convolutions: ask for as many, not {convolutions}."
        )
    return depths[-1]


def numbers_per_number(classifier, depth: int) -> float:
    """How many numbers the representation of that depth has for each number of the image."""
    return math.prod(classifier.blocks[depth - 1].shape) / (3 * classifier.size**2)


def break_even(training_hours: float, seconds: float, rival_seconds: float) -> float:
    """Images after which training has paid for itself against a rival that needs none; infinite if it is no faster."""
    saved = rival_seconds - seconds
    return math.ceil(training_hours * 3600 / saved) if saved > 0 else math.inf


def verdict(difference: Interval, more: str = "better", less: str = "worse", same: str = "not told apart") -> str:
    """What a paired difference allows one to say: `same` where its interval holds zero."""
    return more if difference.low > 0 else less if difference.high < 0 else same
