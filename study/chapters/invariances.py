"""Chapter 3: which of the factors that an image was drawn from can be estimated from its logits.

Glyphs are drawn from known factors (`invkit.data.glyphs`), so "how much of the image is left in the logits" can be
answered factor by factor. Three regressors share one scale:

- `FactorRegressor`, a small network trained on real images; blur and other marks of an inverter can mislead it;
- `cross_fit` on what that network estimates from reconstructions: a linear regressor fitted to such images in k folds,
  so that it never saw the image it is scored on. It learns, for instance, that blur makes everything look larger;
- `fit_linear` straight on the logits or features, without any inverter (Alain & Bengio 2016, arXiv 1610.01644).

A *score* is 1 - error / error of the best constant guess: for a measured factor that is R², for a category the accuracy
scaled so that 0 is always guessing the commonest and 1 is never wrong (Cohen's kappa has the same form). The ceiling is
the score of the same regressor on the originals, the floor its score where logits and images are paired at random.

Factors are {name: values}: float (N, D) for a measured factor, int64 (N,) for a category. Estimates are {name: float
tensor}: (N, D) for a measured factor, (N, categories) scores for a category, of which the largest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit import store
from invkit.data.images import Data
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.ridge import ridge
from invkit.metrics import distance
from invkit.network.classifiers import Classifier, load_classifier
from invkit.statistics import Interval, bootstrap
from recipes.factor_regressor import Estimates, Factors, check_factors, factor_widths, named_factors
from study.baselines import mean_colours
from study.leave_one_out import leave_one_out_errors
from study.ratios import bootstrap_of_sums
from study.reconstructions import kind_of
from study.scores import verdict

PENALTIES = torch.logspace(-5, 2, 15).tolist()  # of the ridge regression, in units of a standardised input's variance


# ---- linear regressors -----------------------------------------------------------------------------------------------


def fit_linear(x: Tensor, factors: Factors) -> Callable[[Tensor], Estimates]:
    """Ridge regression of every factor on standardised inputs x (N, D).

    Categories are regressed as indicators. Each factor gets the penalty with the least leave-one-out squared error.
    Returns a function from inputs (M, D) to estimates.
    """
    check_factors(factors, len(x))
    x = x.double()
    mean, std = x.mean(0), x.std(0)
    varies = std > 1e-8

    def standardised(x: Tensor) -> Tensor:
        return ((x.double() - mean) / std)[:, varies]

    z, penalties = standardised(x), [penalty * len(x) / (len(x) - 1) for penalty in PENALTIES]
    targets = {name: y.double() if y.is_floating_point() else F.one_hot(y).double() for name, y in factors.items()}
    y = torch.cat(list(targets.values()), dim=1)
    maps, errors = ridge(z, y, penalties), leave_one_out_errors(z, y, penalties)
    found, start = {}, 0
    for name, target in targets.items():
        columns = slice(start, start := start + target.shape[1])
        weight, bias = maps[errors[:, columns].sum(1).argmin()]
        found[name] = weight[:, columns].double(), bias[columns].double()

    def estimate(x: Tensor) -> Estimates:
        z = standardised(x)
        return {name: (z @ weight + bias).float() for name, (weight, bias) in found.items()}

    return estimate


def stack(estimates: Estimates) -> Tensor:
    """All estimates of N images side by side, (N, D), as inputs for another regressor."""
    return torch.cat(list(estimates.values()), dim=1)


def cross_fit(x: Tensor, factors: Factors, folds: int = 5, seed: int = 0) -> Estimates:
    """Estimates of all N rows of x (N, D), each by a `fit_linear` that saw only the other folds."""
    check_factors(factors, len(x))
    if not 2 <= folds <= len(x):
        raise ValueError(f"Cross-fitting {len(x)} images takes 2 to {len(x)} folds, not {folds}.")
    widths = factor_widths(factors)
    found = {name: x.new_full((len(x), width), -torch.inf, dtype=torch.float32) for name, width in widths.items()}
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    for held_out in order.chunk(folds):
        others = torch.ones(len(x), dtype=torch.bool, device=x.device)
        others[held_out] = False
        estimate = fit_linear(x[others], {name: values[others] for name, values in factors.items()})
        for name, values in estimate(x[held_out]).items():
            found[name][held_out, : values.shape[1]] = values  # a category that only they have is never estimated
    return found


@torch.no_grad()
def penultimate(classifier: Classifier, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """(logits (N, classes), input of the last linear layer (N, D)) of images (N, 3, size, size) in [0, 1].

    Raises ValueError for a classifier without a linear layer.
    """
    linear = [module for module in classifier.model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{classifier.name} has no linear layer whose input could be taken: use features(…, depth).")
    seen = []
    hook = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    try:
        logits = [classifier.logits(part) for part in images.split(batch)]
    finally:
        hook.remove()
    return torch.cat(logits), torch.cat(seen)


# ---- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Per image (N,): the estimate's error, and the error of the best guess without looking at the image.

    The score is 1 - sum of errors / sum of guesses' errors. Images of one N are resampled alike everywhere, so that
    differences between scores are paired.
    """

    error: Tensor
    guess: Tensor

    @property
    def value(self) -> float:
        return 1 - (self.error.sum() / self.guess.sum()).item()

    def interval(self) -> Interval:
        """With its 95 % bootstrap percentile interval over images; what was fitted stays as it is."""
        return bootstrap_of_sums(lambda error, guess: 1 - error / guess, self.error, self.guess)

    def minus(self, other: Score) -> Interval:
        """How much higher this score is than another's on the same images, with its paired interval."""

        def difference(error, guess, other_error, other_guess):
            return other_error / other_guess - error / guess

        return bootstrap_of_sums(difference, self.error, self.guess, other.error, other.guess)


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean over, say, classifiers that differ only in their seed, on the same images."""
    scores = list(scores)
    errors, guesses = (torch.stack([getattr(s, what) for s in scores]) for what in ("error", "guess"))
    return Score(errors.mean(0), guesses.mean(0))


def factor_score(estimate: Tensor, truth: Tensor, labels: Tensor | None = None) -> Score:
    """How well one factor is estimated; with `labels` (N,), how well within a class.

    Within a class, the class's mean is taken from the truth and from the estimate (for categories: from each category's
    score), so that nothing is credited that the class alone would tell; and the guess is the class's own, for a
    category the commonest among the *other* images of the class.
    """
    if len(estimate) != len(truth) or estimate.ndim != 2:
        raise ValueError(f"Estimates must be (N, width) for {len(truth)} true values, not {tuple(estimate.shape)}.")
    one_class = torch.zeros(len(truth), dtype=torch.int64, device=truth.device)
    groups = one_class if labels is None else labels
    if truth.is_floating_point():
        middle = _group_mean(truth, groups)
        moved = estimate if labels is None else estimate - _group_mean(estimate, groups) + middle
        return Score((moved - truth).square().sum(1), (truth - middle).square().sum(1))
    if labels is not None:
        estimate = estimate - _group_mean(estimate, groups) + estimate.mean(0)
    indicators = F.one_hot(truth, max(estimate.shape[1], int(truth.max()) + 1)).float()
    counts = _group_mean(indicators, groups) * _group_size(groups)
    if labels is not None:
        counts = counts - indicators + 1e-3 * indicators.mean(0)  # ties: the commonest of all
    return Score((estimate.argmax(1) != truth).float(), (counts.argmax(1) != truth).float())


def score_all(estimates: Estimates, factors: Factors, labels: Tensor | None = None) -> dict[str, Score]:
    """`factor_score` of every factor that was estimated."""
    return {name: factor_score(estimates[name], factors[name], labels) for name in estimates}


def class_estimates(labels: Tensor, factors: Factors, fit_labels: Tensor, fit_factors: Factors) -> Estimates:
    """What the class alone tells: each factor's mean (or shares) over the images of that class among others."""
    found = {}
    for name, values in fit_factors.items():
        y = (
            values
            if values.is_floating_point()
            else F.one_hot(values, factor_widths(factors | fit_factors)[name]).float()
        )
        table = y.mean(0).repeat(int(max(labels.max(), fit_labels.max())) + 1, 1)
        for label in fit_labels.unique():
            table[label] = y[fit_labels == label].mean(0)
        found[name] = table[labels]
    return found


