"""Chapter 16: whether dividing beats end-to-end training, by compute and by depth (Dong et al. 2021, arXiv 2107.06304).

A *way* is one way to train the same chain of inverses of a classifier's first blocks, for reconstructions from the last
of them. As in chapter 8, all ways share the network, the inverses, the synthetic images and the *compute*, in
floating-point operations that are counted on the very code that trains. A *cell* of the experiment is one depth with
one compute. In each cell every way chooses its learning rate on held-out synthetic images; photographs come after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import dci, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study import plots
from study.baselines import mean_colours
from study.notebook import Study, slug
from study.operations import operations_in
from study.scores import MEASURES, Scores, difference_over_seeds, score

# What is measured, and how far another machine's value may lie: it trains everything anew.
MEASURED = {"psnr": 1.0, "perceptual": 0.1, "perceptual_second": 0.1, "found": 25}

# ---- ways to train, and what they cost -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to train a chain of inverses for reconstructions from its deepest block.

    divided: share of the compute in which every inverse is trained by itself, by the block term alone; the rest trains
        the whole chain, from the deepest block.
    together: weights of the loss terms of that rest.
    linear: whether every inverse starts as the linear map of least squares from its block's outputs to the inputs, a
        start in closed form that only a divided network has; it comes with at least one step of dividing.
    """

    divided: float
    together: ChainLossWeights
    linear: bool = True


END_TO_END, LINEAR, DIVIDED, SYNCHRONISED, CYCLE = (
    "end to end", "linear start, end to end", "divided", "divided, re-synchronised", "the same, with cycle",
)  # fmt: skip
BLOCK, IMAGE = ChainLossWeights(block=1, input=0, cycle=0), ChainLossWeights(block=0, input=1, cycle=0)
WAYS = {
    END_TO_END: Way(0.0, IMAGE, linear=False),
    LINEAR: Way(0.0, IMAGE),
    DIVIDED: Way(1.0, BLOCK),
    SYNCHRONISED: Way(0.3, ChainLossWeights(block=1, input=1, cycle=0)),
    CYCLE: Way(0.3, ChainLossWeights(block=1, input=1, cycle=0.1)),
}
# What is asked, as (way, way without the part): the difference is what the part is worth.
QUESTIONS = {
    "dividing": (SYNCHRONISED, END_TO_END),
    "dividing beyond its linear start": (SYNCHRONISED, LINEAR),
    "re-synchronising": (SYNCHRONISED, DIVIDED),
    "the cycle term": (CYCLE, SYNCHRONISED),
}


@dataclass(frozen=True)
class Setting:
    """What all ways share at one depth.

    depth: the deepest block to invert.
    width: channels of an inverse at half the image's side; smaller maps have up to four times as many.
    batch: images a step, of the classifier's size.
    precision: of training.
    """

    classifier: Classifier
    depth: int
    width: int = 16
    batch: int = 4
    precision: str = "auto"

    def __post_init__(self):
        deepest = sum(block.invertible for block in self.classifier.blocks)
        if not 1 <= self.depth <= deepest:
            raise ValueError(f"Give depths from 1 to {deepest}, not {self.depth}.")

    @property
    def convolutions(self) -> int:
        return self.classifier.blocks[self.depth - 1].convolutions

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, residual blocks) of each inverse."""
        shapes = [block.shape for block in self.classifier.blocks[: self.depth]]
        sides = [shape[1] if len(shape) == 3 else 1 for shape in shapes]  # a vector is a map of one place
        return [(self.width * max(1, min(4, self.classifier.size // (2 * side))), 1) for side in sides]

    def train(self, way: Way, pool: Pool, schedule: Schedule, **more) -> ClassifierInverter:
        """Train a chain; more: arguments of `dci.invert_classifier`, such as seed and folder."""
        return dci.invert_classifier(
            self.classifier, pool, depth=self.depth, sizes=self.sizes, schedule=schedule, at_once=way.linear,
            crops=lambda _: (self.batch, self.classifier.size), precision=self.precision, progress=False,
            weights=BLOCK, synchronise_weights=way.together, **more,
        )  # fmt: skip

    def schedule(self, divide: int, together: int, rate: float = 1e-3) -> Schedule:
        """Steps of both phases at one rate; the second visits the deepest block alone."""
        often = (0.0,) * (self.depth - 1) + (1.0,)
        return Schedule(divide, together, divide_lr=rate, synchronise_lr=rate, often=often)


def check_budgets(
    depths: Sequence[int], computes: Sequence[float], seeds: Sequence[int], longest: Sequence[tuple[int, float]]
) -> None:
    """Raise ValueError, before anything is trained, for parameters that do not fit together."""
    if not depths or not computes or len(seeds) != len(computes) or min(seeds) < 1:
        raise ValueError(f"Give depths, computes, and a number of seeds for each compute: not {computes} and {seeds}.")
    if not all(0 < compute < math.inf for compute in computes):
        raise ValueError(f"computes are finite numbers of operations above 0, not {list(computes)}.")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in longest):
        raise ValueError(f"`longest` has pairs [depth, compute], such as [[4, 1e12]], not {list(longest)}.")
    for depth, compute in longest:
        if depth not in depths:
            raise ValueError(f"`longest` names depth {depth}, which is not among `depths`, {list(depths)}.")
        if not max(computes) < compute < math.inf:
            raise ValueError(f"`longest` is for computes above {max(computes):g}, the largest, not {compute:g}.")


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of the start, and of one step of each phase."""

    start: float
    divide: float
    together: float


