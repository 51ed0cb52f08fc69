"""Opponents of a trained chain of inverses: methods that spend seconds on each representation anew.

All minimise  |Phi(x) - y|^2 / |y|^2 + tv * total variation  by Adam, where x is

- *from grey*: pixels, as a sum of maps of many sizes (`invkit.optimize`), that start from grey;
- *from the chain*: the same, from the chain's own reconstruction;
- *restarts, averaged*: the same from several random starts, which share the seconds; the mean of what they end at;
- *deep image prior*: the output of a small random network, whose weights are optimised (`study.deep_image_prior`);
- *batch-norm prior*: from grey, and the classifier's batch norms shall see the statistics that they keep
  (`study.norm_statistics`).

The sixth, *search behind the chain*, is `invkit.dci.search`. Each gets the same seconds an image: on a CPU those of the
processor, all cores together, so that what else the machine does gives no one an advantage, else those of the clock.
`benchmarks/tune_opponents.py` chose the settings, on synthetic images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from invkit.optimize import descend, from_pyramid, mismatch, pyramid_of
from study.deep_image_prior import DeepImagePrior
from study.norm_statistics import distances, mean_distance, norms_before


class Found(NamedTuple):
    """What an opponent found: images (N, 3, S, S), the steps that it took, and the seconds an image."""

    images: Tensor
    steps: int
    seconds: float


@dataclass(frozen=True)
class Settings:
    """How an opponent is run.

    rate: Adam's first; it falls to 0 as half a cosine.
    tv: weight of total variation, in units of stride^2, the stride that of the depth (at most 32).
    steps: at most so many, though seconds be left; None for no bound.
    prior: weight of the batch norms' statistics.
    starts: how many random starts share the seconds.
    """

    rate: float = 0.02
    tv: float = 0.025
    steps: int | None = None
    prior: float = 0.0
    starts: int = 1


class Budget:
    """Seconds, or steps, or both, of which `spent` says the share that is used up; the clock starts at once.

    Raises ValueError for neither, and for one that is not positive.
    """

    def __init__(self, seconds: float | None = None, steps: int | None = None, device: torch.device | str = "cpu"):
        if (seconds is None and steps is None) or not all(limit is None or limit > 0 for limit in (seconds, steps)):
            raise ValueError(f"A budget is a positive number of seconds or steps, not {seconds} and {steps}.")
        self.seconds, self.steps, self.device = seconds, steps, torch.device(device)
        self.restart()

    def spent(self, steps: int) -> float:
        """The share that is used up after so many steps; 1 or more where nothing is left."""
        of_steps = 0.0 if self.steps is None else steps / self.steps
        return max(of_steps, 0.0 if self.seconds is None else self.elapsed() / self.seconds)

    def restart(self) -> None:
        """Begin the seconds again."""
        self._began = self._now()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self._began

    def _now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def objective_of(inverter, features: Tensor, depth: int, tv: float) -> Callable[[Tensor], Tensor]:
    """The objective: images (N, 3, S, S) -> a scalar, the sum over images, which do not see one another."""
    stride = min(inverter.classifier.blocks[depth - 1].stride, 32)
    each = mismatch(inverter.classifier, features, depth, tv * stride**2)
    return lambda images: each(images).sum()


# ---- the opponents: (inverter, features (N, ...), depth, settings, budget, seed) -> images, steps -------------------


def _pixels(start: Tensor, objective: Callable[[Tensor], Tensor], settings: Settings, budget: Budget):
    pyramid = pyramid_of(start, max(1, start.shape[-1].bit_length() - 1))
    losses = descend(pyramid, lambda: objective(from_pyramid(pyramid)), settings.rate, budget.spent)
    return from_pyramid(pyramid).detach(), len(losses)


def _noise(n: int, side: int, seed: int, like: Tensor) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(like.device)


def from_grey(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    start = 0.5 + 0.01 * _noise(len(features), inverter.size, seed, features)
    return _pixels(start, objective_of(inverter, features, depth, settings.tv), settings, budget)


def from_chain(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    with torch.no_grad():
        start = inverter.invert(features, depth)
    return _pixels(start, objective_of(inverter, features, depth, settings.tv), settings, budget)


def restarts(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    """Each start is a field of broad random colours."""
    many = features.repeat_interleave(settings.starts, 0)
    broad = F.interpolate(_noise(len(many), 7, seed, features), inverter.size, mode="bilinear")
    start = (0.5 + 0.2 * broad).clamp(0, 1)
    images, done = _pixels(start, objective_of(inverter, many, depth, settings.tv), settings, budget)
    return images.unflatten(0, (-1, settings.starts)).mean(1), done


def batch_norm_prior(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    """The statistics are those of all images that are optimised together, as in the paper."""
    objective = objective_of(inverter, features, depth, settings.tv)
    start = 0.5 + 0.01 * _noise(len(features), inverter.size, seed, features)
    with distances(norms_before(inverter.classifier, depth)) as found:

        def with_prior(images: Tensor) -> Tensor:
            return objective(images) + settings.prior * len(images) * mean_distance(found).to(images.device)

        return _pixels(start, with_prior, settings, budget)


def deep_image_prior(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    networks = DeepImagePrior(len(features), inverter.size, seed=seed, device=features.device)
    objective = objective_of(inverter, features, depth, settings.tv)
    losses = descend(networks.variables, lambda: objective(networks.images()), settings.rate, budget.spent)
    with torch.no_grad():
        return networks.images(), len(losses)


def searched(inverter, features: Tensor, depth: int, settings: Settings, budget: Budget, seed: int):
    """As many steps as short trials, which do not count, say that the seconds buy."""
    steps = budget.steps or math.inf
    if budget.seconds is not None:
        few, more, took = 4, 16, []
        for trial in (1, few, more):  # the first pays for what is done once
            budget.restart()
            inverter.invert(features, depth, search=trial)
            took.append(budget.elapsed())
        a_step = max((took[2] - took[1]) / (more - few), 1e-9)
        steps = min(steps, max(1, round(few + (budget.seconds - took[1]) / a_step)))
        budget.restart()
    return inverter.invert(features, depth, search=int(steps)), int(steps)


RUN = {
    "from grey": from_grey,
    "from the chain": from_chain,
    "restarts, averaged": restarts,
    "deep image prior": deep_image_prior,
    "batch-norm prior": batch_norm_prior,
    "search behind the chain": searched,
}
SETTINGS = {
    "from grey": Settings(rate=0.08, tv=0.1),
    "from the chain": Settings(rate=0.008, tv=0.0125),
    "restarts, averaged": Settings(rate=0.08, tv=0.1, starts=2),
    "deep image prior": Settings(rate=0.02, tv=0.0),
    "batch-norm prior": Settings(rate=0.08, tv=0.1, prior=0.005),
    "search behind the chain": Settings(),
}


def oppose(
    name: str,
    inverter,
    features: Tensor,
    depth: int,
    seconds: float | None = None,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    batch: int = 10,
) -> Found:
    """Images of representations by one opponent, `batch` at a time.

    name: one of `RUN`.
    features: as `inverter.represent(images, depth)` gave them, (N, ...).
    seconds: an image; None leaves it to the settings' steps alone.
    settings: those of `SETTINGS` by default.
    seed: of random starts.
    Raises ValueError for another name.
    """
    if name not in RUN:
        raise ValueError(f"There is no opponent {name!r}; choose one of {', '.join(RUN)}.")
    settings = settings or SETTINGS[name]
    images, took, steps = [], 0.0, 0
    for place, part in enumerate(features.detach().split(batch)):
        budget = Budget(seconds and seconds * len(part), settings.steps, features.device)
        found, steps = RUN[name](inverter, part, depth, settings, budget, seed + place)
        took += budget.elapsed()
        images.append(found)
    return Found(torch.cat(images), steps, took / len(features))
