"""Chapter 7: what one inverter recovers of photos at every depth, and what that costs (Dong et al. 2021).

Reconstructions are compared with two opponents: optimisation of the photo itself (`invkit.optimize.invert_features`)
and the photo's mean colour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import metrics, statistics
from invkit.dci.chain import ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.training import Schedule
from invkit.network.partition import Block
from invkit.optimize import Inversion
from invkit.statistics import Interval
from study import plots
from study.notebook import Study
from study.reconstructions import TimedImages, break_even, reconstruct_every_depth
from study.scores import Scores, judged, verdict, word


def search_every_photo(inverter, photos: Tensor, depth: int, steps: int, batch: int = 8) -> TimedImages:
    """Reconstruct photos (N, 3, size, size) from one depth with so many steps of `invkit.dci.search`.

    Only the inversion is timed, because the representation is what an attacker is given.
    """
    with torch.no_grad():
        given = torch.cat([inverter.represent(part, depth) for part in photos.split(batch)])
    began = time.perf_counter()
    images = torch.cat([inverter.invert(y, depth, search=steps) for y in given.split(batch)])
    return TimedImages(images, (time.perf_counter() - began) / len(photos))


def mean_colour(photos: Tensor) -> Tensor:
    """Photos (N, 3, H, W), each replaced by its own mean colour: a reconstruction without any structure."""
    return photos.mean((2, 3), keepdim=True).expand_as(photos)


def depth_of(classifier, convolutions: int) -> int:
    """The deepest block that ends after at most so many convolutions, pooling and logits excluded."""
    depths = [b.depth for b in classifier.blocks if len(b.shape) == 3 and b.convolutions <= convolutions]
    if not depths:
        first = classifier.blocks[0].convolutions
        raise ValueError(
            f"The first block of {classifier.name} has {first} convolutions: ask for as many, not {convolutions}."
        )
    return depths[-1]


def numbers_per_number(classifier, depth: int) -> float:
    """How many numbers the representation of that depth has for each number of the image."""
    return math.prod(classifier.blocks[depth - 1].shape) / (3 * classifier.size**2)


@torch.no_grad()
def share_of_zeros(classifier, images: Tensor, depth: int) -> float:
    """The share of the numbers of a representation of images (N, 3, H, W) that are exactly 0."""
    return (classifier.features(images, depth) == 0).float().mean().item()


# ---- what the notebook tabulates, draws and records ------------------------------------------------------------------

FREE = {"cat": "chelsea", "coffee": "coffee", "motorcycle": "motorcycle_left", "astronaut": "astronaut"}
HEADLINE = (3, 9, 15, 24, 33, 42)  # convolutions: the depths that the text speaks of


def captions(rows: Mapping[str, Tensor], originals: Tensor) -> dict[str, list[str]]:
    """The PSNR of every image in dB, to stand below rows of images; none for the row of the originals themselves."""
    return {
        label: [f"{value:.1f}" for value in metrics.psnr(images, originals).tolist()]
        for label, images in rows.items()
        if images is not originals
    }


def picture_every_depth(study: Study, inverter, pictures: Tensor, names: Sequence[str]) -> None:
    """Draw pictures, a row each, and their reconstructions from the depths that the text speaks of, in columns."""
    depths = [depth_of(inverter.classifier, convolutions) for convolutions in HEADLINE]
    found = reconstruct_every_depth(inverter, pictures, sorted(set(depths)))
    columns = [pictures, *(found[depth].images for depth in depths)]
    psnr = [[f"{value:.1f}" for value in metrics.psnr(column, pictures).tolist()] for column in columns[1:]]
    titles = ["photo", *(str(inverter.classifier.blocks[depth - 1].convolutions) for depth in depths)]
    study.grid(
        "every_depth",
        dict(zip(names, torch.stack(columns, 1), strict=True)),
        {name: ["", *(column[i] for column in psnr)] for i, name in enumerate(names)},
        titles,
        title="reconstructed after … convolutions",
    )


def describe(classifier, images: Tensor, depth: int) -> dict[str, object]:
    """The representation at one depth, as a table's row: where it is, how many numbers it has, how many are 0."""
    block = classifier.blocks[depth - 1]
    return {
        "convolutions": block.convolutions,
        "stride": block.stride,
        "numbers": f"{numbers_per_number(classifier, depth):.2f}",
        "zeros": f"{share_of_zeros(classifier, images, depth):.0%}",
    }


