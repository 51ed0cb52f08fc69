"""Chapter 9: how well a generator is inverted, at what cost, and whether that mends defective samples.

Three ways to find the latent behind an image meet here: a trained inverse, `invkit.optimize.invert_latents` from a
random start, and the second started from the first. All are scored against the latent that made the image.

Dong et al. (2021, arXiv 2107.06304, section 4) invert a defective sample, generate an image from the latent found, and
see a better one. To test that claim, a defect is a number: how far a sample lies from typical samples. Two scores share
nothing:

- `mahalanobis` in a classifier's pooled features: a Gaussian fitted to typical samples (Lee et al. 2018, 1807.03888);
- `neighbour_distance` in thumbnails: mean distance to the nearest typical samples (Ramaswamy et al. 2000), no network.

Samples that are chosen for a high score have a lower one after *any* change (regression to the mean), and a latent that
was found by inversion is shorter, nearer to the mode. So there are two controls: the latent itself scaled to that
length (`with_norm`) and a random move of the same size (`random_move`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from invkit import dci, metrics, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import GeneratorInverter
from invkit.dci.training import Schedule
from invkit.network.generators import Generator
from invkit.optimize import Inversion
from invkit.statistics import Interval
from study import plots, scores
from study.notebook import listed, slug
from study.scores import CEILING, Scores, score, tolerance

# ---- how well latents are recovered ----------------------------------------------------------------------------------


@torch.no_grad()
def regenerate(generator: Generator, latents: Tensor, batch: int = 64) -> Tensor:
    """Images (N, 3, size, size) in [0, 1] of latents (N, latent_dim)."""
    return torch.cat([generator.images(part) for part in latents.split(batch)])


@torch.no_grad()
def invert(inverter: GeneratorInverter, images: Tensor, batch: int = 64, feedback: bool = True) -> Tensor:
    """Latents (N, latent_dim) of images (N, 3, H, W), feedforward; without feedback, in one pass."""
    return torch.cat([inverter.invert(part, feedback=feedback) for part in images.split(batch)])


def recovery(generator: Generator, found: Tensor, latents: Tensor) -> Scores:
    """Score latents found, (N, latent_dim), against the true ones.

    cosine: of the found and the true latent.
    r2: the share of the latents' variance that is explained; its mean over latents is R².
    psnr, perceptual: of the image of the found latent, in dB and as a distance.
    """
    images, again = regenerate(generator, latents), regenerate(generator, found)
    variance = (latents - latents.mean(0)).square().sum(1).mean()
    explained = 1 - (found - latents).square().sum(1) / variance
    of_images = score(again, images, measures=("psnr", "perceptual"))
    return Scores({"cosine": metrics.cosine(found, latents), "r2": explained, **of_images})


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
class TrainingPlan:
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


def train_plan(
    generator: Generator, plan: TrainingPlan, sizes: Sequence[tuple[int, int]], batch: int, **options
) -> GeneratorInverter:
    """Train one plan on latents of the prior; options (folder, seed, precision, …) as for `dci.train_chain`."""
    return dci.invert_generator(
        generator, sizes=sizes, batch=batch, schedule=plan.schedule(), weights=ChainLossWeights(1, 0, 0),
        synchronise_weights=plan.weights, progress=False, **options,
    )  # fmt: skip


def operations(generator: Generator, plan: TrainingPlan, sizes: Sequence[tuple[int, int]], batch: int) -> float:
    """Floating-point operations of an plan's training: generator, inverses and backward pass, counted by PyTorch.

    One step of every kind is run with two latents; an operation is a multiplication or an addition in a convolution.
    """
    two = 2  # the inverses take their units from a first batch, which must vary

    def count(divide: int, synchronise: int, often: tuple[float, ...]) -> int:
        with FlopCounterMode(display=False) as counter:
            train_plan(generator, replace(plan, divide=divide, synchronise=synchronise, often=often), sizes, two)
        return counter.get_total_flops()

    def only(depth: int) -> tuple[float, ...]:
        return tuple(float(k == depth) for k in range(len(sizes)))

    start = count(0, 0, plan.often)
    total = plan.divide * (count(1, 0, plan.often) - start) if plan.divide else 0.0
    for depth, weight in enumerate(plan.often):
        if weight and plan.synchronise:
            visits = plan.synchronise * weight / sum(plan.often)
            total += visits * (count(0, 1, only(depth)) - start)
    return total * batch / two


def with_compute(
    generator: Generator, plan: TrainingPlan, sizes: Sequence[tuple[int, int]], batch: int, compute: float
) -> TrainingPlan:
    """The plan with as many `synchronise` steps as `compute` operations pay for after its `divide` steps.

    Raises:
        ValueError: they pay for none.
    """
    one, none = (operations(generator, replace(plan, synchronise=k), sizes, batch) for k in (1, 0))
    steps = int((compute - none) / (one - none))
    if steps < 1:
        raise ValueError(f"{compute:.3g} operations pay for no step of the chain: give at least {one:.3g}.")
    return replace(plan, synchronise=steps)


# ---- which samples are defective -------------------------------------------------------------------------------------


@torch.no_grad()
def pooled_features(classifier, images: Tensor, depth: int, size: int | None = None, batch: int = 64) -> Tensor:
    """Mean over the map of each channel at `depth`, (N, channels), of images (N, 3, H, W) in [0, 1].

    size: side the images are resized to first; by default they go in as they are.
    """
    pooled = []
    for part in images.split(batch):
        if size is not None and part.shape[-1] != size:
            part = F.interpolate(part, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        features = classifier.features(part, depth)
        pooled.append(features.flatten(2).mean(2) if features.dim() > 2 else features)
    return torch.cat(pooled)


def thumbnails(images: Tensor, side: int = 8) -> Tensor:
    """Images averaged down to side x side pixels, as vectors (N, channels * side * side)."""
    return F.adaptive_avg_pool2d(images, side).flatten(1)


def mahalanobis(features: Tensor, typical: Tensor, shrinkage: float = 0.1) -> Tensor:
    """Distance of features (N, D) from the Gaussian of typical features (M, D), in its standard deviations, (N,).

    shrinkage: how far the correlations are drawn towards none, so that few typical samples give an invertible matrix.
    """
    _check_features(features, typical)
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage lies between 0 and 1, not {shrinkage}.")
    features, typical = _standardised(features, typical)
    correlation = typical.T @ typical / (len(typical) - 1)
    correlation = torch.lerp(correlation, torch.eye(len(correlation)).to(correlation), shrinkage)
    return torch.einsum("nd,dn->n", features, torch.linalg.solve(correlation, features.T)).clamp_min(0).sqrt().float()


def neighbour_distance(features: Tensor, typical: Tensor, k: int = 5) -> Tensor:
    """Mean Euclidean distance of features (N, D) to the k nearest of the typical ones (M, D), (N,).

    The samples scored must not be among the typical ones: each would be its own neighbour.
    """
    _check_features(features, typical)
    if not 1 <= k <= len(typical):
        raise ValueError(f"k lies between 1 and the {len(typical)} typical samples, not at {k}.")
    return torch.cdist(features, typical).topk(k, dim=1, largest=False).values.mean(1)


def worst_fraction(scores: Tensor, fraction: float = 0.05) -> Tensor:
    """Indices of the highest scores, the worst first: that share of all, rounded up."""
    if scores.dim() != 1 or not 0 < fraction <= 1:
        raise ValueError(f"Give a vector of scores and a fraction in (0, 1], not {tuple(scores.shape)} and {fraction}.")
    return scores.topk(math.ceil(fraction * len(scores) - 1e-9)).indices


def with_norm(latents: Tensor, like: Tensor) -> Tensor:
    """Latents (N, D) of their own direction and the lengths of `like` (N, D): the control for a shrunken inversion."""
    _check_pair(latents, like)
    return latents * (like.norm(dim=1, keepdim=True) / latents.norm(dim=1, keepdim=True).clamp_min(1e-12))


def random_move(latents: Tensor, like: Tensor, seed: int = 0) -> Tensor:
    """Latents (N, D), each moved as far as its row of `like` lies but in a random direction: control for any change."""
    _check_pair(latents, like)
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    distance = (like - latents).norm(dim=1, keepdim=True)
    return latents + distance * direction / direction.norm(dim=1, keepdim=True)


def _standardised(features: Tensor, typical: Tensor) -> tuple[Tensor, Tensor]:
    """Both in units of the typical samples' mean and standard deviation, in double precision."""
    features, typical = features.double(), typical.double()
    mean, std = typical.mean(0), typical.std(0)
    std = std.clamp_min(1e-6 * std.max().clamp_min(1e-12))  # a dead channel carries no distance
    return (features - mean) / std, (typical - mean) / std


