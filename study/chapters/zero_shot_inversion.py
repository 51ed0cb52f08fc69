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

from invkit import data, metrics, statistics
from invkit.data import Data
from invkit.dci.chain import ChainLossWeights
from invkit.dci.invert import invert_classifier
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.training import Schedule
from invkit.network.classifiers import LIBRARIES
from invkit.network.partition import Block
from invkit.optimize import Inversion
from invkit.statistics import Interval
from study import confirmation, plots
from study.baselines import mean_colours
from study.notebook import Study
from study.probes import share_of_zeros
from study.reconstructions import TimedImages, break_even, reconstruct_every_depth
from study.scores import EVERY, Scores, judged, score, verdict, word


def search_every_photo(inverter, photos: Tensor, depth: int, steps: int, batch: int = 8) -> TimedImages:
    """Reconstruct photos (N, 3, size, size) from one depth with so many steps of `invkit.dci.search`.

    Only the inversion is timed, because the representation is what an attacker is given.
    """
    with torch.no_grad():
        given = torch.cat([inverter.represent(part, depth) for part in photos.split(batch)])
    began = time.perf_counter()
    images = torch.cat([inverter.invert(y, depth, search=steps) for y in given.split(batch)])
    return TimedImages(images, (time.perf_counter() - began) / len(photos))


HEADLINE = (3, 9, 15, 24, 33, 42)  # convolutions of EfficientNet-Lite0, the network of the default inverter


def unit_of(inverter) -> str:
    """What depths are counted in: "convolutions", or "blocks" where most blocks of the network have none."""
    counts = {inverter.classifier.blocks[depth - 1].convolutions for depth in inverter.depths}
    return "convolutions" if 2 * len(counts) >= len(inverter.depths) else "blocks"


def number_at(inverter, depth: int) -> int:
    """How many convolutions (or blocks, see `unit_of`) of the classifier a depth has behind it."""
    convolutions = unit_of(inverter) == "convolutions"
    return inverter.classifier.blocks[depth - 1].convolutions if convolutions else depth


def depths_by_number(inverter) -> dict[int, int]:
    """{number of convolutions, or blocks: the deepest depth of the inverter with so many}, in order."""
    return {number_at(inverter, depth): depth for depth in inverter.depths}


def headline_depths(inverter) -> dict[int, int]:
    """{number: depth} of those that the text speaks of.

    They are those of `HEADLINE` where the inverter has all of them, else up to as many, evenly spread from its first
    depth to its deepest.
    """
    known = depths_by_number(inverter)
    if unit_of(inverter) == "convolutions" and known.keys() >= set(HEADLINE):
        return {number: known[number] for number in HEADLINE}
    numbers = list(known)
    spread = torch.linspace(0, len(numbers) - 1, min(len(HEADLINE), len(numbers))).round().long()
    return {numbers[place]: known[numbers[place]] for place in spread.tolist()}


def depths_near(inverter, numbers: Sequence[int]) -> dict[int, int]:
    """{number: depth} of the deepest depths with at most so many convolutions (or blocks), each once.

    Where the network has more in its first block already, that is taken.
    """
    known = depths_by_number(inverter)
    found = [max((n for n in known if n <= number), default=min(known)) for number in numbers]
    return {number: known[number] for number in found}


def relative_size(classifier, depth: int) -> float:
    """How many numbers the representation of that depth has for each number of the image."""
    return math.prod(classifier.blocks[depth - 1].shape) / (3 * classifier.size**2)


# ---- what the notebook tabulates, draws and records ------------------------------------------------------------------

FREE = {"cat": "chelsea", "coffee": "coffee", "motorcycle": "motorcycle_left", "astronaut": "astronaut"}
TITLES = {"lite0": "EfficientNet-Lite0"}  # of classifiers whose names are short