def depth_rows(
    inverter, photos: Tensor, means: Mapping[int, Mapping[str, Interval]], sides: Mapping[int, float]
) -> dict[int, dict[str, object]]:
    """Rows of a table, one a depth: the representation of photos (N, 3, S, S), and how good the reconstructions are.

    means: {depth: {measure: mean over photos}}.
    sides: {depth: side of the equivalent thumbnail in pixels}.
    """
    rows = {}
    for depth, mean in means.items():
        passes = 1 + inverter.card.get("feedback", {}).get(str(depth), (0, 1))[0]
        rows[depth] = describe(inverter.classifier, photos, depth) | {"passes": passes}
        rows[depth] |= {"psnr": mean["psnr"], "thumbnail": f"{sides[depth]:.0f}"} | dict(mean)
    return rows


def record_headline(
    study: Study,
    classifier,
    means: Mapping[int, Mapping[str, Interval]],
    sides: Mapping[int, float],
    gains: Mapping[int, Interval],
) -> None:
    """Record what the text says: the measures at some depths, and at how many depths the mean colour is beaten.

    means, sides: as for `depth_rows`.
    gains: {depth: PSNR less that of the photo's mean colour}.
    """
    for convolutions in HEADLINE:
        depth = depth_of(classifier, convolutions)
        study.record_rows({convolutions: means[depth]}, ["psnr", "ssim", "perceptual"])
        study.record_rows({convolutions: means[depth]}, ["found"], digits=2)
        side = sides[depth]
        study.record(f"thumbnail_{convolutions}", side, unit="pixels", digits=2, tolerance=0.1 * side)
        study.record(f"numbers_{convolutions}", numbers_per_number(classifier, depth), digits=2)
    above = [classifier.blocks[depth - 1].convolutions for depth, gain in gains.items() if gain.low > 0]
    study.record("depths", len(gains), digits=1, tolerance=0)
    study.record("depths_above_mean_colour", len(above), digits=1, tolerance=1)
    study.record("deepest_above_mean_colour", max(above, default=0), digits=1, tolerance=6)


def against(study: Study, id: str, ours: Scores, theirs: Scores) -> dict[str, object]:
    """Record by how many dB our reconstructions have the better PSNR, as `id`; return a row of a table.

    ours, theirs: scores of the same images. The row has both PSNRs, the difference and that of the perceptual distance,
    each with its paired interval and verdict.
    """
    differences = ours.minus(theirs)
    gain = differences["psnr"]
    study.record(id, gain, unit="dB", digits=2, tolerance=0.5, verdict=word("psnr", gain))
    return {
        "photos": gain.n,
        "ours, dB": f"{ours.psnr.mean():.1f}",
        "theirs, dB": f"{theirs.psnr.mean():.1f}",
        "ours − theirs, dB": judged("psnr", gain),
        "perceptual, ours − theirs": judged("perceptual", differences["perceptual"]),
    }


def cost_rows(
    study: Study, inverter, ours: Mapping[int, TimedImages], optimised: Mapping[int, Inversion]
) -> dict[int, dict[str, str]]:
    """Record what reconstructing and optimising one photo takes, and after how many photos training is paid for.

    ours: {depth: the reconstructions, with the seconds of each}.
    optimised: {depth: the optimisation of some photos together}.
    Returns rows of a table, one for each depth that optimisation was tried at, by the number of convolutions.
    """
    study.record("hours", inverter.card["hours"], unit="hours", digits=2)
    rows = {}
    for depth, found in optimised.items():
        convolutions = inverter.classifier.blocks[depth - 1].convolutions
        once, seconds = ours[depth].seconds, found.seconds / len(found.estimate)
        photos = break_even(inverter.card["hours"], once, seconds)
        study.record(f"seconds_{convolutions}", once, unit="s", digits=2, tolerance=None)
        study.record(f"seconds_optimised_{convolutions}", seconds, unit="s", digits=2, tolerance=None)
        study.record(f"break_even_{convolutions}", photos, unit="photos", tolerance=None)
        rows[convolutions] = {
            "reconstruction, s a photo": f"{once:.3f}",
            "optimisation, s a photo": f"{seconds:.1f}",
            "training is paid for after": f"{photos:,.0f} photos",
        }
    return rows


def quality_chart(
    classifier,
    photos: Tensor,
    means: Mapping[int, Mapping[str, Interval]],
    flat: Scores,
    optimised: Mapping[int, Scores],
) -> Figure:
    """Mean PSNR against the number of convolutions inverted, beside both opponents and thumbnails of three sizes."""
    lines = {
        "reconstructed, zero-shot": [mean["psnr"] for mean in means.values()],
        "pixel optimisation": [optimised[d].intervals()["psnr"] if d in optimised else None for d in means],
        "mean colour": [flat.intervals()["psnr"]] * len(means),
    }
    thumbnails = {
        f"{side} × {side} thumbnail": metrics.psnr(metrics.thumbnail(photos, side), photos).mean().item()
        for side in (56, 14, 4)
    }
    places = [classifier.blocks[depth - 1].convolutions for depth in means]
    return plots.curve(places, lines, "convolutions inverted", "PSNR, dB", reference=thumbnails)


