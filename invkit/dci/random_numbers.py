"""Random numbers that belong to an image: they follow from its number and the seed, not from its place in a batch.

A sequential generator gives image i other numbers when it stands in another batch, and other numbers on a GPU than on a
CPU. Here each number is a hash of (seed, number of the image, name of the quantity, position), computed for all images
at once. The hash is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), in 64-bit
integers that wrap around, which every device has.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from invkit.checks import check_whole_number


def _signed(number: int) -> int:
    """A 64-bit pattern as the signed integer that PyTorch stores."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


STEP, FIRST, SECOND = (_signed(k) for k in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the result depends on every bit of z (int64)."""

    def shifted(z: Tensor, bits: int) -> Tensor:  # towards the lower bits, filled with zeros
        return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)

    z = (z ^ shifted(z, 30)).mul_(FIRST)
    z = (z ^ shifted(z, 27)).mul_(SECOND)
    return z ^ shifted(z, 31)


class RandomNumbers:
    """Random numbers for the images number `first` … `first` + n - 1 of a seed; every row depends on its image alone.

    Every quantity has a name: the same name gives the same numbers, another name gives independent ones.

    Args:
        n: how many images.
        seed: 0 or more.
        device: where the numbers are computed.
        first: number of the first image.
    """

    def __init__(self, n: int, seed: int = 0, device: torch.device | str = "cpu", first: int = 0):
        check_whole_number(first, 0, "first")
        self.n, self.seed, self.first, self.device = n, seed, first, torch.device(device)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Numbers in [0, 1), float32, (n, *shape)."""
        key = int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:8], "little")
        image = torch.arange(self.first, self.first + self.n, device=self.device)
        row = _mixed(_mixed(image.mul(STEP).add_(_signed(key))))
        place = torch.arange(1, 1 + math.prod(shape), device=self.device).mul_(STEP)
        bits = _mixed(row[:, None] + place)
        # The highest 24 bits, as many as a float32 holds exactly.
        return ((bits >> 40).bitwise_and_((1 << 24) - 1).float() * 2.0**-24).view(self.n, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers, float32, (n, *shape): the inverse distribution function of uniform ones."""
        centred = self.uniform(name, *shape).mul_(2).sub_(1 - 2.0**-24)  # in (-1, 1), without its ends
        return torch.erfinv(centred).mul_(math.sqrt(2))