def _check_features(features: Tensor, typical: Tensor) -> None:
    if features.dim() != 2 or typical.dim() != 2 or features.shape[1] != typical.shape[1] or len(typical) < 2:
        raise ValueError(
            f"Scores compare features (N, D) with at least two typical ones (M, D), not {tuple(features.shape)} with "
            f"{tuple(typical.shape)}."
        )


def _check_pair(latents: Tensor, like: Tensor) -> None:
    if latents.dim() != 2 or latents.shape != like.shape:
        shapes = f"{tuple(latents.shape)} with {tuple(like.shape)}"
        raise ValueError(f"Controls pair latents (N, D) row by row, not {shapes}.")


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
            "features": mahalanobis(features, self._features),
            "thumbnail": neighbour_distance(thumbnails, self._thumbnails),
        }

    def _described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = pooled_features(self.classifier, images, self.depth, self.size)
        return features, thumbnails(images)


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


# ---- what the chapter records and shows ------------------------------------------------------------------------------

TITLES = {"adam": "Adam", "lbfgs": "L-BFGS", "gauss-newton": "Gauss–Newton"}  # of the optimisers
GOAL, GOAL_REFINED = 25, 35  # dB of the median PSNR, set beforehand: feedforward, and after a few steps
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # seconds a face
WORDS = {"helps": "dividing is better", "hurts": "dividing is worse", "no difference seen": "not told apart"}


