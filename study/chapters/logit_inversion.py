"""What logits still tell of an image (Teterwak et al. 2021): readings, the baselines they must beat, scores, mistakes.

A *reading* is an image made from the logits alone. A generator with noise gives many for the same logits: their mean is
the best guess in the sense of PSNR, unless the generator was asked for one where it gets no noise; a single one is what
it takes for an image. Baselines learn from
`Examples`: logits and images on which neither the classifier was trained nor a reading is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from invkit import metrics, optimize, statistics
from invkit.ffi.ridge import ridge as regress
from invkit.statistics import Interval

Reader = Callable[[Tensor], Tensor]  # logits (N, classes) -> images (N, 3, S, S) in [0, 1]
CEILING = 100.0  # dB: beyond it a PSNR says more of float32 than of the reading

# ---- readings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """N readings, (N, 3, S, S) in [0, 1]: the best guess, usually the mean over noises, and one sample.

    The two are the same where nothing is drawn.
    """

    mean: Tensor
    sample: Tensor


@torch.no_grad()
def represent(inverter, images: Tensor, batch: int = 100) -> Tensor:
    """Logits (N, classes) of images (N, 3, H, W): what the inverter's classifier says of them."""
    return torch.cat([inverter.represent(part) for part in images.split(batch)])


@torch.no_grad()
def read(inverter, logits: Tensor, samples: int = 16, seed: int = 0, batch: int = 100) -> Reading:
    """Read N logit vectors under `samples` noises each, drawn from `seed`; the first is the sample.

    samples=0: the best guess is what is read without noise, in one pass, and the sample is drawn besides.
    """
    if samples < 0:
        raise ValueError(f"samples must be at least 0, not {samples}.")

    def images(k: int) -> Tensor:
        noise = inverter.sample_noise(len(logits), seed=seed * 1_000_003 + k).to(logits.device)
        parts = zip(logits.split(batch), noise.split(batch), strict=True)
        return torch.cat([inverter.invert(z, noise=e) for z, e in parts])

    sample = images(0)
    if not samples:
        return Reading(torch.cat([inverter.invert(z) for z in logits.split(batch)]), sample)
    count = samples if inverter.noise_dim else 1
    return Reading(sum(map(images, range(1, count)), sample) / count, sample)


# ---- baselines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """What the baselines learn from: logits (M, classes) of images (M, 3, S, S)."""

    logits: Tensor
    images: Tensor

    def __post_init__(self) -> None:
        if self.logits.dim() != 2 or self.images.dim() != 4 or len(self.logits) != len(self.images):
            shapes = f"{tuple(self.logits.shape)} and {tuple(self.images.shape)}"
            raise ValueError(f"Examples are logits (M, classes) and images (M, 3, S, S), one for each, not {shapes}.")
        if len(self.images) < 2:
            raise ValueError(f"{len(self.images)} examples are too few to learn from: give more of them.")

    def split(self, share: float = 0.2) -> tuple[Examples, Examples]:
        """The first 1 - share of the examples, to fit on, and the others, to choose on."""
        k = round(len(self.images) * (1 - share))
        return Examples(self.logits[:k], self.images[:k]), Examples(self.logits[k:], self.images[k:])


def mean_image(examples: Examples) -> Reader:
    """Reads the mean of all images, whatever the logits."""
    mean = examples.images.mean(0)
    return lambda logits: mean.expand(len(logits), *mean.shape)


