"""Chapter 20: whether the architecture of a classifier changes what its logits tell (Teterwak et al. 2021, arXiv
2103.07470).

Several classifiers of each architecture are trained on the same images, in the same order, for as many steps, and an
inverter of one kind and budget is trained for each of them. An architecture that learns faster is also right more
often, and logits of accurate classifiers may tell less. So each architecture is compared with the first one twice:
after equal training, and at *equal accuracy*, where the more accurate network of each seed is stopped as soon as it is
as accurate as the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invkit.network.classifiers import Classifier
from invkit.network.small import build
from study.chapters.dose_of_robustness import SIZE, DoseImages, DoseTraining, Inverted
from study.notebook import slug

WIDEST = 4096  # channels of a layer: wider ones do not fit into a small machine's memory
Invert = Callable[[Classifier, int, Path], Inverted]  # (classifier, seed of the inverter, folder for checkpoints)


@dataclass(frozen=True, eq=False)
class Kind:
    """One architecture: what was measured on the classifiers of all its seeds, in order.

    equal: {seed: (of this architecture, of the first one)} at equal accuracy, where one of the two was stopped early;
        empty for the first architecture itself. A seed is missing where the accuracy was not reached.
    """

    inverted: tuple[Inverted, ...]
    equal: Mapping[int, tuple[Inverted, Inverted]]


def check_architectures(architectures: Mapping[str, Sequence], seeds: int, classes: int) -> None:
    """Raise ValueError, before anything is trained, for parameters from which no comparison can be had.

    architectures: {title: [family of `invkit.network.small`, its options]}.
    """
    if len(architectures) < 2:
        raise ValueError(f"Give two architectures or more to compare, not {list(architectures)}.")
    if seeds < 2:
        raise ValueError(f"The luck of a training shows between two or more: give seeds of at least 2, not {seeds}.")
    for title, given in architectures.items():
        pair = isinstance(given, list | tuple) and len(given) == 2
        if not pair or not isinstance(given[0], str) or not isinstance(given[1], Mapping):
            raise ValueError(f"Give the architecture {title!r} as [family, {{option: value}}], not {given!r}.")
        lists = [value for value in given[1].values() if isinstance(value, list | tuple)]
        if not all(value and all(type(n) is int and 1 <= n <= WIDEST for n in value) for value in lists):
            raise ValueError(f"Give {title!r} lists of whole numbers from 1 to {WIDEST}, not {given[1]!r}.")
        build(given[0], classes, SIZE, **given[1])  # refuses what cannot be made


def trainings_of(
    architectures: Mapping[str, Sequence], images: DoseImages, folder: Path, **settings: Any
) -> dict[str, DoseTraining]:
    """How the classifiers of each architecture are trained, all alike.

    settings: the fields of `DoseTraining` that have no default, such as "batch", but for the network and the folder.
    """
    return {
        title: DoseTraining(images, options, folder=folder / slug(title), architecture=family, title=title, **settings)
        for title, (family, options) in architectures.items()
    }


def train_kinds(trainings: Mapping[str, DoseTraining], seeds: int, invert: Invert) -> dict[str, Kind]:
    """Train and invert the classifiers of every architecture: {title: what was measured}, the first one first.

    seeds: how many classifiers of each.
    """
    classifiers = {title: [one.standard(seed) for seed in range(seeds)] for title, one in trainings.items()}
    inverted = {
        title: tuple(invert(one, seed, trainings[title].folder) for seed, one in enumerate(some))
        for title, some in classifiers.items()
    }
    first, *others = trainings
    kinds = {first: Kind(inverted[first], {})}
    for title in others:
        equal = {}
        for seed in range(seeds):
            pair = [(name, classifiers[name][seed]) for name in (title, first)]
            if made := _at_equal_accuracy(pair, seed, trainings, invert):
                equal[seed] = tuple(made.get(name, inverted[name][seed]) for name in (title, first))
        kinds[title] = Kind(inverted[title], equal)
    return kinds


def _at_equal_accuracy(
    pair: Sequence[tuple[str, Classifier]], seed: int, trainings: Mapping[str, DoseTraining], invert: Invert
) -> dict[str, Inverted]:
    """What is measured on the more accurate of two networks, stopped at the accuracy of the other, by its title.

    Empty where it was never as accurate as that when it was looked at.
    """
    by_accuracy = sorted(pair, key=lambda one: trainings[one[0]].held_out_accuracy(one[1]))
    (_, other), (better, _) = by_accuracy
    stopped = trainings[better].twin(other, seed)
    return {better: invert(stopped, seed, trainings[better].folder)} if stopped else {}
