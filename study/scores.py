"""How every chapter scores reconstructions, writes the figures down, and turns intervals into words.

- `MEASURES` says of each measure its title, unit, digits, and how far another machine's value may lie.
- `score` measures reconstructions against their originals and returns `Scores`, image by image, so that two methods can
  be compared in pairs.
- `verdict` and `word` turn a paired difference into a word, by one rule: whether its 95 % interval contains zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invkit import metrics, statistics
from invkit.statistics import Interval
from study.reconstructions import Reconstruction

CEILING = 100.0  # dB: beyond it a PSNR says more of float32 than of the reconstruction
SAME = "not told apart"

# ---- measures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """How the values of one measure are written.

    title: its name in headings, without the unit.
    unit: in headings, in the prose and in result files.
    factor: what the measured value is multiplied by to be in that unit; 100 turns a share into per cent.
    digits: after the decimal point, in tables.
    tolerance: how far another machine's value may lie from the recorded one, in that unit; None for any distance.
    lower_is_better: whether smaller values are better ones.
    share: whether the measure is true or false for each image, so that its mean has Wilson's interval.
    """

    title: str
    unit: str = ""
    factor: float = 1
    digits: int = 3
    tolerance: float | None = None
    lower_is_better: bool = False
    share: bool = False

    @property
    def heading(self) -> str:
        """Title and unit, as above a column or beside an axis."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _share(title: str, tolerance: float | None) -> Measure:
    return Measure(title, "%", 100, digits=1, tolerance=tolerance, share=True)


MEASURES: dict[str, Measure] = {
    "accuracy": _share("accuracy", 3),
    "psnr": Measure("PSNR", "dB", digits=2, tolerance=0.5),
    "ssim": Measure("SSIM", tolerance=0.05),
    "found": _share("found", 5),
    "found_in_class": _share("found in its class", 6),
    "perceptual": Measure("perceptual", tolerance=0.03, lower_is_better=True),
    "perceptual_second": Measure("perceptual, SqueezeNet", tolerance=0.03, lower_is_better=True),
    "same_class": _share("same class", 6),
    "independent": _share("independent agrees", 6),
    "correlation": Measure("correlation of the logits", tolerance=0.05),
    "kid": Measure("KID × 1000", factor=1000, digits=2, lower_is_better=True),
    "kid_second": Measure("KID × 1000, SqueezeNet", factor=1000, digits=2, lower_is_better=True),
    "spread": Measure("spread", tolerance=0.02),
    "cosine": Measure("cosine", tolerance=0.02),
    "r2": Measure("R²", tolerance=0.03),
    # of classifiers and of logit vectors: chapter 1
    "clean": _share("right as they are", 1),
    "attacked": _share("right under the attack", 3),
    "right": _share("right", 1),
    "largest": Measure("largest", digits=2),
    "margin": Measure("margin", digits=2),
    "loss": Measure("loss", digits=3),
    "within": _share("variance within classes", 3),
    "directions": Measure("directions", digits=1, tolerance=2),
    "membership": _share("membership", 2),
    "grain": Measure("grain", digits=2, tolerance=0.05),
    # of the noise: chapter 3
    "pixels_moved": _share("moved by the noise", 5),
    "pixels_missed": _share("missed by the mean", 5),
    "moved": _share("moved by the noise", 10),
    "temperature": Measure("temperature", digits=2, tolerance=0.3),
    "covered_plain": _share("covered, as trained", 5),
    "covered": _share("covered", 5),
    "crps_plain": Measure("CRPS, as trained", tolerance=0.01, lower_is_better=True),
    "crps": Measure("CRPS", tolerance=0.01, lower_is_better=True),
    "crps_shuffled": Measure("CRPS, of another image", tolerance=0.02, lower_is_better=True),
    # of mistakes: chapter 4
    "error": _share("mistaken", 3),
    "error_familiar": _share("mistaken, familiar fonts", 1),
    "pixel": Measure("pixel distance", tolerance=0.04, lower_is_better=True),
    "look": Measure("nearer to the input (< 0), perceptual", tolerance=0.04, lower_is_better=True),
    "look_second": Measure("nearer to the input (< 0), SqueezeNet", tolerance=0.04, lower_is_better=True),
    "look_pixel": Measure("nearer to the input (< 0), pixels", lower_is_better=True),
    "look_mean": Measure("nearer to the mean of its class (< 0)", lower_is_better=True),
    "read": Measure("true less predicted class seen", "%", 100, digits=1, tolerance=15),
    "seen": _share("seen in the reconstruction", 12),
    "input": _share("seen in the input", 12),
}

