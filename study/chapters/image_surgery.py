"""Chapter 6: what reconstructions do when the image behind the logits is changed (Teterwak et al. 2021), in numbers.

The image is changed by a known amount and inverted, and the amount by which the *reconstruction* has changed is found
(`matched_amounts`): the one by which the same surgery turns the reconstruction before into the one after. A slope of 1
says that the reconstruction moves with the image, 0 that the classifier has told nothing of the change.

A measure "per amount and image" is a tensor (K, N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from invkit import data, metrics, statistics
from invkit.data import glyphs
from invkit.dci import synthetic
from invkit.metrics import distance
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study import plots, probes
from study.baselines import mean_colours
from study.chapters.natural_images import shrink
from study.notebook import listed
from study.reconstructions import represent_all
from study.surgery import curve_of, reconstruct_each, seen, slopes

# ---- surgery on images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surgery:
    """One change of images by an amount, where 0 changes nothing.

    apply: (images (N, 3, H, W), amount) -> changed images.
    amounts: those that are applied.
    search: (from, to, how many) amounts, evenly spaced and beyond the applied ones, that are looked for in the
        reconstructions.
    unit: of the amounts, in words.
    """

    apply: Callable[[Tensor, float], Tensor]
    amounts: tuple[float, ...]
    search: tuple[float, float, int]
    unit: str

    @property
    def candidates(self) -> Tensor:
        return torch.linspace(*self.search)


def with_neighbour(images: Tensor, share: float) -> Tensor:
    """Each image blended with the next one of the set."""
    return probes.blend(images, images.roll(-1, 0), share)


SURGERIES = {
    "rotate": Surgery(probes.rotate, (-30.0, -20.0, -10.0, 10.0, 20.0, 30.0), (-60, 60, 41), "degrees"),
    "translate": Surgery(probes.translate, (-0.15, -0.1, -0.05, 0.05, 0.1, 0.15), (-0.3, 0.3, 41), "of the side"),
    "recolour": Surgery(probes.recolour, (-0.25, -0.15, -0.05, 0.05, 0.15, 0.25), (-0.5, 0.5, 41), "of the circle"),
    "blur": Surgery(probes.blur, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (0, 5, 41), "pixels"),
    "occlude": Surgery(probes.occlude, (0.03, 0.06, 0.1, 0.15, 0.2, 0.3), (0, 0.6, 41), "of the area"),
    "blend": Surgery(with_neighbour, (0.1, 0.25, 0.4, 0.6, 0.75, 0.9), (0, 1, 41), "of the other image"),
}


def matched_amounts(before: Tensor, after: Tensor, surgery: Surgery) -> Tensor:
    """The amounts (K, N) of the surgery that bring images (N, 3, H, W) nearest to each of K others (K, N, 3, H, W).

    Nearest in mean square, among the candidates and, by a parabola through the best three, between them; where all are
    equally near, no change.
    """
    amounts = surgery.candidates.double()
    candidates = (surgery.apply(before, amount) for amount in amounts.tolist())
    errors = torch.stack([(candidate - after).square().mean(dim=(2, 3, 4)) for candidate in candidates]).double().cpu()
    errors += 1e-9 * (amounts / amounts.abs().max()).square()[:, None, None]
    best = errors.argmin(0)
    inner = best.clamp(1, len(amounts) - 2)
    left, centre, right = (errors.gather(0, (inner + k)[None])[0] for k in (-1, 0, 1))
    bend = left - 2 * centre + right
    offset = torch.where((bend > 1e-12) & (best == inner), (left - right) / (2 * bend.clamp_min(1e-12)), 0)
    return (amounts[best] + (amounts[1] - amounts[0]) * offset.clamp(-0.5, 0.5)).float()


@dataclass(frozen=True)
class Response:
    """What a surgery at K amounts on N images does to their reconstructions.

    images: (K, N, 3, S, S), the reconstructions of the changed images.
    amounts: (K, N), by `matched_amounts`.
    follow: (K, N), by how much a reconstruction is nearer to the changed image than to the unchanged one, as a share of
    the distance between the two: 1 shows the change, -1 has undone it.
    kept: (K, N), whether the classifier still sees the class that it saw before.
    """

    images: Tensor
    amounts: Tensor
    follow: Tensor
    kept: Tensor

    def slopes(self, surgery: Surgery) -> Tensor:
        """How much of the change each reconstruction shows, (N,)."""
        return slopes(surgery.amounts, self.amounts)


def respond(inverter, images: Tensor, surgery: Surgery) -> Response:
    """The inverter's response to the surgery on images (N, 3, S, S), of its own size or larger.

    Larger ones are changed, and shown to the classifier, as they are; reconstructions are compared with what they are
    in the inverter's size.
    """
    logits = represent_all(inverter, images)
    parts = torch.stack([surgery.apply(images, amount) for amount in surgery.amounts])
    logits_after = [represent_all(inverter, part) for part in parts]
    after = reconstruct_each(inverter, logits_after)
    images, changed = shrink(images, inverter.size), torch.stack([shrink(part, inverter.size) for part in parts])
    follow = (distance(after, images) - distance(after, changed)) / distance(changed, images).clamp_min(1e-6)
    kept = torch.stack([z.argmax(1) == logits.argmax(1) for z in logits_after]).float()
    return Response(after, matched_amounts(reconstruct_each(inverter, logits), after, surgery), follow, kept)


def ceiling(images: Tensor, surgery: Surgery, size: int | None = None) -> Tensor:
    """Slopes (N,) that the matching finds in the images themselves, about 1: those of a perfect reconstruction.

    size: in which they are compared; by default the images' own.
    """
    size = size or images.shape[-1]
    changed = torch.stack([shrink(surgery.apply(images, amount), size) for amount in surgery.amounts])
    return slopes(surgery.amounts, matched_amounts(shrink(images, size), changed, surgery))


# ---- images from outside the classes ---------------------------------------------------------------------------------

ONE_COLOUR = 1e-3  # variance of the mean colour, R, G and B together, below which a kind has no colours to explain
SYMBOLS = "♠♣♥♦★☀☎✈♫☂♞☯⚓⚙✂☺"  # in DejaVu Sans, and nothing like a letter


def symbols(n: int, seed: int = 0, size: int = 32) -> Tensor:
    """Characters of no class, in the colours and poses of glyphs, (n, 3, size, size)."""
    factors = glyphs.draw(n, seed, size=size).factors
    chosen = torch.randint(len(SYMBOLS), (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    masks = []
    for symbol, share in zip(chosen, factors["size"].tolist(), strict=True):
        mask = Image.new("L", (size, size))
        font = ImageFont.truetype(file, share * size)
        ImageDraw.Draw(mask).text((size / 2, size / 2), SYMBOLS[symbol], 255, font, anchor="mm")
        masks.append(to_tensor(mask).expand(3, -1, -1))
    mask = probes.translate(probes.rotate(torch.stack(masks), factors["rotation"]), factors["x"], factors["y"])
    ink, ground = (factors[name][:, :, None, None] for name in ("ink", "ground"))
    return torch.lerp(ground, ink, mask).clamp(0, 1)


def photo_parts(n: int, seed: int = 0, size: int = 32) -> Tensor:
    """Quarters of small photos, (n, 3, size, size); n is at most four times the number of photos."""
    photos = data.load("photos", size=2 * size).images
    quarters = photos.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    if n > len(quarters):
        raise ValueError(f"The photos have {len(quarters)} quarters, not {n}: ask for fewer.")
    return quarters[torch.randperm(len(quarters), generator=torch.Generator().manual_seed(seed))[:n]]


def flat(n: int, seed: int = 0, size: int = 32) -> Tensor:
    """Images of one random colour each, (n, 3, size, size)."""
    return torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(seed)).expand(-1, -1, size, size).contiguous()


OUTSIDERS: dict[str, Callable[[int, int, int], Tensor]] = {  # (n, seed, size) -> images (n, 3, size, size)
    "unseen font": lambda n, seed, size: data.load("glyphs", "test-fonts", n, seed, size).images,
    "unseen symbols": symbols,
    "faces": lambda n, seed, size: data.load("faces", "test", n, seed, size).images,
    "photos": photo_parts,
    "dead leaves": lambda n, seed, size: synthetic.dead_leaves(n, size, seed),
    "white noise": lambda n, seed, size: synthetic.white_noise(n, size, seed),
    "flat colours": flat,
}


@dataclass(frozen=True)
class Told:
    """How much the reconstructions of N images of one kind show of them; all but the images are per image, (N,).

    images: the reconstructions, (N, 3, S, S).
    confidence: the classifier's largest softmax probability; None where no classifier was needed.
    distance: root mean square from image to reconstruction.
    chance: the same to the reconstruction of another image of the kind.
    found: whether the reconstruction is most similar to its own image among the N.
    colour: the share of the kind's variance in mean colour that the reconstructions' mean colours explain, so that
        their mean is R²; None where all have one colour.
    """

    images: Tensor
    confidence: Tensor | None
    distance: Tensor
    chance: Tensor
    found: Tensor
    colour: Tensor | None


def told(inverter, images: Tensor) -> Told:
    """Reconstruct images (N, 3, S, S) of any kind, and measure how much of them comes back."""
    logits = represent_all(inverter, images)
    return _told(reconstruct_each(inverter, logits), images, logits.softmax(1).amax(1))


def told_by_colour(images: Tensor) -> Told:
    """The floor: the same of reconstructions without any structure, each image's own mean colour."""
    return _told(mean_colours(images).mean, images)


