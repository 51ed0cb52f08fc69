"""Chapter 5: what reconstructions do when the logits are changed (Teterwak et al. 2021), in numbers.

The logits are changed by a known strength and inverted; of the reconstruction, brightness, contrast, sharpness, the
class that is seen and the distance from the original are measured (`all_measures`), image by image, so that two
inverters can be compared in pairs. A measure "per strength and image" is a tensor (K, N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import metrics, statistics
from invkit.metrics import distance
from invkit.statistics import Interval
from study import plots, probes
from study.notebook import Study
from study.reconstructions import represent_all
from study.scores import tolerance_of
from study.surgery import curve_of, labelled, reconstruct_each, seen, slopes, swings

# ---- logits -> images -> measures ------------------------------------------------------------------------------------


def all_measures(
    reconstructions: Tensor, originals: Tensor, classes: Tensor, watchers: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Tensor]:
    """All measures of reconstructions, {name: (K, N)}.

    reconstructions: (K, N, 3, S, S).
    originals: (N, 3, S, S).
    classes: the class that belongs to each image, (N,).
    watchers: {name: images -> logits}.
    Returns brightness, contrast and sharpness (see `study.probes`), the root mean square distance from the
    originals, and under each watcher's name whether it sees the image's class.
    """
    flat = reconstructions.flatten(0, 1)
    values = {
        f.__name__: f(flat).view(reconstructions.shape[:2])
        for f in (probes.brightness, probes.contrast, probes.sharpness)
    }
    values["distance"] = distance(reconstructions, originals)
    return values | {name: (seen(watcher, reconstructions) == classes).float() for name, watcher in watchers.items()}


@dataclass(frozen=True)
class Subject:
    """An inverter and the images on which it is studied.

    images: (N, 3, S, S) of the inverter's size.
    logits: of these images, (N, classes).
    watchers: {name: images -> logits}, the classifiers that say which class a reconstruction shows.
    noise: of the generator for each image, (N, noise_dim); None is the centre of its prior for all.
    """

    inverter: object
    images: Tensor
    logits: Tensor
    watchers: Mapping[str, Callable[[Tensor], Tensor]]
    noise: Tensor | None = None

    @classmethod
    def of(cls, inverter, images: Tensor, judge=None) -> Subject:
        """The watchers are the inverter's own classifier ("itself") and, where there is one, another ("judge")."""
        watchers = {"itself": inverter.represent} | ({"judge": judge.logits} if judge else {})
        return cls(inverter, images, represent_all(inverter, images), watchers)

    def under_noise(self, seed: int) -> Subject:
        """The same with noise in the generator that is drawn for each image by itself."""
        noise = self.inverter.sample_noise(len(self.logits), seed)
        return replace(self, noise=noise.to(self.logits))

    @property
    def std(self) -> Tensor:
        """How far each logit varies from image to image, (classes,): its natural standard deviation."""
        return self.logits.std(dim=0)

    @property
    def unit(self) -> float:
        """The natural standard deviation of the logits, root mean square over the classes."""
        return self.std.square().mean().sqrt().item()

    @property
    def classes(self) -> Tensor:
        """The class that the classifier sees in each image, (N,)."""
        return self.logits.argmax(1)

    @property
    def next(self) -> Tensor:
        """The logits of the next image, (N, classes); the first image follows the last."""
        return self.logits.roll(-1, 0)

    @property
    def following(self) -> Tensor:
        """The class that the classifier sees in the next image, (N,)."""
        return self.classes.roll(-1)

    def under(self, change: Callable[[Subject, float], Tensor], strengths: Sequence[float]) -> Measured:
        """Invert the logits `change(self, strength)` at each of K strengths, and measure the reconstructions."""
        changed = [change(self, strength) for strength in strengths]
        reconstructions = reconstruct_each(self.inverter, changed, noise=self.noise)
        return Measured(reconstructions, all_measures(reconstructions, self.images, self.classes, self.watchers))


@dataclass(frozen=True)
class Measured:
    """Reconstructions (K, N, 3, S, S) and what was measured of them, {name: (K, N)}; see `all_measures`."""

    images: Tensor
    measures: dict[str, Tensor]


# ---- interpolation and the loop --------------------------------------------------------------------------------------