def median(values: Tensor) -> Interval:
    """The median over images with its 95 % bootstrap interval."""
    return statistics.bootstrap(values, statistic="median")


def record_recovery(study, feedforward: Scores, one_pass: Scores, rounds: int, faces: Tensor) -> None:
    """Record how well latents are recovered, what error feedback adds, and how far random pairs of faces lie apart.

    rounds: of error feedback, with which `feedforward` was inverted; 0 for none.
    faces: the true ones.
    """
    means = feedforward.intervals()
    study.record("psnr", median(feedforward.psnr), unit="dB", tolerance=0.5)
    study.record_interval("psnr", "mean", means["psnr"])
    for measure in ("cosine", "r2", "perceptual"):
        study.record(measure, means[measure], tolerance=tolerance(measure, study.name))
    if rounds:
        gain = statistics.paired_bootstrap(feedforward.psnr, one_pass.psnr)
        study.record("gain_feedback", gain, unit="dB", digits=2, tolerance=0.3)
    others = faces.roll(1, 0)
    study.record("psnr_chance", metrics.psnr(faces, others).median(), unit="dB", tolerance=0.5)
    study.record("perceptual_chance", metrics.perceptual(faces, others).mean(), digits=2, tolerance=0.05)
    study.record("goal", GOAL, unit="dB", digits=2, tolerance=0)
    again = f" and {rounds} × error feedback" if rounds else ""
    steps = f", then {rounds} × error feedback: generate the face again, invert that, and give back what it lost"
    for id, text in {
        "passes_words": f"one pass through the inverses{again},",
        "feedback_words": f"one pass{steps if rounds else ' through the chain'}.",
        "goal_words": "reached" if median(feedforward.psnr).value >= GOAL else "missed",
        "perceptual_name": metrics.perceptual_name(),
    }.items():
        study.record_text(id, text)


