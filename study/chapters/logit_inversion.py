"""Chapter 2: what logits tell of an image besides its class (Teterwak et al. 2021).

Here are the opponent that only this chapter has, optimisation of the pixels, and the two rules that turn intervals into
the chapter's verdicts. Both rules were fixed before the numbers. Reconstructions, baselines and scores are those of
`study.reconstructions`, `study.baselines` and `study.scores`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import data, metrics, optimize
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval, bootstrap, proportion
from study import measures, plots, scores
from study.baselines import Examples, predict
from study.notebook import Study, slug
from study.reconstructions import Reconstruction, reconstruct, represent_all, resized
from study.scores import SAME, word
from study.tuning import Tuned, climb

CHECK = {"same_class": 0.8, "independent": 0.6}  # least shares of samples in which the class is seen
BUT = ", but not by both measures more than those of the early one"
SIGNS = {"better": 1, "worse": -1, SAME: 0}


def optimise_from_logits(
    classifier, logits: Tensor, steps: int = 300, seed: int = 0, tv: float | None = None
) -> Tensor:
    """Images (N, 3, size, size) whose logits are these, by `optimize.invert_features` at the last block.

    tv: weight of total variation, by default that of `optimize.invert_features`.
    """
    depth = len(classifier.blocks)
    return optimize.invert_features(classifier, logits, depth, steps=steps, seed=seed, tv=tv).estimate


def more_than_class(differences: Mapping[str, Interval] | None) -> str:
    """Do logits tell more than the class?

    differences: `Scores.minus` of the inverter of logits and an opponent that knows the class alone; None without one.
    Returns "more" if PSNR, retrieval among images of the same predicted class and the perceptual distance are all
    better by their whole intervals, "partly more" if some are and none is worse, else "no more". Chapter 11 has no
    images of the same predicted class to look among, and so a rule of its own, `natural_images.beyond_class`.
    """
    if differences is None:
        return "more or less (not tested)"
    gains = [SIGNS[word(measure, differences[measure])] for measure in ("psnr", "found_in_class", "perceptual")]
    if all(gain > 0 for gain in gains):
        return "more"
    return "partly more" if max(gains) > 0 and min(gains) >= 0 else "no more"


def robust_verdict(over_standard: Mapping[str, Interval], over_control: Mapping[str, Interval]) -> str:
    """Do the logits of a robust classifier tell more?

    over_standard, over_control: `Scores.minus` of the robust classifier and the standard one, and of the robust one and
        the one that is as inaccurate as it.
    The rule looks at PSNR and at retrieval among all images. Returns "more" if both are better against both
    classifiers, `BUT` added if only against the standard one, "less" if both are worse than the standard one's, else
    "not told apart".
    """
    standard, control = (
        [SIGNS[word(measure, differences[measure])] for measure in ("psnr", "found")]
        for differences in (over_standard, over_control)
    )
    if all(gain > 0 for gain in standard):
        return "more" if all(gain > 0 for gain in control) else f"more{BUT}"
    return "less" if all(gain < 0 for gain in standard) else SAME


def standard_first(inverters: Mapping[str, LogitInverter]) -> dict[str, LogitInverter]:
    """The same inverters by name, that of the standard classifier first, whose logits the baselines invert too.

    Raises ValueError where none is called "standard".
    """
    if "standard" not in inverters:
        there = ", ".join(inverters) or "none"
        raise ValueError(f'One of the parameter `inverters` must be called "standard" and be there, not only {there}.')
    return {"standard": inverters["standard"]} | dict(inverters)


# ---- words, rows and figures of the page -----------------------------------------------------------------------------


def robust_words(differences: Mapping[str, Mapping[str, Interval]], base: str = "standard") -> dict[str, str]:
    """Three phrases of claim 2, "not tested" where a classifier is missing.

    differences: {"robust minus standard": `Scores.minus`, ...} of the inverters, and the same of ridge regressions
        under the name with " ridge" added.
    base: the standard classifier's name.
    Returns "robust_words" by `robust_verdict`, "ridge_words" the same for ridge regression, and "step_words": whether
    the step from standard to robust is larger than that to another family of networks, in PSNR and signs aside, which
    it is if the intervals of both do not overlap.
    """
    words = {}
    for id, kind in (("robust_words", ""), ("ridge_words", " ridge")):
        over_standard = differences.get(f"robust minus {base}{kind}")
        over_control = differences.get(f"robust minus early{kind}")
        words[id] = robust_verdict(over_standard, over_control) if over_standard and over_control else "not tested"
    words["step_words"] = "not compared with"
    if {f"robust minus {base}", f"plain minus {base}"} <= differences.keys():
        robust, plain = (scores.size_of(differences[f"{name} minus {base}"]["psnr"]) for name in ("robust", "plain"))
        larger, smaller = robust[0] > plain[1], robust[1] < plain[0]
        words["step_words"] = "larger than" if larger else "smaller than" if smaller else "not told apart from"
    return words


def kernel_distances(images: Mapping[str, Tensor], real: Tensor, seed: int = 0) -> dict[str, dict[str, Interval]]:
    """How unlike other real images some sets of images are as wholes: {name: {"kid", "kid_second": kernel distance}}.

    The two are measured in unrelated features, AlexNet's and SqueezeNet's.
    """
    found: dict[str, dict[str, Interval]] = {name: {} for name in images}
    for measure, squeezenet in (("kid", False), ("kid_second", True)):
        device = next(iter(images.values())).device
        features = metrics.perceptual_features(real.to(device), squeezenet)
        for name, some in images.items():
            own = metrics.perceptual_features(some, squeezenet)
            found[name][measure] = measures.kernel_distance(own, features, seed=seed)
    return found


def check_words(means: Mapping[str, Interval]) -> str:
    """Whether an inverter of logits is an instrument: "passes it", "fails it" or "neither passes nor fails it".

    means: of the shares of its samples in which the inverted classifier ("same_class") and a judge ("independent") see
    the class that was predicted for the image. At least 80 and 60 % are asked for.
    """
    margins = [(means[measure].low - least, means[measure].high - least) for measure, least in CHECK.items()]
    if all(low > 0 for low, _ in margins):
        return "passes it"
    return "fails it" if any(high < 0 for _, high in margins) else "neither passes nor fails it"


def record_checks(
    study: Study, means: Mapping[str, Mapping[str, Interval]], made: Mapping[str, Reconstruction],
    inverters: Sequence[str], images: Tensor, base: str,
) -> None:  # fmt: skip
    """Record what the measures say of the instrument: `check_words` of every inverter, and the equivalent thumbnail.

    A negative control of retrieval goes with it, "found_shifted": how often a reconstruction finds the image after its
    own, which it should find by chance alone.

    means, made: {method: {measure: mean}}, {method: reconstructions}.
    images: the originals, (N, 3, S, S).
    base: the standard classifier's inverter.
    """
    for name in inverters:
        found = metrics.retrieval_ranks(made[name].mean.roll(1, 0), images) == 1
        study.record_interval("found", f"shifted {name}", proportion(found))
    study.record_texts(**{f"check_{slug(name)}": check_words(means[name]) for name in inverters})
    side = measures.equivalent_thumbnail(images, means[base]["psnr"].value)
    study.record("thumbnail_standard", side, digits=2, tolerance=1.0)
    names = {"thumbnail_words": thumbnail_words(side), "perceptual_name": metrics.perceptual_name()}
    study.record_texts(compared=False, **names)


def record_logit_agreement(
    study: Study, inverters: Mapping[str, LogitInverter], made: Mapping[str, Reconstruction],
    logits: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Record how well the logits of reconstructions agree with those that they were made from, as "correlation".

    It is the mean over images of the correlation over classes, of one sample each.

    logits: that each inverter was given, (N, classes).
    """
    for name, inverter in inverters.items():
        again = represent_all(inverter, made[name].sample)
        agreement = measures.correlation(again, logits[name])
        study.record_interval("correlation", name, bootstrap(agreement))


