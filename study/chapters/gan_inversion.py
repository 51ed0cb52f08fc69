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
from torch import Tensor
from torch.nn import functional as F

from invkit import dci, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import GeneratorInverter
from invkit.dci.training import Schedule
from invkit.network.generators import Generator
from invkit.optimize import Inversion, invert_latents
from invkit.statistics import Interval
from study.operations import operations_in
from study.scores import CEILING, Scores, score

# ---- how well latents are recovered ----------------------------------------------------------------------------------


@torch.no_grad()
def regenerate(generator: Generator, latents: Tensor, batch: int = 64) -> Tensor:
    """Images (N, 3, size, size) in [0, 1] of latents (N, latent_dim)."""
    return torch.cat([generator.images(part) for part in latents.split(batch)])


@torch.no_grad()
def latents_of(inverter: GeneratorInverter, images: Tensor, batch: int = 64, feedback: bool = True) -> Tensor:
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
    return Scores({"cosine": torch.cosine_similarity(found, latents), "r2": explained, **of_images})


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


def from_two_random_starts(
    generator: Generator, latents: Tensor, method: str, steps: int, seeds: tuple[int, int]
) -> tuple[Scores, Scores]:
    """Scores of an optimiser from two random starts, for the images of latents (N, latent_dim): on average, the same.

    seeds: of the two starts.
    """
    images = regenerate(generator, latents)
    ends = [invert_latents(generator, images, method, steps=steps, seed=seed).estimate for seed in seeds]
    return recovery(generator, ends[0], latents), recovery(generator, ends[1], latents)


def from_near_the_truth(
    generator: Generator, latents: Tensor, method: str, steps: int, seed: int, noise: float = 0.1
) -> Scores:
    """Scores of an optimiser that has to come back to the latents (N, latent_dim), from noise of that deviation."""
    moved = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    near = invert_latents(generator, regenerate(generator, latents), method, start=moved, steps=steps)
    return recovery(generator, near.estimate, latents)


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


def operations_of_plan(generator: Generator, plan: TrainingPlan, sizes: Sequence[tuple[int, int]], batch: int) -> float:
    """Floating-point operations of a plan's training: generator, inverses and backward pass, counted by PyTorch.

    One step of every kind is run with two latents; an operation is a multiplication or an addition in a convolution.
    """
    two = 2  # the inverses take their units from a first batch, which must vary

    def count(divide: int, synchronise: int, often: tuple[float, ...]) -> int:
        few = replace(plan, divide=divide, synchronise=synchronise, often=often)
        return operations_in(lambda: train_plan(generator, few, sizes, two))

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
    one, none = (operations_of_plan(generator, replace(plan, synchronise=k), sizes, batch) for k in (1, 0))
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


def mending_verdict(changes: Mapping[str, Interval], against: Mapping[str, Mapping[str, Interval]]) -> str:
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


# ---- what the chapter compares ---------------------------------------------------------------------------------------


GOAL, GOAL_REFINED = 25, 35  # dB of the median PSNR, set beforehand: feedforward, and after a few steps


def median(values: Tensor) -> Interval:
    """The median over images with its 95 % bootstrap interval."""
    return statistics.bootstrap(values, statistic="median")


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


def mending_controls(
    judge: Judge, generator: Generator, latents: Tensor, everyone: Mapping[str, Tensor]
) -> dict[str, Interval]:
    """How the features' score changes where the answer is known, in standard deviations of `everyone`'s.

    mended: a grey square over the middle third of each face is taken away again; the score has to fall.
    unchanged: the face is generated from its latent (N, latent_dim) rounded to half precision; the score has to stay.
    """
    images = regenerate(generator, latents)
    covered, third = images.clone(), images.shape[-1] // 3
    covered[..., third : 2 * third, third : 2 * third] = 0.5
    rounded = regenerate(generator, latents.half().to(latents))
    unit = everyone["features"].std()
    own, square, same = (judge(some)["features"] / unit for some in (images, covered, rounded))
    return {"mended": statistics.paired_bootstrap(own, square), "unchanged": statistics.paired_bootstrap(same, own)}