def ghosting(middle: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """How much a reconstruction half-way is a double exposure of those at the ends, (N,).

    1 is the mean of the two ends; 0 is no nearer to that mean than the ends are.
    """
    mean = (ends[0] + ends[1]) / 2
    return 1 - distance(middle, mean) / distance(ends[0], mean).clamp_min(1e-6)


def wander(rounds: Sequence[Tensor]) -> dict[str, Tensor]:
    """Where a loop (`probes.loop`) goes, each (rounds, N), from round 1 on.

    distance: root mean square from the first images. step: from the round before. spread: from the round's mean image,
    which falls to 0 where all images become one.
    """
    sizes = {images.shape for images in rounds}
    if len(rounds) < 2 or len(sizes) > 1:
        raise ValueError(f"Give the images of at least two rounds, all of one shape, not {sorted(map(tuple, sizes))}.")
    first, later = rounds[0], torch.stack(list(rounds[1:]))
    return {
        "distance": distance(later, first),
        "step": distance(later, torch.stack(list(rounds[:-1]))),
        "spread": distance(later, later.mean(dim=1, keepdim=True)),
    }


def effective_number(classes: Tensor) -> float:
    """How many classes (N,) are seen, rare ones counted less: the exponential of the entropy of their shares."""
    shares = classes.bincount().double() / len(classes)
    return torch.special.entr(shares).sum().exp().item()


# ---- what the notebook draws and compares ----------------------------------------------------------------------------

TITLES = {
    "brightness": "brightness",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "distance": "distance from the original",
    "itself": "class kept, seen by itself",
    "judge": "class kept, seen by another",
    "step": "step",
    "spread": "spread",
    "ghost": "double exposure",
    "contrast_kept": "contrast kept",
    "neither": "neither class seen by another",
    "swap_new_itself": "new class seen by itself",
    "swap_old_itself": "old class seen by itself",
    "swap_new_judge": "new class seen by another",
    "swap_old_judge": "old class seen by another",
    "swap_moved": "moved, as a share of the way to the next image",
    "found_plain": "original found from the plain reconstruction",
    "found_swap": "original found from the swapped one",
    "found_cost": "found, swapped less plain",
}
SHARES = {name for name in TITLES if name.startswith(("neither", "swap_new", "swap_old", "found_plain", "found_swap"))}


def levels(images: Tensor) -> dict[str, dict[str, float]]:
    """What the measures are in the images (N, 3, S, S) themselves, as dashed lines for charts: {title: {label: value}}.

    The distance is that of another image, which is the scale for all distances.
    """
    measures = {f.__name__: f for f in (probes.brightness, probes.contrast, probes.sharpness)}
    lines = {TITLES[name]: {"originals": measure(images).mean().item()} for name, measure in measures.items()}
    lines[TITLES["distance"]] = {"another image": distance(images, images.roll(1, 0)).mean().item()}
    return lines | {TITLES["spread"]: {"originals": distance(images, images.mean(0)).mean().item()}}


@dataclass(frozen=True)
class Series:
    """One change of the logits at K strengths, for every inverter.

    change: (subject, strength) -> changed logits.
    strengths: K numbers.
    subjects: {label: the inverter, its images and logits}.
    measured: {label: the reconstructions and their measures}.
    """

    change: Callable[[Subject, float], Tensor]
    strengths: Sequence[float]
    subjects: Mapping[str, Subject]
    measured: Mapping[str, Measured]

    def at(self, k: int) -> dict[str, dict[str, Tensor]]:
        """All measures at the k-th strength: {measure: {label: (N,)}}."""
        return self._each(lambda values: values[k])

    def slopes(self) -> dict[str, dict[str, Tensor]]:
        """Least-squares slope of every measure on the strengths: {measure: {label: (N,)}}."""
        return self._each(lambda values: slopes(self.strengths, values))

    def swings(self, x: Sequence[float] | Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        """`study.surgery.swings` of every measure on the strengths, or on x instead: {measure: {label: (N,)}}."""
        return self._each(lambda values: swings(self.strengths if x is None else x, values))

    def _each(self, of: Callable[[Tensor], Tensor]) -> dict[str, dict[str, Tensor]]:
        names = next(iter(self.measured.values())).measures
        return {name: {label: of(m.measures[name]) for label, m in self.measured.items()} for name in names}

    def chart(self, xlabel: str, logx: bool = False) -> Figure:
        """Every measure against the strength, with dashed lines for what the images themselves have."""
        lines = {TITLES[name]: _curves(values) for name, values in self._each(lambda values: values).items()}
        images = next(iter(self.subjects.values())).images
        return plots.panels(self.strengths, lines, xlabel, logx, reference=levels(images))


def _curves(values: Mapping[str, Tensor]) -> dict[str, list[Interval]]:
    return {label: curve_of(x) for label, x in values.items()}


def alter(
    subjects: Mapping[str, Subject], change: Callable[[Subject, float], Tensor], strengths: Sequence[float] = (1.0,)
) -> Series:
    """Change the logits of every subject at each of K strengths, invert them, and measure the reconstructions."""
    measured = {label: subject.under(change, strengths) for label, subject in subjects.items()}
    return Series(change, strengths, subjects, measured)


def doublings(factors: Sequence[float]) -> list[float]:
    """How often logits multiplied by each of these factors are doubled: its logarithm to the base 2."""
    return torch.as_tensor(factors, dtype=torch.float64).log2().tolist()


def half_way(between: Series) -> dict[str, dict[str, Tensor]]:
    """What reconstructions show half-way between the logits of each image and the next: {measure: {label: (N,)}}.

    ghost: see `ghosting`. contrast_kept: contrast over the mean contrast of the two ends. neither: the last watcher
    sees neither image's class; NaN where both have the same class.
    """
    middle = list(between.strengths).index(0.5)
    values = {"ghost": {}, "contrast_kept": {}, "neither": {}}
    for label, measured in between.measured.items():
        images, contrast = measured.images, measured.measures["contrast"]
        values["ghost"][label] = ghosting(images[middle], (images[0], images[-1]))
        values["contrast_kept"][label] = contrast[middle] / ((contrast[0] + contrast[-1]) / 2).clamp_min(1e-3)
        *_, watch = between.subjects[label].watchers.values()
        classes, following = between.subjects[label].classes, between.subjects[label].following
        seen_there = seen(watch, images[middle])
        neither = (seen_there != classes) & (seen_there != following)
        values["neither"][label] = torch.where(classes != following, neither.double(), torch.nan)
    return values


def classes_between(between: Series) -> Figure:
    """How often each watcher sees the first and the second image's class, against the share of the second image."""
    lines: dict[str, dict[str, list[Interval]]] = {}
    for label, measured in between.measured.items():
        subject = between.subjects[label]
        following = subject.following
        apart = subject.classes != following
        for who, watch in subject.watchers.items():
            sees = seen(watch, measured.images)[:, apart]
            group = lines.setdefault(f"seen by {'itself' if who == 'itself' else 'another'}", {})
            group[f"{label}: first class"] = curve_of((sees == subject.classes[apart]).float())
            group[f"{label}: second class"] = curve_of((sees == following[apart]).float())
    return plots.panels(between.strengths, lines, "share of the second image's logits")


def after_swap(plain: Series, swap: Series) -> dict[str, dict[str, Tensor]]:
    """What exchanging two logits does, the one of the class seen and the one of the next image's class.

    plain, swap: inversions of the logits before and after, at one strength.
    Returns {measure: {label: (N,)}}, NaN where both classes are the same: whether each watcher sees the new and the old
    class, and how far the reconstruction has moved, as a share of the distance to the next image's. And whether the
    original is found, among all N, from the plain and from the swapped reconstruction, and the difference of the two.
    """
    values: dict[str, dict[str, Tensor]] = {}
    for label, subject in plain.subjects.items():
        before, after = plain.measured[label].images[0], swap.measured[label].images[0]
        old, new = subject.classes, subject.following
        column = {}
        for who, watch in subject.watchers.items():
            sees = seen(watch, after)
            column[f"swap_new_{who}"], column[f"swap_old_{who}"] = sees == new, sees == old
        column["swap_moved"] = distance(after, before) / distance(before.roll(-1, 0), before).clamp_min(1e-6)
        column = {name: torch.where(old != new, x.double(), torch.nan) for name, x in column.items()}
        for name, images in (("plain", before), ("swap", after)):
            column[f"found_{name}"] = (metrics.retrieval_ranks(images, subject.images) == 1).double()
        column["found_cost"] = column["found_swap"] - column["found_plain"]
        for name, x in column.items():
            values.setdefault(name, {})[label] = x
    return values


def loop_path(subject: Subject, rounds: Sequence[Tensor]) -> dict[str, Tensor]:
    """Where the images of a loop (`probes.loop`) go, and what they look like: {measure: (rounds, N)}."""
    wandered = wander(rounds)
    looks = all_measures(torch.stack(list(rounds[1:])), subject.images, subject.classes, subject.watchers)
    order = ("contrast", "sharpness", "brightness", *subject.watchers)
    return wandered | {name: looks[name] for name in order}


def loop_chart(paths: Mapping[str, Mapping[str, Tensor]], images: Tensor) -> Figure:
    """Where loops go, round by round.

    paths: {label: {measure: (rounds, N)}}, of `loop_path`.
    images: that the loops began with, (N, 3, S, S).
    """
    some = next(iter(paths.values()))
    names = [name for name in some if name not in ("sharpness", "brightness")]
    lines = {TITLES[name]: _curves({label: path[name] for label, path in paths.items()}) for name in names}
    return plots.panels(range(1, len(some["step"]) + 1), lines, "round", reference=levels(images))


# ---- controls --------------------------------------------------------------------------------------------------------

LOOKS = (probes.contrast, probes.sharpness, probes.brightness)
INSTEAD = {  # end of an id: the heading of its column
    "drawn": "the change, each image under noise of its own",
    "noise": "control: other noise for each image instead",
    "shared": "one other noise vector for all images instead",
}
CONTROLS = {  # id: what it measures, in the order of the table
    "shift_contrast_random": "as far in a random direction as by the shift: change of contrast",
    "noise_distance_again": "other noise in the logits: slope of the distance, difference",
    "loop_distance_again": "other noise in the generator: drift in the loop, difference",
    "ghost_control": "double exposure, of a double exposure",
}
DISTURBED = 0.02  # natural standard deviations of noise in the logits of a double exposure


def one_noise(subject: Subject, seed: int) -> Tensor:
    """One noise vector of the generator for all images, (N, noise_dim)."""
    return subject.inverter.sample_noise(1, seed).to(subject.logits).expand(len(subject.logits), -1)


def at_random(logits: Tensor, amount: float | Tensor, seed: int) -> Tensor:
    """Logits (N, classes) moved by `amount`, root mean square, each in a random direction of its own.

    amount: one number for all, or one for each, (N, 1).
    """
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).to(logits)
    return logits + amount * direction / direction.square().mean(1, keepdim=True).sqrt()


def changes_of_look(subject: Subject, shift: Series, scale: Series, seed: int) -> dict[str, Tensor]:
    """How far a shift and a scaling move the look, for a unit of strength, and how far noise does, each (N,).

    The generator's noise is drawn for each image by itself, so that the mean over images is one over noise too.
    Returns {"shift_contrast_drawn": …} for both changes, each of `LOOKS` and each of `INSTEAD`. "drawn": all strengths
    have the same noise. "noise": the logits stay as they are, and each strength has other noise, by which no mean
    should move. "shared": the same, but the noise of a strength is one vector for all images, and they move as one.
    """
    drawn = subject.under_noise(seed)
    seeds = range(seed + 1, seed + 1 + max(len(shift.strengths), len(scale.strengths)))
    noises = {
        "noise": [subject.under_noise(k).noise for k in seeds],
        "shared": [one_noise(subject, k) for k in seeds],
    }
    still = {
        way: [reconstruct_each(subject.inverter, subject.logits, noise=noise) for noise in each]
        for way, each in noises.items()
    }
    found = {}
    for name, series, strengths in (("shift", shift, shift.strengths), ("scale", scale, doublings(scale.strengths))):
        ways = still | {"drawn": drawn.under(series.change, series.strengths).images}
        for look in LOOKS:
            for way, images in ways.items():
                values = torch.stack([look(images[k]) for k in range(len(strengths))])
                found[f"{name}_{look.__name__}_{way}"] = swings(strengths, values)
    return found


def measured_controls(
    subject: Subject, still: Subject, series: Mapping[str, Series], rounds: int, seed: int
) -> dict[str, Tensor]:
    """What the measures give where nothing should be found, and where something should, each (N,); see `CONTROLS`.

    subject: one of those of the series.
    still: the one whose logits are moved in random directions.
    series: {"shift", "noise": Series}.
    rounds: of the loop.
    seed: that the noise of the series was made with.
    """
    shift, noise = series["shift"], series["noise"]

    # Other logits, as far from the true ones as those of the shift, but in a random direction for each image.
    astray = alter({"": still}, lambda s, x: at_random(s.logits, x * s.unit, seed), shift.strengths)

    # The same inverter under the same strengths of noise, but other random numbers.
    label = next(name for name, one in noise.subjects.items() if one is subject)
    other = alter({label: subject}, lambda s, x: probes.perturb(s.logits, x, s.std, seed + 1), noise.strengths)
    first, second = (some.slopes()["distance"][label] for some in (noise, other))

    # Two loops of the same inverter, each under one noise vector of its own.
    twice = [probes.loop(subject.inverter, subject.images, rounds, noise=one_noise(subject, seed + k)) for k in (1, 2)]
    paths = [distance(torch.stack(images[1:]), subject.images) for images in twice]
    drifts = [path[-1] - path[0] for path in paths]

    # A double exposure of reconstructions whose logits were disturbed a little.
    disturbed = probes.perturb(subject.logits, DISTURBED, subject.std, seed + 1)
    ends = reconstruct_each(subject.inverter, [subject.logits, subject.next])
    double = reconstruct_each(subject.inverter, [disturbed, disturbed.roll(-1, 0)]).mean(0)
    return {
        "shift_contrast_random": astray.swings()["contrast"][""],
        "noise_distance_again": second - first,
        "loop_distance_again": drifts[1] - drifts[0],
        "ghost_control": ghosting(double, (ends[0], ends[1])),
    }


def record_looks(study: Study, found: Mapping[str, Tensor]) -> dict:
    """Record what `changes_of_look` found, means with their intervals; returns rows of a table."""
    rows = {}
    for change in ("shift", "scale"):
        for look in LOOKS:
            ids = {heading: f"{change}_{look.__name__}_{way}" for way, heading in INSTEAD.items()}
            rows[f"{change}: {look.__name__}"] = {
                h: f"{_record_mean(study, id, found[id]):.3f}" for h, id in ids.items()
            }
    return rows


def record_controls(study: Study, controls: Mapping[str, Tensor]) -> dict:
    """Record the controls (N,) of each of `CONTROLS`, means with their intervals; returns rows of a table."""
    return {
        words: {"mean over images": f"{_record_mean(study, id, controls[id]):.3f}"} for id, words in CONTROLS.items()
    }


def _record_mean(study: Study, id: str, values: Tensor) -> Interval:
    mean = statistics.bootstrap(values.double())
    study.record(id, mean, digits=2, tolerance=tolerance_of(mean))
    return mean


def face_measures(rows: Mapping[str, Tensor], faces: Tensor) -> dict[str, dict[str, Tensor]]:
    """{measure: {row: (N,)}} of rows of reconstructed faces (N, 3, S, S): distance, contrast, sharpness, found."""
    return {
        "distance": {name: distance(x, faces) for name, x in rows.items()},
        "contrast": {name: probes.contrast(x) for name, x in rows.items()},
        "sharpness": {name: probes.sharpness(x) for name, x in rows.items()},
        "found": {name: metrics.retrieval_ranks(x, faces) == 1 for name, x in rows.items()},
    }


def record_classes_in_loop(
    study: Study, subjects: Mapping[str, Subject], loops: Mapping[str, Sequence[Tensor]]
) -> None:
    """Record how many classes each inverter's classifier sees in the images of a loop, at its start and at its end."""
    words = {}
    for label, subject in subjects.items():
        ends = [effective_number(seen(subject.inverter.represent, loops[label][k])) for k in (0, -1)]
        n = len(subject.images)
        study.record(f"loop_classes_start_{label}", ends[0], n=n, digits=2, tolerance=3.0)
        study.record(f"loop_classes_end_{label}", ends[1], n=n, digits=2, tolerance=8.0)
        words[label] = f"{ends[0]:.0f} → {ends[1]:.0f}"
    study.record_text("ways_words", labelled(words))
