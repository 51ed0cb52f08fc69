"""Chapter 15: what inverters trained on synthetic images alone reconstruct at each depth of several networks.

Networks differ in the depths that they can be cut at, so they are compared at *landmarks* that all of them have: the
first depth, the first depth with more than so many convolutions behind it, and the deepest map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from invkit import data
from invkit.inverters import load_inverter
from invkit.statistics import Interval
from study import confirmation
from study.baselines import mean_colours
from study.chapters.zero_shot_inversion import relative_size
from study.probes import share_of_zeros
from study.reconstructions import TimedImages
from study.scores import Scores, score

PAST = (20, 40)  # convolutions: the papers' claims are of "more than" so many layers
FEW = 4  # photos on which the zeros of a representation are counted
MEASURED = ("psnr", "perceptual", "found")
TITLES = {
    "lite0": "EfficientNet-Lite0",
    "lite1": "EfficientNet-Lite1",
    "lite2": "EfficientNet-Lite2",
    "squeezenet": "SqueezeNet 1.1",
    "resnet50-thin": "thin ResNet-50",
    "vgg16-edges": "VGG-16",
    "tiny-standard": "small ResNet",
    "tiny-robust": "robust small ResNet",
}


def title_of(name: str) -> str:
    """What a network is called in tables and figures; by the reader's own name where it is none of ours."""
    return TITLES.get(name, name)


# ---- what is compared ------------------------------------------------------------------------------------------------


def load_networks(inverters: Mapping[str, str], device: str = "cpu") -> tuple[dict[str, object], str]:
    """Load the inverters that can be had, each with its network, and say in a sentence why the others are left out.

    inverters: {name of one's own: a shipped name or a folder}. What cannot be had is an inverter without weights, or a
        network whose package is not installed or is another than the one that was inverted.
    Returns ({name: inverter}, sentence), the sentence empty where none is missing.
    Raises ValueError where none can be had.
    """
    networks, missing = {}, {}
    for name, where in inverters.items():
        try:
            networks[name] = load_inverter(where, trust=True).to(device)
        except (FileNotFoundError, ValueError) as error:
            missing[name] = str(error).partition(", or one of the shipped names")[0].rstrip(".")
    reasons = "; ".join(f"{title_of(name)} ({reason})" for name, reason in missing.items())
    sentence = f"Left out, because the weights or the inverter cannot be had: {reasons}." if missing else ""
    if not networks:
        raise ValueError(sentence or "There is nothing to compare: give inverters={name: a shipped name or a folder}.")
    return networks, sentence


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos of one size to be reconstructed, and those among which each is looked for.

    originals: (N, 3, S, S).
    candidates: the originals first, then all other photos of their set, (M, 3, S, S) with M >= N.
    """

    originals: Tensor
    candidates: Tensor

    @classmethod
    def load(cls, where: str, part: str, n: int, among: int, seed: int, size: int, device: str = "cpu") -> Photos:
        """At most n photos of one part of a set, drawn at random, at a size in pixels; the same ones at every size.

        where, part: see `invkit.data.load` and `study.confirmation.only_part`.
        among: how many candidates, at most. Photos besides the n are candidates alone: nothing is reconstructed of
            them, whichever part they belong to.
        """
        everything = data.load(where, n=None, size=size)
        allowed = set(confirmation.only_part(everything, part).names)
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = sorted([row for row in order if everything.names[row] in allowed][:n])
        others = [row for row in order if row not in set(chosen)][: max(0, among - len(chosen))]
        originals, rivals = (everything.images[rows].to(device) for rows in (chosen, sorted(others)))
        return cls(originals, torch.cat([originals, rivals]))


def map_depths(inverter) -> list[int]:
    """The depths of an inverter at which the representation is a map or tokens: of a vector no place is left."""
    return [depth for depth in inverter.depths if inverter.classifier.blocks[depth - 1].invertible]


def landmarks(inverter) -> dict[str, int]:
    """{name: depth} of the first depth, the first with more than 20 or 40 convolutions, and the deepest map.

    A network with fewer convolutions has no such landmark.
    """
    depths, convolutions = map_depths(inverter), convolutions_by_depth(inverter)
    found = {"first": depths[0]}
    for number in PAST:
        beyond = [depth for depth in depths if convolutions[depth] > number]
        if beyond:
            found[f"past {number}"] = beyond[0]
    return found | {"deepest": depths[-1]}


def spread_depths(inverter, most: int) -> list[int]:
    """At most so many depths with a map, evenly spread from the first to the deepest; all of them for 0."""
    depths = map_depths(inverter)
    places = torch.linspace(0, len(depths) - 1, min(most, len(depths)) or len(depths)).round().long().unique()
    return [depths[place] for place in places.tolist()]


def measured_depths(inverter, most: int) -> list[int]:
    """The depths of `spread_depths`, and the landmarks, in order."""
    return sorted({*spread_depths(inverter, most), *landmarks(inverter).values()})


def convolutions_by_depth(inverter) -> dict[int, int]:
    """{depth: how many convolutions come before its representation}."""
    return {depth: inverter.classifier.blocks[depth - 1].convolutions for depth in inverter.depths}


# ---- how good it is --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DepthResult:
    """How good the reconstructions from one depth of a network are.

    convolutions: behind the representation.
    numbers: that it has for each number of the image.
    zeros: the share of them that are exactly 0, as a ReLU leaves them.
    images: the reconstructions, (N, 3, S, S).
    scores: of these.
    flat: of the photos' own mean colours, which need no representation: their PSNR.
    next: of a control, each photo's reconstruction taken for the photo before it.
    """

    convolutions: int
    numbers: float
    zeros: float
    images: Tensor
    scores: Scores
    flat: Scores
    next: Scores

    @property
    def gain(self) -> Interval:
        """By how many dB the PSNR exceeds that of each photo's own mean colour."""
        return self.scores.minus(self.flat)["psnr"]

    @property
    def gain_next(self) -> Interval:
        """The same of the control, which should not reach the mean colour."""
        return self.next.minus(self.flat)["psnr"]


