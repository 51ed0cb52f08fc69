"""Synthetic training images: everything that a zero-shot inversion trains on; no photograph is used.

Three sources, from the least to the most like a photograph:

- `white_noise`: independent pixels.
- `pink_noise`: Gaussian fields with the 1/f amplitude spectrum of natural images (Field 1987).
- `dead_leaves`: textured, lit shapes that occlude one another (Matheron 1968; Lee, Mumford & Huang 2001). Their radii
  have the density r^-3, the only one that looks the same at every scale: each octave of radii covers the same area.

A fourth source, images matched to a classifier's batch norms, is in `recipes.matching`.

All return float images in [0, 1], (n, 3, size, size), computed on `device`. Image number `first` + i depends on this
number, the seed and the size alone, not on how many images are computed with it, and it is the same on every device up
to rounding (`invkit.dci.random_numbers`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from invkit.checks import check_images, check_size, checked
from invkit.data.images import as_bytes
from invkit.dci.random_numbers import RandomNumbers
from invkit.seeds import generator_for

SMALLEST = 8  # pixels a side
# Colours of natural images vary along brightness first, then blue-yellow, then red-green (Ruderman et al. 1998).
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]])
OPPONENT = OPPONENT / OPPONENT.norm(dim=1, keepdim=True)


def white_noise(n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """Independent uniform pixels, (n, 3, size, size) in [0, 1].

    Args:
        n: how many images, 1 or more.
        size: side in pixels, 8 or more.
        seed: 0 or more.
        device: where to compute them.
        first: number of the first image.

    Example:
        >>> white_noise(2, 32, seed=0).shape
        torch.Size([2, 3, 32, 32])

    Raises:
        ValueError: no image, or one of fewer than 8 pixels.
    """
    check_size(n, size, SMALLEST)
    return RandomNumbers(n, seed, device, first).uniform("pixels", 3, size, size)


def pink_fields(numbers: RandomNumbers, name: str, channels: int, size: int, slope: float) -> Tensor:
    """Gaussian fields of mean 0, variance 1 and amplitude frequency^-slope, (n, channels, size, size)."""
    device = numbers.device
    fy = torch.fft.fftfreq(size, device=device)[:, None]
    fx = torch.fft.rfftfreq(size, device=device)[None]
    amplitude = (fy**2 + fx**2).clamp_min(1 / size**2) ** (-slope / 2)
    amplitude[0, 0] = 0
    noise = numbers.normal(name, channels, size, size)
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(size, size))
    return field / field.std(dim=(2, 3), keepdim=True)


def pink_noise(
    n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0, slope: float = 1.0
) -> Tensor:
    """1/f noise in opponent colours, of random brightness and contrast; (n, 3, size, size) in [0, 1].

    Args:
        n, size, seed, device, first: as for `white_noise`.
        slope: the amplitude falls as frequency^-slope; natural images have about 1.
    """
    check_size(n, size, SMALLEST)
    numbers = RandomNumbers(n, seed, device, first)
    spread = torch.tensor([1.0, 0.35, 0.2], device=device)
    mean = 0.5 + 0.15 * numbers.normal("mean", 3, 1, 1)
    contrast = 0.1 + 0.25 * numbers.uniform("contrast", 1, 1, 1)
    fields = pink_fields(numbers, "field", 3, size, slope)
    field = torch.einsum("nchw,c,cd->ndhw", fields, spread, OPPONENT.to(device))
    return (mean + contrast * math.sqrt(3) / 1.1 * field).clamp_(0, 1)


@dataclass(frozen=True)
class Leaves:
    """How dead leaves look.

    The defaults come from a search for what a classifier's batch norms find most natural (`statistics_distance`,
    `benchmarks/match_leaves.py`), stopped short of its limits; no photograph was looked at.

    Attributes:
        smallest: smallest radius of a leaf, in pixels.
        largest: largest radius of a leaf, as a share of the image's side.
        coverage: how many leaves of each octave of radii cover a pixel on average.
        contrast: standard deviation of the leaves' brightness, in units of the range [0, 1].
        saturation: standard deviation of the leaves' colours relative to that of their brightness.
        brightness: mean brightness of the leaves, 0 to 1.
        scene: share of the variance of colours that all leaves of an image have in common.
        place: share of the variance of colours that neighbouring leaves have in common.
        texture: mean contrast of the texture on a leaf.
        slope: smallest and largest spectral slope of a texture.
        light: mean strength of the shading across a leaf.
        blur: largest blur of an image, in pixels (standard deviation of a Gaussian).

    Raises:
        ValueError: a negative setting, or a radius or coverage of 0.
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
            raise ValueError(f"Leaves need settings of 0 or more, radii and coverage above 0, not {wrong or self}.")