# ---- the small inversion that is trained on the spot -----------------------------------------------------------------


def live_plan(network, stride: int, steps: int, batch: int = 8) -> dict[str, object]:
    """How to invert a small network's blocks in a minute: arguments of `dci.invert_classifier`.

    network: a classifier of small images.
    stride: down to which maps, as a share of the image's side.
    steps: of training; a third is divided among the inverses, the rest re-synchronises the chain.
    batch: crops a step, of the network's own size.
    First every inverse learns to undo its own block alone, then the chain learns to return the image. Inverses of the
    same resolution have the same width in every network.
    """
    blocks = [block for block in network.blocks if len(block.shape) == 3 and block.stride <= stride]
    return {
        "depth": blocks[-1].depth,
        "sizes": [({2: 24, 4: 48}.get(block.stride, 64), 2) for block in blocks],
        "crops": lambda depth: (batch, network.size),
        "schedule": Schedule(steps // 3 // len(blocks), steps * 2 // 3, synchronise_lr=2e-3, cycle_every=4),
        "weights": ChainLossWeights(block=1, input=0, cycle=0),
        "synchronise_weights": ChainLossWeights(block=0.1, input=1, cycle=0.1),
    }


def last_of_each_stride(inverter: ClassifierInverter) -> dict[int, Block]:
    """The last of an inverter's blocks at each resolution, {stride: block}: there two networks can be compared."""
    return {block.stride: block for block in inverter.classifier.blocks if block.depth in inverter.depths}


def live_rows(
    live: Mapping[str, ClassifierInverter], psnr: Mapping[str, Mapping[int, Tensor]], images: Tensor
) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table, one for each block of each network: the representation of the images, and the mean PSNR.

    live: {network: its inverter}.
    psnr: {network: {depth: PSNRs (N,)}}.
    """
    return {
        (name, inverter.classifier.blocks[depth - 1].name): describe(inverter.classifier, images, depth)
        | {"psnr": statistics.bootstrap(psnr[name][depth])}
        for name, inverter in live.items()
        for depth in psnr[name]
    }


def live_gains(
    study: Study, live: Mapping[str, ClassifierInverter], psnr: Mapping[str, Mapping[int, Tensor]]
) -> dict[str, dict[str, str]]:
    """Record the PSNR of two networks at the last block of each resolution, and the difference, first less second.

    live, psnr: as for `live_rows`. Returns rows of a table, one a resolution.
    """
    last = {name: last_of_each_stride(inverter) for name, inverter in live.items()}
    for name, blocks in last.items():
        for stride, block in blocks.items():
            mean = statistics.bootstrap(psnr[name][block.depth])
            study.record(f"live_{name.replace(' ', '_')}_{stride}", mean, unit="dB", tolerance=1.5)
    rows = {}
    (a, of_a), (b, of_b) = last.items()
    for stride in sorted(of_a.keys() & of_b.keys()):
        gain = statistics.paired_bootstrap(psnr[a][of_a[stride].depth], psnr[b][of_b[stride].depth])
        better = verdict(gain, f"{a} better", f"{b} better")
        study.record(f"live_gain_{stride}", gain, unit="dB", digits=2, tolerance=2.0, verdict=better)
        rows[f"1/{stride}"] = {
            f"convolutions, {a}": of_a[stride].convolutions,
            f"convolutions, {b}": of_b[stride].convolutions,
            "difference, dB": f"{gain:+.1f}: {better}",
        }
    return rows


def provenance(inverter: ClassifierInverter) -> str:
    """Where an inverter's weights come from, as a Markdown list."""
    card = inverter.card
    facts = {
        "inverted": f"{card['network']}, {len(inverter.depths)} blocks at {inverter.size} pixels",
        "trained": f"{card['steps']:,} steps in {card['hours']} hours, seed {card['seed']}",
        "on": card["machine"],
        "by": f"invkit {card['code']}",
        "size": f"{card['numbers'] / 1e6:.1f} million numbers, {card['bytes'] / 1e6:.1f} MB",
        "SHA-256": f"`{card['sha256'][:16]}…`",
        "again": f"`{card.get('command', '(see its training script)')}`",
    }
    return "\n".join(f"- **{key}**: {value}" for key, value in facts.items())
