"""How sure a figure is: 95 % intervals of means, medians, differences and proportions.

- The bootstrap (Efron 1979, "Bootstrap methods: another look at the jackknife"): resample the images with replacement
  and take the central 95 % of the means of the resamples (the percentile method, as SciPy computes it). Where two sets
  of values come from the same images, their differences are resampled, so that what the images share cancels.
- Wilson's interval (1927, "Probable inference, the law of succession, and statistical inference") for proportions.

Values are per image; the intervals say how far another sample of images of the same kind may lead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor


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
    """The mean or median of per-image values with its 95 % bootstrap percentile interval over the images.

    Args:
        values: one finite number for each image, (N,), at least two.
        n_boot: how many resamples of the images are taken.
        seed: of the resamples; the same seed gives the same interval.
        statistic: "mean" or "median".

    Raises:
        ValueError: another statistic, fewer than two values, or a value that is not finite.
    """
    from scipy import stats  # takes a second to import

    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', not {statistic!r}.")
    values = _vector(values, "values")
    function: Callable = getattr(np, statistic)
    result = stats.bootstrap(
        (values,),
        function,
        n_resamples=n_boot,
        batch=max(1, 10**7 // len(values)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(function(values)), float(low), float(high), len(values))


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

    Raises:
        ValueError: as `bootstrap`, and for different numbers of values.
    """
    a, b = _vector(a, "a"), _vector(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"Paired values come from the same images: a has {len(a)} values, b has {len(b)}.")
    return bootstrap(a - b, n_boot, seed, statistic)


def bootstrap_of_sums(
    statistic: Callable[..., float | np.ndarray], *values: Tensor, n_boot: int = 2000, seed: int = 0
) -> Interval:
    """A function of sums over images, such as a ratio of two means, with its 95 % bootstrap percentile interval.

    All values are resampled together, and those of one number of images alike in every call, so that the statistic may
    also be a difference of ratios. Resamples for which the statistic is not finite are left out.

    Args:
        statistic: takes as many sums as there are values: numbers, or one number for each resample, (n_boot,).
        values: one finite number for each image, (N,), of the same images in the same order.
        n_boot: how many resamples of the images are taken.
        seed: of the resamples.

    Raises:
        ValueError: fewer than two images, a value that is not finite, or different numbers of values.
    """
    vectors = [_vector(one, "values") for one in values]
    n = len(vectors[0])
    if any(len(one) != n for one in vectors):
        raise ValueError(f"Give one value for each image: there are {[len(one) for one in vectors]} of them.")
    counts = _resample_counts(n, n_boot, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = statistic(*(one.sum() for one in vectors))
        resampled = np.asarray(statistic(*(counts @ one.astype(np.float32) for one in vectors)))
    finite = resampled[np.isfinite(resampled)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high), n)


@lru_cache(maxsize=4)
def _resample_counts(n: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each of n images occurs in each resample, (n_boot, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot).astype(np.float32)


def proportion(hits: Tensor | Sequence[bool]) -> Interval:
    """The share of true values with Wilson's 95 % interval. (The bootstrap's has no width if all or none are true.)

    Args:
        hits: true or false for each image, (N,), at least two.

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
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    values = values.astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name} must be a list of at least two numbers, one per image, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite; equal images have infinite PSNR: leave those out.")
    return values
