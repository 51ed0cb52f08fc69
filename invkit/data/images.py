"""Images with what is known of them, and the one rule by which images become squares."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from invkit.checks import check_images, check_labels, check_size


@dataclass(frozen=True)
class Data:
    """Images and what is known of them.

    Attributes:
        images: floats (N, 3, H, W) in [0, 1], at least one.
        labels: class numbers, int64 (N,); -1 where the class is unknown.
        names: N names.
        factors: what each image was drawn from, name -> tensor of N rows; None where that is unknown.
        latents: floats (N, D), what a generator made each image from; None for other images.

    Raises TypeError or ValueError for images out of range and for attributes of different lengths.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    factors: dict[str, Tensor] | None = None
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        check_images(self.images, "images", slack=0)
        check_labels(self.labels, len(self.images))
        others = {"names": self.names, "latents": self.latents, **(self.factors or {})}
        for name, values in others.items():
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{name} holds {len(values)} for {len(self.images)} images: give one for each.")

    def __len__(self) -> int:
        return len(self.images)


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] of any shape as the nearest of 256 levels, uint8."""
    return (images * 255).round().byte()


def fit_square(images: Tensor, size: int) -> Tensor:
    """Images as squares: the central square, resized to `size` x `size` pixels, bilinear and antialiased.

    This is the same picture as resizing the shorter side and then cropping the centre, but a very elongated photo costs
    no memory.

    Args:
        images: floats in [0, 1], (N, C, H, W).
        size: side of the squares in pixels, 1 or more.

    Returns:
        Images (N, C, size, size), which rounding may have moved out of [0, 1] by 1e-6; those that have this size
        already are returned as they are.

    Raises:
        TypeError, ValueError: no such images, or a size below 1.
    """
    check_images(images, slack=math.inf, channels=None)
    check_size(len(images), size)
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[..., top : top + side, left : left + side].float()
    if side == size:
        return squares
    return F.interpolate(squares, size=(size, size), mode="bilinear", antialias=True)
