"""Chapter 3: are an inverter's samples a calibrated guess at the image?

An inverter that samples from p(x | z) gives S samples of which the true image is like one more: its rank among them is
uniform on 0, …, S (Hamill 2001, "Interpretation of rank histograms for verifying ensemble forecasts"), so the range of
19 samples holds it in 90 % of all cases. Its continuous ranked probability score is the least that any sampler can have
(Gneiting & Raftery 2007, "Strictly proper scoring rules"). Samples that agree too much give a rank histogram shaped
like a U, and a range that holds the image too seldom.

A generator that was trained against an adversary gives samples that agree too much: a bad one is punished, a missing
one is not. `temperature` multiplies its noise by the factor under which the ranges hold as much as they should, as
Guo et al. (2017, "On calibration of modern neural networks") scale a classifier's logits. It is chosen on images that
neither training nor a test sees.

Samples are (S, N, D): S for each of N images, of D numbers each, such as pixels or factors. Truth is (N, D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invkit.statistics import Interval, bootstrap
from study.probes import resample
from study.reconstructions import represent_all

COLDEST, WARMEST = 0.5, 4.0  # temperatures among which one is looked for


def ranks(samples: Tensor, truth: Tensor, seed: int = 0) -> Tensor:
    """How many of the S samples lie below the true number: int64 (N, D) from 0 to S.

    Where samples equal it, one of the possible ranks is taken at random, as Hamill does.
    Raises ValueError for fewer than two samples, and for shapes that do not fit.
    """
    if samples.ndim != 3 or len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"Give samples (S, N, D) of two or more noises and true values (N, D), not {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    below, equal = (samples < truth).sum(0), (samples == truth).sum(0)
    chance = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed)).to(truth.device)
    return below + (chance * (equal + 1)).long()


def nominal(samples: int) -> float:
    """How often the range of S calibrated samples holds the truth: (S - 1) / (S + 1), 90 % for 19."""
    return (samples - 1) / (samples + 1)


def inside(found: Tensor, samples: int) -> Tensor:
    """The share of each image's numbers that lie within the range of its samples, (N,), from their `ranks`."""
    return ((found > 0) & (found < samples)).double().mean(1)


def temperature(inverter, images: Tensor, samples: int, seed: int = 0, steps: int = 5) -> float:
    """The factor on the noise under which the range of its samples holds as many pixels as it should, by bisection.

    images: (N, 3, S, S), which neither train nor test anything.
    samples, seed: noise vectors for each image, and what they are made from.
    steps: bisections; the interval of temperatures is halved, in its logarithm, by each.
    """
    logits, truth = represent_all(inverter, images), images.flatten(1)
    low, high = COLDEST, WARMEST
    for _ in range(steps):
        middle = (low * high) ** 0.5
        drawn = resample(inverter, logits, samples, seed, middle).flatten(2)
        if inside(ranks(drawn, truth, seed), samples).mean() < nominal(samples):
            low = middle
        else:
            high = middle
    return round((low * high) ** 0.5, 2)


def crps(samples: Tensor, truth: Tensor) -> Interval:
    """Continuous ranked probability score, mean over an image's numbers, in their unit: lower is better.

    E|X - x| - E|X - X'| / 2 in its form without bias for few samples (Ferro 2014, "Fair scores for ensemble
    forecasts"). Samples that all agree have their absolute error.
    """
    s = len(samples)
    error = (samples - truth).abs().mean(0)
    # The sum of |a - b| over all pairs, from the sorted samples: the k-th is the larger one k times, else the smaller.
    weights = 2 * torch.arange(s, device=samples.device) - s + 1
    apart = (samples.sort(0).values * weights[:, None, None]).sum(0) / (s * (s - 1) / 2)
    return bootstrap((error - apart / 2).double().mean(1))


def row(plain: Tensor, warm: Tensor, truth: Tensor, found: Sequence[Tensor]) -> dict[str, Interval]:
    """A row of the chapter's table.

    plain, warm: samples at temperature 1 and at the calibrated one. "crps_shuffled", a control, is the score of
    samples that belong to the next image.
    found: the `ranks` of both.
    """
    covered = [bootstrap(inside(one, len(warm))) for one in found]
    return {
        "covered_plain": covered[0],
        "covered": covered[1],
        "crps_plain": crps(plain, truth),
        "crps": crps(warm, truth),
        "crps_shuffled": crps(warm.roll(1, dims=1), truth),
    }


def histogram(found: Tensor, samples: int) -> list[float]:
    """The share of all numbers at each of the `ranks` from 0 to S; all are 1 / (S + 1) for a calibrated sampler."""
    counts = found.flatten().bincount(minlength=samples + 1)
    return (counts / counts.sum()).tolist()
