"""Chapter 8: what makes divide-and-conquer inversion work, one part changed at a time, at the same compute.

A *variant* is one way to train the same chain of inverses: with other loss terms, another split between the two phases,
or other images. Variants share the network, the inverses, the crops and the *compute*, in floating-point operations:
one step of each phase is counted on the very code that trains (`step_cost`), and a variant takes as many steps as its
compute pays for (`plan`). Seconds would differ from machine to machine, and with them every result.

Variants are compared with the full method image by image, by the rule of `scores.verdict_over_seeds`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import data, dci, metrics, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.leakage import mean_colour_psnr
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from recipes import matching
from study import confirmation, plots
from study.notebook import Study, listed, slug
from study.operations import operations_in
from study.scores import difference_over_seeds, verdict_over_seeds

MEAN_COLOUR, PHOTOS = "mean colour", "real photos"


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
        object.__setattr__(self, "sizes", tuple(map(tuple, self.sizes)))  # a notebook's lists could not be a key
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


@cache
def operations_of_steps(budget: ChainBudget, weights: ChainLossWeights, schedule: Schedule) -> int:
    """Operations of a schedule with a batch of one, counted on real steps (`study.operations`)."""
    pool = Pool(torch.rand(1, 3, budget.crop, budget.crop, device=budget.classifier.device))
    return operations_in(lambda: budget.train(ChainVariant(weights), pool, schedule, batch=1))


def step_cost(budget: ChainBudget, variant: ChainVariant) -> StepCost:
    """Operations of one training step of each phase; variants with the same loss terms are counted once."""

    def count(divide: int, synchronise: int, often: tuple[float, ...] | None = None) -> int:
        return operations_of_steps(budget, variant.weights, Schedule(divide, synchronise, often=often))

    start = count(0, 0)  # the inverses take their units from a first batch
    divide = count(1, 0) - start
    visits = [count(0, 1, often) - start for often in _visits(budget, variant)]
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


def operations_of_schedule(budget: ChainBudget, schedule: Schedule, cost: StepCost) -> float:
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


# ---- what the notebook compares, records and draws -------------------------------------------------------------------

PARTS = {
    "no block term": "the block term",
    "no image term": "the image term",
    "no cycle term": "the cycle term",
    "never re-synchronised": "re-synchronising",
    "re-synchronised at one depth": "re-synchronising all depths rather than one",
}


@torch.no_grad()
def statistics_distances(classifier: Classifier, images: Mapping[str, Tensor], n: int) -> dict[str, float]:
    """How far the first n images of each source are from the statistics in the classifier's batch-norm layers.

    images: {source: (N, 3, H, W) in 0 … 255}; a source with "few" in its name, which is part of another, is left out.
    """
    return {
        name: float(matching.statistics_distance(classifier, x[:n].float() / 255))
        for name, x in images.items()
        if "few" not in name
    }


def real_photos(name: str, n: int, seed: int = 0) -> Tensor:
    """n photos of a data set's training split, uint8 (n, 3, S, S), for an inverter that is not zero-shot.

    Raises ValueError for fewer photos.
    """
    images, _ = data.load_bytes(name, "train")
    if len(images) < n:
        raise ValueError(f"{name} holds {len(images)} training photos, not {n}: set pool_images lower.")
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n].sort().values
    return torch.as_tensor(images[rows])


def tested_photos(name: str, n: int, size: int) -> Tensor:
    """At most n photographs, (N, 3, size, size), none of them a confirmation photo where they come from a folder."""
    if not name.startswith("folder:"):
        return data.load(name, n=n, size=size).images
    return confirmation.only_part(data.load(name, size=size), "development").images[:n]


def plan_all(
    budget: ChainBudget, variants: Mapping[str, ChainVariant]
) -> tuple[dict[str, Schedule], dict[str, StepCost]]:
    """Count the operations of a step of every variant and plan its training: {name: schedule}, {name: cost}.

    Variants that differ only in their images or their learning rate are counted once.
    """
    plans, costs = {}, {}
    for name, variant in variants.items():
        like = [
            k for k in costs if dataclasses.replace(variants[k], source=variant.source, rate=variant.rate) == variant
        ]
        costs[name] = costs[like[0]] if like else step_cost(budget, variant)
        plans[name] = plan(budget, variant, costs[name])
    return plans, costs


def plan_rows(
    study: Study,
    budget: ChainBudget,
    plans: Mapping[str, Schedule],
    costs: Mapping[str, StepCost],
    seconds: Mapping[str, float],
) -> dict[str, dict[str, object]]:
    """Record the steps and the seconds of every variant's training; return rows of a table."""
    rows = {}
    for name, schedule in plans.items():
        spent = operations_of_schedule(budget, schedule, costs[name])
        steps = budget.depth * schedule.divide + schedule.synchronise
        study.record(f"steps_{slug(name)}", steps, operations=spent)
        study.record(f"seconds_{slug(name)}", seconds[name], unit="s", digits=2, tolerance=None)
        rows[name] = {
            "divide, steps each": schedule.divide,
            "re-synchronise, steps": schedule.synchronise,
            "operations, 10¹²": f"{spent / 1e12:.2f}",
            "seconds": f"{seconds[name]:.0f}",
        }
    return rows


def evaluate(
    inverters: Mapping[str, Sequence[ClassifierInverter]], images: Tensor, depth: int | None = None
) -> dict[str, Tensor]:
    """{variant: PSNRs (seeds, N)} of images (N, 3, S, S) reconstructed from one depth, by default the deepest."""
    return {name: torch.stack([psnr_at(x, images, depth) for x in some]) for name, some in inverters.items()}