def pictured_photos(pictured: str, originals: Tensor) -> tuple[dict[str, Tensor], str]:
    """The photos of the first figure, {name: (3, S, S)}, where the originals lie, and a sentence on their origin.

    pictured: "free" for four free pictures that come with scikit-image, "photos" for the first four measured ones.
    originals: the photos that the chapter measures, (N, 3, S, S).
    Raises ValueError for another word.
    """
    if pictured == "free":
        wheels = data.load("photos", size=originals.shape[-1])
        free = {title: wheels.images[wheels.names.index(name)].to(originals.device) for title, name in FREE.items()}
        return free, (
            "The four photos are free pictures of the scikit-image package, no images of ImageNet, and were chosen "
            "before any of them was inverted."
        )
    if pictured != "photos":
        raise ValueError(f"pictured is 'free' or 'photos', not {pictured!r}.")
    chosen = {f"photo {place + 1}": photo for place, photo in enumerate(originals[:4])}
    return chosen, "The photos are the first of those that this page measures, not chosen."


def weights_words(network: str, pretrained: bool) -> str:
    """A network and whose weights it has, "torchvision:resnet18 with random weights"; a factory decides for itself."""
    library, _, rest = network.partition(":")
    if rest and library not in LIBRARIES:
        return f"{network} with the weights that its factory gives it"
    return f"{network} with {'pretrained' if pretrained else 'random'} weights"


def captions(rows: Mapping[str, Tensor], originals: Tensor) -> dict[str, list[str]]:
    """The PSNR of every image in dB, to stand below rows of images; none for the row of the originals themselves."""
    return {
        label: [f"{value:.1f}" for value in metrics.psnr(images, originals).tolist()]
        for label, images in rows.items()
        if images is not originals
    }


def picture_every_depth(study: Study, inverter, pictures: Mapping[str, Tensor]) -> None:
    """Draw pictures, a row each, and their reconstructions from the depths that the text speaks of, in columns.

    pictures: {name: (3, S, S)}.
    """
    depths = headline_depths(inverter)
    originals = torch.stack(list(pictures.values()))
    found = reconstruct_every_depth(inverter, originals, sorted(depths.values()))
    columns = [originals, *(found[depth].images for depth in depths.values())]
    psnr = [[f"{value:.1f}" for value in metrics.psnr(column, originals).tolist()] for column in columns[1:]]
    study.grid(
        "every_depth",
        dict(zip(pictures, torch.stack(columns, 1), strict=True)),
        {name: ["", *(column[i] for column in psnr)] for i, name in enumerate(pictures)},
        ["photo", *map(str, depths)],
        title=f"reconstructed after … {unit_of(inverter)}",
    )


def representation_facts(classifier, images: Tensor, depth: int) -> dict[str, object]:
    """The representation at one depth, as a table's row: where it is, how many numbers it has, how many are 0."""
    block = classifier.blocks[depth - 1]
    return {
        "convolutions": block.convolutions,
        "stride": block.stride,
        "numbers": f"{relative_size(classifier, depth):.2f}",
        "zeros": f"{share_of_zeros(classifier, images, depth):.0%}",
    }


def quality_rows(
    inverter, photos: Tensor, means: Mapping[int, Mapping[str, Interval]], sides: Mapping[int, float]
) -> dict[int, dict[str, object]]:
    """Rows of a table, one a depth: the representation of photos (N, 3, S, S), and how good the reconstructions are.

    means: {depth: {measure: mean over photos}}.
    sides: {depth: side of the equivalent thumbnail in pixels}.
    """
    rows = {}
    for depth, mean in means.items():
        passes = 1 + inverter.card.get("feedback", {}).get(str(depth), (0, 1))[0]
        rows[depth] = representation_facts(inverter.classifier, photos, depth) | {"passes": passes}
        rows[depth] |= {"psnr": mean["psnr"], "thumbnail": f"{sides[depth]:.0f}"} | dict(mean)
    return rows