@cache
def operations_of(setting: Setting, way: Way, divide: int, together: int) -> int:
    """Operations of so many training steps, the second phase from the deepest block, and of the start before them.

    They are counted on real steps: network, inverses and backward pass (`study.operations`).
    """
    size, device = setting.classifier.size, setting.classifier.device
    often = (0.0,) * (setting.depth - 1) + (1.0,)
    pool = Pool(torch.rand(2, 3, size, size, device=device))
    schedule = replace(setting.schedule(divide, together), often=often)
    return operations_in(lambda: setting.train(way, pool, schedule))


def cost_of(setting: Setting, way: Way) -> Cost:
    """A way's operations; phases that two ways have in common are counted once (`operations_of`)."""
    least = int(way.linear)  # steps of dividing that come with the start
    alone, joint = Way(1.0, BLOCK, way.linear), replace(way, divided=0.0)
    start = operations_of(setting, alone, least, 0)
    divide = operations_of(setting, alone, least + 1, 0) - start if way.divided else 0
    together = operations_of(setting, joint, least, 1) - start if way.divided < 1 else 0
    return Cost(start, divide, together)


def plan_way(setting: Setting, way: Way, cost: Cost, compute: float, rate: float) -> Schedule:
    """The schedule that spends a compute, the start first.

    Raises:
        ValueError: the compute does not pay for one step of a phase that the way has.
    """
    shares = {"divide": way.divided, "together": 1 - way.divided}
    shares = {phase: share for phase, share in shares.items() if share}
    steps = {phase: int(share * (compute - cost.start) / getattr(cost, phase)) for phase, share in shares.items()}
    if min(steps.values()) < 1:
        least = cost.start + max(getattr(cost, phase) / share for phase, share in shares.items())
        raise ValueError(
            f"{compute:.3g} operations pay for no step of a phase at depth {setting.depth}: give at least {least:.3g}."
        )
    return setting.schedule(steps.get("divide", 0) + way.linear, steps.get("together", 0), rate)


# ---- the experiment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trained:
    """What one way reached in one cell.

    rate: the learning rate that it chose.
    edge: whether that is the smallest or the largest that was tried.
    steps: of both phases.
    scores: of the reconstructions of the photos, one for each seed.
    images: the first seed's reconstructions of the photos, (N, 3, S, S).
    """

    rate: float
    edge: bool
    steps: tuple[int, int]
    scores: tuple[Scores, ...]
    images: Tensor

    def over_seeds(self, measure: str) -> Tensor:
        """The scores by one measure, (seeds, photos)."""
        return torch.stack([one[measure] for one in self.scores])


@torch.no_grad()
def reconstructions(inverter: ClassifierInverter, images: Tensor, batch: int = 10) -> Tensor:
    """What an inverter makes of images (N, 3, S, S), from its deepest block, without error feedback."""
    return torch.cat([inverter.reconstruct(part, feedback=False) for part in images.split(batch)])