USUAL = ("psnr", "ssim", "found", "found_in_class", "perceptual", "same_class", "independent")  # what `score` measures
EVERY = (*USUAL, "perceptual_second")

# Chapters whose values differ more, or less, from machine to machine: some train networks on the spot.
TOLERANCES: dict[str, dict[str, float | None]] = {
    "04_mistakes": {"perceptual": 0.04},
    "07_zero_shot_inversion": {"psnr": 0.3, "ssim": 0.03, "found": 10},
    "09_gan_inversion": {"perceptual": 0.02},
    "10_leakage": {"psnr": 1.0, "perceptual": 0.1, "found": 25},
    "11_natural_images": {"found": 10, "found_in_class": None, "perceptual": 0.05},
    "13_logit_ablations": {"psnr": 1.0, "found": 15, "perceptual": 0.1},
}


def tolerance(measure: str, chapter: str = "") -> float | None:
    """How far another machine's value of a measure may lie in this chapter, in the measure's unit; None for any."""
    return TOLERANCES.get(chapter, {}).get(measure, MEASURES[measure].tolerance)


def tolerance_of(interval: Interval) -> float:
    """A tolerance for values without a fixed one: half the interval's width, 2 % of the value, and 0.001 at least."""
    return max((interval.high - interval.low) / 2, 0.02 * abs(interval.value), 1e-3)


def written(measure: str, interval: Interval, sign: str = "") -> str:
    """A value and its interval as tables show them, in the measure's unit; sign="+" for differences."""
    known = MEASURES[measure]
    return format(interval.times(known.factor), f"{sign}.{known.digits}f")


# ---- words -----------------------------------------------------------------------------------------------------------


def verdict(difference: Interval, more: str = "better", less: str = "worse", same: str = SAME) -> str:
    """What a paired difference allows one to say: `same` where its interval contains zero."""
    return more if difference.low > 0 else less if difference.high < 0 else same


def word(measure: str, difference: Interval) -> str:
    """ "better", "worse" or "not told apart": what a difference of that measure allows one to say."""
    return verdict(difference, *(("worse", "better") if MEASURES[measure].lower_is_better else ("better", "worse")))


def judged(measure: str, difference: Interval) -> str:
    """A difference as tables show it, with its word: "+0.51 [0.48, 0.54]: better"."""
    return f"{written(measure, difference, '+')}: {word(measure, difference)}"


def size_of(difference: Interval) -> tuple[float, float]:
    """The ends of a difference's interval without its sign; the lower one is 0 where the interval holds 0."""
    ends = sorted((abs(difference.low), abs(difference.high)))
    return (0.0 if difference.low < 0 < difference.high else ends[0]), ends[1]


def mean_over_trainings(measure: str, values: Tensor) -> Interval:
    """Mean of one measure's scores (trainings, N) with its 95 % interval over the N images.

    Wilson's for a share of one training, since a bootstrap interval of images that are all found would have no width;
    else the bootstrap's.
    """
    if MEASURES[measure].share and len(values) == 1:
        return statistics.proportion(values[0])
    return statistics.bootstrap(values.mean(0))


def difference_over_seeds(a: Tensor, b: Tensor) -> Interval:
    """Mean of a - b, both (seeds, images), over both; the 95 % interval is a paired bootstrap over images."""
    return statistics.paired_bootstrap(a.mean(0), b.mean(0))


def verdict_over_seeds(full: Tensor, variant: Tensor) -> str:
    """What a part of a method does that the variant lacks: "helps", "hurts" or "no difference seen".

    full, variant: scores (seeds, images), larger for better.
    The part helps if the whole 95 % interval of full - variant lies above 0 and the mean does with every seed; it hurts
    if the interval and the means lie below 0.
    """
    interval, seeds = difference_over_seeds(full, variant), (full - variant).mean(1)
    if interval.low > 0 and seeds.min() > 0:
        return "helps"
    if interval.high < 0 and seeds.max() < 0:
        return "hurts"
    return "no difference seen"


