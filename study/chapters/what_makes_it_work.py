"""What makes divide-and-conquer inversion work: one part changed at a time, every arm at the same compute.

An *arm* is one way to train the same chain of inverses: other loss terms, another split between the two phases, other
images. Arms share the network, the inverses, the crops and the *compute*, in floating-point operations: one step of
each phase is counted on the very code that trains (`step_cost`), and an arm takes as many steps as its compute pays
for (`plan`). Seconds would differ from machine to machine, and with them every result.

Arms are compared with the full method image by image; `verdict` is the rule, fixed before any number is seen.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from invkit import dci, metrics, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier


@dataclass(frozen=True)
class Arm:
    """One way to train the chain; the defaults are the full method.

    weights: of the loss terms, in both phases.
    divided: share of the compute spent on one inverse after another; the rest re-synchronises the chain.
    deepest_only: re-synchronising visits only the deepest depth, not all of them alike.
    rate: largest learning rate of re-synchronising, None for the schedule's default.
    source: name of the pool of synthetic images.
    """

    weights: ChainLossWeights = ChainLossWeights()
    divided: float = 0.3
    deepest_only: bool = False
    rate: float | None = None
    source: str = "dead leaves"

    def __post_init__(self):
        if not 0 <= self.divided <= 1:
            raise ValueError(f"divided is a share of the compute, from 0 to 1, not {self.divided}.")

    def without(self, term: str) -> Arm:
        """The same arm with one loss term ("block", "input" or "cycle") switched off."""
        return dataclasses.replace(self, weights=dataclasses.replace(self.weights, **{term: 0.0}))


@dataclass(frozen=True)
class Setting:
    """What all arms share.

    depth: the deepest block to invert. sizes: (width, residual blocks) of each inverse. batch, crop: images a step, and
    their side in pixels. compute: floating-point operations each arm may spend on training. precision: of the losses.
    """

    classifier: Classifier
    depth: int
    sizes: tuple[tuple[int, int], ...]
    batch: int
    crop: int
    compute: float
    precision: str = "auto"

    def __post_init__(self):
        deepest = len(self.classifier.blocks)  # cut now: tracing runs the network, and must not be counted as training
        if not 1 <= self.depth <= deepest or len(self.sizes) != self.depth:
            raise ValueError(
                f"Give a depth from 1 to {deepest} and one size per depth, not {self.depth}, {self.sizes}."
            )

    def train(self, arm: Arm, pool: Pool, schedule: Schedule, batch: int, **options) -> ClassifierInverter:
        return dci.invert_classifier(
            self.classifier, pool, depth=self.depth, sizes=self.sizes, crops=lambda _: (batch, self.crop),
            schedule=schedule, weights=arm.weights, precision=self.precision, progress=False, **options,
        )  # fmt: skip


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one step: of every inverse once (divide), of the chain on average (synchronise)."""

    divide: float
    synchronise: float


def step_cost(setting: Setting, arm: Arm) -> StepCost:
    """Operations of one training step of each phase: network, inverses and backward pass; loss and optimiser are free.

    Counted by PyTorch on real steps with a batch of one; an operation is a multiplication or an addition.
    """
    pool = Pool(torch.rand(1, 3, setting.crop, setting.crop, device=setting.classifier.device))

    def count(**steps) -> int:
        with FlopCounterMode(display=False) as counter:
            setting.train(arm, pool, Schedule(**steps), batch=1)
        return counter.get_total_flops()

    start = count(divide=0, synchronise=0)  # the inverses take their units from a first batch
    divide = count(divide=1, synchronise=0) - start
    visits = [count(divide=0, synchronise=1, often=often) - start for often in _visits(setting, arm)]
    return StepCost(divide * setting.batch, sum(visits) / len(visits) * setting.batch)


def _visits(setting: Setting, arm: Arm) -> list[tuple[float, ...]]:
    """A one-hot `Schedule.often` for every depth that re-synchronising visits."""
    depths = [setting.depth] if arm.deepest_only else range(1, setting.depth + 1)
    return [tuple(float(k == depth) for k in range(1, setting.depth + 1)) for depth in depths]


def plan(setting: Setting, arm: Arm, cost: StepCost) -> Schedule:
    """The schedule that spends the setting's compute.

    Raises:
        ValueError: the compute does not pay for one step of a phase that the arm has.
    """
    divide = int(arm.divided * setting.compute / cost.divide)
    synchronise = int((1 - arm.divided) * setting.compute / cost.synchronise)
    if (arm.divided > 0 and divide == 0) or (arm.divided < 1 and synchronise == 0):
        phases = ((arm.divided, cost.divide), (1 - arm.divided, cost.synchronise))
        least = max(step / share for share, step in phases if share)
        raise ValueError(f"{setting.compute:.3g} operations pay for no step of a phase: give at least {least:.3g}.")
    often = _visits(setting, arm)[0] if arm.deepest_only else None
    rate = {} if arm.rate is None else {"synchronise_lr": arm.rate}
    return Schedule(divide=divide, synchronise=synchronise, often=often, **rate)


def operations(setting: Setting, schedule: Schedule, cost: StepCost) -> float:
    """What a schedule costs in floating-point operations: the setting's compute, less what is no whole step."""
    return schedule.divide * cost.divide + schedule.synchronise * cost.synchronise


def train_arm(
    setting: Setting, arm: Arm, pool: Pool, schedule: Schedule, seed: int = 0, folder: str | Path | None = None
) -> ClassifierInverter:
    """Train one arm into an inverter; seed and folder as for `dci.train_chain`."""
    return setting.train(arm, pool, schedule, setting.batch, seed=seed, folder=folder)


@torch.no_grad()
def psnr_at(inverter: ClassifierInverter, images: Tensor, depth: int | None = None, batch: int = 8) -> Tensor:
    """PSNR (N,) in dB of the readings of images (N, 3, size, size) from one depth, by default the deepest."""
    return torch.cat([metrics.psnr(inverter.reconstruct(part, depth), part) for part in images.split(batch)])


def difference(full: Tensor, arm: Tensor) -> statistics.Interval:
    """Full method minus arm, PSNRs (seeds, images) in dB: mean over both, 95 % paired bootstrap over images."""
    return statistics.paired_bootstrap(full.mean(0), arm.mean(0))


def verdict(full: Tensor, arm: Tensor) -> str:
    """What the part that the arm lacks does: "helps", "hurts" or "no difference seen", from PSNRs (seeds, images).

    It helps if the whole 95 % interval of full − arm lies above 0 and the mean does with every seed; hurts, if below.
    """
    interval, seeds = difference(full, arm), (full - arm).mean(1)
    if interval.low > 0 and seeds.min() > 0:
        return "helps"
    if interval.high < 0 and seeds.max() < 0:
        return "hurts"
    return "no difference seen"
