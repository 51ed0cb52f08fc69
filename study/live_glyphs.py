"""A glyph drawn and read in one graph, which a browser can run: `invkit.data.glyphs.render` and a classifier.

One upright regular font without stroke is kept, since all the masks would be larger than the networks.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invkit.data import glyphs

MIDDLE, SATURATION = 0.5, 0.8  # luma between ink and ground, and saturation of both
FONT = 0  # index in `glyphs.FAMILIES`


def colours(factors: Tensor) -> tuple[Tensor, Tensor]:
    """RGB (N, 3) of ink and ground, from factors (N, 7) as for `Reader`."""
    contrast = factors[:, 6]
    full = torch.ones_like(contrast)
    ink, ground = (
        glyphs._colour(factors[:, place], MIDDLE + sign * contrast / 2, SATURATION * full)
        for place, sign in ((4, 1), (5, -1))
    )
    return ink, ground


class Reader(nn.Module):
    """From a character and its factors to the image, and to what the classifier answers."""

    def __init__(self, classifier, size: int):
        super().__init__()
        self.classifier = classifier
        masks = glyphs._masks(size, torch.device("cpu"))[:, FONT, 0, 0, 0].clone()
        self.register_buffer("masks", masks)
        steps = (2 * torch.arange(size) + 1) / size - 1
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("places", torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3))
        self.size = size

    def forward(self, label: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) and logits (N, classes).

        label: int32 (N,), index in `glyphs.CHARACTERS`.
        factors: (N, 7): x, y, size (shares of the side), rotation (degrees), hue of ink and of ground (turns), and
            contrast, negative for an ink darker than the ground.
        """
        x, y, size, degrees = factors[:, :4].unbind(1)
        angle = degrees * (math.pi / 180)
        cos, sin = angle.cos() / size, angle.sin() / size
        x, y = 2 * x, 2 * y
        theta = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], 1).view(-1, 2, 3)
        grid = (self.places @ theta.transpose(1, 2)).view(-1, self.size, self.size, 2)
        chosen = self.masks[label.long()][:, None].float() / 255
        mask = F.grid_sample(chosen, grid, align_corners=False)
        ink, ground = (colour[:, :, None, None] for colour in colours(factors))
        images = (ground + mask * (ink - ground)).clamp(0, 1)
        return images, self.classifier.logits(images)


def reader(inverter) -> Reader:
    """The reader of an inverter's classifier."""
    return Reader(inverter.classifier, inverter.size).eval()
