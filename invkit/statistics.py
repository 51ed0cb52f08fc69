"""How sure a figure is: 95 % intervals of means, medians, differences and proportions.

- The bootstrap-t for means (Efron 1982, "The jackknife, the bootstrap and other resampling plans", chapter 10; Hall
  1988, "Theoretical comparison of bootstrap confidence intervals"): resample the images with replacement, and take the
  central 95 % of the resamples' t statistics for the distribution of the sample's own. With 5 to 199 normal or
  exponential values it covered the true mean in 93 to 96 % of 2000 samples; the percentile method did in 78 to 95 %,
  BCa in 80 to 95 %, Student's t in 87 to 96 % (`benchmarks/coverage.py`). SciPy has no bootstrap-t. Where two sets of
  values come from the same images, their differences are resampled, so that what the images share cancels.
- The percentile bootstrap (Efron 1979) for medians and for functions of sums.
- Wilson's interval (1927, "Probable inference, the law of succession, and statistical inference") for proportions.

Values are per image; the intervals say how far another sample of images of the same kind may lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from invkit.checks import check_whole_number


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        value: the figure.
        low: the lower end of the interval.
        high: the upper end.
        n: how many independent values (images, seeds) it was computed from.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, form: str) -> str:
        """f"{interval:.2f}" is "0.51 [0.48, 0.54]", f"{interval:.0%}" is "51 % [48 %, 54 %]"; else three digits."""
        form = form or ".3g"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]".replace("%", " %")

    def __str__(self) -> str:
        return format(self)

    def times(self, factor: float) -> Interval:
        """The same figure in another unit: `share.times(100)` is in per cent.

        Args:
            factor: a positive number.
        """
        return Interval(factor * self.value, factor * self.low, factor * self.high, self.n)


def bootstrap(values: Tensor | Sequence[float], n_boot: int = 2000, seed: int = 0, statistic: str = "mean") -> Interval:
    """The mean or median of per-image values with its 95 % bootstrap interval over the images.

    Args:
        values: one finite number for each image, (N,), at least two.
        n_boot: how many resamples of the images are taken.
        seed: of the resamples; the same seed gives the same interval.
        statistic: "mean", by the bootstrap-t, or "median", by the percentile method.

    Example:
        >>> print(bootstrap([20.1, 22.4, 19.8, 21.0, 20.7]))  # mean and 95 % interval
        20.8 [19.9, 22.8]

    Raises:
        ValueError: another statistic, fewer than two values, or a value that is not finite.
    """
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', not {statistic!r}.")
    values = _vector(values, "values")
    check_whole_number(n_boot, 1, "n_boot", most=max(2000, 10**8 // len(values)))  # of which memory takes so many
    if statistic == "mean":
        return _bootstrap_t(values, n_boot, seed)
    from scipy import stats  # takes a second to import

    options = {"n_resamples": n_boot, "batch": max(1, 10**7 // len(values)), "method": "percentile"}
    result = stats.bootstrap((values,), np.median, **options, rng=np.random.default_rng(seed))
    low, high = map(float, result.confidence_interval)
    return Interval(float(np.median(values)), low, high, len(values))


def _bootstrap_t(values: np.ndarray, n_boot: int, seed: int) -> Interval:
    """The mean with its bootstrap-t interval; Student's t where one resample in forty has no two different values.

    Such a resample, as of few values of which most are 0, has no t statistic, and the interval would have no end.
    """
    n, mean = len(values), float(values.mean())
    centred = values - mean
    error = centred.std(ddof=1) / n**0.5
    counts = resample_counts(n, n_boot, seed).astype(np.float64)
    means = counts @ centred / n
    errors = np.sqrt(np.maximum(counts @ centred**2 / n - means**2, 0) / (n - 1))
    spread = errors > 1e-6 * error
    if spread.mean() > 0.975:
        low, high = np.percentile(means[spread] / errors[spread], [2.5, 97.5])
    else:
        from scipy import stats

        low, high = stats.t.ppf([0.025, 0.975], n - 1)
    return Interval(mean, mean - float(high * error), mean - float(low * error), n)


def paired_bootstrap(
    a: Tensor | Sequence[float], b: Tensor | Sequence[float], n_boot: int = 2000, seed: int = 0, statistic: str = "mean"
) -> Interval:
    """The mean or median of a - b over the same images with its 95 % bootstrap interval: do they differ?

    Args:
        a: one finite number for each image, (N,), at least two.
        b: as many numbers, of the same images in the same order.
        n_boot: how many resamples of the images are taken.
        seed: of the resamples.
        statistic: "mean" or "median" of the differences.

    Example:
        >>> ours, theirs = [20.1, 22.4, 19.8, 21.0], [19.0, 21.1, 18.9, 20.2]
        >>> paired_bootstrap(ours, theirs).low > 0  # better on all images
        True

    Raises:
        ValueError: as `bootstrap`, and for different numbers of values.
    """
    a, b = _vector(a, "a"), _vector(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"Paired values come from the same images: a has {len(a)} values, b has {len(b)}.")
    return bootstrap(a - b, n_boot, seed, statistic)


@lru_cache(maxsize=4)
def resample_counts(n: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each of n images occurs in each resample, (n_boot, n): the same whenever n and seed are."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot).astype(np.float32)


def proportion(hits: Tensor | Sequence[bool]) -> Interval:
    """The share of true values with Wilson's 95 % interval. (The bootstrap's has no width if all or none are true.)

    Args:
        hits: true or false for each image, (N,), at least two.

    Example:
        >>> print(proportion([True] * 9 + [False]))
        0.9 [0.596, 0.982]

    Raises:
        ValueError: values other than true and false, or fewer than two.
    """
    from scipy import stats

    hits = _vector(hits, "hits")
    if not np.isin(hits, (0, 1)).all():
        raise ValueError("A proportion is taken of true/false values: compare first, as in ranks <= 1.")
    result = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Interval(float(hits.mean()), float(result.low), float(result.high), len(hits))


def _vector(values: Tensor | Sequence[float], name: str) -> np.ndarray:
    values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name} must be a list of at least two numbers, one per image, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite; equal images have infinite PSNR: leave those out.")
    return values