def _group_size(groups: Tensor) -> Tensor:
    return torch.bincount(groups)[groups].unsqueeze(1)


def _group_mean(values: Tensor, groups: Tensor) -> Tensor:
    """Each row (N, D) replaced by the mean of its group."""
    sums = values.new_zeros(int(groups.max()) + 1, values.shape[1]).index_add_(0, groups, values)
    return sums[groups] / _group_size(groups)


# ---- what the noise moves --------------------------------------------------------------------------------------------


def moved_by_noise(samples: Tensor, truth: Tensor) -> Interval:
    """E Var(f | z) / Var(f), with its 95 % bootstrap interval over images.

    The variance between the S samples (S, N, D) of each image, in units of that of the true values (N, D) over images.

    0: the noise changes nothing. By the law of total variance, samples drawn from the true distribution given z reach
    1 - R², the share of the variance that the best estimate from z misses.
    """
    if samples.ndim != 3 or len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"Give samples (S, N, D) of two or more noises and true values (N, D), not {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    n = len(truth)
    variance = (truth - truth.mean(0)).square().sum(1) * n / (n - 1)
    within = samples.var(0).sum(1)
    return bootstrap_of_sums(lambda moved, all: moved / all, within, variance)


def factors_moved(estimates: Estimates, factors: Factors, samples: int) -> dict[str, Interval]:
    """`moved_by_noise` of every factor, from estimates of samples * N images (all N of the first sample first).

    A category counts as its indicators: what moves is the estimated category.
    """
    moved = {}
    for name, values in estimates.items():
        truth = factors[name]
        if not truth.is_floating_point():
            values = F.one_hot(values.argmax(1), values.shape[1]).float()
            truth = F.one_hot(truth, values.shape[1]).float()
        moved[name] = moved_by_noise(values.reshape(samples, -1, values.shape[1]), truth)
    return moved