def class_means(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean image of every class, (classes, 3, S, S); that of all images for a class that has none."""
    counts = torch.bincount(labels, minlength=classes)
    sums = images.new_zeros(classes, *images.shape[1:]).index_add_(0, labels, images)
    means = sums / counts.clamp_min(1).view(-1, 1, 1, 1)
    return torch.where(counts.view(-1, 1, 1, 1) > 0, means, images.mean(0))


def class_mean(examples: Examples) -> Reader:
    """Reads the mean image of the predicted class: all that the class alone could tell, in the sense of PSNR."""
    means = class_means(examples.images, examples.logits.argmax(1), examples.logits.shape[1])
    return lambda logits: means[logits.argmax(1)]


def nearest(examples: Examples, batch: int = 200) -> Reader:
    """Reads the training image whose logits are nearest.

    Nearest in which sense is chosen for the smallest pixel error on the last fifth of the examples, as a penalty is in
    `ridge`: Euclidean, the angle of the centred logits, or Euclidean after whitening, shrunk by 1, 10 or 50 % of the
    mean variance.
    """
    mean = examples.logits.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(examples.logits.T))
    senses: list[Callable[[Tensor], Tensor]] = [lambda z: z, lambda z: F.normalize(z - mean)]
    for shrink in (0.01, 0.1, 0.5):
        whiten = axes / (variances.clamp_min(0) + shrink * variances.mean() + 1e-12).sqrt()
        senses.append(lambda z, whiten=whiten: (z - mean) @ whiten)

    def reader(among: Examples, sense: Callable[[Tensor], Tensor]) -> Reader:
        places = sense(among.logits)
        return lambda logits: torch.cat(
            [among.images[torch.cdist(sense(part), places).argmin(1)] for part in logits.split(batch)]
        )

    fit, held_out = examples.split()
    errors = [F.mse_loss(reader(fit, sense)(held_out.logits), held_out.images).item() for sense in senses]
    return reader(examples, senses[errors.index(min(errors))])


def ridge(examples: Examples, penalties: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)) -> Reader:
    """Reads pixels as linear functions of the logits (Hoerl and Kennard 1970), clipped to [0, 1].

    penalties: in units of the mean variance of a logit; the one with the smallest pixel error on the last fifth of the
    examples, having been fitted on the others, is taken and fitted on all.
    """
    fit, held_out = examples.split()
    readers = _ridges(fit, penalties)
    errors = [F.mse_loss(reader(held_out.logits), held_out.images).item() for reader in readers]
    return _ridges(examples, [penalties[errors.index(min(errors))]])[0]


def _ridges(examples: Examples, penalties: Sequence[float]) -> list[Reader]:
    shape = examples.images.shape[1:]

    def reader(weight: Tensor, bias: Tensor) -> Reader:
        return lambda logits: (logits @ weight + bias).clamp(0, 1).unflatten(1, shape)

    return [reader(*fitted) for fitted in regress(examples.logits, examples.images.flatten(1), penalties)]


BASELINES: dict[str, Callable[[Examples], Reader]] = {
    "mean image": mean_image,
    "class mean": class_mean,
    "ridge": ridge,
    "nearest": nearest,
}


def optimise(classifier, logits: Tensor, steps: int = 300, seed: int = 0) -> Tensor:
    """Images (N, 3, size, size) whose logits are these, by `optimize.invert_features` at the last block."""
    depth = len(classifier.blocks)
    return optimize.invert_features(classifier, logits, depth, steps=steps, seed=seed).estimate


# ---- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Per image (N,), readings against their originals: the first four score the mean reading, the others the sample.

    psnr, ssim: in dB, at most 100; and up to 1.
    found: the original is the most similar of all N (`metrics.retrieval_ranks`).
    found_in_class: the same among the images of its predicted class, NaN without a rival.
    perceptual: distance, NaN where it was not measured.
    same_class: the classifier sees the class that it predicted for the original. independent: another classifier does.
    """

    psnr: Tensor
    ssim: Tensor
    found: Tensor
    found_in_class: Tensor
    perceptual: Tensor
    same_class: Tensor
    independent: Tensor

    def intervals(self) -> dict[str, Interval]:
        """Means over images with 95 % intervals: Wilson's for shares, the bootstrap's for the others."""
        means = {}
        for field in fields(self):
            values = getattr(self, field.name)
            values = values[~values.isnan()]
            if len(values) > 1:
                share = field.name not in ("psnr", "ssim", "perceptual")
                means[field.name] = statistics.proportion(values) if share else statistics.bootstrap(values)
        return means

    def minus(self, other: Scores) -> dict[str, Interval]:
        """Mean differences over the same images with 95 % paired bootstrap intervals, over images without a NaN."""
        differences = {}
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            both = ~(a.isnan() | b.isnan())
            if both.sum() > 1:
                differences[field.name] = statistics.paired_bootstrap(a[both], b[both])
        return differences

    def first(self, n: int) -> Scores:
        """Of the first n images only (ranks stay those among all)."""
        return Scores(*(getattr(self, field.name)[:n] for field in fields(self)))


LOWER_IS_BETTER = ("perceptual",)


@torch.no_grad()
def score(
    reading: Reading,
    images: Tensor,
    predicted: Tensor,
    classify: Callable[[Tensor], Tensor],
    independent: Callable[[Tensor], Tensor],
    candidates: Tensor | None = None,
    candidate_classes: Tensor | None = None,
    n_perceptual: int | None = None,
    batch: int = 100,
) -> Scores:
    """Readings against their originals `images` (N, 3, S, S).

    predicted: the class (N,) that the logits name. classify, independent: images -> logits, of the classifier that was
    read and of another one. candidates: images to find the original among, which must be the first N of them, with the
    classes predicted for them; by default the N themselves. n_perceptual: how many to measure that on; all by default.
    """
    candidates = images if candidates is None else candidates
    classes = predicted if candidate_classes is None else candidate_classes
    n = len(images)
    if len(candidates) < n or len(classes) != len(candidates) or not torch.equal(candidates[:n], images):
        raise ValueError("The candidates must begin with the originals, and each must have its predicted class.")
    padded = torch.cat([reading.mean, candidates[n:]])  # only the first n ranks are looked at
    ranks = metrics.retrieval_ranks(padded, candidates)[:n]
    class_ranks = metrics.retrieval_ranks(padded, candidates, labels=classes)[:n]
    k = n if n_perceptual is None else min(n, n_perceptual)
    missing = torch.full_like(predicted, torch.nan, dtype=torch.float32)

    def sees(network: Callable[[Tensor], Tensor]) -> Tensor:
        seen = torch.cat([network(part).argmax(1) for part in reading.sample.split(batch)])
        return (seen == predicted).float()

    perceptual = missing.clone()
    perceptual[:k] = metrics.perceptual(reading.sample[:k], images[:k])
    return Scores(
        metrics.psnr(reading.mean, images).clamp_max(CEILING),
        metrics.ssim(reading.mean, images),
        (ranks == 1).float(),
        torch.where(class_ranks > 0, (class_ranks == 1).float(), missing),
        perceptual,
        sees(classify),
        sees(independent),
    )


def beyond_class(differences: dict[str, Interval]) -> str:
    """Do logits tell more than the class? `differences`: read from logits minus read from the class alone (`minus`).

    The rule, fixed before the numbers: "more" if PSNR, retrieval among images of the same predicted class and the
    perceptual distance all have their whole interval on the better side of 0; "partly more" if some do and none lies on
    the worse side; else "no more".
    """
    gains = [_gain(name, differences[name]) for name in ("psnr", "found_in_class", "perceptual")]
    if all(gain > 0 for gain in gains):
        return "more"
    return "partly more" if max(gains) > 0 and min(gains) >= 0 else "no more"


def robust_verdict(over_standard: dict[str, Interval], over_control: dict[str, Interval]) -> str:
    """Do robust logits tell more? Differences (`Scores.minus`) to the standard classifier and to the one as inaccurate.

    The rule, fixed before the numbers, on PSNR and on retrieval among all images: "more" if both are above 0 against
    both; "more, but no more than the less accurate control" if only against the standard one; "less" if both are below
    0 against the standard one; else "not told apart".
    """
    standard, control = (
        [_gain(name, differences[name]) for name in ("psnr", "found")] for differences in (over_standard, over_control)
    )
    if all(gain > 0 for gain in standard):
        return "more" if all(gain > 0 for gain in control) else "more, but no more than the less accurate control"
    return "less" if all(gain < 0 for gain in standard) else "not told apart"


def _gain(name: str, difference: Interval) -> int:
    """1 if the whole interval is on the better side of 0, -1 on the worse, 0 if it holds 0."""
    sign = int(difference.low > 0) - int(difference.high < 0)
    return -sign if name in LOWER_IS_BETTER else sign


# ---- mistakes --------------------------------------------------------------------------------------------------------


def confidence(logits: Tensor) -> Tensor:
    """Softmax probability (N,) of the predicted class."""
    return logits.softmax(1).amax(1)


def match(wrong: Tensor, groups: Tensor, right: Tensor, right_groups: Tensor) -> Tensor:
    """For each of N values the index of the nearest among M others of the same group; -1 if its group has none.

    wrong (N,), right (M,): say, the confidence in mistaken and in correct predictions; groups: say, their true classes.
    The same one may serve several.
    """
    distance = (wrong.unsqueeze(1) - right.unsqueeze(0)).abs()
    distance[groups.unsqueeze(1) != right_groups.unsqueeze(0)] = torch.inf
    if not len(right):
        return torch.full_like(groups, -1)
    best, index = distance.min(1)
    return torch.where(best.isfinite(), index, -1)


@dataclass(frozen=True)
class Distances:
    """Of N readings from one image each: root mean squared pixel error and perceptual distance, both (N,)."""

    pixel: Tensor
    perceptual: Tensor


@torch.no_grad()
def distances(readings: Tensor, images: Tensor) -> Distances:
    """Readings (N, 3, S, S) against images of the same shape, pair by pair."""
    return Distances(metrics.distance(readings, images), metrics.perceptual(readings, images))


@torch.no_grad()
def seen_as(seen: Tensor, true: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """What another classifier `seen` (N,) makes of readings: masks (N,) of true class, predicted class, another."""
    is_true, is_predicted = seen == true, seen == predicted
    return {"true class": is_true, "predicted class": is_predicted & ~is_true, "another": ~(is_true | is_predicted)}


def mistakes_verdict(to_input_minus_to_wrong: Interval, true_minus_predicted: Interval) -> str:
    """What reconstructions of mistakes look like, by a rule fixed before the numbers.

    First: perceptual distance to the input minus that to the wrong class. Second: share of readings that an independent
    classifier reads as the true class minus the share read as the predicted one.
    """
    look = to_input_minus_to_wrong
    nearer = "like the input" if look.high < 0 else "like the wrong class" if look.low > 0 else "as much like either"
    read = true_minus_predicted
    named = "as the true class" if read.low > 0 else "as the predicted class" if read.high < 0 else "as either"
    return f"look {nearer} and are read {named}"
