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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from invkit import attacks, data, ffi
from invkit.data.images import Data
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval, bootstrap, proportion
from recipes.adversarial_training import NotReached, train_classifier
from recipes.classifiers import shuffled_batches
from study import plots
from study.baselines import Examples, class_mean, mean_colours, ridge_regression
from study.notebook import Study, slug
from study.reconstructions import batched_logits, reconstruct
from study.scores import MEASURES, Scores, score, written

SIZE = 32  # pixels a side of all images
MARGIN = 0.005  # how close to the robust classifier's accuracy its twin comes
DISTURBANCE = 0.5  # of logits, in standard deviations of each, for the check of the inverter
INVERTER = {  # what all inverters share besides their steps
    "objective": "regression", "lr": 5e-4, "shrink": 0.03, "identify": 0.06, "batch": 48,
    "generator": {"channels": [64, 48, 32, 24], "hidden": 128, "coarse": 16, "coarse_hidden": 256, "logit_noise": 0.3},
}  # fmt: skip
# What is measured, and how far another machine's value may lie: it trains everything anew.
COMPARED = {"psnr": 0.5, "found": 10, "perceptual": 0.1, "perceptual_second": 0.1}

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
    return DoseImages(_as_bytes(train.images), train.labels, _as_bytes(known), validation, test)


def _as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()


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

    network: options of the residual network.
    standard_steps: of the standard network from which all doses go on.
    dose_steps: of every dose.
    batch: images a step.
    augment: whether training images are flipped and shifted.
    folder: for checkpoints, from which a stopped run goes on.
    hours: {classifier: hours of its training}, filled as they are trained.
    """

    images: DoseImages
    network: Mapping
    standard_steps: int
    dose_steps: int
    batch: int
    augment: bool
    folder: Path
    hours: dict[str, float] = field(default_factory=dict)

    def standard(self, seed: int) -> Classifier:
        """The network from which all doses of a seed go on."""
        return self._train(f"standard seed {seed}", seed, self.standard_steps)

    def dosed(self, standard: Classifier, dose: Dose, seed: int) -> Classifier:
        """The standard network of this seed, trained further on images attacked within the dose."""
        ball = {"epsilon": dose.epsilon, "norm": dose.norm, "start": standard, "lr": 2e-3}
        return self._train(f"dose {dose} seed {seed}", seed, self.dose_steps, **ball)

    def twin(self, robust: Classifier, dose: Dose, seed: int) -> Classifier | None:
        """A standard network that was stopped at the robust one's accuracy; None where it does not get there."""
        held_out = self.images.validation
        right = attacks.clean_accuracy(robust, held_out.images, held_out.labels)
        stop_at = held_out.images, held_out.labels, right.float().mean().item() - MARGIN
        try:
            return self._train(f"twin of dose {dose} seed {seed}", seed, self.standard_steps, stop_at=stop_at)
        except NotReached:
            return None

    def _train(self, name: str, seed: int, steps: int, **settings) -> Classifier:
        batches = shuffled_batches(self.images.train, self.images.labels, self.batch, seed, self.augment)
        classifier = train_classifier(
            "residual", batches, classes=self.images.classes, size=SIZE, steps=steps, options=dict(self.network),
            weight_decay=0.1, seed=seed, folder=self.folder / slug(name), precision="auto", progress=False, name=name,
            **settings,
        )  # fmt: skip
        self.hours[name] = classifier.card["hours"]
        return classifier


# ---- inverters, and what they are worth ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inverted:
    """What was measured on one classifier and its inverters, on the same N test images for all.

    right, withstood: whether the classifier is right of each image, (N,), and of each attacked one, (A,).
    scores: {"inverter", "ridge"} of the reconstructions.
    disturbed: the inverter's scores when the logits are disturbed, which must lower them.
    images: the inverter's first reconstructions.
    hours: of the inverter's training.
    """

    right: Tensor
    withstood: Tensor
    scores: Mapping[str, Scores]
    disturbed: Scores
    images: Tensor
    hours: float


