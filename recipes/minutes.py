"""The minutes of a recipe: `invkit.minutes.Budget` with its pace, and with a network that is written early.

A network can be written early, from the moving average, as soon as a third of the minutes has passed and a phase trains
the whole of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from invkit.minutes import Budget
from invkit.training import Progress

EARLY = 1 / 3  # of the minutes, after which the inverter is written for the first time
WHOLE = ("synchronise", "regression", "adversary")  # phases that train the whole network, by their folders' names


@dataclass
class Phase:
    """What one phase of training took: for pace.json."""

    first: int  # step, after which the clock was started
    steps: int
    images: int  # a step
    precision: str
    began: float
    ended: float

    def facts(self) -> dict[str, Any]:
        seconds = self.ended - self.began
        facts = {"steps": self.steps, "minutes": round(seconds / 60, 3), "precision": self.precision}
        if self.steps > self.first:
            pace = (self.steps - self.first) / seconds
            facts |= {"steps_per_second": round(pace, 3), "images_per_second": round(pace * self.images, 1)}
        return facts


@dataclass
class RecipeBudget(Budget):
    """A budget that knows the pace of every phase, and writes the network early.

    Attributes:
        keep: keep(network) writes an early version of what the training will return; None writes none.
        early: early(progress) makes it of the moving averages; the recipe says how, once it knows.
    """

    keep: Callable[[Any], Any] | None = None
    early: Callable[[Progress], Any] | None = None
    phases: dict[str, Phase] = field(default_factory=dict)
    kept_early: bool = False

    def after_step(self, progress: Progress) -> None:
        """Note the pace; write the inverter early when it is time."""
        name, now = progress.folder.name if progress.folder else "", time.monotonic()
        phase = self.phases.get(name)
        if phase is None:
            images = next(len(part) for part in _tensors(progress.batch))
            phase = self.phases[name] = Phase(progress.step, progress.step, images, progress.precision, now, now)
        phase.steps, phase.ended = progress.step, now
        super().after_step(progress)
        late = now - self.began >= EARLY * 60 * self.minutes_in_all
        if self.keep and self.early and not self.kept_early and late and name in WHOLE:
            if progress.step >= 0.05 * progress.steps:  # its moving average has left the start behind
                self.kept_early = True
                with torch.no_grad():
                    self.keep(self.early(progress))

    def pace(self, device: str) -> dict[str, Any]:
        """What pace.json says: the device, the minutes, and each phase's steps, minutes, steps and images a second."""
        name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        return {
            "device": name,
            "torch": torch.__version__,
            "minutes": self.minutes_in_all,
            "minutes_taken": round((time.monotonic() - self.began) / 60, 3),
            "phases": {name: phase.facts() for name, phase in self.phases.items()},
        }


def _tensors(batch: Any):
    """All tensors in a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(part)
