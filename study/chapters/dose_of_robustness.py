"""Chapter 17: how much more logits tell, the more robust their classifier is (Teterwak et al. 2021, arXiv 2103.07470).

The *dose* of a classifier is the radius of the ball in which its training images were attacked (Madry et al. 2018,
arXiv 1706.06083). All classifiers of one seed go on from the same standard network for as many steps on the same
batches, dose 0 too, so that they differ in nothing but the dose. The *twin* of a robust classifier is a standard
network, trained from nothing with the same seed and stopped as soon as it is as accurate as the robust one: a control
for accuracy.

An inverter of the same architecture and budget is trained for every classifier, and a ridge regression is fitted, which
has no training that could go better or worse. A *rung* is one dose with the classifiers of all its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from invkit import attacks, data, ffi
from invkit.data.images import Data, as_bytes
from invkit.network.classifiers import Classifier
from recipes.adversarial_training import NotReached, train_classifier
from recipes.classifiers import shuffled_batches
from study.baselines import Examples, class_mean, ridge_regression
from study.notebook import slug
from study.reconstructions import batched_logits, reconstruct
from study.scores import Scores, score

SIZE = 32  # pixels a side of all images
MARGIN = 0.005  # how close to the robust classifier's accuracy its twin comes
DISTURBANCE = 0.5  # of logits, in standard deviations of each, for the check of the inverter
INVERTER = {  # what all inverters share besides their steps
    "objective": "regression", "lr": 5e-4, "shrink": 0.03, "identify": 0.06, "batch": 48,
    "generator": {"channels": [64, 48, 32, 24], "hidden": 128, "coarse": 16, "coarse_hidden": 256, "logit_noise": 0.3},
}  # fmt: skip
# What is measured, and how far another machine's value may lie: it trains everything anew.
COMPARED = {"psnr": 1.0, "found": 25, "perceptual": 0.1, "perceptual_second": 0.1}

# ---- images, doses, classifiers --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DoseImages:
    """What classifiers and inverters are trained and measured on; no image is in two of these.

    train: images for classifiers, uint8 (M, 3, SIZE, SIZE), with their labels, int64 (M,).
    known: images for inverters and baselines, uint8 (K, 3, SIZE, SIZE).
    validation, test: images with labels; the first decide when a twin stops, the second are reported on.
    """

    train: Tensor
    labels: Tensor
    known: Tensor
    validation: Data
    test: Data

    @property
    def classes(self) -> int:
        return max(int(labels.max()) for labels in (self.labels, self.validation.labels, self.test.labels)) + 1


def load_dose_images(name: str, n_train: int | None, n_known: int, n: int, seed: int = 0) -> DoseImages:
    """The images of a data set, SIZE pixels a side; n_train: None for all of the split."""
    train = data.load(name, "train", n=n_train, seed=seed, size=SIZE)
    known = data.load(name, "inverter", n=n_known, seed=seed, size=SIZE).images
    validation, test = (
        data.load(name, split, n=count, seed=seed, size=SIZE) for split, count in (("validation", None), ("test", n))
    )
    return DoseImages(as_bytes(train.images), train.labels, as_bytes(known), validation, test)


@dataclass(frozen=True)
class Dose:
    """The ball in which training images are attacked.

    radius: for "Linf" in 255ths of the range from black to white; for "L2" the Euclidean length in units of [0, 1].
    norm: "Linf" or "L2".
    """

    radius: float
    norm: str = "Linf"

    def __str__(self) -> str:
        return f"{'L2 ' if self.norm == 'L2' else ''}{self.radius:g}"

    @property
    def epsilon(self) -> float:
        return self.radius if self.norm == "L2" else self.radius / 255


@dataclass(frozen=True)
class DoseTraining:
    """What all classifiers share.

    network: options of the network of that architecture.
    standard_steps: of the standard network from which all doses go on.
    batch: images a step.
    augment: whether training images are flipped and shifted.
    folder: for checkpoints, from which a stopped run goes on.
    dose_steps: of every dose, where there are any.
    architecture: "residual" or "plain", see `invkit.network.small`.
    title: of the standard networks.
    hours: {classifier: hours of its training}, filled as they are trained.
    """

    images: DoseImages
    network: Mapping
    standard_steps: int
    batch: int
    augment: bool
    folder: Path
    dose_steps: int = 0
    architecture: str = "residual"
    title: str = "standard"
    hours: dict[str, float] = field(default_factory=dict)

    def standard(self, seed: int) -> Classifier:
        """The network from which all doses of a seed go on."""
        return self._train(f"{self.title} seed {seed}", seed, self.standard_steps)

    def dosed(self, standard: Classifier, dose: Dose, seed: int) -> Classifier:
        """The standard network of this seed, trained further on images attacked within the dose."""
        ball = {"epsilon": dose.epsilon, "norm": dose.norm, "start": standard, "lr": 2e-3}
        return self._train(f"dose {dose} seed {seed}", seed, self.dose_steps, **ball)

    def twin(self, other: Classifier, seed: int) -> Classifier | None:
        """A standard network that was stopped at the other's accuracy; None where it does not get there."""
        held_out = self.images.validation
        stop_at = held_out.images, held_out.labels, self.held_out_accuracy(other) - MARGIN
        try:
            return self._train(f"twin of {other.name}", seed, self.standard_steps, stop_at=stop_at)
        except NotReached:
            return None

    def held_out_accuracy(self, classifier: Classifier) -> float:
        """Share of the validation images of which a classifier is right."""
        held_out = self.images.validation
        return attacks.clean_accuracy(classifier, held_out.images, held_out.labels).float().mean().item()

    def _train(self, name: str, seed: int, steps: int, **settings) -> Classifier:
        batches = shuffled_batches(self.images.train, self.images.labels, self.batch, seed, self.augment)
        classifier = train_classifier(
            self.architecture, batches, classes=self.images.classes, size=SIZE, steps=steps, options=dict(self.network),
            weight_decay=0.1, seed=seed, folder=self.folder / slug(name), precision="auto", progress=False, name=name,
            **settings,
        )  # fmt: skip
        self.hours[name] = classifier.card["hours"]
        return classifier