def record_headline(
    study: Study,
    inverter,
    means: Mapping[int, Mapping[str, Interval]],
    sides: Mapping[int, float],
    gains: Mapping[int, Interval],
    photos: Tensor,
) -> None:
    """Record what the text says: the measures at some depths, and at how many depths the mean colour is beaten.

    means, sides, photos: as for `quality_rows`.
    gains: {depth: PSNR less that of the photo's mean colour}.
    The measures of the depth in the middle are recorded as "middle" too, which every network has.
    """
    depths = headline_depths(inverter)
    for number, depth in depths.items():
        _record_depth(study, inverter, depth, number, means[depth], sides[depth])
    middle = list(depths)[len(depths) // 2]
    depth = depths[middle]
    _record_depth(study, inverter, depth, "middle", means[depth], sides[depth], tolerance=None)
    study.record_text("number_middle", middle)
    study.record_text("unit", unit_of(inverter))
    study.record_text("network", TITLES.get(inverter.classifier.name, inverter.classifier.name))
    above = [number_at(inverter, depth) for depth, gain in gains.items() if gain.low > 0]
    study.record("depths", len(gains), digits=1, tolerance=0)
    study.record("depths_above_mean_colour", len(above), digits=1, tolerance=1)
    study.record("deepest_above_mean_colour", max(above, default=0), digits=1, tolerance=6)
    zeros = [depth for depth in means if share_of_zeros(inverter.classifier, photos, depth) > 0.01]
    study.record_text("zeros_words", f"at {len(zeros)} of the {len(means)} depths")


def record_floors(study: Study, flat: Scores, photos: Tensor, part: str = "") -> None:
    """Record what reconstructions have to beat: the PSNR of mean colours, and how often the mean of all is found.

    flat: scores of each photo's mean colour. The mean of all photos holds nothing of any: it finds one by chance alone.
    part: which part of their set the photos are, see `study.confirmation`; recorded in words.
    """
    study.record_text("part_words", confirmation.part_words(part), compared=False)
    average = photos.mean(0, keepdim=True).expand_as(photos)
    found = score(average, photos, measures=["found"]).intervals()["found"]
    study.record_interval("psnr", "mean colour", flat.intervals()["psnr"], tolerance=0.5)
    study.record_interval("found", "mean image", found)


def _record_depth(
    study: Study, inverter, depth: int, name: int | str, mean: Mapping[str, Interval], side: float, **more
) -> None:
    """Record the measures of one depth under the ids psnr_<name> and the like. more: for `Study.record`."""
    study.record_rows({name: mean}, ["psnr", "ssim", "perceptual"], **more)
    study.record_rows({name: mean}, ["found"], digits=2, **more)
    study.record(f"thumbnail_{name}", side, unit="pixels", digits=2, **{"tolerance": 0.1 * side} | more)
    study.record(f"numbers_{name}", relative_size(inverter.classifier, depth), digits=2, **more)


def some_photos(photos: Data, n: int, seed: int) -> Tensor:
    """At most n of the photos, drawn at random, in their order: (N, 3, S, S)."""
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed))
    return photos.images[order[:n].sort().values]


def score_last_two(rows: Mapping[str, Tensor], targets: Tensor) -> list[Scores]:
    """Scores, in both perceptual spaces, of the last two of some rows of images (N, 3, S, S) against their targets."""
    return [score(images, targets, measures=EVERY) for images in list(rows.values())[-2:]]