def invert_dose(
    classifier: Classifier,
    seed: int,
    *,
    images: DoseImages,
    training: Mapping[str, int],
    folder: Path,
    n_attacked: int,
    n_perceptual: int,
    attacked_at: Dose,
) -> Inverted:
    """Train an inverter and fit a ridge regression to a classifier's logits, and measure both.

    seed: of the inverter's training.
    training: of the inverter, "steps" and "coarse_steps"; further arguments replace those of `INVERTER`.
    n_attacked: test images that are attacked within the ball `attacked_at`, by PGD.
    n_perceptual: test images on which the perceptual distances are measured.
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
    few = slice(0, n_attacked)
    return Inverted(
        right=attacks.clean_accuracy(classifier, test, labels),
        withstood=attacks.robust_accuracy(
            classifier, test[few], labels[few], attacked_at.epsilon, norm=attacked_at.norm
        ),
        scores=scores,
        disturbed=score(disturbed, test, measures=("psnr", "found")),
        images=made["inverter"][:8],
        hours=inverter.card["hours"],
    )


@dataclass(frozen=True, eq=False)
class Rung:
    """One dose: what was measured on the classifiers of all its seeds, in order, and on their twins."""

    dose: Dose
    robust: tuple[Inverted, ...]
    twins: tuple[Inverted | None, ...] = ()

    def values(self, measure: str, by: str = "inverter", twins: bool = False) -> Tensor:
        """One measure of the reconstructions, (classifiers, images); without the missing twins."""
        some = [one.scores[by][measure].float() for one in (self.twins if twins else self.robust) if one]
        return torch.stack([values[~values.isnan()] for values in some])

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
    invert: (classifier, seed) -> what was measured, such as `invert_dose`.
    """
    standards = {seed: training.standard(seed) for seed in range(max(seeds))}
    rungs = []
    for dose, count in zip(doses, seeds, strict=True):
        robust = {seed: training.dosed(standards[seed], dose, seed) for seed in range(count)}
        twins = {seed: training.twin(one, dose, seed) if dose.radius else None for seed, one in robust.items()}
        measured = tuple(invert(one, seed) for seed, one in robust.items())
        rungs.append(Rung(dose, measured, tuple(one and invert(one, seed) for seed, one in twins.items())))
    return rungs


def check_doses(doses: Sequence[float], seeds: Sequence[int], l2: Sequence[float]) -> list[Dose]:
    """The doses as balls, the Euclidean ones last.

    Raises ValueError, before anything is trained, for doses from which no slope and no contrast can be had.
    """
    if len(seeds) != len(doses) or min(seeds, default=0) < 1:
        raise ValueError(f"Give a number of classifiers for each dose: not {list(seeds)} for {list(doses)}.")
    if list(doses) != sorted(set(doses)) or len(doses) < 3 or doses[0] != 0:
        raise ValueError(f"Give three doses or more, rising from 0, not {list(doses)}.")
    if sum(count > 1 for count in seeds[1:]) < 1 or seeds[0] < max(seeds):
        raise ValueError(f"Give dose 0 the most classifiers, and one dose besides it at least two, not {list(seeds)}.")
    if any(radius <= 0 for radius in l2):
        raise ValueError(f"Euclidean radii are above 0, not {list(l2)}.")
    return [Dose(radius) for radius in doses] + [Dose(radius, "L2") for radius in l2]


# ---- intervals over classifiers and images ---------------------------------------------------------------------------


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
    weights = x.cpu() / (x @ x)
    by_image = weights.to(values.device) @ values
    means = values.mean(1).cpu()
    value = by_image.mean().item()
    residuals = means - means.mean() - value * x
    error = math.sqrt((residuals @ residuals / (k - 2) / (x @ x)).item() + (by_image.var() / n).item())
    half = float(stats.t.ppf(0.975, k - 2)) * error
    return Interval(value, value - half, value + half, n)


# ---- what the notebook records and shows -----------------------------------------------------------------------------