# ---- profiles of several classifiers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Scores of all factors, over all images and within a class: {factor: score}."""

    overall: dict[str, Score]
    within: dict[str, Score]


Profiles = dict[tuple[str, str, str], Profile]  # (world, classifier or "originals" or "class", source)


def profile(estimates: Estimates, images: Data) -> Profile:
    """Scores of estimates of all factors of some images."""
    factors = named_factors(images)
    return Profile(score_all(estimates, factors), score_all(estimates, factors, images.labels))


def mean_profile(profiles: Sequence[Profile]) -> Profile:
    """The mean over classifiers that differ only in the seed of their training."""

    def mean(scores: Sequence[dict[str, Score]]) -> dict[str, Score]:
        return {factor: mean_score(one[factor] for one in scores) for factor in scores[0]}

    return Profile(mean([one.overall for one in profiles]), mean([one.within for one in profiles]))


def shuffle_rows(x: Tensor, seed: int = 0) -> Tensor:
    """The rows of x (N, D) in a random order, for the floor: they belong to other images."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


@torch.no_grad()
def invert_all(inverter: LogitInverter, logits: Tensor, batch: int = 100) -> Tensor:
    """Reconstructions (N, 3, S, S) without noise, on the CPU."""
    return torch.cat([inverter.invert(part).cpu() for part in logits.split(batch)])


def noise_row(drawn: Tensor, images: Tensor) -> dict[str, Interval | float]:
    """Shares of the variance of all pixels: what the noise moves, and what the mean over noise vectors misses.

    drawn: (samples, N, 3, S, S); images: (N, 3, S, S). "spread" is the root mean square difference of two samples.
    """
    originals = images.flatten(1)
    return {
        "pixels_moved": moved_by_noise(drawn.flatten(2), originals),
        "pixels_missed": missed(factor_score(drawn.mean(0).flatten(1), originals)),
        "spread": bootstrap(spread_of_samples(drawn)),
    }


def colour_row(images: Tensor) -> dict[str, Interval]:
    """The floor of `noise_row`: what each image's own mean colour misses of the images (N, 3, S, S)."""
    return {"pixels_missed": missed(factor_score(mean_colours(images).mean.flatten(1), images.flatten(1)))}