def optimisation_words(gains: Mapping[str, Mapping[str, Interval]]) -> str:
    """Whether the inverter's PSNR is better than that of optimised pixels; gains: second result of `score_methods`."""
    return scores.verdict(gains["optimisation"]["psnr"])


def record_faces(study: Study, inverter: LogitInverter) -> None:
    """Record whose logits the faces are reconstructed from, in words."""
    network = inverter.classifier
    study.record_texts(face_network=network.name, face_classes=network.classes)
    study.record_texts(face_size=inverter.size, face_shown=network.size)


def thumbnail_words(side: float) -> str:
    """What an equivalent thumbnail's side, 0 for below one pixel, says of PSNR: a part of a sentence."""
    if side < 1:
        return "each image's mean colour alone has a higher one than the standard inverter's reconstructions"
    pixels = f"{side:.2g}"
    return f"an image shrunk to {pixels} × {pixels} pixels and enlarged again has that of the reconstructions"


def spreads(
    inverters: Mapping[str, LogitInverter], logits: Mapping[str, Tensor], made: Mapping[str, Reconstruction], seed: int
) -> dict[str, dict[str, Interval]]:
    """How far another sample of the same logits lies from the first: {name: {"spread": root mean square difference}}.

    seed: of the other sample's noise; another than that of `made`.
    """
    rows = {}
    for name, inverter in inverters.items():
        other = reconstruct(inverter, logits[name], 1, seed).sample
        rows[name] = {"spread": bootstrap(metrics.distance(made[name].sample, other))}
    return rows


