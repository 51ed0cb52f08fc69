"""Images without data: what a zero-shot inversion trains on (DESIGN: no photograph, no data set).

Four sources, from the least to the most like a photograph:

- `white_noise`: independent pixels.
- `pink_noise`: Gaussian fields with the 1/f amplitude spectrum of natural images (Field 1987).
- `dead_leaves`: textured, lit shapes that occlude one another (Matheron 1968; Lee, Mumford & Huang 2001). Radii follow
  the density r^-3, the only one that looks the same at every scale: each octave of radii covers the same area.
- `batch_norm_matched`: images optimised until the batch-norm layers of a classifier see the statistics they saw in
  training, and perhaps show it a class each (DeepInversion, Yin et al. 2020); they need the classifier, and no photo.

All return float images in [0, 1], (n, 3, size, size), made on `device`. Of the first three, image `first` + i depends on
its number, the seed and the size alone, not on how many are drawn with it, and is the same on every device but for
rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from invkit.dci.draws import Draws

# Colours of natural images vary along brightness first, then blue-yellow, then red-green (Ruderman et al. 1998).
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]])
OPPONENT = OPPONENT / OPPONENT.norm(dim=1, keepdim=True)


def _check(n: int, size: int) -> None:
    if n < 1 or size < 8:
        raise ValueError(f"Ask for at least one image of at least 8 pixels, not n={n}, size={size}.")


def white_noise(n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """Uniform noise, every pixel and channel by itself; (n, 3, size, size) in [0, 1]."""
    _check(n, size)
    return Draws(n, seed, device, first).uniform("pixels", 3, size, size)


def pink_fields(draws: Draws, name: str, channels: int, size: int, slope: float) -> Tensor:
    """Gaussian fields of mean 0 and variance 1, of amplitude frequency^-slope; (n, channels, size, size)."""
    device = draws.device
    fy = torch.fft.fftfreq(size, device=device)[:, None]
    fx = torch.fft.rfftfreq(size, device=device)[None]
    amplitude = (fy**2 + fx**2).clamp_min(1 / size**2) ** (-slope / 2)
    amplitude[0, 0] = 0
    noise = draws.normal(name, channels, size, size)
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(size, size))
    return field / field.std(dim=(2, 3), keepdim=True)


def pink_noise(
    n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0, slope: float = 1.0
) -> Tensor:
    """1/f noise in opponent colours, of random brightness and contrast; (n, 3, size, size) in [0, 1]."""
    _check(n, size)
    draws = Draws(n, seed, device, first)
    spread = torch.tensor([1.0, 0.35, 0.2], device=device)
    mean = 0.5 + 0.15 * draws.normal("mean", 3, 1, 1)
    contrast = 0.1 + 0.25 * draws.uniform("contrast", 1, 1, 1)
    fields = pink_fields(draws, "field", 3, size, slope)
    field = torch.einsum("nchw,c,cd->ndhw", fields, spread, OPPONENT.to(device))
    return (mean + contrast * math.sqrt(3) / 1.1 * field).clamp_(0, 1)


@dataclass(frozen=True)
class Leaves:
    """How dead leaves look. The defaults follow a search for what a classifier's batch norms find most natural
    (`statistics_distance`, `benchmarks/match_leaves.py`), stopped short of its limits; no photo was looked at.

    Attributes:
        smallest: smallest leaf radius in pixels. largest: largest radius as a share of the image side.
        coverage: how often each octave of radii covers the image on average.
        contrast: standard deviation of leaf brightness. saturation: colourfulness relative to brightness.
        brightness: mean brightness. scene, place: shares of the colour variance that all leaves of an image, and that
            neighbouring leaves, have in common.
        texture: mean contrast of the texture on a leaf. slope: its spectral slope, lowest and highest.
        light: mean strength of the shading across a leaf. blur: largest blur of an image, pixels (standard deviation).
    """

    smallest: float = 3.0
    largest: float = 0.9
    coverage: float = 1.0
    contrast: float = 0.22
    saturation: float = 0.42
    brightness: float = 0.4
    scene: float = 0.3
    place: float = 0.38
    texture: float = 0.12
    slope: tuple[float, float] = (0.45, 1.5)
    light: float = 0.1
    blur: float = 0.9

    def __post_init__(self):
        wrong = [f.name for f in fields(self) if f.name != "slope" and not getattr(self, f.name) >= 0]
        if wrong or not 0 < self.smallest or not 0 < self.largest or self.coverage == 0:
            raise ValueError(
                f"Leaves need settings of 0 or more, radii and coverage above 0: {wrong or self} will not do."
            )


LEAVES = Leaves()  # the default

TEXTURES = 24  # texture fields that all leaves of one seed share: every leaf shows a part of one
BOXES = 0.4  # share of the leaves that are boxes; the others are ellipses


def dead_leaves(
    n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0, leaves: Leaves = LEAVES
) -> Tensor:
    """Occluding ellipses, boxes and slivers with 1/f texture and shading; (n, 3, size, size) in [0, 1].

    Two leaves in five are boxes. Every leaf gets a random rank; a pixel shows the leaf of highest rank that covers it. Leaves are drawn half an
    octave of radii at a time as patches scattered into one depth buffer, so the cost follows the covered area, not the
    leaves times the pixels.
    """
    _check(n, size)
    draws = Draws(n, seed, device, first)
    # Every image has a smallest radius of its own, so some are busy and some are calm.
    range_of_radii = max(1.0, leaves.largest * size / leaves.smallest / 4)
    smallest = leaves.smallest * range_of_radii ** draws.uniform("smallest", 1) ** 2.5
    bands = _bands(leaves.smallest, max(leaves.largest * size, 2 * leaves.smallest))
    geometry = [_draw_band(draws, f"band {i}", size, *band, leaves.coverage) for i, band in enumerate(bands)]
    for leaf in geometry:
        leaf["r"] = torch.where(leaf["r"] < smallest, 0.05, leaf["r"])  # too small to cover a pixel
    total = sum(leaf["x"].shape[1] for leaf in geometry)
    ranks = 1 + draws.uniform("rank", total).argsort(1)
    depth_buffer = torch.zeros(n * size * size, dtype=torch.int32, device=device)  # 0: the ground behind all leaves
    start = 0
    for leaf, (_, high) in zip(geometry, bands, strict=True):
        stop = start + leaf["x"].shape[1]
        _scatter(depth_buffer, ranks[:, start:stop].int(), leaf, size, reach=math.ceil(high))
        start = stop
    order = ranks.argsort(1)
    by_rank = {k: torch.cat([leaf[k] for leaf in geometry], 1).gather(1, order) for k in ("x", "y", "r")}
    return _paint(depth_buffer.view(n, -1).long(), size, by_rank, leaves, draws)


def _bands(low: float, high: float) -> list[tuple[float, float]]:
    count = max(1, round(2 * math.log2(high / low)))
    return [(low * (high / low) ** (i / count), low * (high / low) ** ((i + 1) / count)) for i in range(count)]


def _draw_band(draws: Draws, name: str, size: int, low: float, high: float, coverage: float) -> dict[str, Tensor]:
    """Leaves with radii between low and high, half of `coverage` of them together; each value (n, leaves)."""
    area = 2 * low * low * math.log(high / low) / (1 - (low / high) ** 2) * math.pi * 0.7  # mean over r^-3 and aspects
    count = max(1, round(coverage / 2 * (size + 2 * high) ** 2 / area))  # leaves just outside the image reach into it
    u = draws.uniform(name, 6, count).unbind(1)
    return {
        "x": u[0] * (size + 2 * high) - high,
        "y": u[1] * (size + 2 * high) - high,
        "r": (low**-2 - u[2] * (low**-2 - high**-2)) ** -0.5,
        "angle": u[3] * math.pi,
        "aspect": 0.12 + 0.88 * u[4].sqrt(),
        "box": u[5] < BOXES,
    }


def _scatter(depth_buffer: Tensor, ranks: Tensor, leaf: dict[str, Tensor], size: int, reach: int) -> None:
    """Writes the rank of each leaf into every pixel it covers, keeping the highest."""
    n, count = ranks.shape
    side = min(2 * reach + 1, size)
    offset = torch.arange(side, device=ranks.device)
    grid = offset[:, None] * size + offset
    ground = torch.arange(n, device=ranks.device)[:, None] * size * size
    # The patch follows its leaf, but never leaves the image.
    left, top = ((leaf[k] - reach).floor().clamp(0, size - side) for k in ("x", "y"))
    origin = (ground + top * size + left).long().flatten()
    cos, sin = leaf["angle"].cos() / leaf["r"], leaf["angle"].sin() / leaf["r"]
    dx, dy = left - leaf["x"], top - leaf["y"]
    u0, ux, uy = cos * dx + sin * dy, cos, sin
    v0, vx, vy = ((cos * dy - sin * dx) / leaf["aspect"], -sin / leaf["aspect"], cos / leaf["aspect"])
    table = torch.stack([t.flatten() for t in (u0, ux, uy, v0, vx, vy)])
    rank, box = ranks.flatten(), leaf["box"].flatten()
    step = max(1, (1 << 18) // side**2)  # patches at a time: as many pixels as stay in the cache
    for kind in (False, True):
        for part in (box == kind).nonzero().flatten().split(step):
            u0, ux, uy, v0, vx, vy = table[:, part, None]
            u = (uy * offset + u0)[:, :, None] + (ux * offset)[:, None]
            v = (vy * offset + v0)[:, :, None] + (vx * offset)[:, None]
            if kind:
                inside = torch.maximum(u.abs_(), v.abs_()) < 0.8
            else:
                inside = torch.addcmul(u.mul_(u), v, v) < 1
            pixel = origin[part, None, None] + grid
            depth_buffer.scatter_reduce_(0, pixel.flatten(), (inside * rank[part, None, None]).flatten(), "amax")


def _paint(visible: Tensor, size: int, geometry: dict[str, Tensor], leaves: Leaves, draws: Draws) -> Tensor:
    """Colour, texture, light and blur for the leaf seen at every pixel; visible (n, size * size) holds ranks."""
    n, device = len(visible), draws.device
    count = geometry["x"].shape[1] + 1  # the ground is leaf 0
    x, y, r = (torch.cat([torch.full((n, 1), size / 2, device=device), geometry[k]], 1) for k in ("x", "y", "r"))

    # Colour: what all leaves of an image share, what neighbours share (a smooth field), and what a leaf has of its own.
    spread = torch.tensor([1.0, leaves.saturation, leaves.saturation / 2], device=device) * leaves.contrast
    vivid = torch.cat([torch.ones(n, 1, device=device), (2 * draws.uniform("vivid", 1)).expand(n, 2)], 1)[:, None]
    field = pink_fields(draws, "place", 3, 16, 1.2).flatten(2)
    cell = (y * 16 / size).long().clamp(0, 15) * 16 + (x * 16 / size).long().clamp(0, 15)
    near = field.gather(2, cell[:, None].expand(-1, 3, -1)).transpose(1, 2)
    shares = [math.sqrt(share) for share in (leaves.scene, leaves.place, max(0, 1 - leaves.scene - leaves.place))]
    of_image, of_leaf = draws.normal("colour of image", 1, 3), draws.normal("colour of leaf", count, 3)
    opponent = (shares[0] * of_image + shares[1] * near + shares[2] * of_leaf) * spread * vivid
    colour = leaves.brightness + (0.5 + draws.uniform("contrast", 1, 1)) * math.sqrt(3) * opponent @ OPPONENT.to(device)

    # Texture: a 1/f field with a slope of the leaf's own, seldom strong (exponential); light: a linear shading.
    low, high = leaves.slope
    shared = Draws(1, draws.seed, device)  # the textures are those of a seed, whichever of its images are asked for
    slopes = [low + (high - low) * i / (TEXTURES - 1) for i in range(TEXTURES)]
    bank = torch.cat([pink_fields(shared, f"texture {i}", 1, size, slope) for i, slope in enumerate(slopes)])
    field = (draws.uniform("field", count) * TEXTURES).long() * size * size
    sign = torch.where(draws.uniform("sign", count) < 0.5, -1.0, 1.0)
    rough = leaves.texture * -draws.uniform("texture", count).clamp_min(1e-3).log() * sign
    sx, sy = (draws.normal(f"light {k}", count) * leaves.light / r.clamp_min(4) for k in "xy")
    flat = colour - (sx * x + sy * y)[..., None]
    table = torch.cat([flat, sx[..., None], sy[..., None], rough[..., None]], 2)  # one row a leaf: read once a pixel
    row = torch.arange(n, device=device)[:, None] * count + visible
    seen = table.view(n * count, 6)[row.flatten()].view(n, size, size, 6)
    line = torch.arange(size, device=device, dtype=torch.float32)
    pixel = torch.arange(size * size, device=device)
    texture = bank.flatten()[field.flatten()[row] + pixel].view(n, size, size)
    brightness = seen[..., 3] * line + seen[..., 4] * line[:, None] + seen[..., 5] * texture
    image = (seen[..., :3] + brightness[..., None]).permute(0, 3, 1, 2)
    return _blur(image.clamp(0, 1), leaves.blur, draws)


def _blur(images: Tensor, largest: float, draws: Draws) -> Tensor:
    """Each image blurred by a Gaussian of its own width, up to `largest` pixels: an optics that is never perfect."""
    if largest == 0:
        return images
    n, c, size, _ = images.shape
    sigma = (0.3 + (largest - 0.3) * draws.uniform("blur", 1)).clamp_min(0.2)
    tap = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-0.5 * (tap / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, size, size), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None], groups=n * c)
    return F.conv2d(flat, kernel[:, None, :, None], groups=n * c).view(n, c, size, size)


class Pool:
    """Synthetic images drawn once and cut anew for every batch: random place, scale and orientation.

    A crop of dead leaves is dead leaves, so a pool costs next to nothing in training and hardly repeats itself.

    Args:
        images: uint8 or float images, (n, 3, side, side), larger than the crops that will be taken.
    """

    def __init__(self, images: Tensor, seed: int = 0):
        self.images = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
        self.seed = seed

    def batch(self, step: int, n: int, size: int) -> Tensor:
        """n crops of size x size as floats in [0, 1], (n, 3, size, size); the same for the same seed and step."""
        count, _, side, _ = self.images.shape
        if size > side:
            raise ValueError(f"The pool's images have {side} pixels a side: crops of {size} need a larger pool.")
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crop = round(size * min(side / size, 2.0) ** float(torch.rand((), generator=g)))  # one scale a batch
        index = torch.randint(count, (n,), generator=g)
        left, top = torch.randint(side - crop + 1, (2, n), generator=g)
        line = torch.arange(crop)
        rows, columns = (top[:, None] + line)[:, None, :, None], (left[:, None] + line)[:, None, None, :]
        cut = self.images[index[:, None, None, None], torch.arange(3)[:, None, None], rows, columns]
        turned = torch.rand((), generator=g) < 0.5
        cut = (cut.transpose(2, 3) if turned else cut).float() / 255
        if crop > size:
            cut = F.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
            cut = cut.clamp_(0, 1)  # which resizing leaves by a rounding
        return cut.contiguous(memory_format=torch.channels_last)


def draw_pool(n: int, size: int = 320, seed: int = 0, leaves: Leaves = LEAVES, pink: float = 0.1) -> Pool:
    """A pool of dead leaves, the first share `pink` of it 1/f noise. Image i does not depend on n but for that share."""
    noise = round(pink * n)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for start in range(0, n, 16):
        for low, high, draw in (
            (start, min(start + 16, noise), pink_noise),
            (max(start, noise), min(start + 16, n), partial(dead_leaves, leaves=leaves)),
        ):
            if low < high:
                images[low:high] = (draw(high - low, size, seed, first=low) * 255).round().to(torch.uint8)
    return Pool(images, seed)