def without_structure(images: Tensor) -> dict[str, Tensor]:
    """The floor, as `evaluate` gives a variant: {`MEAN_COLOUR`: PSNRs (1, N)} of each image's own mean colour."""
    return {MEAN_COLOUR: mean_colour_psnr(images)[None]}


@dataclass(frozen=True)
class Comparison:
    """A variant's mean PSNR, by how many dB the full method is better, and the verdict on the part that it lacks."""

    mean: Interval
    gain: Interval
    verdict: str


def compare_variants(study: Study, psnr: Mapping[str, Tensor], where: str) -> dict[str, Comparison]:
    """Compare every variant with the first one, the full method, and record "psnr_<variant>_<where>" and "gain_…".

    psnr: {variant: (seeds, N)}, of the same N images.
    where: the name of these images, for the ids.
    """
    full, *_ = psnr
    found = {}
    for name, values in psnr.items():
        one = Comparison(
            statistics.bootstrap(values.mean(0)),
            difference_over_seeds(psnr[full], values),
            verdict_over_seeds(psnr[full], values),
        )
        id = slug(f"{'full' if name == full else name} {where}")
        study.record(f"psnr_{id}", one.mean, unit="dB", tolerance=1.0, seeds=len(values))
        if name != full:
            seeds = (psnr[full] - values).mean(1).tolist()
            more = {"verdict": one.verdict, "by_seed": seeds}
            study.record(f"gain_{id}", one.gain, unit="dB", digits=2, tolerance=1.0, **more)
        found[name] = one
    if len(psnr[full]) > 1:  # how much the seed alone does
        seed = statistics.paired_bootstrap(psnr[full][0], psnr[full][1])
        study.record(f"gain_seed_{slug(where)}", seed, unit="dB", digits=2, tolerance=1.0)
    return found


def rows(found: Mapping[str, Comparison], names: Sequence[str], heading: str) -> dict[str, dict[str, object]]:
    """Rows of a table of some variants, the first of which is the full method; heading: of the verdicts."""
    first, *others = names
    table = {first: {"psnr": found[first].mean}}
    for name in others:
        one = found[name]
        said = "" if name == MEAN_COLOUR else one.verdict  # no part of the method
        table[name] = {"psnr": one.mean, "full − variant, dB": f"{one.gain:+.2f}", heading: said}
    return table


def depth_chart(classifier: Classifier, by_depth: Sequence[Mapping[str, Tensor]], end_to_end: Comparison) -> Figure:
    """What each part gains at every depth: by_depth[k] has {variant: PSNRs (seeds, N)} from block k + 1."""
    full, *names = by_depth[0]
    lines: dict[str, list[Interval | None]] = {
        name: [difference_over_seeds(psnr[full], psnr[name]) for psnr in by_depth] for name in names
    }
    lines["end to end"] = [None] * (len(by_depth) - 1) + [end_to_end.gain]
    places = [block.convolutions for block in classifier.blocks[: len(by_depth)]]
    return plots.curve(places, lines, "convolutions inverted", "full method − variant, dB PSNR")


def gap_rows(
    study: Study, classifier: Classifier, inverters: Mapping[str, Sequence[ClassifierInverter]], images: Tensor
) -> dict[int, dict[str, object]]:
    """Rows of a table: from every depth, what synthetic images fall short of photos as images to train on.

    Each has the mean PSNR of images (N, 3, S, S) by the first of the inverters, the full method, and by those that were
    trained on `PHOTOS`, and the difference, which is recorded as "gap_<convolutions>". Nothing without the latter.
    """
    full, *_ = inverters
    if PHOTOS not in inverters:
        return {}
    some, rows = {name: inverters[name] for name in (full, PHOTOS)}, {}
    for depth in inverters[full][0].depths:
        psnr = evaluate(some, images, depth)
        gap = difference_over_seeds(psnr[full], psnr[PHOTOS])
        convolutions = classifier.blocks[depth - 1].convolutions
        study.record(f"gap_{convolutions}", gap, unit="dB", digits=2, tolerance=1.0)
        means = {name: statistics.bootstrap(psnr[name].mean(0)) for name in some}
        rows[convolutions] = {
            "synthetic images, dB": f"{means[full]:.1f}",
            "photos, dB": f"{means[PHOTOS]:.1f}",
            "synthetic − photos, dB": f"{gap:+.2f}",
        }
    return rows


def gain_chart(sets: Mapping[str, Mapping[str, Comparison]], labels: Mapping[str, str], xlabel: str) -> Figure:
    """By how much the full method is better than some variants {name: label}, on each set {name: comparisons}."""
    groups = {label: {where: found[name].gain for where, found in sets.items()} for name, label in labels.items()}
    return plots.bars(groups, xlabel, horizontal=True)


def parts_in_words(found: Mapping[str, Comparison], rival: str) -> str:
    """Which parts help, which hurt, and of which no difference is seen, as a sentence."""
    parts = PARTS | {rival: "divide-and-conquer rather than end-to-end training"}
    phrases = {"helps": "what helps is", "hurts": "what hurts is", "no difference seen": "no difference is seen for"}
    sentences = []
    for word, phrase in phrases.items():
        if names := [part for name, part in parts.items() if found[name].verdict == word]:
            sentences.append(f"{phrase} {listed(names)}")
    return "; ".join(sentences)


def best_first(found: Mapping[str, Comparison], sources: Iterable[str]) -> str:
    """Sources of images, ordered by what a chain trained on them reaches; the full method's is dead leaves."""
    psnr = {x: found["full method" if x == "dead leaves" else x].mean.value for x in sources}
    return ", ".join(sorted(psnr, key=psnr.get, reverse=True))
