"""What reconstructions do when the logits or the image behind them are changed (Teterwak et al. 2021), in numbers.

Logit surgery: change the logits by a known strength, invert, and measure brightness, contrast, sharpness, the class
that is seen and the distance from the original (`measure`), per image, so that two inverters can be compared in pairs.

Image surgery: change the image by a known amount, invert, and ask by which amount the *reconstruction* has changed
(`matched_amounts`): the amount by which the same surgery turns the reconstruction before into the one after. A slope of
1 says that the reconstruction moves with the image, 0 that the classifier has told nothing of the change.

A measure "per strength and image" is a tensor (K, N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from invkit import data, metrics, statistics
from invkit.data import glyphs
from invkit.dci import synthetic
from invkit.ffi import probes
from invkit.metrics import distance
from invkit.statistics import Interval
from study.chapters.logit_inversion import represent

# ---- logits -> images -> measures ------------------------------------------------------------------------------------


@torch.no_grad()
def read(inverter, logits: Tensor | Sequence[Tensor], batch: int = 100) -> Tensor:
    """Images (N, 3, S, S) of logits (N, classes), or (K, N, 3, S, S) of K such, under the inverter's fixed noise."""
    if not isinstance(logits, Tensor):
        return torch.stack([read(inverter, z, batch) for z in logits])
    return torch.cat([inverter.invert(part) for part in logits.split(batch)])


@torch.no_grad()
def seen(watcher: Callable[[Tensor], Tensor], images: Tensor, batch: int = 100) -> Tensor:
    """Classes (K, N) or (N,) that a watcher, images -> logits, sees in images (K, N, 3, H, W) or (N, 3, H, W)."""
    flat = images.flatten(0, -4)
    return torch.cat([watcher(part).argmax(1) for part in flat.split(batch)]).view(images.shape[:-3])


def measure(
    readings: Tensor, originals: Tensor, classes: Tensor, watchers: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Tensor]:
    """All measures of readings (K, N, 3, S, S), each (K, N).

    brightness, contrast, sharpness: see `invkit.probes`. distance: root mean square from the originals (N, 3, S, S).
    Under each watcher's name, whether it sees the class (N,) that belongs to the image.
    """
    flat = readings.flatten(0, 1)
    values = {
        f.__name__: f(flat).view(readings.shape[:2]) for f in (probes.brightness, probes.contrast, probes.sharpness)
    }
    values["distance"] = distance(readings, originals)
    return values | {name: (seen(watcher, readings) == classes).float() for name, watcher in watchers.items()}


@dataclass(frozen=True)
class Subject:
    """An inverter, the N images on which it is studied, (N, 3, S, S) of its size, their logits, and who watches.

    watchers: name -> (images -> logits), who say what class they see in a reconstruction.
    """

    inverter: object
    images: Tensor
    logits: Tensor
    watchers: Mapping[str, Callable[[Tensor], Tensor]]

    @classmethod
    def of(cls, inverter, images: Tensor, judge=None) -> Subject:
        """Watched by the inverter's own classifier ("itself") and, where there is one, by another ("judge")."""
        watchers = {"itself": inverter.represent} | ({"judge": judge.logits} if judge else {})
        return cls(inverter, images, represent(inverter, images), watchers)

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

    def under(self, change: Callable[[Subject, float], Tensor], strengths: Sequence[float]) -> Outcome:
        """Read the logits `change(self, strength)` at each of K strengths, and measure what is read."""
        readings = read(self.inverter, [change(self, strength) for strength in strengths])
        return Outcome(readings, measure(readings, self.images, self.classes, self.watchers))


@dataclass(frozen=True)
class Outcome:
    """Readings (K, N, 3, S, S) and what was measured of them, name -> (K, N); see `measure`."""

    images: Tensor
    measures: dict[str, Tensor]


def slopes(strengths: Sequence[float], values: Tensor) -> Tensor:
    """Least-squares slope (N,) of each image's values (K, N) on the K strengths."""
    x = torch.as_tensor(strengths, dtype=torch.float64).to(values.device)
    if x.shape != values.shape[:1] or len(x.unique()) < 2:
        raise ValueError(f"Give the {len(values)} strengths of the values, at least two of them different.")
    x = x - x.mean()
    return ((x @ values.double()) / (x @ x)).float()


def curve_of(values: Tensor) -> list[Interval]:
    """Mean over images with its 95 % interval at each of K strengths; values (K, N)."""
    return [statistics.bootstrap(row) for row in values]


# ---- interpolation and the loop --------------------------------------------------------------------------------------


def ghosting(middle: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """How much a reading half-way is a double exposure of the readings at the ends, (N,): 1 is their mean, 0 no nearer
    to it than the ends are."""
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


# ---- surgery on images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surgery:
    """One change of images by an amount, 0 being none.

    apply: (images (N, 3, H, W), amount) -> images. amounts: those applied. search: from, to, how many: those looked for
    in the reconstructions, evenly spaced, beyond the ones applied.
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

    images: (K, N, 3, S, S), the reconstructions of the changed images. amounts: (K, N), matched in them.
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
    """The inverter's response to the surgery on images (N, 3, S, S), of its own size."""
    logits = represent(inverter, images)
    changed = torch.stack([surgery.apply(images, amount) for amount in surgery.amounts])
    logits_after = [represent(inverter, part) for part in changed]
    after = read(inverter, logits_after)
    follow = (distance(after, images) - distance(after, changed)) / distance(changed, images).clamp_min(1e-6)
    kept = torch.stack([z.argmax(1) == logits.argmax(1) for z in logits_after]).float()
    return Response(after, matched_amounts(read(inverter, logits), after, surgery), follow, kept)


def ceiling(images: Tensor, surgery: Surgery) -> Tensor:
    """Slopes (N,) that the matching finds in the images themselves, about 1: those of a perfect reconstruction."""
    changed = torch.stack([surgery.apply(images, amount) for amount in surgery.amounts])
    return slopes(surgery.amounts, matched_amounts(images, changed, surgery))


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
    """What the classifier tells of N images of one kind.

    images: the reconstructions. The others per image, (N,). confidence: its largest softmax probability. distance: root
    mean square from image to reconstruction; chance: to the reconstruction of another image of the kind.
    found: whether the reconstruction finds its image among the N. colour: the share of the kind's variance in mean
    colour that the reconstructions' mean colours explain, so that their mean is R²; None where all have one colour.
    """

    images: Tensor
    confidence: Tensor
    distance: Tensor
    chance: Tensor
    found: Tensor
    colour: Tensor | None


def told(inverter, images: Tensor) -> Told:
    """What comes back of images (N, 3, S, S) of any kind."""
    logits = represent(inverter, images)
    readings = read(inverter, logits)
    is_, should = (x.mean(dim=(2, 3)) for x in (readings, images))
    variance = (should - should.mean(0)).square().sum(1).mean()
    return Told(
        readings,
        logits.softmax(1).amax(1),
        distance(readings, images),
        distance(readings.roll(len(images) // 2, 0), images),
        metrics.retrieval_ranks(readings, images) == 1,
        1 - (is_ - should).square().sum(1) / variance if variance > ONE_COLOUR else None,
    )
