"""A deep image prior (Ulyanov et al. 2018, arXiv 1711.10925): images as outputs of small networks with fixed inputs.

The weights of a random convolutional network are optimised, in place of pixels. What such a network gives easily, soon
after the start, looks like a photo more than like noise, though it has seen none: its architecture is the prior.

Each image has a network of its own, here a decoder: from noise on a coarse grid to pixels, through 3 x 3 convolutions
that double the side again and again. All networks of a batch are computed at once, as groups of one convolution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class DeepImagePrior:
    """N networks, for N images (N, 3, size, size).

    n: how many images.
    size: their side in pixels.
    channels: of every layer but the finest two, which have half as many and a quarter.
    seed: of the weights, and of the noise that the networks start from.
    device: where they lie.
    """

    def __init__(self, n: int, size: int, channels: int = 32, seed: int = 0, device: torch.device | str = "cpu"):
        self.n, self.size = n, size
        random = torch.Generator().manual_seed(seed)
        levels = max(2, math.ceil(math.log2(size / 7)))
        self.sides = [math.ceil(size / 2 ** (levels - 1 - level)) for level in range(levels)]
        narrowing = {levels - 1: max(4, channels // 4), levels - 2: max(4, channels // 2)}
        widths = [channels, *(narrowing.get(level, channels) for level in range(levels))]
        side = self.sides[0]
        self.noise = torch.randn(1, n * channels, side, side, generator=random).to(device)
        self.variables: list[Tensor] = []
        for inputs, outputs in [*zip(widths, widths[1:], strict=False), (widths[-1], 3)]:
            weights = torch.randn(n * outputs, inputs, 3, 3, generator=random) * math.sqrt(2 / (9 * inputs))
            self.variables += [weights.to(device).requires_grad_(), torch.zeros(n * outputs, device=device)]
            self.variables[-1].requires_grad_()

    def images(self) -> Tensor:
        """What the networks give now, (N, 3, size, size) in [0, 1]."""
        h, pairs = self.noise, list(zip(self.variables[::2], self.variables[1::2], strict=True))
        for side, (weight, bias) in zip(self.sides, pairs, strict=False):
            if h.shape[-1] != side:
                h = F.interpolate(h, (side, side), mode="bilinear", align_corners=False)
            h = F.leaky_relu(F.instance_norm(F.conv2d(h, weight, None, padding=1, groups=self.n), bias=bias), 0.2)
        weight, bias = pairs[-1]
        pixels = F.conv2d(h, weight, bias, padding=1, groups=self.n).sigmoid()
        return pixels.view(self.n, 3, self.size, self.size).contiguous(memory_format=torch.channels_last)