LEAVES = Leaves()  # the default

TEXTURES = 24  # texture fields that all leaves of one seed share: every leaf shows a part of one
BOXES = 0.4  # share of the leaves that are boxes; the others are ellipses


def dead_leaves(
    n: int, size: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0, leaves: Leaves = LEAVES
) -> Tensor:
    """Dead leaves: occluding ellipses and boxes with 1/f texture and shading, (n, 3, size, size) in [0, 1].

    Two leaves in five are boxes. Every leaf gets a random rank, and a pixel shows the leaf of highest rank that covers
    it. The leaves of half an octave of radii at a time are scattered as patches into one buffer of ranks, so that the
    cost follows the covered area, not the number of leaves times the number of pixels.

    Args:
        n, size, seed, device, first: as for `white_noise`.
        leaves: how they look.

    Example:
        >>> few, more = dead_leaves(2, 32, seed=0), dead_leaves(4, 32, seed=0)
        >>> torch.equal(few, more[:2])  # an image does not depend on how many are drawn
        True
    """
    check_size(n, size, SMALLEST)
    numbers = RandomNumbers(n, seed, device, first)
    # Every image has a smallest radius of its own, so some are busy and some are calm.
    range_of_radii = max(1.0, leaves.largest * size / leaves.smallest / 4)
    smallest = leaves.smallest * range_of_radii ** numbers.uniform("smallest", 1) ** 2.5
    bands = _bands(leaves.smallest, max(leaves.largest * size, 2 * leaves.smallest))
    geometry = [_band_of_leaves(numbers, f"band {i}", size, *band, leaves.coverage) for i, band in enumerate(bands)]
    for leaf in geometry:
        leaf["r"] = torch.where(leaf["r"] < smallest, 0.05, leaf["r"])  # too small to cover a pixel
    total = sum(leaf["x"].shape[1] for leaf in geometry)
    ranks = 1 + numbers.uniform("rank", total).argsort(1)
    depth_buffer = torch.zeros(n * size * size, dtype=torch.int32, device=device)  # 0: the ground behind all leaves
    start = 0
    for leaf, (_, high) in zip(geometry, bands, strict=True):
        stop = start + leaf["x"].shape[1]
        _scatter(depth_buffer, ranks[:, start:stop].int(), leaf, size, reach=math.ceil(high))
        start = stop
    order = ranks.argsort(1)
    by_rank = {k: torch.cat([leaf[k] for leaf in geometry], 1).gather(1, order) for k in ("x", "y", "r")}
    return _paint(depth_buffer.view(n, -1).long(), size, by_rank, leaves, numbers)


def _bands(low: float, high: float) -> list[tuple[float, float]]:
    count = max(1, round(2 * math.log2(high / low)))
    return [(low * (high / low) ** (i / count), low * (high / low) ** ((i + 1) / count)) for i in range(count)]


def _band_of_leaves(
    numbers: RandomNumbers, name: str, size: int, low: float, high: float, coverage: float
) -> dict[str, Tensor]:
    """The geometry of all leaves with radii between low and high; each value (n, leaves).

    Their density covers a pixel `coverage` / 2 times on average, since an octave has two bands.
    """
    area = 2 * low * low * math.log(high / low) / (1 - (low / high) ** 2) * math.pi * 0.7  # mean over r^-3 and aspects
    count = max(1, round(coverage / 2 * (size + 2 * high) ** 2 / area))  # leaves just outside the image reach into it
    u = numbers.uniform(name, 6, count).unbind(1)
    return {
        "x": u[0] * (size + 2 * high) - high,
        "y": u[1] * (size + 2 * high) - high,
        "r": (low**-2 - u[2] * (low**-2 - high**-2)) ** -0.5,
        "angle": u[3] * math.pi,
        "aspect": 0.12 + 0.88 * u[4].sqrt(),
        "box": u[5] < BOXES,
    }


