"""Chapter 21: the experiments of chapters 4 to 6 on photos, whose classifier is shown them larger than they come back.

The experiments are those of `study.chapters.mistakes`, `logit_surgery` and `image_surgery`. Here is what photos need
besides: a judge of small images, blur in pixels of the small photo, how even the way between two logit vectors is,
and what the page records, tables and draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from invkit import load_classifier, statistics
from invkit.data.images import Data
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import logits_of
from invkit.metrics import distance
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval, paired_bootstrap
from study import plots, probes
from study.chapters.image_surgery import SURGERIES, Response, Surgery, differing_in_words
from study.chapters.logit_surgery import CONTROLS as OTHER_CONTROLS
from study.chapters.logit_surgery import LOOKS, Series, Subject, at_random
from study.chapters.mistakes import KINDS, Group, examine, targets_of
from study.chapters.natural_images import Photos
from study.notebook import Study, listed, slug
from study.reconstructions import Reconstruction, reconstruct
from study.scores import score, tolerance_of, verdict

OWN_LEAST = 0.8  # share of samples with their class that chapter 2 asks of an inverter that is to show classes
CHECKED = ("same_class", "independent", "found", "psnr")  # of `study.scores.MEASURES`
COLOUR = "own mean colour"
OVER = "PSNR over the own mean colour, dB"
ROUNDING = 1e-5  # root mean square that a step may lead back
SAME_IMAGE = 1e-3  # root mean square below which the ends of a way are one image

# ---- what photos need besides ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Enlarging:
    """A classifier that is shown smaller images in the size that it takes."""

    classifier: Classifier

    @property
    def model(self) -> nn.Module:
        return self.classifier.model

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, S, S)."""
        return logits_of(self.classifier, images)


def load_judges(judges: Mapping[str, str], device: str) -> dict[str, Enlarging]:
    """The classifiers of these names, each for an inverter {label: name}, as judges of smaller images."""
    return {label: Enlarging(load_classifier(name).to(device)) for label, name in judges.items()}


def subjects_of(
    tools: Mapping[str, LogitInverter], photos: Photos, logits: Mapping[str, Tensor], n: int
) -> dict[str, Subject]:
    """The inverters with the first n photos: the logits of the large ones, to be compared with the small ones."""
    return {
        label: Subject(tool, photos.drawn[:n], logits[label][:n], {"itself": tool.represent})
        for label, tool in tools.items()
    }


def examine_photos(
    tool: LogitInverter,
    logits: Tensor,
    photos: Photos,
    means: Tensor,
    judge: Enlarging,
    chosen: Mapping[str, tuple[Tensor, Tensor]],
    samples: int,
    seed: int,
) -> dict[str, Group]:
    """Invert and examine the photos that `mistakes.matched_mistakes` chose, {kind: (places, other classes)}.

    logits: of all N photos.
    means: mean photo of every class, as small as the reconstructions.
    judge: another classifier.
    samples, seed: of the noise, see `reconstruct`.
    """
    data = Data(photos.drawn.cpu(), photos.labels.cpu(), ("",) * len(photos.drawn))
    groups = {}
    for kind, (places, other) in chosen.items():
        made = reconstruct(tool, logits[places], samples, seed)
        groups[kind] = examine(made, targets_of(data, means, places, other), photos.labels[places], other, judge)
    return groups


def surgery_at(name: str, side: int) -> Surgery:
    """A change of `SURGERIES` on photos of any size; blur is in pixels of a photo with this side."""
    surgery = SURGERIES[name]
    if name != "blur":
        return surgery
    return replace(surgery, apply=lambda images, sigma: surgery.apply(images, sigma * images.shape[-1] / side))


def aside(logits: Tensor, factor: float, seed: int) -> Tensor:
    """Logits (N, classes) moved as far as by this factor, but each in a random direction of its own."""
    return at_random(logits, abs(factor - 1) * logits.square().mean(1, keepdim=True).sqrt(), seed)


def crossfade(images: Tensor, shares: Sequence[float]) -> Tensor:
    """The first and the last of images (K, N, 3, S, S), blended in K shares: the even way, in a straight line."""
    return torch.stack([probes.blend(images[0], images[-1], share) for share in shares])


