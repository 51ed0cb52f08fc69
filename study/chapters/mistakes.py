"""Chapter 4: what reconstructions show where the classifier was wrong, the input or the class that it mistook it for.

Mistaken predictions are compared with correct ones of the same confidence, which `match` finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invkit import metrics
from invkit.data import glyphs
from invkit.data.images import Data
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval, bootstrap, paired_bootstrap, proportion
from study.baselines import mean_colours
from study.reconstructions import Reconstruction, batched_logits, reconstruct, represent_all
from study.scores import confidence
from study.scores import verdict as sign_of


def match(wrong: Tensor, groups: Tensor, right: Tensor, right_groups: Tensor) -> Tensor:
    """The nearest control of the same group for each of N values; the same control may serve several.

    wrong, right: (N,) and (M,), for instance the confidence in mistaken and in correct predictions.
    groups, right_groups: (N,) and (M,), for instance their true classes.
    Returns indices (N,) into `right`, -1 where a group has none.
    """
    distance = (wrong.unsqueeze(1) - right.unsqueeze(0)).abs()
    distance[groups.unsqueeze(1) != right_groups.unsqueeze(0)] = torch.inf
    if not len(right):
        return torch.full_like(groups, -1)
    best, index = distance.min(1)
    return torch.where(best.isfinite(), index, -1)


@torch.no_grad()
def seen_as(seen: Tensor, true: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Which reconstructions another classifier assigns to the true class, to the predicted one, or to a third.

    seen, true, predicted: classes (N,). Returns masks (N,).
    """
    is_true, is_predicted = seen == true, seen == predicted
    return {"true class": is_true, "predicted class": is_predicted & ~is_true, "another": ~(is_true | is_predicted)}


def look_verdict(to_input_minus_to_wrong: Interval, true_minus_predicted: Interval) -> str:
    """What reconstructions of mistakes look like, by a rule fixed before the numbers.

    to_input_minus_to_wrong: perceptual distance to the input minus that to the wrong class.
    true_minus_predicted: share of reconstructions that an independent classifier assigns to the true class minus the
        share that it assigns to the predicted one.
    """
    nearer = sign_of(to_input_minus_to_wrong, "like the wrong class", "like the input", "as much like either")
    named = sign_of(true_minus_predicted, "as the true class", "as the predicted class", "as either")
    return f"look {nearer} and are seen {named}"


# ---- the experiment --------------------------------------------------------------------------------------------------

KINDS = {
    "mistakes": "mistakes",
    "right true": "right, same true class",
    "right predicted": "right, same predicted class",
    "twins": "the twins themselves",
    "mean colour": "own mean colour of the inputs",
}
TARGETS = {
    "input": "the input",
    "twin": "its twin of the wrong class",
    "true mean": "mean of its class",
    "other mean": "mean of the wrong class",
}