def noise_rows(
    inverters: Mapping[str, LogitInverter], logits: Mapping[str, Tensor], made: Mapping[str, Reconstruction],
    images: Tensor, names: Sequence[str], seed: int = 1, k: int = 3, samples: int = 7,
) -> dict[str, Tensor]:  # fmt: skip
    """Rows of a figure: for each of the first k images and each inverter the original, the mean, and other samples.

    names: of the inverters shown, of which some may be missing.
    """
    rows = {}
    for i in range(k):
        for name in [name for name in names if name in inverters]:
            inverter = inverters[name]
            z = logits[name][i : i + 1].expand(samples, -1)
            drawn = inverter.invert(z, noise=inverter.sample_noise(samples, seed=seed).to(z.device))
            rows[f"{i + 1}: {name}"] = torch.cat([images[i : i + 1], made[name].mean[i : i + 1], drawn])
    return rows


def optimised(
    classifier: Classifier, logits: Tensor, size: int, tv: float | None = None, starts: int = 1, seed: int = 0,
    steps: int = 300,
) -> tuple[Reconstruction, float]:  # fmt: skip
    """Images (N, 3, size, size) made by `optimise_from_logits`, and the seconds that each took on average.

    starts: how often each is optimised, each time from other noise. The best guess is the mean over them, as that of
        an inverter is the mean over its noise; the sample is the first.
    They are resized where the classifier takes images of another size.
    """
    began = time.perf_counter()
    found = torch.stack([optimise_from_logits(classifier, logits, steps, seed + k, tv) for k in range(starts)])
    seconds = (time.perf_counter() - began) / len(logits)
    found = resized(found.flatten(0, 1), size).unflatten(0, (starts, -1))
    return Reconstruction(found.mean(0), found[0]), seconds


def tuned_smoothness(inverter: LogitInverter, images: Tensor, starts: int = 1, seed: int = 0) -> Tuned:
    """The weight of total variation at which `optimised` reaches the highest PSNR on some images (N, 3, S, S).

    inverter: whose classifier gives the logits. The images are none of the test.
    """
    classifier, logits = inverter.classifier, represent_all(inverter, images)

    def score(tv: float) -> float:
        found, _ = optimised(classifier, logits, images.shape[-1], tv, starts, seed)
        return metrics.psnr(found.mean, images).mean().item()

    return climb(score, start=min(classifier.blocks[-1].stride, 32) ** 2 / 40, factor=4.0)


def ridges(examples: Mapping[str, Examples], logits: Mapping[str, Tensor]) -> dict[str, Reconstruction]:
    """Ridge regression from the logits of every classifier but the first: {"ridge, robust": reconstruction, ...}."""
    _, *names = examples
    return {f"ridge, {name}": predict(examples[name], logits[name], ["ridge"])["ridge"] for name in names}


def whose_logits(method: str, names: Sequence[str]) -> str:
    """Which inverter's logits a method inverts: those of "robust" for "ridge, robust", of the first for "nearest"."""
    name = method.removeprefix("ridge, ")
    return name if name in names else names[0]


def examples_of(inverter: LogitInverter, images: Tensor) -> Examples:
    """Images (M, 3, S, S) and their logits, for baselines to learn from."""
    return Examples(represent_all(inverter, images), images)


def shown(made: Mapping[str, Reconstruction], names: Sequence[str], images: Tensor, k: int = 8) -> dict[str, Tensor]:
    """Rows of a figure: the first k images and, of each name, one sample of each."""
    return {"original": images[:k]} | {name: made[name].sample[:k] for name in names}


def training_facts(inverter: LogitInverter) -> dict[str, str]:
    """What an inverter's card says of its training, as a row of a table."""
    facts = {key: str(inverter.card[key]) for key in ("network", "objective", "kind", "images", "steps", "hours")}
    return facts | {"hours": f"{inverter.card['hours']:.1f}"}


def score_methods(
    made: Mapping[str, Reconstruction], images: Tensor, n_perceptual: int | None = None,
    classes: Tensor | None = None, *classifiers: Callable[[Tensor], Tensor],
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]]]:  # fmt: skip
    """Scores of several reconstructions of the same images, and what the first gains over each of the others.

    n_perceptual, classes, classifiers: as in `study.scores.score`.
    Returns ({name: intervals}, {name of another: paired differences}).
    """
    options = {"n_perceptual": n_perceptual, "measures": scores.EVERY}
    measured = {name: scores.score(some, images, classes, *classifiers, **options) for name, some in made.items()}
    first, *others = measured
    rows = {name: some.intervals() for name, some in measured.items()}
    return rows, {name: measured[first].minus(measured[name]) for name in others}