def train_cell(
    setting: Setting,
    compute: float,
    rates: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    pool: Tensor,
    held_out: Tensor,
    photos: Tensor,
    folder: Path,
) -> dict[str, Trained]:
    """Train every way at one depth with one compute: {way: what it reached}.

    rates: that each way may choose from (`best_rate`), by the held-out PSNR of its first seed; a rate at which that
        training diverges is no choice. This search is not charged.
    seeds: of the training runs.
    pool: synthetic images to train on, uint8 (n, 3, side, side).
    held_out, photos: images (N, 3, S, S) by which rates are chosen, and the ways compared.
    folder: for checkpoints.
    """
    cell = {}
    for name, way in WAYS.items():
        cost = cost_of(setting, way)

        def trained(rate: float, seed: int, name=name, way=way, cost=cost) -> ClassifierInverter:
            schedule = plan_way(setting, way, cost, compute, rate)
            place = folder / slug(f"{name} depth {setting.depth} compute {compute:g} rate {rate:g} seed {seed}")
            return setting.train(way, Pool(pool, seed), schedule, seed=seed, folder=place)

        def held_out_psnr(rate: float, trained=trained) -> float:
            try:
                made = reconstructions(trained(rate, seeds[0]), held_out)
            except FloatingPointError:  # the training diverges
                return -math.inf
            return score(made, held_out, measures=["psnr"]).psnr.mean().item()

        rate, edge = best_rate(held_out_psnr, rates[name])
        images = [reconstructions(trained(rate, seed), photos) for seed in seeds]
        steps = plan_way(setting, way, cost, compute, rate)
        scores = tuple(score(some, photos, measures=list(MEASURED)) for some in images)
        cell[name] = Trained(rate, edge, (steps.divide, steps.synchronise), scores, images[0])
    return cell


def best_rate(value: Callable[[float], float], rates: Sequence[float]) -> tuple[float, bool]:
    """The rate of largest value, and whether it is the smallest or the largest that was tried.

    rates: to try; a single one is taken as it is. Where the best lies at their edge, up to two are tried beyond it.
    """
    if len(rates) == 1:
        return rates[0], False
    tried, step = {rate: value(rate) for rate in rates}, sorted(rates)[1] / min(rates)
    while True:
        best = max(tried, key=tried.get)
        edge = best in (min(tried), max(tried))
        if not edge or len(tried) == len(rates) + 2:
            return best, edge
        beyond = best / step if best == min(tried) else best * step
        tried[beyond] = value(beyond)


def rates_after(cell: Mapping[str, Trained], rates: Sequence[float]) -> dict[str, Sequence[float]]:
    """The rates that the ways chose in a cell, for another cell to take; the end-to-end rival chooses anew."""
    return {name: rates if name == END_TO_END else [one.rate] for name, one in cell.items()}


# ---- what the notebook records and draws -----------------------------------------------------------------------------

Cells = Mapping[int, Mapping[float, Mapping[str, Trained]]]  # {depth: {compute: {way: what it reached}}}


def worth(cell: Mapping[str, Trained], question: str, measure: str = "psnr") -> Interval:
    """With a part less without it, in one cell: the mean difference over photos and seeds, with its 95 % interval."""
    with_part, without = (cell[name].over_seeds(measure) for name in QUESTIONS[question])
    return difference_over_seeds(with_part, without)


def seed_difference(cell: Mapping[str, Trained]) -> Interval | None:
    """By how many dB the first seed of re-synchronised training differs from its second; None with a single one."""
    psnr = cell[SYNCHRONISED].over_seeds("psnr")
    return difference_over_seeds(psnr[:1], psnr[1:2]) if len(psnr) > 1 else None


def over_mean_colour(cell: Mapping[str, Trained], floor: Tensor) -> Interval:
    """By how many dB re-synchronised training is better than the mean colours, of PSNR `floor`."""
    return difference_over_seeds(cell[SYNCHRONISED].over_seeds("psnr"), floor[None])


def above_floor(cell: Mapping[str, Trained], floor: Tensor) -> bool:
    """Whether the best way of a cell is better than the mean colours, of PSNR `floor`: else nothing is decided.

    It is where the whole 95 % interval of the best way's lead lies above 0.
    """
    best = max((one.over_seeds("psnr") for one in cell.values()), key=lambda psnr: psnr.mean().item())
    return difference_over_seeds(best, floor[None]).low > 0