def recovery_rows(columns: Mapping[str, Scores]) -> dict:
    """Rows of a table, {how it was inverted: {measure: value}}."""
    return {
        title: {"PSNR, dB, median": f"{median(some.psnr):.1f}", **some.intervals()} for title, some in columns.items()
    }


def id_of(method: str, start: str) -> str:
    """Of an optimisation, as part of an id: "gauss_newton_alone" or "gauss_newton_started"."""
    return f"{method.replace('-', '_')}_{'alone' if start == 'random' else 'started'}"


def record_optimised(study, runs: Mapping[tuple[str, str], Inversion], scored: Mapping, refine: str) -> None:
    """Record what optimisers reach and in how many seconds a face, {(method, start): …}; `refine` is the one shown."""
    for (method, start), some in scored.items():
        id, seconds = id_of(method, start), runs[method, start].seconds / len(some.psnr)
        study.record(f"psnr_{id}", median(some.psnr), unit="dB", tolerance=5.0)
        study.record(f"seconds_{id}", seconds, unit="s", digits=2, tolerance=None)
    study.record("psnr_refined", median(scored[refine, "ẑ"].psnr), unit="dB", tolerance=5.0)
    steps = len(runs[refine, "ẑ"].losses) - 1
    study.record_text("few_steps_words", f"{steps} steps of {TITLES[refine]}")
    study.record("goal_refined", GOAL_REFINED, unit="dB", digits=2, tolerance=0)
    reached = [TITLES[m] for m, start in scored if start == "ẑ" and scored[m, start].psnr.median() >= GOAL_REFINED]
    words = f"is reached from ẑ by {listed(reached)}" if reached else "is missed"
    study.record_text("goal_refined_words", words)


def optimised_rows(
    runs: Mapping[tuple[str, str], Inversion], scored: Mapping, at_start: Scores, seconds: float
) -> dict:
    """Rows of a table, {(method, start): {column: value}}; first the feedforward one, of so many seconds a face."""
    rows = {}
    for run, some in {("feedforward", ""): at_start, **scored}.items():
        took = runs[run].seconds / len(some.psnr) if run in runs else seconds
        rows[TITLES.get(run[0], run[0]), run[1]] = {
            "steps": str(len(runs[run].losses) - 1) if run in runs else "",
            "s a face": f"{took:.2g}",
            "PSNR, dB, median": f"{median(some.psnr):.1f}",
            f"≥ {GOAL_REFINED} dB": f"{(some.psnr >= GOAL_REFINED).float().mean():.0%}",
            "perceptual": f"{some.perceptual.mean():.3f}",
            "cosine": f"{some.cosine.mean():.3f}",
        }
    return rows


def record_gains(study, runs: Mapping[tuple[str, str], Inversion], scored: Mapping, at_start: Scores) -> dict:
    """Record what each optimiser gains by starting from the inverse's latent; returns rows of a table."""
    rows = {}
    for method in dict.fromkeys(method for method, _ in scored):
        alone, started = (scored[method, start].psnr for start in ("random", "ẑ"))
        gain, over = (statistics.paired_bootstrap(started, other) for other in (alone, at_start.psnr))
        said, id = scores.verdict(gain), method.replace("-", "_")
        study.record(f"gain_{id}", gain, unit="dB", digits=2, tolerance=5.0, verdict=said)
        long, short = runs[method, "random"], runs[method, "ẑ"]
        rows[TITLES[method]] = {
            "steps": f"{len(short.losses) - 1} against {len(long.losses) - 1}",
            "from ẑ − alone, dB": f"{gain:+.1f}: {said}",
            "time saved": f"{long.seconds / short.seconds:.0f} ×",
            "from ẑ − feedforward, dB": f"{over:+.1f}",
        }
    return rows