def matched_mistakes(logits: Tensor, labels: Tensor, n: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The first n mistakes of a classifier, and for each two correct predictions that are about as confident.

    logits: (N, classes) of images with these labels (N,).
    Returns {kind: (places of K images among the N, for each another class)}: "mistakes", of which the other class is
    the predicted one; "right true", correct predictions of the same true class, with the mistake's predicted class;
    and "right predicted", correct predictions of the class that was predicted, with the mistake's true class.
    Mistakes without a control of either kind are left out.
    """
    predicted, sure = logits.argmax(1), confidence(logits)
    mistaken, right = ((predicted != labels) == wrong for wrong in (True, False))
    mistaken, right = mistaken.nonzero().flatten()[:n], right.nonzero().flatten()
    true, wrong = labels[mistaken], predicted[mistaken]
    same_true = match(sure[mistaken], true, sure[right], labels[right])
    same_predicted = match(sure[mistaken], wrong, sure[right], labels[right])
    matched = (same_true >= 0) & (same_predicted >= 0)
    true, wrong = true[matched], wrong[matched]
    return {
        "mistakes": (mistaken[matched], wrong),
        "right true": (right[same_true[matched]], wrong),
        "right predicted": (right[same_predicted[matched]], true),
    }


def targets_of(test: Data, means: Tensor, places: Tensor, other: Tensor) -> dict[str, Tensor]:
    """What reconstructions of the images at some places of `test` are compared with: {target: (K, 3, S, S)}.

    means: mean image of every class, on the device of the results.
    other: class (K,) of which the twin is drawn, where the images' factors are known.
    The targets are the "input", the "true mean" and "other mean" of the two classes, and the "twin": the same drawing
    with the other class's character.
    """
    device, chosen = means.device, places.cpu()
    inputs = test.images[chosen].to(device)
    targets = {"input": inputs, "true mean": means[test.labels[chosen].to(device)], "other mean": means[other]}
    if test.factors:
        factors = {name: values[chosen] for name, values in test.factors.items()}
        drawn = glyphs.render(factors | {"label": other.cpu()}, inputs.shape[-1])
        targets["twin"] = drawn.to(device)
    return targets


@dataclass(frozen=True)
class Group:
    """K reconstructions of one kind, and what they look like.

    reconstruction, targets: images, see `targets_of`.
    true, other: classes (K,), the images' own and the one that they might be mistaken for.
    pixel, look, look_second: distance to each target, {target: (K,)}: root mean squared error of the best guess, and
        perceptual distances of the sample in two unrelated spaces.
    seen: the class (K,) that an independent classifier sees in the sample.
    named, input_named: `seen_as` of the samples and of the inputs.
    """

    reconstruction: Reconstruction
    targets: dict[str, Tensor]
    true: Tensor
    other: Tensor
    pixel: dict[str, Tensor]
    look: dict[str, Tensor]
    look_second: dict[str, Tensor]
    seen: Tensor
    named: dict[str, Tensor]
    input_named: dict[str, Tensor]

    @property
    def wrong(self) -> str:
        """The target that stands for the wrong class: the twin where there is one, else the other class's mean."""
        return "twin" if "twin" in self.targets else "other mean"

    def distances(self) -> dict[str, dict[str, Interval]]:
        """{target: {"pixel": mean distance, "perceptual": mean distance}}."""
        return {
            target: {"pixel": bootstrap(self.pixel[target]), "perceptual": bootstrap(self.look[target])}
            for target in self.targets
        }

    def differences(self) -> dict[str, Interval]:
        """Paired differences, image by image.

        "look", "look_second" and "look_pixel": distance to the input less that to the wrong class, in two perceptual
        spaces and in pixels;
        "look_mean": perceptual distance to the true class's mean less that to the other's; "read": share in which the
        independent classifier sees the true class less that in which it sees the other.
        """
        return {
            "look": paired_bootstrap(self.look["input"], self.look[self.wrong]),
            "look_second": paired_bootstrap(self.look_second["input"], self.look_second[self.wrong]),
            "look_pixel": paired_bootstrap(self.pixel["input"], self.pixel[self.wrong]),
            "look_mean": paired_bootstrap(self.look["true mean"], self.look["other mean"]),
            "read": paired_bootstrap(*(self.named[which].float() for which in ("true class", "predicted class"))),
        }

    def shares(self) -> dict[str, dict[str, Interval]]:
        """Where the independent classifier sees which class: {which: {"seen": in samples, "input": in inputs}}."""
        return {
            which: {"seen": proportion(self.named[which]), "input": proportion(self.input_named[which])}
            for which in self.named
        }


@torch.no_grad()
def examine(
    reconstruction: Reconstruction, targets: dict[str, Tensor], true: Tensor, other: Tensor, judge: Classifier
) -> Group:
    """Measure K reconstructions against their targets, and let an independent classifier say what it sees."""
    seen, input_seen = (batched_logits(judge, images).argmax(1) for images in (reconstruction.sample, targets["input"]))
    return Group(
        reconstruction,
        targets,
        true,
        other,
        pixel={name: metrics.distance(reconstruction.mean, target) for name, target in targets.items()},
        look={name: metrics.perceptual(reconstruction.sample, target) for name, target in targets.items()},
        look_second={
            name: metrics.perceptual_squeezenet(reconstruction.sample, target) for name, target in targets.items()
        },
        seen=seen,
        named=seen_as(seen, true, other),
        input_named=seen_as(input_seen, true, other),
    )


def examine_twins(
    inverter: LogitInverter, mistakes: Group, judge: Classifier, samples: int = 16, seed: int = 0
) -> Group:
    """The same for what is reconstructed from the twins' own logits: a check, since these must look like the twins.

    samples, seed: of the noise, see `reconstruct`.
    """
    made = reconstruct(inverter, represent_all(inverter, mistakes.targets["twin"]), samples, seed)
    return examine(made, mistakes.targets, mistakes.true, mistakes.other, judge)


def examine_colours(mistakes: Group, judge: Classifier) -> Group:
    """The floor: the same of reconstructions without any structure, the inputs' own mean colours."""
    return examine(mean_colours(mistakes.targets["input"]), mistakes.targets, mistakes.true, mistakes.other, judge)


# ---- rows, figures and words of the page -----------------------------------------------------------------------------


def mistakes_row(groups: Mapping[str, Group], logits: Tensor, chosen: Mapping[str, tuple[Tensor, Tensor]]) -> dict:
    """How many mistakes of one classifier are studied, and the mean confidence of each kind of prediction."""
    sure = confidence(logits)
    row = {"studied": len(groups["mistakes"].true)}
    return row | {f"confidence, {KINDS[kind]}": f"{sure[chosen[kind][0]].mean():.2f}" for kind in chosen}


def distance_rows(name: str, groups: Mapping[str, Group]) -> dict[tuple[str, str, str], dict[str, Interval]]:
    """The distances of one classifier's groups as rows of a table: (classifier, predictions, distance)."""
    rows = {}
    for kind, group in groups.items():
        distances = group.distances()
        for measure in ("pixel", "perceptual"):
            found = {f"to {TARGETS[target]}": distances[target][measure] for target in TARGETS if target in distances}
            rows[name, KINDS[kind], measure] = found
    return rows


def seen_rows(name: str, groups: Mapping[str, Group]) -> dict[tuple[str, str], dict[str, str]]:
    """What the independent classifier sees, as rows of a table: (classifier, predictions)."""
    rows = {}
    for kind, group in groups.items():
        shares = group.shares()
        row = rows[name, KINDS[kind]] = {}
        row |= {f"in the reconstruction: {which}": f"{shares[which]['seen'].times(100):.0f} %" for which in shares}
        row |= {f"in the input: {which}": f"{shares[which]['input'].value:.0%}" for which in list(shares)[:2]}
    return rows


def others_words(verdicts: Mapping[str, str], name: str = "standard") -> str:
    """A sentence about the mistakes of all classifiers but one, "" if there are none."""
    words = [f"those of the {other} classifier {said}" for other, said in verdicts.items() if other != name]
    return f"Of other classifiers' mistakes: reconstructions from {'; '.join(words)}." if words else ""


def place_words(split: str, group: Group) -> dict[str, str]:
    """Phrases on where the mistakes come from and what they are compared with, by their ids in the prose."""
    unseen = "There the characters come in a family of fonts that no classifier or inverter of this chapter has met."
    twin, mean = "its twin, the same drawing of the wrongly predicted character", "the mean of the wrong class"
    return {
        "split": split,
        "where_words": unseen if split == "test-fonts" else "It is drawn as the test images are.",
        "twin_words": twin if group.wrong == "twin" else mean,
        "wrong_words": TARGETS["twin"] if group.wrong == "twin" else mean,
    }


def figure_of_mistakes(
    groups: Mapping[str, Mapping[str, Group]], names: Sequence[str], k: int = 8
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Rows and captions of a figure: the first k mistakes of some classifiers, their reconstructions, the wrong class.

    names: of the classifiers, of which some may be missing.
    """
    rows, captions = {}, {}
    for name in [name for name in names if name in groups]:
        group = groups[name]["mistakes"]
        shown = {"input": group.targets["input"], "reconstruction": group.reconstruction.sample}
        shown[group.wrong] = group.targets[group.wrong]
        rows |= {f"{name}: {title}": images[:k] for title, images in shown.items()}

        def called(label: int, has_names: bool = group.wrong == "twin") -> str:
            return glyphs.CHARACTERS[label].replace("$", r"\$") if has_names else str(label)

        pairs = zip(group.true[:k].tolist(), group.other[:k].tolist(), strict=True)
        captions[f"{name}: input"] = [f"{called(a)} → {called(b)}" for a, b in pairs]
        captions[f"{name}: reconstruction"] = [f"seen: {called(a)}" for a in group.seen[:k].tolist()]
    return rows, captions


def look_bars(groups: Mapping[str, Mapping[str, Group]]) -> dict[str, dict[str, Interval]]:
    """How much nearer to the input than to the wrong class, for a chart: {classifier: {predictions: difference}}."""
    return {
        name: {KINDS[kind]: group.differences()["look"] for kind, group in by_kind.items() if kind != "mean colour"}
        for name, by_kind in groups.items()
    }
