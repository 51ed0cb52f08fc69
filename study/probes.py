"""Surgery on images and on logits, and what can be read off the images that come back (Teterwak et al. 2021, §5-6).

Ask what a representation means by changing it, or by changing the image behind it, and looking at the reconstruction:

- on images: `rotate`, `translate`, `occlude`, `blur`, `recolour`, `blend`;
- on logits: `shift`, `scale`, `perturb`, `interpolate`, `keep_top_k`, `swap`;
- on both at once: `loop`, which inverts what the classifier sees in its own reconstruction, and `resample`, which holds
  the logits and draws the noise again;
- per image: `brightness`, `contrast`, `sharpness`.

Images are floats (N, 3, H, W) in [0, 1], logits floats (N, classes). An amount is one number for all, or a tensor (N,).
Nothing draws from the global random generator.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional as TF

GREY = 0.5  # what covers an occluded part

# ---- surgery on images -----------------------------------------------------------------------------------------------


def rotate(images: Tensor, degrees: float | Tensor) -> Tensor:
    """Turned counter-clockwise about the centre, bilinear; what comes in from outside repeats the nearest edge."""
    angle = _amount(degrees, _check_images(images)) * math.pi / 180
    cos, sin = angle.cos(), angle.sin()
    aspect, zero = images.shape[-2] / images.shape[-1], torch.zeros_like(cos)
    return _warp(images, [[cos, -sin * aspect, zero], [sin / aspect, cos, zero]])


def translate(images: Tensor, dx: float | Tensor, dy: float | Tensor = 0.0) -> Tensor:
    """Moved right by dx and down by dy, fractions of the side, bilinear; what comes in repeats the nearest edge."""
    dx, dy = (_amount(d, _check_images(images)) for d in (dx, dy))
    one, zero = torch.ones_like(dx), torch.zeros_like(dx)
    return _warp(images, [[one, zero, -2 * dx], [zero, one, -2 * dy]])


def _warp(images: Tensor, rows: list[list[Tensor]]) -> Tensor:
    """Each output pixel fetched from where `rows`, (2 x 3 values) per image in [-1, 1] coordinates, says."""
    matrix = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def occlude(images: Tensor, share: float | Tensor, seed: int = 0) -> Tensor:
    """A grey square over this share of the area, somewhere inside the image, where `seed` says.

    The side is rounded to whole pixels. Image i has its square in the same direction from the centre at every share.
    """
    share = _amount(share, _check_images(images))
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"share must lie between 0 and 1, not {share.min():.3g} to {share.max():.3g}.")
    place = torch.rand(len(images), 2, generator=torch.Generator().manual_seed(seed)).to(images)
    inside = []
    for pixels, where in zip(images.shape[-2:], place.T, strict=True):
        side = (share.sqrt() * pixels).round()
        start = ((pixels - side) * where).round()
        position = torch.arange(pixels, device=images.device).expand(len(images), -1)
        inside.append((position >= start[:, None]) & (position < (start + side)[:, None]))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hidden, GREY)


def blur(images: Tensor, sigma: float | Tensor) -> Tensor:
    """Gaussian blur with this standard deviation, in pixels; 0 leaves the image as it is."""

    def blurred(images: Tensor, sigma: float) -> Tensor:
        radius = min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1)  # reflection at the edges allows no more
        return TF.gaussian_blur(images, 2 * radius + 1, sigma).clamp(0, 1) if sigma else images

    return _each(blurred, images, sigma)


def recolour(images: Tensor, turn: float | Tensor) -> Tensor:
    """Every hue turned by this part of the colour circle (of HSV): by 1/3 red becomes green; greys stay."""
    return _each(lambda images, turn: TF.adjust_hue(images, (turn + 0.5) % 1 - 0.5), images, turn)


def blend(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """(1 - share) a + share b: both images at once, the second with this weight."""
    _check_images(b)
    share = _amount(share, _check_images(a))
    if a.shape != b.shape:
        raise ValueError(f"Only images of one shape can be blended, not {tuple(a.shape)} and {tuple(b.shape)}.")
    return torch.lerp(a, b, share.view(-1, 1, 1, 1)).clamp(0, 1)


# ---- surgery on logits -----------------------------------------------------------------------------------------------


def shift(logits: Tensor, amount: float | Tensor) -> Tensor:
    """The same amount added to all logits of an image: the softmax does not notice."""
    return logits + _amount(amount, _check_logits(logits))[:, None]


def scale(logits: Tensor, factor: float | Tensor) -> Tensor:
    """All logits of an image times a factor: confidence without change of ranking."""
    return logits * _amount(factor, _check_logits(logits))[:, None]


def perturb(logits: Tensor, strength: float | Tensor, std: float | Tensor, seed: int = 0) -> Tensor:
    """Independent Gaussian noise of `strength` times `std` added; std: the logits' natural one, (classes,) or a number.

    The same seed gives the same directions at every strength.
    """
    strength = _amount(strength, _check_logits(logits))
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).to(logits)
    return logits + strength[:, None] * torch.as_tensor(std).to(logits) * noise


def interpolate(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """(1 - share) a + share b."""
    _check_logits(b)
    share = _amount(share, _check_logits(a))
    if a.shape != b.shape:
        raise ValueError(f"Interpolate between logits of one shape, not {tuple(a.shape)} and {tuple(b.shape)}.")
    return torch.lerp(a, b, share[:, None])


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each image as they are, all others at their common mean: their pattern is gone."""
    classes = _check_logits(logits).shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must lie between 1 and the {classes} classes, not {k!r}.")
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(k, dim=1).indices, True)
    rest = logits.masked_fill(kept, 0).sum(1, keepdim=True) / max(1, classes - k)
    return torch.where(kept, logits, rest)