def crossing(by_compute: Mapping[float, Mapping[str, Trained]], floor: Tensor) -> str:
    """Where end-to-end training overtakes dividing as the compute grows, in words.

    Computes with which no way is better than the mean colours, of PSNR `floor`, decide nothing. Between two computes
    the place is found on a straight line over the logarithm of compute. Where the whole interval of every compute lies
    on one side of 0, they do not cross within what was tried.
    """
    computes = sorted(compute for compute, cell in by_compute.items() if above_floor(cell, floor))
    gains = [worth(by_compute[compute], "dividing") for compute in computes]
    if not gains:
        return "nothing is decided, since no way is certainly better than the photos' mean colours"
    if all(gain.low > 0 for gain in gains):
        return f"dividing is ahead up to the largest, {written_compute(computes[-1])} operations"
    if all(gain.high < 0 for gain in gains):
        return f"end to end is ahead from {written_compute(computes[0])} operations on"
    if gains[0].low > 0 and gains[-1].high < 0:
        i = next(i for i, gain in enumerate(gains) if gain.value <= 0)
        (before, after), (a, b) = computes[i - 1 : i + 1], (gains[i - 1].value, gains[i].value)
        place = before * (after / before) ** (a / (a - b))
        return f"end to end overtakes dividing at about {written_compute(place)} operations"
    return "neither is ahead at every compute, and where they cross is not decided"


def written_compute(compute: float) -> str:
    """A number of operations as the page shows it: "2 × 10¹²"."""
    power = math.floor(math.log10(compute) + 1e-9)
    digits = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{compute / 10**power:.2g} × 10{digits}"


def mean_over_seeds(one: Trained, measure: str) -> Interval:
    """The mean of a measure over photos and seeds, with its 95 % interval over photos; of a share, the first seed's."""
    if MEASURES[measure].share:
        return statistics.proportion(one.scores[0][measure])
    return statistics.bootstrap(one.over_seeds(measure).mean(0))


def record_cells(study: Study, cells: Cells, settings: Mapping[int, Setting], floor: Tensor) -> None:
    """Record every score and what each part is worth.

    The ids end in "_<convolutions>_budget_<1, 2, …>", and for a depth's largest compute in "_<convolutions>_largest".
    """
    for depth, by_compute in cells.items():
        place = f"{settings[depth].convolutions}"
        for i, compute in enumerate(sorted(by_compute), start=1):
            cell, where = by_compute[compute], f"{place} {'largest' if compute == max(by_compute) else f'budget {i}'}"
            in_db = {"unit": "dB", "digits": 2, "tolerance": 1.0}
            for name, one in cell.items():
                for measure, tolerance in MEASURED.items():
                    study.record_interval(
                        measure, f"{name} {where}", mean_over_seeds(one, measure), tolerance=tolerance
                    )
            for question in QUESTIONS:
                id = slug(f"{question} {where}")
                with_part, without = (cell[name].over_seeds("psnr").mean(1) for name in QUESTIONS[question])
                by_seed = (with_part - without).tolist()
                study.record(f"worth_{id}", worth(cell, question), by_seed=by_seed, **in_db)
                for measure in ("perceptual", "perceptual_second"):
                    study.record(f"worth_{measure}_{id}", worth(cell, question, measure), digits=2, tolerance=0.1)
            study.record(f"over_mean_colour_{slug(where)}", over_mean_colour(cell, floor), **in_db)
        between = [gap for compute in sorted(by_compute) if (gap := seed_difference(by_compute[compute]))]
        if between:  # of the largest compute that has two seeds
            study.record(f"between_seeds_{place}", between[-1], unit="dB", digits=2, tolerance=1.0)


def record_crossings(
    study: Study, cells: Cells, settings: Mapping[int, Setting], compute: float, floor: Tensor
) -> None:
    """Record what the first lines of the page say: what parts are worth with one compute, and where the ways cross.

    "last" is the deepest depth at which a way is better than the mean colours, if there is one.
    """
    in_db = {"unit": "dB", "digits": 2, "tolerance": 1.0}
    decided = [depth for depth, by_compute in cells.items() if above_floor(by_compute[compute], floor)]
    for place, depth in (("first", min(cells)), ("last", max(decided, default=min(cells)))):
        cell = cells[depth][compute]
        study.record(f"worth_{place}", worth(cell, "dividing"), **in_db)
        study.record(f"beyond_{place}", worth(cell, "dividing beyond its linear start"), **in_db)
        study.record(f"cycle_{place}", worth(cell, "the cycle term"), **in_db)
        for measure in ("perceptual", "perceptual_second"):
            study.record(f"cycle_{measure}_{place}", worth(cell, "the cycle term", measure), digits=2, tolerance=0.1)
        study.record(f"{place}_convolutions", settings[depth].convolutions, digits=1, tolerance=0)
    phrases = [
        f"after {settings[depth].convolutions} convolutions {crossing(by_compute, floor)}"
        for depth, by_compute in cells.items()
    ]
    study.record_text("crossings", "; ".join(phrases), compared=False)
    study.record_text("shared_compute", written_compute(compute))


