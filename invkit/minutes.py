"""Training for a given number of minutes, as `train_inverter` and `python -m recipes train NAME --minutes 8` do it.

Such a training has several phases, each of which is one call of `invkit.training.train`. They share the minutes by
shares that are stated beforehand. When a phase begins, it gets its share of the time that is then left; its own pace,
measured over its first steps, fixes its number of steps, and its learning rate goes down to zero at their end. So every
schedule is complete, and a phase that ends late takes its time from those that follow. In a training that was stopped
and goes on, what it spent in its phases before counts, and every phase that has begun keeps its number of steps.

Images that are computed before training get a tenth of the minutes at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from invkit import checkpoint
from invkit.arguments import check_minutes
from invkit.store import json_object, whole
from invkit.training import Progress

RESERVE = 0.06  # of the minutes, kept for what follows the last phase: error feedback, writing
FEEDBACK = 0.03  # of the minutes, at most, for the choice of error feedback
DATA = 0.1  # of the minutes, at most, for images that are computed before training
PLAN = "plan.json"  # how many images were computed: fixed once, so that a resumed run has the same


@dataclass
class Budget:
    """The minutes of one training: a `training.Supervisor`.

    Attributes:
        minutes_in_all: from the moment that the budget is made; less what phases in this folder took before.
        shares: {name of a phase's folder: its share of the minutes}, in any unit.
        folder: of the checkpoints.
        progress: show a bar with the time that is left of the minutes.
    """

    minutes_in_all: float
    shares: Mapping[str, float]
    folder: Path
    progress: bool = False

    def __post_init__(self):
        check_minutes(self.minutes_in_all)
        self.began = time.monotonic() - sum(checkpoint.seconds(self.folder / phase) for phase in self.shares)
        self.waiting = dict(self.shares)
        layout = "{desc}: {percentage:3.0f}% |{bar}| {remaining} left"
        self.bar = tqdm(total=60 * self.minutes_in_all, desc="preparing", bar_format=layout, disable=not self.progress)

    def seconds_left(self) -> float:
        return self.began + 60 * self.minutes_in_all * (1 - RESERVE) - time.monotonic()

    def minutes(self, folder: Path | None) -> float:
        """Minutes for the phase with this folder: its share among the phases that are not over, of what is left."""
        name = folder.name if folder is not None else ""
        if name not in self.waiting:
            raise ValueError(f"There is no share of the minutes for the phase {name!r}: {dict(self.shares)}.")
        share = self.waiting[name] / sum(self.waiting.values())
        del self.waiting[name]
        return max(1e-3, self.seconds_left() * share / 60)

    def after_step(self, progress: Progress) -> None:
        """Show how far the phase is."""
        self.show(f"{progress.folder.name if progress.folder else ''}, step {progress.step} of {progress.steps}")

    def amount(
        self,
        what: str,
        wanted: int,
        make: Callable[[int], Any],
        few: int = 16,
        share: float = DATA,
        least: int | None = None,
    ) -> int:
        """How many images to compute: `wanted`, or as many as take this share of the minutes; fixed once.

        Args:
            what: a name for them, of their own.
            wanted: as many as the recipe has at its published scale.
            make: computes a given number of them; called twice for a few, and timed the second time; but only once
                where `least` is 0 and the first takes longer than the share.
            few: how many those are.
            share: of the minutes.
            least: how many are computed in any case; None for `few`.
        """
        plan = json_object(self.folder / PLAN)
        if what not in plan:
            limit = share * 60 * self.minutes_in_all
            each = _seconds_each(make, few)
            if least != 0 or each * few <= limit:  # what there need not be is not timed where it takes too long
                each = _seconds_each(make, few)
            plan[what] = max(few if least is None else least, min(wanted, int(limit / each)))
            with whole(self.folder / PLAN) as file:
                file.write_text(json.dumps(plan), encoding="utf-8")
        return plan[what]

    def show(self, what: str) -> None:
        """Say on the bar what is being done, and how much time is left."""
        self.bar.set_description_str(what, refresh=False)
        self.bar.update(min(time.monotonic() - self.began, self.bar.total) - self.bar.n)


def _seconds_each(make: Callable[[int], Any], few: int) -> float:
    began = time.monotonic()
    make(few)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.monotonic() - began) / few