def mean_of(measure: str, values: Tensor) -> Interval:
    """Mean of a measure over classifiers and images, with its 95 % interval over images."""
    if MEASURES[measure].share and len(values) == 1:
        return proportion(values[0])
    return bootstrap(values.mean(0))


def ladder(rungs: Sequence[Rung]) -> list[Rung]:
    """The rungs of L-infinity doses, 0 among them."""
    return [rung for rung in rungs if rung.dose.norm == "Linf"]


def dose_slopes(rungs: Sequence[Rung], by: str) -> dict[str, Interval]:
    """{measure: change for a dose of 4 / 255 more}, over all classifiers of L-infinity doses."""
    some = ladder(rungs)
    doses = [rung.dose.radius / 4 for rung in some for _ in rung.robust]
    return {measure: slope(doses, torch.cat([rung.values(measure, by) for rung in some])) for measure in COMPARED}


def main_rung(rungs: Sequence[Rung]) -> Rung:
    """The L-infinity dose above 0 of which there are most classifiers, the smallest of such."""
    return max(ladder(rungs)[1:], key=lambda rung: len(rung.robust))


def contrasts(rungs: Sequence[Rung], by: str) -> dict[str, dict[str, Interval]]:
    """{what: {measure: difference in pairs of seeds}}: the main dose less dose 0, and less its twins.

    Twins are left out where there are fewer than two.
    """
    rung, none = main_rung(rungs), rungs[0]
    found: dict[str, dict[str, Interval]] = {"robust minus standard": {}, "robust minus twin": {}}
    seeds = list(rung.with_twins)
    for measure in COMPARED:
        values = rung.values(measure, by)
        against = none.values(measure, by)[: len(values)]
        found["robust minus standard"][measure] = difference_of_trainings(values, against)
        if len(seeds) > 1:
            twins = rung.values(measure, by, twins=True)
            found["robust minus twin"][measure] = difference_of_trainings(values[seeds], twins)
    return {name: row for name, row in found.items() if row}


def checks(rungs: Sequence[Rung]) -> dict[str, Interval]:
    """The checks of the inverters as instruments.

    "found undisturbed": share found from the logits less that from disturbed ones, which must be above 0;
    "psnr_between_seeds": the PSNR of one classifier of dose 0 less that of the next, which should be near 0;
    "found_class_mean": share that the mean image of the predicted class finds, which knows the class alone.
    """
    none = rungs[0].robust
    whole, disturbed = (torch.stack([some["found"].float() for some in pair]) for pair in _pairs(none))
    psnr = rungs[0].values("psnr")
    found = {"found_undisturbed": bootstrap((whole - disturbed).mean(0))}
    found["found_class_mean"] = proportion(none[0].scores["class mean"]["found"])
    if len(psnr) > 1:
        found["psnr_between_seeds"] = bootstrap((psnr[0] - psnr[1]).double())
    return found


def _pairs(some: Sequence[Inverted]) -> tuple[list[Scores], list[Scores]]:
    return [one.scores["inverter"] for one in some], [one.disturbed for one in some]


def training_hours(rungs: Sequence[Rung], training: DoseTraining) -> float:
    """Hours of training of all classifiers and inverters, whenever it was; without the runs that became no twin."""
    inverters = sum(one.hours for rung in rungs for one in (*rung.robust, *rung.twins) if one)
    return sum(training.hours.values()) + inverters