def worth_rows(
    cells: Cells, settings: Mapping[int, Setting], floor: Tensor
) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: what each part is worth in dB, by depth and compute, and how far training is above the floor."""
    return {
        (f"{settings[depth].convolutions}", written_compute(compute)): {
            question: f"{worth(cell, question):+.2f}" for question in QUESTIONS
        }
        | {"over the mean colour": f"{over_mean_colour(cell, floor):+.2f}"}
        for depth, by_compute in cells.items()
        for compute, cell in by_compute.items()
    }


def way_rows(cells: Cells, settings: Mapping[int, Setting]) -> dict[tuple[str, str, str], dict[str, object]]:
    """Rows of a table: every way at every depth and compute, with its steps, its rate and its scores."""
    return {
        (f"{settings[depth].convolutions}", written_compute(compute), name): {
            "steps": " + ".join(str(steps) for steps in one.steps if steps),
            "rate": f"{one.rate:g}{' (edge)' if one.edge else ''}",
            "runs": f"{len(one.scores)}",
        }
        | {measure: mean_over_seeds(one, measure) for measure in MEASURED}
        for depth, by_compute in cells.items()
        for compute, cell in by_compute.items()
        for name, one in cell.items()
    }


def compute_chart(cells: Cells, settings: Mapping[int, Setting], measure: str, photos: Tensor) -> Figure:
    """One measure of every way against compute, a small chart for each depth; dashed: each photo's mean colour."""
    floor = score(mean_colours(photos), photos, measures=[measure])[measure].mean().item()
    groups = _by_compute(cells, settings, WAYS, lambda cell, name: mean_over_seeds(cell[name], measure))
    reference = {title: {"mean colour": floor} for title in groups}
    figure = plots.panels(_places(cells), groups, COMPUTE, logx=True, reference=reference, joined=True)
    figure.axes[0].set_ylabel(MEASURES[measure].heading)
    return figure


def worth_chart(cells: Cells, settings: Mapping[int, Setting]) -> Figure:
    """What each part is worth in dB against compute, a small chart for each depth."""
    groups = _by_compute(cells, settings, QUESTIONS, worth)
    reference = {title: {"no difference": 0.0} for title in groups}
    figure = plots.panels(_places(cells), groups, COMPUTE, logx=True, reference=reference, joined=True)
    figure.axes[0].set_ylabel("worth in PSNR, dB")
    return figure


COMPUTE = "compute, 10¹² operations"


def _places(cells: Cells) -> list[float]:
    """Every compute of any depth, in 10¹² operations."""
    return [compute / 1e12 for compute in sorted({compute for some in cells.values() for compute in some})]


def _by_compute(cells: Cells, settings: Mapping[int, Setting], names: Iterable[str], value: Callable) -> dict:
    """{chart's title: {name: value(cell, name) for every compute, None where there is no such cell}}."""
    computes = sorted({compute for by_compute in cells.values() for compute in by_compute})
    return {
        f"after {settings[depth].convolutions} convolutions": {
            name: [value(some[compute], name) if compute in some else None for compute in computes] for name in names
        }
        for depth, some in cells.items()
    }


def pictured(cell: Mapping[str, Trained], photos: Tensor) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Three photos as every way reconstructs them, and the PSNR below each: rows and captions of a grid."""
    chosen = torch.arange(0, len(photos), max(1, len(photos) // 3))[:3]
    images = {"original": photos[chosen]} | {name: one.images[chosen] for name, one in cell.items()}
    return images, {name: [f"{x:.1f}" for x in one.scores[0].psnr[chosen]] for name, one in cell.items()}
