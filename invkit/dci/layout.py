"""Every output of a block as a map (C, H, W), whatever order its numbers have, so that one kind of inverse fits all.

| shape | what it is | as a map |
|---|---|---|
| (C,), (C, H, W) | a vector, a map | stays as it is |
| (H, W, C) | a map with its channels last, as in Swin transformers | (C, H, W) |
| (T, C) | tokens: P without a place (class, registers), then a square of G x G | (C, G + R, G) |

The tokens without a place fill R = ceil(P / G) further rows below the square, and zeros fill the last of these rows. No
number is lost: `Layout.from_map` is the inverse of `Layout.to_map`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

PLACELESS = 16  # tokens without a place, at most, where more than one square would do


@dataclass(frozen=True)
class Layout:
    """How outputs (N, *shape) of a block are laid out as maps (N, *map_shape).

    Attributes:
        shape: of the output without the batch.
        map_shape: (C, H, W), or (C,) for a vector.
        order: "as it is", "channels last" or "tokens".
        placeless: number of tokens without a place.
    """

    shape: tuple[int, ...]
    map_shape: tuple[int, ...]
    order: str = "as it is"
    placeless: int = 0

    def to_map(self, h: Tensor) -> Tensor:
        """Maps of outputs, which may be those of larger or smaller images where the network takes them."""
        if self.order == "channels last":
            return h.permute(0, 3, 1, 2)
        if self.order == "tokens":
            side = math.isqrt(h.shape[1] - self.placeless)
            empty = -self.placeless % side
            tokens = F.pad(h.roll(-self.placeless, 1), (0, 0, 0, empty))
            return tokens.unflatten(1, (-1, side)).permute(0, 3, 1, 2)
        return h

    def from_map(self, h: Tensor) -> Tensor:
        """Outputs of maps."""
        if self.order == "channels last":
            return h.permute(0, 2, 3, 1)
        if self.order == "tokens":
            count = h.shape[3] ** 2 + self.placeless
            return h.permute(0, 2, 3, 1).flatten(1, 2)[:, :count].roll(self.placeless, 1)
        return h


def layout_of(shape: Sequence[int], size: int) -> Layout | None:
    """The layout of a block's outputs; None where it is not known how they are laid out.

    Args:
        shape: of an output without the batch.
        size: side of the images, which are squares; a square of tokens divides it if possible.
    """
    shape = tuple(shape)
    if len(shape) == 1 or (len(shape) == 3 and shape[1] == shape[2]):
        return Layout(shape, shape)
    if len(shape) == 3 and shape[0] == shape[1]:
        return Layout(shape, (shape[2], *shape[:2]), "channels last")
    if len(shape) == 2:
        count, channels = shape
        sides = range(math.isqrt(count), 0, -1)
        side = next((s for s in sides if size % s == 0 and count - s**2 <= PLACELESS), math.isqrt(count))
        placeless = count - side**2
        return Layout(shape, (channels, side + -(-placeless // side), side), "tokens", placeless)
    return None