def swap(logits: Tensor, first: int | Tensor, second: int | Tensor) -> Tensor:
    """The logits of two classes exchanged; each a class number, or one per image (N,)."""
    classes = _check_logits(logits).shape[1]
    pair = [torch.as_tensor(c, device=logits.device).long().expand(len(logits)) for c in (first, second)]
    columns = torch.stack(pair, dim=1)
    if not ((columns >= 0) & (columns < classes)).all():
        raise ValueError(f"Classes are numbered from 0 to {classes - 1} here: swap two of those.")
    return logits.scatter(1, columns, logits.gather(1, columns.flip(1)))


# ---- surgery on both -------------------------------------------------------------------------------------------------


@torch.no_grad()
def loop(inverter, images: Tensor, rounds: int, batch: int = 100, noise: Tensor | None = None) -> list[Tensor]:
    """Invert -> classify -> invert: [images, their reconstruction, the reconstruction of that, …], rounds + 1 of them.

    noise: of the generator for each image, the same in every round, (N, noise_dim); None is what the inverter takes
        without any.
    From the second on all are (N, 3, inverter.size, inverter.size).
    """
    _check_images(images)
    seen = [images]
    for _ in range(rounds):
        parts = seen[-1].split(batch)
        given = [{"noise": part} for part in noise.split(batch)] if noise is not None else [{}] * len(parts)
        made = [inverter.reconstruct(part, **more) for part, more in zip(parts, given, strict=True)]
        seen.append(torch.cat(made))
    return seen


@torch.no_grad()
def resample(
    inverter, logits: Tensor, samples: int, seed: int = 0, temperature: float = 1.0, batch: int = 100
) -> Tensor:
    """What the logits (N, classes) leave free: (samples, N, 3, H, W), each sample with noise of its own.

    temperature: of the noise, a factor on it; the inverter was trained at 1.
    """
    n = len(_check_logits(logits))
    noise = temperature * inverter.sample_noise(samples * n, seed).to(logits)
    every = logits.repeat(samples, 1)
    parts = zip(every.split(batch), noise.split(batch), strict=True)
    return torch.cat([inverter.invert(z, noise=e) for z, e in parts]).unflatten(0, (samples, n))


# ---- read off each image ---------------------------------------------------------------------------------------------


def brightness(images: Tensor) -> Tensor:
    """Mean over pixels and colours (N,), from 0 (black) to 1 (white)."""
    return _check_images(images).mean(dim=(1, 2, 3))


def contrast(images: Tensor) -> Tensor:
    """Standard deviation over pixels, root mean square over colours (N,): RMS contrast (Peli 1990), at most 0.5."""
    return _variance(images).sqrt()


def sharpness(images: Tensor) -> Tensor:
    """Root mean square step between neighbouring pixels over the RMS contrast (N,); 0 for an image of one colour.

    Neither brightness nor contrast changes it; a sine of f cycles per pixel along one axis has 2 sin(pi f).
    """
    across, down = (images.diff(dim=dim).square().mean(dim=(1, 2, 3)) for dim in (-1, -2))
    variance = _variance(images)
    return torch.where(variance > 1e-10, (across + down) / variance.clamp_min(1e-10), 0).sqrt()


def _variance(images: Tensor) -> Tensor:
    return _check_images(images).var(dim=(2, 3), correction=0).mean(dim=1)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check_images(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3:
        what = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"Images must be a float tensor (N, 3, H, W) in [0, 1], not {what}.")
    return images


def _check_logits(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim != 2:
        what = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"Logits must be a float tensor (N, classes), not {what}.")
    return logits


def _amount(value: float | Tensor, items: Tensor) -> Tensor:
    """One finite amount per item (N,), on the items' device."""
    amount = torch.as_tensor(value).to(items)
    if amount.ndim and amount.shape != (len(items),):
        raise ValueError(f"Give one amount, or one for each of the {len(items)}, not {tuple(amount.shape)}.")
    if not amount.isfinite().all():
        raise ValueError("An amount must be a finite number.")
    return amount.expand(len(items))


def _each(function, images: Tensor, amount: float | Tensor) -> Tensor:
    """function(images, number) at once for one number, image by image where each has its own."""
    amounts = _amount(amount, _check_images(images)).tolist()
    if len(set(amounts)) <= 1:
        return function(images, amounts[0]) if amounts else images
    return torch.cat([function(image[None], value) for image, value in zip(images, amounts, strict=True)])


@torch.no_grad()
def share_of_zeros(classifier, images: Tensor, depth: int) -> float:
    """The share of the numbers of a representation of images (N, 3, H, W) that are exactly 0."""
    return (classifier.features(images, depth) == 0).float().mean().item()
