"""Chapter 7: what one inverter recovers of photos at every depth, and what that costs (Dong et al. 2021).

Reconstructions are compared with two opponents: optimisation of the photo itself (`invkit.optimize.invert_features`)
and the photo's mean colour.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from study.reconstructions import TimedImages


def search_every_photo(inverter, photos: Tensor, depth: int, steps: int, batch: int = 8) -> TimedImages:
    """Reconstruct photos (N, 3, size, size) from one depth with so many steps of `invkit.dci.search`.

    Only the inversion is timed, because the representation is what an attacker is given.
    """
    with torch.no_grad():
        given = torch.cat([inverter.represent(part, depth) for part in photos.split(batch)])
    began = time.perf_counter()
    images = torch.cat([inverter.invert(y, depth, search=steps) for y in given.split(batch)])
    return TimedImages(images, (time.perf_counter() - began) / len(photos))


def mean_colour(photos: Tensor) -> Tensor:
    """Photos (N, 3, H, W), each replaced by its own mean colour: a reconstruction without any structure."""
    return photos.mean((2, 3), keepdim=True).expand_as(photos)


def depth_of(classifier, convolutions: int) -> int:
    """The deepest block that ends after at most so many convolutions, pooling and logits excluded."""
    depths = [b.depth for b in classifier.blocks if len(b.shape) == 3 and b.convolutions <= convolutions]
    if not depths:
        first = classifier.blocks[0].convolutions
        raise ValueError(
            f"The first block of {classifier.name} has {first} convolutions: ask for as many, not {convolutions}."
        )
    return depths[-1]


def numbers_per_number(classifier, depth: int) -> float:
    """How many numbers the representation of that depth has for each number of the image."""
    return math.prod(classifier.blocks[depth - 1].shape) / (3 * classifier.size**2)


# Old names, until the notebooks use the new ones.
from study.reconstructions import TimedImages as Reading  # noqa: E402, F401
from study.reconstructions import break_even  # noqa: E402, F401
from study.reconstructions import reconstruct_every_depth as read_every_depth  # noqa: E402, F401
from study.scores import Scores, score, verdict  # noqa: E402, F401
