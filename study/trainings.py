"""Intervals that count the luck of trainings as well as the choice of images.

A score is measured on K trained networks and the same N images, (K, N). An interval over images alone says how far
other images may lead with these very networks; networks that are trained again differ by more. Here the squared
standard error over networks, a few, is added to that over images, many, and Student's t has the degrees of freedom of
the networks. It is careful: the scatter of networks holds some of that of the images already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor

from invkit.statistics import Interval


def difference_of_trainings(a: Tensor, b: Tensor) -> Interval:
    """Mean of a - b, both (classifiers, images), in pairs of the same seed and image.

    The 95 % interval counts chance of both kinds: its squared standard error is that over the classifiers plus that
    over the images, and Student's t has one degree of freedom fewer than there are classifiers. It is careful: the
    scatter of classifiers holds some of that of the images already.

    Raises ValueError for a single pair, from which the chance of classifiers cannot be told.
    """
    difference = (a - b).double()
    k, n = difference.shape
    if k < 2:
        raise ValueError("How much two trainings differ by chance takes two pairs of classifiers, or more.")
    value = difference.mean().item()
    error = (difference.mean(1).var() / k + difference.mean(0).var() / n).sqrt().item()
    half = float(stats.t.ppf(0.975, k - 1)) * error
    return Interval(value, value - half, value + half, n)


def slope(doses: Sequence[float], values: Tensor) -> Interval:
    """Change of a mean score per unit of dose: least squares over classifiers, values (classifiers, images).

    The 95 % interval counts chance of both kinds, as in `difference_of_trainings`, with two degrees of freedom fewer
    than there are classifiers. Where the scores do not lie on a line, this widens it too.

    Raises ValueError for fewer than three classifiers.
    """
    values, x = values.double(), torch.tensor(doses, dtype=torch.float64)
    k, n = values.shape
    if k < 3 or k != len(x):
        raise ValueError(f"A slope takes three classifiers or more, each with its dose, not {k} with {len(x)} doses.")
    x = x - x.mean()
    by_image = (x / (x @ x)).to(values.device) @ values
    means = values.mean(1).cpu()
    value = by_image.mean().item()
    residuals = means - means.mean() - value * x
    error = math.sqrt((residuals @ residuals / (k - 2) / (x @ x)).item() + (by_image.var() / n).item())
    half = float(stats.t.ppf(0.975, k - 2)) * error
    return Interval(value, value - half, value + half, n)