def spread_of_samples(drawn: Tensor) -> Tensor:
    """Root mean square difference of two samples, (N,): the mean over pairs of samples (S, N, 3, H, W)."""
    pairs = len(drawn) // 2
    return distance(drawn[: 2 * pairs : 2], drawn[1 : 2 * pairs : 2]).mean(0)


def spread_differences(drawn: Mapping[str, Tensor]) -> dict[str, dict[str, Interval]]:
    """How much further two samples of the second classifier lie apart than two of the first, image by image.

    drawn: {label: (samples, N, 3, S, S)}, of two classifiers and four samples or more.
    Returns {"b minus a": {"spread": ...}}, and a control, {"a again": {"spread": ...}}: the same of the second half of
    the samples of one classifier, less the first half.
    """
    (a, first), (b, second) = list(drawn.items())[:2]
    found = {f"{b} minus {a}": bootstrap(spread_of_samples(second) - spread_of_samples(first))}
    for label, some in ((a, first), (b, second)):
        half = len(some) // 2
        found[f"{label} again"] = bootstrap(spread_of_samples(some[half:]) - spread_of_samples(some[:half]))
    return {name: {"spread": one} for name, one in found.items()}


def missed(score: Score) -> Interval:
    """1 - score, with its interval: the share of the variance that the estimate misses."""
    found = score.interval()
    return Interval(1 - found.value, 1 - found.high, 1 - found.low, found.n)


# ---- what the chapter compares ---------------------------------------------------------------------------------------


def inverters_by_kind(inverters: Sequence[str]) -> dict[str, str]:
    """{what the inverted classifier is called: shipped name or folder} of at least two inverters; see `kind_of`.

    Raises ValueError, in a sentence, for one inverter, which could be compared with none, and for two classifiers that
    would be called the same.
    """
    kinds = [kind_of(store.read_card(name)["network"]) for name in inverters]
    if len(kinds) < 2:
        raise ValueError("Give at least two inverters for each world, the second to be compared with the first.")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"Give inverters of classifiers with different last words in their names, not of {kinds}.")
    return dict(zip(kinds, inverters, strict=True))


def probed_classifiers(classifiers: Sequence[str], inverters: Mapping[str, LogitInverter]) -> list[Classifier]:
    """The classifiers of these names and, of those inverted, {kind: inverter}, the kinds that are not among them."""
    kinds = {kind_of(name) for name in classifiers}
    others = [inverter.classifier for kind, inverter in inverters.items() if kind not in kinds]
    return [*map(load_classifier, classifiers), *others]


def score_intervals(profiles: Profiles, source: str, labels: Sequence[str], prefix: str = "") -> dict[str, Interval]:
    """The overall scores of some classifiers from one source, by the names under which they are recorded.

    Returns {"informative standard ink hue": interval, ...}, each name after the prefix.
    """
    return {
        f"{prefix}{world} {label} {factor}": one.interval()
        for (world, label, where), found in profiles.items()
        if where == source and label in labels
        for factor, one in found.overall.items()
    }


def differing(
    profiles: Profiles, by_seed: Mapping[tuple[str, str, str], Sequence[Profile]], world: str, source: str,
    pair: Sequence[str],
) -> dict[str, list[str]]:  # fmt: skip
    """Factors of which the second classifier of a pair holds "more", "less" or the "same", within a class.

    A factor counts if the whole interval of the difference lies on one side of 0 and, where there are several seeds,
    the difference of every pair of seeds has the same sign.
    """
    first, second = ((world, label, source) for label in pair)
    found = {"more": [], "less": [], "same": []}
    for factor, one in profiles[second].within.items():
        word = verdict(one.minus(profiles[first].within[factor]), "more", "less", "same")
        several = zip(by_seed.get(first, ()), by_seed.get(second, ()), strict=False)
        signs = [b.within[factor].value > a.within[factor].value for a, b in several]
        agreed = word == "same" or all(sign == (word == "more") for sign in signs)
        found[word if agreed else "same"].append(factor)
    return found