# ---- inverters, and what they are worth ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inverted:
    """What was measured on one classifier and its inverters, on the same N test images for all.

    right: whether the classifier is right of each image, (N,).
    withstood: whether it is of each attacked image, (A,); None where none was attacked.
    scores: {"inverter", "ridge"} of the reconstructions.
    disturbed: the inverter's scores when the logits are disturbed, which must lower them.
    images: the inverter's first reconstructions.
    hours: of the inverter's training.
    """

    right: Tensor
    withstood: Tensor | None
    scores: Mapping[str, Scores]
    disturbed: Scores
    images: Tensor
    hours: float


def invert_trained(
    classifier: Classifier,
    seed: int,
    *,
    images: DoseImages,
    training: Mapping[str, int],
    folder: Path,
    n_perceptual: int,
    n_attacked: int = 0,
    attacked_at: Dose = Dose(0),
) -> Inverted:
    """Train an inverter and fit a ridge regression to a classifier's logits, and measure both.

    seed: of the inverter's training.
    training: of the inverter, "steps" and "coarse_steps"; further arguments replace those of `INVERTER`.
    n_perceptual: test images on which the perceptual distances are measured.
    n_attacked: test images that are attacked within the ball `attacked_at`, by PGD.
    """
    test, labels = images.test.images.to(classifier.device), images.test.labels.to(classifier.device)
    place = folder / slug(f"inverter of {classifier.name}")
    settings = INVERTER | dict(training) | {"seed": seed, "folder": place, "progress": False}
    inverter = ffi.train_inverter(classifier, images.known, **settings)
    known = images.known.to(classifier.device).float() / 255
    logits = batched_logits(classifier, test)
    examples = Examples(batched_logits(classifier, known), known)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).to(logits.device)
    made = {
        "inverter": reconstruct(inverter, logits, 1, seed).mean,
        "ridge": ridge_regression(examples)(logits),
        "class mean": class_mean(examples)(logits),
    }
    scores = {name: score(some, test, n_perceptual=n_perceptual, measures=COMPARED) for name, some in made.items()}
    disturbed = reconstruct(inverter, logits + DISTURBANCE * logits.std(0) * noise, 1, seed).mean
    withstood = None
    if n_attacked:
        attacked = classifier, test[:n_attacked], labels[:n_attacked], attacked_at.epsilon
        withstood = attacks.robust_accuracy(*attacked, norm=attacked_at.norm)
    return Inverted(
        right=attacks.clean_accuracy(classifier, test, labels),
        withstood=withstood,
        scores=scores,
        disturbed=score(disturbed, test, measures=("psnr", "found")),
        images=made["inverter"][:8],
        hours=inverter.card["hours"],
    )