def _scatter(depth_buffer: Tensor, ranks: Tensor, leaf: dict[str, Tensor], size: int, reach: int) -> None:
    """Write the rank of each leaf into every pixel that it covers, where no higher rank stands."""
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


def _paint(visible: Tensor, size: int, geometry: dict[str, Tensor], leaves: Leaves, numbers: RandomNumbers) -> Tensor:
    """Images (n, 3, size, size) of leaves with colour, texture, shading and blur.

    visible: the rank of the leaf that is seen at every pixel, (n, size * size); 0 is the ground.
    geometry: x, y and r of the leaves in the order of their ranks, each (n, leaves).
    """
    n, device = len(visible), numbers.device
    count = geometry["x"].shape[1] + 1  # the ground is leaf 0
    x, y, r = (torch.cat([torch.full((n, 1), size / 2, device=device), geometry[k]], 1) for k in ("x", "y", "r"))

    # Colour: what all leaves of an image share, what neighbours share (a smooth field), and what a leaf has of its own.
    spread = torch.tensor([1.0, leaves.saturation, leaves.saturation / 2], device=device) * leaves.contrast
    vivid = torch.cat([torch.ones(n, 1, device=device), (2 * numbers.uniform("vivid", 1)).expand(n, 2)], 1)[:, None]
    field = pink_fields(numbers, "place", 3, 16, 1.2).flatten(2)
    cell = (y * 16 / size).long().clamp(0, 15) * 16 + (x * 16 / size).long().clamp(0, 15)
    near = field.gather(2, cell[:, None].expand(-1, 3, -1)).transpose(1, 2)
    shares = [math.sqrt(share) for share in (leaves.scene, leaves.place, max(0, 1 - leaves.scene - leaves.place))]
    of_image, of_leaf = numbers.normal("colour of image", 1, 3), numbers.normal("colour of leaf", count, 3)
    opponent = (shares[0] * of_image + shares[1] * near + shares[2] * of_leaf) * spread * vivid
    colour = leaves.brightness + (0.5 + numbers.uniform("contrast", 1, 1)) * math.sqrt(3) * opponent @ OPPONENT.to(
        device
    )

    # Texture: a 1/f field with a slope of the leaf's own, seldom strong (exponential); light: a linear shading.
    low, high = leaves.slope
    shared = RandomNumbers(1, numbers.seed, device)  # all images of a seed share their textures
    slopes = [low + (high - low) * i / (TEXTURES - 1) for i in range(TEXTURES)]
    bank = torch.cat([pink_fields(shared, f"texture {i}", 1, size, slope) for i, slope in enumerate(slopes)])
    field = (numbers.uniform("field", count) * TEXTURES).long() * size * size
    sign = torch.where(numbers.uniform("sign", count) < 0.5, -1.0, 1.0)
    rough = leaves.texture * -numbers.uniform("texture", count).clamp_min(1e-3).log() * sign
    sx, sy = (numbers.normal(f"light {k}", count) * leaves.light / r.clamp_min(4) for k in "xy")
    flat = colour - (sx * x + sy * y)[..., None]
    table = torch.cat([flat, sx[..., None], sy[..., None], rough[..., None]], 2)  # a row a leaf: one gather a pixel
    row = torch.arange(n, device=device)[:, None] * count + visible
    seen = table.view(n * count, 6)[row.flatten()].view(n, size, size, 6)
    line = torch.arange(size, device=device, dtype=torch.float32)
    pixel = torch.arange(size * size, device=device)
    texture = bank.flatten()[field.flatten()[row] + pixel].view(n, size, size)
    brightness = seen[..., 3] * line + seen[..., 4] * line[:, None] + seen[..., 5] * texture
    image = (seen[..., :3] + brightness[..., None]).permute(0, 3, 1, 2)
    return _blur(image.clamp(0, 1), leaves.blur, numbers)