def record_doses(study: Study, rungs: Sequence[Rung]) -> None:
    """Record every rung's accuracies and scores, slopes, contrasts and checks."""
    for rung in rungs:
        title = f"dose {rung.dose}"
        right = torch.stack([one.right for one in rung.robust]).double().mean(0)
        study.record_interval("accuracy", title, bootstrap(right), tolerance=10)
        for by in ("inverter", "ridge"):
            for measure, tolerance in COMPARED.items():
                values = rung.values(measure, by)
                by_seed = values.double().mean(1).tolist()
                study.record_interval(
                    measure, f"{by} {title}", mean_of(measure, values), tolerance=tolerance, by_seed=by_seed
                )
    for by in ("inverter", "ridge"):
        study.record_rows({f"slope {by}": dose_slopes(rungs, by)}, digits=2, tolerance=None)
        found = contrasts(rungs, by)
        for name, row in found.items():
            study.record_rows({f"{name} {by}": row}, digits=2, tolerance=None)
        if "robust minus twin" not in found:
            for measure in COMPARED:
                study.record(f"{measure}_robust_minus_twin_{by}", None)
                study.record_text(f"{measure}_robust_minus_twin_{by}_ci", "not measured")
    for id, interval in checks(rungs).items():
        measure, _, name = id.partition("_")
        study.record_interval(measure, name, interval, digits=2, tolerance=None)
    main = main_rung(rungs)
    study.record_texts(
        main_dose=f"{main.dose}/255",
        main_classifiers=len(main.robust),
        n_twins=len(main.with_twins),
        n_classifiers=sum(len(rung.robust) + len(rung.with_twins) for rung in rungs),
    )


def dose_rows(rungs: Sequence[Rung], attacked_at: Dose) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: every dose and its twins, means over their classifiers."""
    rows = {}
    for rung in rungs:
        for kind, some in (("attacked", rung.robust), ("twin", [one for one in rung.twins if one])):
            if not some:
                continue
            twins = kind == "twin"
            withstood = 100 * torch.cat([one.withstood for one in some]).float().mean()
            rows[str(rung.dose), kind if rung.dose.radius else "standard"] = {
                "classifiers": f"{len(some)}",
                "accuracy": bootstrap(torch.stack([one.right for one in some]).double().mean(0)),
                f"under attack at {attacked_at}/255, %": f"{withstood:.1f}",
                **{measure: mean_of(measure, rung.values(measure, twins=twins)) for measure in COMPARED},
                "ridge: PSNR, dB": written("psnr", mean_of("psnr", rung.values("psnr", "ridge", twins))),
                "ridge: found, %": written("found", mean_of("found", rung.values("found", "ridge", twins))),
            }
    return rows


def effect_rows(rungs: Sequence[Rung]) -> dict[tuple[str, str], dict[str, Interval]]:
    """Rows of a table: the slope on the dose and the main dose's contrasts, by inverters and by ridge regression."""
    rows = {}
    for by in ("inverter", "ridge"):
        rows[by, "for a dose of 4/255 more"] = dose_slopes(rungs, by)
        for name, row in contrasts(rungs, by).items():
            rows[by, name.replace("robust", f"dose {main_rung(rungs).dose}").replace("minus", "−")] = row
    return rows


def dose_chart(rungs: Sequence[Rung]) -> Figure:
    """PSNR, the share found and perceptual distance against the L-infinity dose: inverters, ridge, and twins."""
    some = ladder(rungs)
    places = [rung.dose.radius for rung in some]

    def line(measure: str, by: str, twins: bool = False) -> list[Interval | None]:
        factor = MEASURES[measure].factor
        return [
            mean_of(measure, rung.values(measure, by, twins)).times(factor) if not twins or rung.with_twins else None
            for rung in some
        ]

    groups = {
        MEASURES[measure].heading: {
            "inverter": line(measure, "inverter"),
            "inverter of the twins": line(measure, "inverter", twins=True),
            "ridge regression": line(measure, "ridge"),
        }
        for measure in ("psnr", "found", "perceptual")
    }
    return plots.panels(places, groups, "dose, 255ths")


def floor_psnr(images: DoseImages) -> Interval:
    """PSNR of each test image's own mean colour, which needs no logits."""
    test = images.test.images
    return bootstrap(score(mean_colours(test), test, measures=["psnr"]).psnr)


def dose_pictures(rungs: Sequence[Rung], images: DoseImages, n: int = 8) -> dict[str, Tensor]:
    """Rows of a grid: the first test images and their reconstructions from the first classifier of every dose."""
    rows = {"original": images.test.images[:n]}
    return rows | {f"dose {rung.dose}": rung.robust[0].images[:n].cpu() for rung in rungs}