def score_depths(inverter, photos: Photos, made: Mapping[int, TimedImages]) -> dict[int, DepthResult]:
    """Measure what an inverter made of photos of its size, {depth: DepthResult}.

    made: {depth: reconstructions of the originals}.
    """
    originals, candidates = photos.originals, photos.candidates
    flat = score(mean_colours(originals), candidates, measures=["psnr"])
    depth_results = {}
    for depth, one in made.items():
        depth_results[depth] = DepthResult(
            inverter.classifier.blocks[depth - 1].convolutions,
            relative_size(inverter.classifier, depth),
            share_of_zeros(inverter.classifier, originals[:FEW], depth),
            one.images,
            score(one.images, candidates, measures=MEASURED),
            flat,
            score(one.images.roll(-1, 0), candidates, measures=["psnr", "found"]),
        )
    return depth_results


def comparable_results(
    networks: Mapping[str, object], depth_results: Mapping[str, Mapping[int, DepthResult]]
) -> dict[tuple[str, str, str], tuple[DepthResult, DepthResult]]:
    """Results of the first network and of each other one of its size, at comparable convolutions, on the same photos.

    Comparable are the first depths with more than 20 convolutions, or 40.
    Returns {(first, other, "past 20"): their depth_results}.
    """
    (first, inverter), *others = networks.items()
    found = {}
    for name, other in others:
        shared = landmarks(inverter).keys() & landmarks(other).keys()
        for mark in (f"past {number}" for number in PAST):
            if other.size == inverter.size and mark in shared:
                pair = (first, inverter), (name, other)
                found[first, name, mark] = tuple(depth_results[key][landmarks(one)[mark]] for key, one in pair)
    return found


def pictured_rows(
    networks: Mapping[str, object], picture: Mapping[int, Tensor], columns: int
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Reconstructions of one picture from so many depths of each network, as rows of a grid with their captions.

    picture: {side in pixels: (1, 3, S, S)}.
    Returns ({title: (columns + 1, 3, S, S)}, {title: captions}), the picture itself first; a network with fewer depths
    repeats its deepest.
    """
    rows, captions = {}, {}
    for name, inverter in networks.items():
        depths, convolutions = spread_depths(inverter, columns), convolutions_by_depth(inverter)
        depths += [depths[-1]] * (columns - len(depths))
        original = picture[inverter.size].to(next(inverter.chain.parameters()).device)
        images = {depth: inverter.reconstruct(original, depth) for depth in dict.fromkeys(depths)}
        psnr = {depth: score(made, original, measures=["psnr"]).psnr.item() for depth, made in images.items()}
        title = title_of(name)
        rows[title] = torch.cat([original, *(images[depth] for depth in depths)])
        captions[title] = ["", *(f"{convolutions[depth]}: {psnr[depth]:.1f}" for depth in depths)]
    return rows, captions
