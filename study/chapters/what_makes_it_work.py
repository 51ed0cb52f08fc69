"""Chapter 8: what makes divide-and-conquer inversion work, one part changed at a time, at the same compute.

A *variant* is one way to train the same chain of inverses: with other loss terms, another split between the two phases,
or other images. Variants share the network, the inverses, the crops and the *compute*, in floating-point operations:
one step of each phase is counted on the very code that trains (`step_cost`), and a variant takes as many steps as its
compute pays for (`plan`). Seconds would differ from machine to machine, and with them every result.

Variants are compared with the full method image by image, by the rule of `scores.verdict_over_seeds`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from invkit import dci, metrics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier


@dataclass(frozen=True)
class ChainVariant:
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

    def without(self, term: str) -> ChainVariant:
        """The same variant with one loss term ("block", "input" or "cycle") switched off."""
        return dataclasses.replace(self, weights=dataclasses.replace(self.weights, **{term: 0.0}))


@dataclass(frozen=True)
class ChainBudget:
    """What all variants share.

    depth: the deepest block to invert.
    sizes: (width, residual blocks) of each inverse.
    batch: images a step.
    crop: their side in pixels.
    compute: floating-point operations that each variant may spend on training.
    precision: of the losses.
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

    def train(self, variant: ChainVariant, pool: Pool, schedule: Schedule, batch: int, **options) -> ClassifierInverter:
        return dci.invert_classifier(
            self.classifier, pool, depth=self.depth, sizes=self.sizes, crops=lambda _: (batch, self.crop),
            schedule=schedule, weights=variant.weights, precision=self.precision, progress=False, **options,
        )  # fmt: skip


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of one step: of every inverse once (divide), of the chain on average (synchronise)."""

    divide: float
    synchronise: float


def step_cost(budget: ChainBudget, variant: ChainVariant) -> StepCost:
    """Operations of one training step of each phase: network, inverses and backward pass; loss and optimiser are free.

    Counted by PyTorch on real steps with a batch of one; an operation is a multiplication or an addition.
    """
    pool = Pool(torch.rand(1, 3, budget.crop, budget.crop, device=budget.classifier.device))

    def count(**steps) -> int:
        with FlopCounterMode(display=False) as counter:
            budget.train(variant, pool, Schedule(**steps), batch=1)
        return counter.get_total_flops()

    start = count(divide=0, synchronise=0)  # the inverses take their units from a first batch
    divide = count(divide=1, synchronise=0) - start
    visits = [count(divide=0, synchronise=1, often=often) - start for often in _visits(budget, variant)]
    return StepCost(divide * budget.batch, sum(visits) / len(visits) * budget.batch)


def _visits(budget: ChainBudget, variant: ChainVariant) -> list[tuple[float, ...]]:
    """A one-hot `Schedule.often` for every depth that re-synchronising visits."""
    depths = [budget.depth] if variant.deepest_only else range(1, budget.depth + 1)
    return [tuple(float(k == depth) for k in range(1, budget.depth + 1)) for depth in depths]


def plan(budget: ChainBudget, variant: ChainVariant, cost: StepCost) -> Schedule:
    """The schedule that spends the budget's compute.

    Raises:
        ValueError: the compute does not pay for one step of a phase that the variant has.
    """
    divide = int(variant.divided * budget.compute / cost.divide)
    synchronise = int((1 - variant.divided) * budget.compute / cost.synchronise)
    if (variant.divided > 0 and divide == 0) or (variant.divided < 1 and synchronise == 0):
        phases = ((variant.divided, cost.divide), (1 - variant.divided, cost.synchronise))
        least = max(step / share for share, step in phases if share)
        raise ValueError(f"{budget.compute:.3g} operations pay for no step of a phase: give at least {least:.3g}.")
    often = _visits(budget, variant)[0] if variant.deepest_only else None
    rate = {} if variant.rate is None else {"synchronise_lr": variant.rate}
    return Schedule(divide=divide, synchronise=synchronise, often=often, **rate)


def operations(budget: ChainBudget, schedule: Schedule, cost: StepCost) -> float:
    """What a schedule costs in floating-point operations: the budget's compute, less what is no whole step."""
    return schedule.divide * cost.divide + schedule.synchronise * cost.synchronise


def train_variant(
    budget: ChainBudget,
    variant: ChainVariant,
    pool: Pool,
    schedule: Schedule,
    seed: int = 0,
    folder: str | Path | None = None,
) -> ClassifierInverter:
    """Train one variant into an inverter; seed and folder as for `dci.train_chain`."""
    return budget.train(variant, pool, schedule, budget.batch, seed=seed, folder=folder)


@torch.no_grad()
def psnr_at(inverter: ClassifierInverter, images: Tensor, depth: int | None = None, batch: int = 8) -> Tensor:
    """PSNR (N,) in dB of the reconstructions of images (N, 3, size, size) from one depth, by default the deepest."""
    return torch.cat([metrics.psnr(inverter.reconstruct(part, depth), part) for part in images.split(batch)])


# Old names, until the notebooks use the new ones.
from study.scores import difference_over_seeds as difference  # noqa: E402, F401
from study.scores import verdict_over_seeds as verdict  # noqa: E402, F401

Arm, Setting, train_arm = ChainVariant, ChainBudget, train_variant