def _blur(images: Tensor, largest: float, numbers: RandomNumbers) -> Tensor:
    """Blur each image by a Gaussian of its own width, up to `largest` pixels, as imperfect optics do."""
    if largest == 0:
        return images
    n, c, size, _ = images.shape
    sigma = (0.3 + (largest - 0.3) * numbers.uniform("blur", 1)).clamp_min(0.2)
    tap = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-0.5 * (tap / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, size, size), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None], groups=n * c)
    return F.conv2d(flat, kernel[:, None, :, None], groups=n * c).view(n, c, size, size)


class Pool:
    """Synthetic images that are computed once; every batch is cut from them at random places, scales and orientations.

    A crop of dead leaves is dead leaves again, so a pool costs next to nothing in training and hardly repeats itself.

    Args:
        images: uint8, or float in [0, 1], (n, C, side, side), larger than the crops that will be taken.
        seed: of the crops, 0 or more.

    Raises:
        TypeError, ValueError: no images, or of other numbers.
    """

    @checked
    def __init__(self, images: Tensor, seed: int = 0):
        check_images(images[:1] / 255 if images.dtype == torch.uint8 else images, "A pool's images", channels=None)
        self.images, self.seed = images if images.dtype == torch.uint8 else as_bytes(images), seed

    def to(self, device: torch.device | str) -> Pool:
        """Move the images to a device, where all batches are then cut; returns the pool."""
        self.images = self.images.to(device)
        return self

    def batch(self, step: int, n: int, size: int) -> Tensor:
        """n crops as floats in [0, 1], (n, C, size, size), which depend on the seed and the step alone.

        Raises:
            ValueError: crops larger than the pool's images.
        """
        check_size(n, size)
        (count, channels, side, _), device = self.images.shape, self.images.device
        if size > side:
            raise ValueError(f"The pool's images have {side} pixels a side: crops of {size} need a larger pool.")
        # The few random numbers come from the CPU, the same on every device; the pixels never leave theirs.
        g = generator_for(self.seed, step)
        crop = round(size * min(side / size, 2.0) ** float(torch.rand((), generator=g)))  # one scale a batch
        index = torch.randint(count, (n,), generator=g)
        left, top = torch.randint(side - crop + 1, (2, n), generator=g)
        index, left, top = (numbers.to(device, non_blocking=True) for numbers in (index, left, top))
        line = torch.arange(crop, device=device)
        rows, columns = (top[:, None] + line)[:, None, :, None], (left[:, None] + line)[:, None, None, :]
        planes = torch.arange(channels, device=device)[:, None, None]
        cut = self.images[index[:, None, None, None], planes, rows, columns]
        cut = (cut.transpose(2, 3) if torch.rand((), generator=g) < 0.5 else cut).float() / 255
        if crop > size:
            cut = F.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
            cut = cut.clamp_(0, 1)  # resizing may leave the range by a rounding error
        return cut.contiguous(memory_format=torch.channels_last)


def draw_pool(
    n: int, size: int = 320, seed: int = 0, leaves: Leaves = LEAVES, pink: float = 0.1,
    device: torch.device | str = "cpu",
) -> Pool:  # fmt: skip
    """A pool of dead leaves and some 1/f noise.

    Args:
        n: how many images; image i does not depend on it, except for the number of noise images.
        size: their side in pixels.
        seed: of the images and of the crops.
        leaves: how dead leaves look.
        pink: share of the pool, its first images, that is 1/f noise, 0 to 1.
        device: where the images are computed and stay.
    """
    check_size(n, size, SMALLEST)
    noise = round(pink * n)
    images = torch.empty(n, 3, size, size, dtype=torch.uint8, device=device)
    for start in range(0, n, 16):
        for low, high, source in (
            (start, min(start + 16, noise), pink_noise),
            (max(start, noise), min(start + 16, n), partial(dead_leaves, leaves=leaves)),
        ):
            if low < high:
                images[low:high] = as_bytes(source(high - low, size, seed, device, first=low))
    return Pool(images, seed)