def course(images: Tensor) -> dict[str, Tensor]:
    """How even the way of images (K, N, 3, S, S) is from the first to the last, each (N,).

    largest: the largest step over the mean step, from 1 (all alike) to K - 1 (a single jump).
    detour: the length of the way over the distance of its ends, 1 for a straight line.
    monotone: whether no step leads back towards the first image or away from the last.
    NaN where both ends are one image.
    """
    steps, ends = distance(images[1:], images[:-1]), distance(images[-1], images[0])
    away, nearer = distance(images, images[0]).diff(dim=0), -distance(images, images[-1]).diff(dim=0)
    values = {
        "largest": steps.amax(0) / steps.mean(0).clamp_min(1e-6),
        "detour": steps.sum(0) / ends.clamp_min(1e-6),
        "monotone": (torch.minimum(away, nearer) > -ROUNDING).all(0).float(),
    }
    return {name: torch.where(ends > SAME_IMAGE, x, torch.nan) for name, x in values.items()}


def courses(ways: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`course` of several ways {label: images (K, N, 3, S, S)}, as {measure: {label: (N,)}}."""
    found = {label: course(images) for label, images in ways.items()}
    return {name: {label: by[name] for label, by in found.items()} for name in COURSE}


# ---- numbers and words -----------------------------------------------------------------------------------------------

NOUNS = {
    "rotate": "rotation",
    "translate": "translation",
    "recolour": "recolouring",
    "blur": "blur",
    "occlude": "occlusion",
    "blend": "blending",
}
COURSE = {
    "largest": "largest step over the mean step",
    "detour": "length of the way over the distance of its ends",
    "monotone": "never leads back",
}
INSTEAD = {  # end of an id: what was done
    "": "the change",
    "drawn": "the change, each photo under noise of its own",
    "random": "as far in a random direction",
    "noise": "control: other noise in the generator instead",
}
CONTROLS = OTHER_CONTROLS | {"noise": "noise in the logits: slope of the distance"}
UNLABELLED = (
    "The photos of this run have no classes that the classifiers know, so that mistakes cannot be told from right "
    "predictions; this section is empty."
)


def check_outcome(own: Mapping[str, Interval]) -> str:
    """Whether inverters can show classes; own: {label: share of samples in which their classifier sees its class}."""
    failing = [label for label, share in own.items() if share.value < OWN_LEAST]
    if len(failing) == len(own):
        return "The instrument fails its check"
    return f"The instrument fails its check for {listed(failing)}" if failing else "The instrument passes its check"


def moved_words(slopes: Mapping[str, Mapping[str, Tensor]], label: str, alone: str) -> str:
    """For which changes an inverter's slopes {operation: {label: (N,)}} certainly exceed those of the class alone."""
    surely = [name for name, by in slopes.items() if paired_bootstrap(by[label], by[alone]).low > 0]
    return listed([NOUNS[name] for name in surely]) if surely else "none of them"


def look_values(
    series: Mapping[str, tuple[Series, Series, Sequence[float]]], found: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """How far each look moves for a unit of strength: {way of `INSTEAD`: {change and look: {label: (N,)}}}.

    series: {change: (the change of logits, as far in random directions, strengths in units of it)}.
    found: {label: what `logit_surgery.changes_of_look` found}.
    """
    values: dict[str, dict] = {way: {} for way in INSTEAD}
    for change, (changed, astray, strengths) in series.items():
        moved = {"": changed.swings(strengths), "random": astray.swings(strengths)}
        for name in (look.__name__ for look in LOOKS):
            for way in INSTEAD:
                by = moved[way][name] if way in moved else {x: y[f"{change}_{name}_{way}"] for x, y in found.items()}
                values[way][f"{change} {name} {way}"] = by
    return values


def check_on_photos(
    tools: Mapping[str, LogitInverter],
    others: Mapping[str, Enlarging],
    photos: Photos,
    logits: Mapping[str, Tensor],
    made: Mapping[str, Reconstruction],
    floor: Reconstruction,
) -> dict[tuple[str, str], dict[str, Interval]]:
    """What can be seen in the small photos and in reconstructions, {(label, images): {measure: mean}}.

    others: {label: another classifier}, which some may lack.
    made: {label: reconstructions}.
    floor: the photos' own mean colours.
    """
    lowest = score(floor, photos.drawn, measures=CHECKED)
    checked = {("no network", COLOUR): lowest.intervals()}
    for label, tool in tools.items():
        judge = others[label].logits if label in others else None
        asked = photos.drawn, logits[label].argmax(1), tool.represent, judge
        checked[label, "photo"] = score(photos.drawn, *asked, measures=("same_class", "independent")).intervals()
        own = score(made[label], *asked, measures=CHECKED)
        checked[label, "reconstruction"] = own.intervals() | {OVER: paired_bootstrap(own.psnr, lowest.psnr)}
    return checked


def record_check(study: Study, checked: Mapping[tuple[str, str], Mapping[str, Interval]]) -> None:
    """Record every number of the check of the instrument, {(label, images): {measure: Interval}}, and its outcome."""
    for (label, images), row in checked.items():
        name = images if images == COLOUR else f"{images} {label}"
        study.record_rows({name: {measure: row[measure] for measure in row if measure != OVER}})
        if OVER in row:
            study.record_interval("psnr", f"over colour {label}", row[OVER])
    own = {label: row["same_class"] for (label, images), row in checked.items() if images == "reconstruction"}
    study.record_text("check_words", check_outcome(own))


def record_beyond(study: Study, values: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> None:
    """Record how much farther a change moves each look than a random direction does; values: of `look_values`."""
    for row, by in values[""].items():
        for label, moved in by.items():
            difference = paired_bootstrap(moved, values["random"][f"{row}random"][label])
            study.record(slug(f"beyond {row} {label}"), difference, digits=2, tolerance=tolerance_of(difference))


def mistake_rows(groups: Mapping[str, Mapping[str, Group]]) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table, (classifier, predictions): how far from the photo, and what the class would say."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for name, by_kind in groups.items():
        for kind, group in by_kind.items():
            differences = group.differences()
            rows[name, KINDS[kind]] = {
                "studied": len(group.true),
                "distance": statistics.bootstrap(group.pixel["input"]),
                "mistakes farther by": _excess(by_kind, kind) if kind != "mistakes" else None,
                **{which: differences[which] for which in ("look", "look_second", "read")},
            }
    return rows


def _excess(by_kind: Mapping[str, Group], kind: str) -> Interval:
    """How much farther from their photos reconstructions of mistakes are than those of right predictions."""
    return paired_bootstrap(by_kind["mistakes"].pixel["input"], by_kind[kind].pixel["input"])


def mistake_words(groups: Mapping[str, Mapping[str, Group]]) -> str:
    """A sentence on how near mistakes are reconstructed, or on why there are none."""
    if not groups:
        return UNLABELLED
    phrases = []
    for name, by_kind in groups.items():
        excess = _excess(by_kind, "right true")
        word = verdict(excess, "farther from", "nearer to", "neither surely nearer to nor surely farther from")
        phrases.append(f"the {name} classifier's mistakes are {word} their photos ({excess:+.4f})")
    return (
        "Beside right predictions of the same true class and about the same confidence, reconstructions of "
        f"{listed(phrases)}."
    ).replace("-", "−")


def by_round(path: Mapping[str, Tensor], rounds: Sequence[int]) -> dict[str, Interval]:
    """Mean distance from the photo after some rounds of a loop, whose path is {measure: (rounds, N)}."""
    return {f"round {k}": statistics.bootstrap(path["distance"][k - 1]) for k in rounds}


def loop_words(paths: Mapping[str, Mapping[str, Tensor]]) -> str:
    """From where to where the distance from the photo goes in each loop, whose path is {measure: (rounds, N)}."""
    far = {label: path["distance"].mean(1) for label, path in paths.items()}
    return listed([f"from {y[0]:.2f} to {y[-1]:.2f} ({label})" for label, y in far.items()])


def record_levels(study: Study, photos: Tensor, colours: Tensor, paths: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Record what the photos (N, 3, S, S) themselves have, to compare with, and where the loops go.

    colours: each photo's own mean colour, of the same shape.
    paths: {label: path of the loop}, of `logit_surgery.loop_path`.
    """
    values = {
        "elsewhere": distance(photos, photos.roll(1, 0)),
        "colour_distance": distance(colours, photos),
        "photo_contrast": probes.contrast(photos),
    }
    for id, x in values.items():
        study.record(id, x.mean(), n=len(x), digits=2, tolerance=0.02)
    study.record("chance", 100 / len(photos), unit="%", digits=2, tolerance=0)
    study.record_texts(loop_words=loop_words(paths), drawn_size=photos.shape[-1])


def record_surgery(
    study: Study,
    shown: Tensor,
    made: Mapping[str, Reconstruction],
    responses: Mapping[str, Mapping[str, Response]],
    slopes: Mapping[str, Mapping[str, Tensor]],
    alone: str,
) -> None:
    """Draw the first photo, changed, above its reconstructions, and record which changes these move with.

    shown: photos as the classifier is shown them, (N, 3, S, S).
    made: {label: their reconstructions}; alone: the label of the inverter that knows the class alone.
    responses, slopes: {operation: {label: …}}.
    """
    before = {label: some.mean for label, some in made.items()}
    study.grid("surgery", surgery_pictures(shown, responses, before, 1), columns=["as it is", *responses])
    first, *_, last = [label for label in made if label != alone] * 2
    moved = {f"moved_{label}": moved_words(slopes, label, alone) for label in made if label != alone}
    differing = differing_in_words(slopes, last, first)
    study.record_texts(compared=False, differing_words=differing, **moved)
    study.record_texts(n_operations=len(responses))


# ---- figures ---------------------------------------------------------------------------------------------------------


def slope_bars(slopes: Mapping[str, Tensor]) -> dict[str, Interval | float]:
    """Means of slopes {label: (N,)} with their intervals, for a chart; without one for the "ceiling"."""
    return {label: x.mean().item() if label == "ceiling" else statistics.bootstrap(x) for label, x in slopes.items()}


def look_chart(values: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> Figure:
    """How far contrast, sharpness and brightness move: by the changes, and as outlines in random directions."""
    panels: dict[str, dict] = {}
    hollow, ends = {}, []
    for way, words in (("", ""), ("random", ", random direction"), ("noise", ", other noise instead")):
        for row, by in values[way].items():
            change, look = row.split()[:2]
            for label, x in by.items():
                series = f"{label}{words}"
                moved = panels.setdefault(change, {}).setdefault(series, {})[look] = statistics.bootstrap(x)
                ends += [moved.low, moved.high]
                if way == "random":
                    hollow[series] = label
    margin = 0.05 * (max(ends) - min(ends))
    limits = min(ends) - margin, max(ends) + margin
    return plots.dots(panels, "how far it moves, for a unit of strength", hollow=hollow, xlim=limits)


def surgery_pictures(
    shown: Tensor, responses: Mapping[str, Mapping[str, Response]], before: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Rows of a grid: photos as they are and changed, each above its reconstructions by every inverter.

    shown: photos as the classifier is shown them, (N, 3, S, S).
    responses: {operation: {label: response}}.
    before: {label: reconstructions of the unchanged photos}.
    count: how many photos, from the first on.
    """
    at = {name: -3 if name == "blend" else -1 for name in responses}  # of the amounts
    surgeries = {name: surgery_at(name, next(iter(before.values())).shape[-1]) for name in responses}
    changed = [surgeries[name].apply(shown, surgeries[name].amounts[k]) for name, k in at.items()]
    rows = {}
    for i in range(count):
        mark = " " * i  # rows have names of their own
        rows["photo" + mark] = torch.stack([shown[i], *(images[i] for images in changed)])
        for label, images in before.items():
            after = [responses[name][label].images[k, i] for name, k in at.items()]
            rows[label + mark] = torch.stack([images[i], *after])
    return rows