def record_gain(study: Study, id: str, ours: Scores, theirs: Scores) -> dict[str, object]:
    """Record by how many dB our reconstructions have the better PSNR, as `id`; return a row of a table.

    The differences of the perceptual distances, as far as they were measured, are recorded as `<id>_<measure>`.
    ours, theirs: scores of the same images. The row has both PSNRs, the difference and that of the perceptual distance,
    each with its paired interval and verdict.
    """
    differences = ours.minus(theirs)
    gain = differences["psnr"]
    study.record(id, gain, unit="dB", digits=2, tolerance=0.5, verdict=word("psnr", gain))
    for measure in ("perceptual", "perceptual_second"):
        if measure in differences:
            study.record(f"{id}_{measure}", differences[measure], digits=2, tolerance=0.1)
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
    Returns rows of a table, one for each depth that optimisation was tried at, by `number_at`.
    """
    study.record("hours", inverter.card["hours"], unit="hours", digits=2)
    rows = {}
    for depth, found in optimised.items():
        number = number_at(inverter, depth)
        once, seconds = ours[depth].seconds, found.seconds / len(found.estimate)
        photos = break_even(inverter.card["hours"], once, seconds)
        study.record(f"seconds_{number}", once, unit="s", digits=2, tolerance=None)
        study.record(f"seconds_optimised_{number}", seconds, unit="s", digits=2, tolerance=None)
        study.record(f"break_even_{number}", photos, unit="photos", tolerance=None)
        rows[number] = {
            "reconstruction, s a photo": f"{once:.3f}",
            "optimisation, s a photo": f"{seconds:.1f}",
            "training is paid for after": f"{photos:,.0f} photos",
        }
    return rows


def quality_chart(
    inverter,
    photos: Tensor,
    means: Mapping[int, Mapping[str, Interval]],
    flat: Scores,
    optimised: Mapping[int, Scores],
) -> Figure:
    """Mean PSNR against the number of convolutions (or blocks) inverted, with both opponents and three thumbnails."""
    lines = {
        "reconstructed, zero-shot": [mean["psnr"] for mean in means.values()],
        "pixel optimisation": [optimised[d].intervals()["psnr"] if d in optimised else None for d in means],
        "mean colour": [flat.intervals()["psnr"]] * len(means),
    }
    thumbnails = {
        f"{side} × {side} thumbnail": metrics.psnr(metrics.thumbnail(photos, side), photos).mean().item()
        for side in (56, 14, 4)
    }
    numbers = [number_at(inverter, depth) for depth in means]
    return plots.curve(numbers, lines, f"{unit_of(inverter)} inverted", "PSNR, dB", reference=thumbnails)


def search_words(gains: Mapping[int, Interval], unit: str) -> str:
    """What a search changes, in a sentence for each number of convolutions (or blocks, the unit) that it was tried at.

    gains: {number: PSNR with the search less that without}.
    """
    return " ".join(
        f"After {number} {unit} the search changes the mean PSNR by {gain.value:+.2g} dB "
        f"(95 % interval {gain.low:.2g} to {gain.high:.2g} dB)."
        for number, gain in gains.items()
    )


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
        (name, inverter.classifier.blocks[depth - 1].name): representation_facts(inverter.classifier, images, depth)
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


def record_live_settings(study: Study, images: Tensor, size: int, stride: int, steps: int) -> None:
    """Record the side of the images in pixels, the deepest stride and the steps of the live training.

    images: (N, 3, size, size). The PSNR of each one's mean colour is recorded too, as "live_mean_colour": what the live
    reconstructions have to beat. (Of smaller images it is another than of large ones.)
    """
    floor = statistics.bootstrap(metrics.psnr(mean_colours(images).mean, images))
    study.record("live_mean_colour", floor, unit="dB", tolerance=0.5)
    for id, value in {"size": size, "stride": stride, "steps": steps}.items():
        study.record(f"live_{id}", value, digits=1, tolerance=0)


def record_live_control(
    study: Study, live: Mapping[str, ClassifierInverter], images: Tensor, pool: Tensor, seed: int, *plan: int
) -> None:
    """Train the first network's inverses again, from another seed, and record what that changes in PSNR.

    It is recorded at the last block of each resolution, as "live_gain_seed_<stride>".
    live: {network: its inverter}.
    images: (N, 3, S, S) of the networks' size.
    pool: synthetic images, for the training.
    plan: stride, steps and batch, as for `live_plan`.
    """
    first = next(iter(live.values()))
    again = invert_classifier(first.classifier, pool, seed=seed, **live_plan(first.classifier, *plan))
    for stride, block in last_of_each_stride(first).items():
        second, before = (metrics.psnr(one.reconstruct(images, block.depth), images) for one in (again, first))
        gain = statistics.paired_bootstrap(second, before)
        study.record(f"live_gain_seed_{stride}", gain, unit="dB", digits=2, tolerance=2.0)


def provenance(inverter: ClassifierInverter) -> str:
    """Where an inverter's weights come from, as a Markdown list; of what its card does not say, nothing."""
    card = inverter.card
    facts = {
        "inverted": f"{inverter.classifier.name}, {len(inverter.depths)} blocks at {inverter.size} pixels",
        "trained": f"{card['steps']:,} steps in {card['hours']} hours, seed {card['seed']}",
        "on": card["machine"],
        "by": f"invkit {card['code']}",
        "size": f"{card['numbers'] / 1e6:.1f} million numbers, {card['bytes'] / 1e6:.1f} MB",
        "SHA-256": f"`{card['sha256'][:16]}…`",
    }
    if "command" in card:
        facts["again"] = f"`{card['command']}`"
    return "\n".join(f"- **{key}**: {value}" for key, value in facts.items())