AGAIN = "seed 1"  # the standard classifier's inverter, trained once more from another seed
PAIRS = (
    ("robust", "standard"), ("robust", "early"), ("early", "standard"), ("plain", "standard"), (AGAIN, "standard"),
)  # fmt: skip


def accuracy_rows(logits: Mapping[str, Tensor], labels: Tensor) -> dict[str, dict[str, Interval | str]]:
    """How often each classifier is right, and how often it agrees with the first one, as rows of a table."""
    predicted = {name: some.argmax(1) for name, some in logits.items()}
    first, *_ = predicted
    return {
        name: {
            "accuracy": proportion(classes == labels),
            f"same class as {first}": f"{(classes == predicted[first]).float().mean():.0%}",
        }
        for name, classes in predicted.items()
    }


def between_classifiers(scored: Mapping[str, scores.Scores], names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Paired differences between classifiers: {"robust minus standard": ..., "robust minus standard ridge": ...}.

    scored: of the inverter of each classifier, by its name, and of ridge regression, as "ridge" for the first
        classifier and as "ridge, robust" for another.
    names: of the classifiers. Pairs of which one is missing are left out; the first one is taken for the standard one.
    """
    linear = {name: scored["ridge" if name == names[0] else f"ridge, {name}"] for name in names}
    differences = {}
    for pair in PAIRS:
        a, b = (names[0] if name == "standard" else name for name in pair)
        if a in {*names, AGAIN} & {*scored} and b in names:
            differences[f"{a} minus {b}"] = scored[a].minus(scored[b])
            if a in linear:
                differences[f"{a} minus {b} ridge"] = linear[a].minus(linear[b])
    return differences


def learnt_and_new(
    inverters: Mapping[str, LogitInverter], learnt: Tensor, new: Tensor, made: Mapping[str, Reconstruction],
    samples: int, seed: int = 0,
) -> dict[str, dict[str, Interval]]:  # fmt: skip
    """PSNR and retrieval on images that inverters were trained on, "own standard", and on as many others, "test ...".

    made: the reconstructions of the others, which are computed already.
    """
    rows, n = {}, len(learnt)
    for name, inverter in inverters.items():
        own = reconstruct(inverter, represent_all(inverter, learnt), samples, seed).mean
        for kind, guess, images in (("own", own, learnt), ("test", made[name].mean[:n], new[:n])):
            rows[f"{kind} {name}"] = scores.score(guess, images, measures=["psnr", "found"]).intervals()
    return rows


def invert_faces(
    inverter: LogitInverter, n: int, n_examples: int, samples: int, seed: int = 0
) -> tuple[Tensor, dict[str, Reconstruction]]:
    """Faces (n, 3, S, S), and their reconstructions by the inverter and by baselines that learnt from other faces."""
    size, device = inverter.size, next(inverter.classifier.model.parameters()).device
    faces = data.load("faces", "test", n=n, seed=seed + 1, size=size).images.to(device)
    others = data.load("faces", "inverter", n=n_examples, seed=seed + 1, size=size).images.to(device)
    logits = represent_all(inverter, faces)
    examples = examples_of(inverter, others)
    made = {"inverter": reconstruct(inverter, logits, samples, seed)}
    return faces, made | predict(examples, logits, ["mean image", "ridge", "nearest"])


def psnr_captions(rows: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The PSNR of every row of a figure against the first row, as captions: {row's name: ["24.1", ...]}."""
    first, *others = rows
    return {name: [f"{psnr:.1f}" for psnr in metrics.psnr(rows[name], rows[first]).tolist()] for name in others}


def found_chart(means: Mapping[str, Mapping[str, Interval]], names: Sequence[str]) -> Figure:
    """How often the original is found among the images of the same predicted class, in per cent, as bars."""
    found = {name: means[name]["found_in_class"].times(100) for name in names}
    return plots.bars(found, "original found among images of the same predicted class, %", horizontal=True)


def live_words(gains: Mapping[str, Mapping[str, Interval]]) -> str:
    """Whether the inverter that is trained on the page works: better than the class mean in PSNR and retrieval.

    gains: the second result of `score_methods`, with a "class mean".
    """
    works = all(gains["class mean"][measure].low > 0 for measure in ("psnr", "found"))
    return "works" if works else "does not beat the class mean"