def budget_chart(runs: Mapping[tuple[str, str], Inversion], at_start: Scores, before: float) -> Figure:
    """Median PSNR over the seconds spent on a face; before: seconds that the inverse's latent takes."""
    lines, paths = {}, {run: psnr_path(inversion) for run, inversion in runs.items()}
    seconds = {run: inversion.seconds / paths[run].shape[1] for run, inversion in runs.items()}
    quickest = min(seconds[run] / (len(path) - 1) for run, path in paths.items())
    budgets = [budget for budget in BUDGETS if quickest <= budget <= 2 * max(seconds.values())]
    for (method, start), path in paths.items():
        label = f"{TITLES[method]}, {'alone' if start == 'random' else 'from ẑ'}"
        spent = 0.0 if start == "random" else before
        lines[label] = psnr_within(path, seconds[method, start], budgets, spent)
    reference = {f"feedforward, {before:.1g} s": at_start.psnr.median().item()}
    return plots.curve(budgets, lines, "seconds a face", "PSNR, dB, median", logx=True, reference=reference)


def record_live(
    study, plans: Mapping[str, TrainingPlan], results: Mapping[str, Sequence[Scores]], seconds: Mapping
) -> dict:
    """Record the chains trained in the chapter, {name: scores of each seed}; returns rows of a table.

    The first is trained by divide and conquer, the others as a whole.
    seconds: of one training.
    """
    psnr = {name: torch.stack([some.psnr for some in copies]) for name, copies in results.items()}
    (dividing, ours), words, rows = next(iter(psnr.items())), [], {}
    for name, copies in results.items():
        id, plan = "divide" if name == dividing else slug(name), plans[name]
        middle = median(psnr[name].mean(0))
        study.record(f"live_{id}", middle, unit="dB", tolerance=1.5, seconds=seconds[name])
        steps = plan.divide * len(plan.often) + plan.synchronise
        row = {"steps": f"{steps:,}", "s": f"{seconds[name]:.0f}", "PSNR, dB, median": f"{middle:.1f}"}
        for measure in ("perceptual", "cosine", "r2"):
            row[measure] = torch.stack([some[measure] for some in copies]).mean().item()
        if name != dividing:
            gain = scores.difference_over_seeds(ours, psnr[name])
            verdict = scores.verdict_over_seeds(ours, psnr[name])
            study.record(f"live_gain_{id}", gain, unit="dB", digits=2, tolerance=1.5, verdict=verdict)
            words.append(f"against “{name}”, {WORDS[verdict]}")
            row["dividing − this, dB"] = f"{gain:+.2f}: {WORDS[verdict]}"
        rows[name] = row
    study.record_text("live_seeds", len(next(iter(results.values()))))
    study.record_text("live_words", "; ".join(words))
    return rows


@dataclass(frozen=True)
class Mending:
    """Defect scores, in standard deviations over all faces, of the worst faces and of their other versions.

    everyone: {score: (N,)} of all faces.
    before, after: {score: (K,)} of the worst ones, and the same of each version.
    identity: {version: perceptual distance to the original (K,)}.
    """

    everyone: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    after: Mapping[str, Mapping[str, Tensor]]
    identity: Mapping[str, Tensor]

    def changes(self, version: str, other: str = "") -> dict[str, Interval]:
        """Version minus original, or minus another version, for each score."""
        less = self.after[other] if other else self.before
        return {name: statistics.paired_bootstrap(self.after[version][name], less[name]) for name in self.before}


CONTROLS = ("shrunk", "moved")


def mending(everyone: Mapping[str, Tensor], chosen: Tensor, judged: Mapping, identity: Mapping) -> Mending:
    """Scores of a `Judge` of all faces and of {version: images of the chosen ones}, in standard deviations."""
    units = {name: values.std() for name, values in everyone.items()}

    def scaled(some: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: values / units[name] for name, values in some.items()}

    everyone = scaled(everyone)
    before = {name: values[chosen] for name, values in everyone.items()}
    return Mending(everyone, before, {name: scaled(some) for name, some in judged.items()}, identity)


