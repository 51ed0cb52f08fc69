"""What an image was drawn from, read back: the invariance profile of a classifier.

Where images are drawn from known factors (`invkit.glyphs`), "how much of the image is left in the logits" can be
answered factor by factor. Three readers, one scale:

- `FactorRegressor`, a small network trained on real images; blur and other marks of an inverter can fool it;
- `cross_fit` on what that network reads in reconstructions: a linear reader fitted to such images in k folds, so that
  it never saw the image it scores. It learns, say, that blur makes everything look larger;
- `fit_linear` straight on the logits or features, without any inverter (Alain & Bengio 2016, arXiv 1610.01644).

A *score* is 1 - error / error of the best constant guess: for a measured factor that is R², for a category the accuracy
scaled so that 0 is always guessing the commonest and 1 is never wrong (Cohen's kappa has the same form). The ceiling is
what the same reader reads from the originals, the floor what it reads when logits and images are paired at random.

Factors are {name: values}: float (N, D) for a measured factor, int64 (N,) for a category. Estimates are {name: float
tensor}: (N, D) estimates of a measured factor, (N, categories) scores of a category, of which the largest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from recipes.factor_regressor import Estimates, Factors, check_factors, factor_widths

PENALTIES = torch.logspace(-5, 2, 15)  # of the ridge, in units of a standardised input's sum of squares


# ---- linear readers --------------------------------------------------------------------------------------------------


def fit_linear(x: Tensor, factors: Factors) -> Callable[[Tensor], Estimates]:
    """Ridge regression of every factor on x (N, D); returns a function from x (M, D) to readings.

    Categories are regressed as indicators. Each factor gets the penalty with the least leave-one-out squared error,
    in closed form (Allen 1974): with the fit's leverages h, residual / (1 - h). Inputs are standardised.
    """
    check_factors(factors, len(x))
    x = x.double()
    mean, std = x.mean(0), x.std(0).clamp_min(1e-8)
    z = (x - mean) / std
    power, v = torch.linalg.eigh(z.T @ z)  # squared singular values; much quicker than the decomposition of z itself
    keep = power > 1e-9 * power[-1]
    s, v = power[keep].sqrt(), v[:, keep]
    u = z @ (v / s)
    shrink = s.square() / (s.square() + len(x) * PENALTIES.to(s).unsqueeze(1))  # (penalties, rank)
    leverage = shrink @ u.square().T + 1 / len(x)
    found = {}
    for name, values in factors.items():
        y = values.double() if values.is_floating_point() else F.one_hot(values).double()
        centre = y.mean(0)
        coefficients = shrink.unsqueeze(2) * (u.T @ (y - centre))  # (penalties, rank, width)
        left_out = (y - centre - u @ coefficients) / (1 - leverage).clamp_min(1e-9).unsqueeze(2)
        best = left_out.square().sum((1, 2)).argmin()
        found[name] = v @ (coefficients[best] / s.unsqueeze(1)), centre

    def read(x: Tensor) -> Estimates:
        z = (x.double() - mean) / std
        return {name: (z @ weights + centre).float() for name, (weights, centre) in found.items()}

    return read


def stack(readings: Estimates) -> Tensor:
    """All readings of N images side by side, (N, D), for another reader to read from."""
    return torch.cat(list(readings.values()), dim=1)


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
        read = fit_linear(x[others], {name: values[others] for name, values in factors.items()})
        for name, values in read(x[held_out]).items():
            found[name][held_out, : values.shape[1]] = values  # a category that only they have stays unreadable
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
    """Per image (N,): the reading's error, and the error of the best guess without looking at the image.

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
        return _percentiles(self.value, 1 - _resampled(self.error) / _resampled(self.guess), len(self.error))

    def minus(self, other: Score) -> Interval:
        """How much higher this score is than another's on the same images, with its paired interval."""
        resampled = _resampled(other.error) / _resampled(other.guess) - _resampled(self.error) / _resampled(self.guess)
        return _percentiles(self.value - other.value, resampled, len(self.error))


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean over, say, classifiers that differ only in their seed, on the same images."""
    scores = list(scores)
    errors, guesses = (torch.stack([getattr(s, what) for s in scores]) for what in ("error", "guess"))
    return Score(errors.mean(0), guesses.mean(0))


def score(reading: Tensor, truth: Tensor, labels: Tensor | None = None) -> Score:
    """How well one factor is read; with `labels` (N,), how well within a class.

    Within a class, the class's mean is taken from the truth and from the reading (for categories: from each category's
    score), so that nothing is credited that the class alone would tell; and the guess is the class's own, for a
    category the commonest among the *other* images of the class.
    """
    if len(reading) != len(truth) or reading.ndim != 2:
        raise ValueError(f"Estimates must be (N, width) for {len(truth)} true values, not {tuple(reading.shape)}.")
    one_class = torch.zeros(len(truth), dtype=torch.int64, device=truth.device)
    groups = one_class if labels is None else labels
    if truth.is_floating_point():
        middle = _group_mean(truth, groups)
        moved = reading if labels is None else reading - _group_mean(reading, groups) + middle
        return Score((moved - truth).square().sum(1), (truth - middle).square().sum(1))
    if labels is not None:
        reading = reading - _group_mean(reading, groups) + reading.mean(0)
    indicators = F.one_hot(truth, max(reading.shape[1], int(truth.max()) + 1)).float()
    counts = _group_mean(indicators, groups) * _group_size(groups)
    if labels is not None:
        counts = counts - indicators + 1e-3 * indicators.mean(0)  # ties: the commonest of all
    return Score((reading.argmax(1) != truth).float(), (counts.argmax(1) != truth).float())


def score_all(readings: Estimates, factors: Factors, labels: Tensor | None = None) -> dict[str, Score]:
    """`score` of every factor read."""
    return {name: score(readings[name], factors[name], labels) for name in readings}


def read_class(labels: Tensor, factors: Factors, fit_labels: Tensor, fit_factors: Factors) -> Estimates:
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


@cache
def _draws(n: int, n_boot: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each of n images is drawn in each resample, (n_boot, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot).astype(np.float32)


def _resampled(values: Tensor) -> np.ndarray:
    return _draws(len(values)) @ values.detach().cpu().numpy().astype(np.float32)


def _percentiles(value: float, resampled: np.ndarray, n: int) -> Interval:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Interval(value, float(low), float(high), n)


# ---- what the noise moves --------------------------------------------------------------------------------------------


def moved_by_noise(samples: Tensor, truth: Tensor) -> Interval:
    """E Var(f | z) / Var(f), with its 95 % bootstrap interval over images.

    The variance between the S samples (S, N, D) of each image, in units of that of the true values (N, D) over images.

    0: the noise changes nothing. By the law of total variance, samples drawn from the true distribution given z reach
    1 - R², the share of the variance that the best reading of z misses.
    """
    if samples.ndim != 3 or len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"Give samples (S, N, D) of two or more noises and true values (N, D), not {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    n = len(truth)
    variance = (truth - truth.mean(0)).square().sum(1) * n / (n - 1)
    within = samples.var(0).sum(1)
    value = (within.sum() / variance.sum()).item()
    return _percentiles(value, _resampled(within) / _resampled(variance), n)


def factors_moved(readings: Estimates, factors: Factors, samples: int) -> dict[str, Interval]:
    """`moved_by_noise` of every factor, from readings of samples * N images (all N of the first sample first).

    A category counts as its indicators: what moves is the category read.
    """
    moved = {}
    for name, values in readings.items():
        truth = factors[name]
        if not truth.is_floating_point():
            values = F.one_hot(values.argmax(1), values.shape[1]).float()
            truth = F.one_hot(truth, values.shape[1]).float()
        moved[name] = moved_by_noise(values.reshape(samples, -1, values.shape[1]), truth)
    return moved
