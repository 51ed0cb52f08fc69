"""Intervals of ratios: of functions of sums over images, such as a share of variance."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from invkit.statistics import Interval, resample_counts


def bootstrap_of_sums(
    statistic: Callable[..., float | np.ndarray], *values: Tensor, n_boot: int = 2000, seed: int = 0
) -> Interval:
    """A function of sums over images, such as a ratio of two means, with its 95 % bootstrap percentile interval.

    All values are resampled together, and those of one number of images alike in every call, so that the statistic may
    also be a difference of ratios. Resamples for which the statistic is not finite are left out.

    statistic: takes as many sums as there are values: numbers, or one number for each resample, (n_boot,).
    values: one finite number for each image, (N,), of the same images in the same order.
    n_boot, seed: how many resamples of the images are taken, and from which random numbers.
    Raises ValueError for fewer than two images, a value that is not finite, or different numbers of values.
    """
    vectors = [one.detach().cpu().double().numpy() for one in values]
    n = len(vectors[0])
    if any(one.shape != (n,) for one in vectors):
        raise ValueError(f"Give one value for each image: their shapes are {[one.shape for one in vectors]}.")
    if n < 2 or not all(np.isfinite(one).all() for one in vectors):
        raise ValueError(f"A ratio over images takes at least two, with finite values; there are {n}.")
    counts = resample_counts(n, n_boot, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = statistic(*(one.sum() for one in vectors))
        resampled = np.asarray(statistic(*(counts @ one.astype(np.float32) for one in vectors)))
    finite = resampled[np.isfinite(resampled)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high), n)