def record_mending(study, mended: Mending) -> dict:
    """Record whether regenerated faces are better than the worst ones and the controls; returns rows of a table."""
    rows, controls = {}, {name: mended.changes("regenerated", name) for name in CONTROLS}
    own = mended.changes("regenerated")
    for name in ("regenerated", *CONTROLS):
        changes, far = mended.changes(name), statistics.bootstrap(mended.identity[name])
        row = {measure: f"{change:+.2f}" for measure, change in changes.items()}
        for measure, change in changes.items():
            study.record(f"{name}_{measure}", change, digits=2, tolerance=0.4)
            if name in controls:
                study.record(f"against_{name}_{measure}", controls[name][measure], digits=2, tolerance=0.4)
                row[f"{measure}: regenerated − this"] = f"{controls[name][measure]:+.2f}"
        study.record(f"{name}_identity", far, digits=2, tolerance=0.05)
        rows[name] = row | {"perceptual": far}
    said = verdict(own, controls)
    unclear = [f"by {s} the regenerated faces do not clearly improve" for s in own if own[s].high >= 0]
    for name, gains in controls.items():
        unclear += [f"by {s} they are not clearly better than the {name} ones" for s, g in gains.items() if g.high >= 0]
    clear = "by both scores the regenerated faces improve, and are better than the shrunk and the moved ones"
    study.record("mends", said == "mends", tolerance=None, verdict=said)
    study.record_text("verdict", said)
    study.record_text("reasons", "; ".join(unclear) or clear)
    return rows


def record_agreement(study, mended: Mending, chosen: Tensor) -> None:
    """Record how far the two defect scores agree, over all faces and on the chosen ones."""
    features, thumbnail = mended.everyone["features"].cpu(), mended.everyone["thumbnail"].cpu()
    agreement = spearmanr(features, thumbnail).statistic
    study.record("agreement", agreement, digits=2, n=len(features), tolerance=0.1)
    higher = (thumbnail[chosen.cpu()] > thumbnail.median()).float().mean().item()
    study.record("worst_in_both", 100 * higher, unit="%", n=len(chosen), tolerance=15)
    degree = (
        "strongly" if agreement > 0.6 else "moderately" if agreement > 0.3 else "weakly" if agreement > 0 else "not"
    )
    study.record_text("degree", degree)


def defect_captions(mended: Mending, first: int) -> dict[str, list[str]]:
    """{version: "features, thumbnail" of the first faces}, in standard deviations above the mean of all faces."""
    mean = {name: values.mean() for name, values in mended.everyone.items()}
    captions = {}
    for name, some in {"original": mended.before, **mended.after}.items():
        columns = zip(*((some[s][:first] - mean[s]).tolist() for s in mean), strict=True)
        captions[name] = [f"{a:+.1f}, {b:+.1f}" for a, b in columns]
    return captions


def identity_chart(mended: Mending) -> Figure:
    """What an improvement costs: change of the defect scores against the distance to the original face."""
    points = {}
    for name, after in mended.after.items():
        both = torch.stack([after[s] - mended.before[s] for s in mended.before]).mean(0)
        points[name] = statistics.bootstrap(mended.identity[name]), statistics.bootstrap(both)
    return plots.scatter(points, "perceptual distance to the original", "change of the defect scores, s.d.")


def facts_of(card: Mapping, generator: Generator) -> str:
    """A Markdown list: what the card says of the weights."""
    facts = {
        "inverts": f"{card['network']}, from {card['size']} pixels to {generator.latent_dim} numbers",
        "trained": f"{card['steps']:,} steps in {card['hours']} hours, seed {card['seed']}",
        "on": card["machine"],
        "by": f"invkit {card['code']}",
        "size": f"{card['numbers'] / 1e6:.1f} million numbers, {card['bytes'] / 1e6:.1f} MB",
        "SHA-256": f"`{card['sha256'][:16]}…`",
        "again": f"`python -m recipes train {card['name']} --folder FOLDER --seed {card['seed']}`",
    }
    return "\n".join(f"- **{key}**: {value}" for key, value in facts.items())