def values_of(some: Iterable[Inverted], measure: str, by: str = "inverter") -> Tensor:
    """One measure of the reconstructions from several classifiers, (classifiers, images that were measured)."""
    values = [one.scores[by][measure].float() for one in some]
    return torch.stack([row[~row.isnan()] for row in values])


@dataclass(frozen=True, eq=False)
class Rung:
    """One dose: what was measured on the classifiers of all its seeds, in order, and on their twins."""

    dose: Dose
    robust: tuple[Inverted, ...]
    twins: tuple[Inverted | None, ...] = ()

    def values(self, measure: str, by: str = "inverter", twins: bool = False) -> Tensor:
        """One measure of the reconstructions, (classifiers, images); without the missing twins."""
        return values_of([one for one in (self.twins if twins else self.robust) if one], measure, by)

    @property
    def with_twins(self) -> tuple[int, ...]:
        """The seeds of which there is a twin."""
        return tuple(seed for seed, twin in enumerate(self.twins) if twin)


def train_rungs(
    doses: Sequence[Dose],
    seeds: Sequence[int],
    training: DoseTraining,
    invert: Callable[[Classifier, int], Inverted],
) -> list[Rung]:
    """Train and invert the classifiers of every dose, with their twins: a rung for each dose, in order.

    seeds: how many classifiers of each dose.
    invert: (classifier, seed) -> what was measured, such as `invert_trained`.
    """
    standards = {seed: training.standard(seed) for seed in range(max(seeds))}
    rungs = []
    for dose, count in zip(doses, seeds, strict=True):
        robust = {seed: training.dosed(standards[seed], dose, seed) for seed in range(count)}
        twins = {seed: training.twin(one, seed) if dose.radius else None for seed, one in robust.items()}
        measured = tuple(invert(one, seed) for seed, one in robust.items())
        rungs.append(Rung(dose, measured, tuple(one and invert(one, seed) for seed, one in twins.items())))
    return rungs


def check_doses(doses: Sequence[float], seeds: Sequence[int], l2: Sequence[float]) -> list[Dose]:
    """The doses as balls, the Euclidean ones last.

    Raises ValueError, before anything is trained, for doses from which no slope and no contrast can be had.
    """
    if len(seeds) != len(doses) or min(seeds, default=0) < 1:
        raise ValueError(f"Give a number of classifiers for each dose: not {list(seeds)} for {list(doses)}.")
    in_range = all(0 <= dose < 255 for dose in doses)  # which NaN is not either
    if not in_range or list(doses) != sorted(set(doses)) or len(doses) < 3 or doses[0] != 0:
        raise ValueError(f"Give three doses or more, rising from 0 to below 255, not {list(doses)}.")
    if sum(count > 1 for count in seeds[1:]) < 1 or seeds[0] < max(seeds):
        raise ValueError(f"Give dose 0 the most classifiers, and one dose besides it at least two, not {list(seeds)}.")
    if not all(0 < radius < math.inf for radius in l2):
        raise ValueError(f"Euclidean radii are above 0 and finite, not {list(l2)}.")
    return [Dose(radius) for radius in doses] + [Dose(radius, "L2") for radius in l2]