def _told(reconstructions: Tensor, images: Tensor, confidence: Tensor | None = None) -> Told:
    is_, should = (x.mean(dim=(2, 3)) for x in (reconstructions, images))
    variance = (should - should.mean(0)).square().sum(1).mean()
    return Told(
        reconstructions,
        confidence,
        distance(reconstructions, images),
        distance(reconstructions.roll(len(images) // 2, 0), images),
        metrics.retrieval_ranks(reconstructions, images) == 1,
        1 - (is_ - should).square().sum(1) / variance if variance > ONE_COLOUR else None,
    )


# ---- what the notebook draws and compares ----------------------------------------------------------------------------


def blend_chart(
    responses: Mapping[str, Response], images: Tensor, inverters: Mapping[str, object], judge: Classifier
) -> Figure:
    """Blends of images with the next ones: the share that is matched, and whose class another classifier sees.

    responses: {label: response to the "blend" of SURGERIES}, of the inverters {label: inverter}.
    images: that were blended, (N, 3, S, S).
    judge: the other classifier.
    """
    lines: dict[str, dict[str, list[Interval]]] = {}
    for label, inverter in inverters.items():
        own = seen(inverter.represent, images)
        sees = seen(judge.logits, responses[label].images)
        lines.setdefault("share matched", {})[label] = curve_of(responses[label].amounts)
        lines.setdefault("first class seen", {})[label] = curve_of((sees == own).float())
        lines.setdefault("second class seen", {})[label] = curve_of((sees == own.roll(-1)).float())
    return plots.panels(SURGERIES["blend"].amounts, lines, "share of the second image")


def by_measure(told: Mapping[str, Mapping[str, Told]]) -> dict[str, dict[str, dict[str, Tensor]]]:
    """What is told of each kind of image, {kind: {label: Told}}, as {measure: {kind: {label: (N,)}}}.

    gain: how much nearer the own original is than another of the kind, as a share of chance. found, colour and
    confidence: see `Told`; no colour for a kind that has one mean colour, no confidence where there was no classifier.
    """
    measures = {
        "gain": lambda t: 1 - t.distance / t.chance.mean(),
        "found": lambda t: t.found,
        "colour": lambda t: t.colour,
        "confidence": lambda t: t.confidence,
    }
    values = {
        name: {kind: {label: of(t) for label, t in by.items()} for kind, by in told.items()}
        for name, of in measures.items()
    }
    values["colour"] = {
        kind: by for kind, by in values["colour"].items() if all(colours is not None for colours in by.values())
    }
    values["confidence"] = {
        kind: {label: one for label, one in by.items() if one is not None} for kind, by in values["confidence"].items()
    }
    return values


def slopes_in_words(slopes: Mapping[str, Mapping[str, Tensor]], labels: Sequence[str]) -> str:
    """Slopes {operation: {label: (N,)}} as "standard: rotate 0.47, blur 0.31; robust: rotate 0.50, blur 0.42"."""
    return "; ".join(
        f"{label}: {', '.join(f'{name} {by[label].mean():.2f}' for name, by in slopes.items())}" for label in labels
    )


def differing_in_words(slopes: Mapping[str, Mapping[str, Tensor]], a: str, b: str) -> str:
    """For which operations a's slopes are certainly larger or smaller than b's, as a phrase for a sentence."""
    differences = {name: statistics.paired_bootstrap(by[a], by[b]) for name, by in slopes.items()}
    more = [name for name, difference in differences.items() if difference.low > 0]
    less = [name for name, difference in differences.items() if difference.high < 0]
    phrases = [
        f"the {a} one moves {how} for {listed(names)}" for how, names in (("more", more), ("less", less)) if names
    ]
    return " and ".join(phrases) or "no difference between the two is certain"