# ---- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, Tensor]):
    """How good N reconstructions are: {measure: (N,)}, NaN for an image on which it was not measured.

    `scores.psnr` is short for `scores["psnr"]`. For the measures that there are see `score`.
    """

    by_measure: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, measure: str) -> Tensor:
        return self.by_measure[measure]

    def __getattr__(self, measure: str) -> Tensor:
        measured = self.__dict__.get("by_measure", {})
        if measure in measured:
            return measured[measure]
        raise AttributeError(f"{measure!r} was not measured; measured were {', '.join(measured)}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_measure)

    def __len__(self) -> int:
        return len(self.by_measure)

    def intervals(self) -> dict[str, Interval]:
        """The mean of each measure over images with its 95 % interval: Wilson's for shares, else the bootstrap's.

        Images without a value are left out, and so is a measure that fewer than two images have.
        """
        means = {}
        for measure, values in self.items():
            values = values[~values.isnan()]
            if len(values) > 1:
                means[measure] = (statistics.proportion if MEASURES[measure].share else statistics.bootstrap)(values)
        return means

    def minus(self, other: Scores) -> dict[str, Interval]:
        """The mean difference of each measure that both have, over the same images, with its paired 95 % interval.

        Where one has more images than the other, its first ones are compared; images without a value are left out.
        """
        differences = {}
        for measure in self:
            if measure in other:
                n = min(len(self[measure]), len(other[measure]))
                a, b = self[measure][:n], other[measure][:n]
                both = ~(a.isnan() | b.isnan())
                if both.sum() > 1:
                    differences[measure] = statistics.paired_bootstrap(a[both], b[both])
        return differences

    def first(self, n: int) -> Scores:
        """The scores of the first n images only; where an original was looked for, the rivals stay the same."""
        return Scores({measure: values[:n] for measure, values in self.items()})


@torch.no_grad()
def score(
    reconstruction: Reconstruction | Tensor,
    images: Tensor,
    classes: Tensor | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
    independent: Callable[[Tensor], Tensor] | None = None,
    n_perceptual: int | None = None,
    measures: Sequence[str] | None = None,
    batch: int = 100,
) -> Scores:
    """Measure K reconstructions against their originals.

    reconstruction: best guess and sample; a tensor (K, 3, S, S) stands for both.
    images: (N, 3, S, S) with N >= K. The first K are the originals; each is looked for among all N.
    classes: the class that was predicted for each image, (N,).
    classify: images -> logits, by the classifier that was inverted.
    independent: the same by another classifier.
    n_perceptual: the perceptual distance is measured on the first so many; by default on all, and with 0 on none.
    measures: which of the following to measure, as far as the arguments allow; by default all but perceptual_second.

    Of the best guess: psnr (dB, at most 100), ssim, found (the original is the most similar of all N images),
    found_in_class (of those with the same predicted class; NaN without a rival). Of the sample: perceptual (distance),
    perceptual_second (in an unrelated space), same_class (`classify` predicts the original's predicted class),
    independent (`independent` does).
    Raises ValueError for fewer images than reconstructions, or for classes that are not one an image.
    """
    if isinstance(reconstruction, Tensor):
        reconstruction = Reconstruction(reconstruction, reconstruction)
    guess, sample = reconstruction.mean, reconstruction.sample
    k = len(guess)
    if len(images) < k or (classes is not None and len(classes) != len(images)):
        raise ValueError("The images must begin with the originals, and each must have its predicted class.")
    originals, every_guess = images[:k], torch.cat([guess, images[k:]])  # only the first k ranks are looked at
    n_perceptual = k if n_perceptual is None else min(k, n_perceptual)

    def in_class() -> Tensor:
        ranks = metrics.retrieval_ranks(every_guess, images, labels=classes)[:k]
        return torch.where(ranks > 0, (ranks == 1).float(), torch.nan)

    def perceptual(measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        distances = torch.full((k,), torch.nan, device=sample.device)
        distances[:n_perceptual] = measure(sample[:n_perceptual], originals[:n_perceptual])
        return distances

    def agrees(network: Callable[[Tensor], Tensor]) -> Tensor:
        seen = torch.cat([network(part).argmax(1) for part in sample.split(batch)])
        return (seen == classes[:k]).float()

    possible = {
        "psnr": lambda: metrics.psnr(guess, originals).clamp_max(CEILING),
        "ssim": lambda: metrics.ssim(guess, originals),
        "found": lambda: (metrics.retrieval_ranks(every_guess, images)[:k] == 1).float(),
        "found_in_class": in_class if classes is not None else None,
        "perceptual": (lambda: perceptual(metrics.perceptual)) if n_perceptual else None,
        "perceptual_second": (lambda: perceptual(metrics.perceptual_squeezenet)) if n_perceptual else None,
        "same_class": (lambda: agrees(classify)) if classes is not None and classify else None,
        "independent": (lambda: agrees(independent)) if classes is not None and independent else None,
    }
    return Scores({name: possible[name]() for name in measures or USUAL if possible[name]})


def confidence(logits: Tensor) -> Tensor:
    """Softmax probability (N,) of the predicted class, from logits (N, classes)."""
    return logits.softmax(1).amax(1)
