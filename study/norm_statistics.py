"""The statistics in a classifier's batch norms as a prior for its inputs (DeepInversion, Yin et al. 2020, 1912.08795).

Batch norm keeps the mean and the variance that each channel had over the training photos. Where a network is stored
with its batch norms folded into the convolutions these are gone; EfficientNet-Lite0 comes from its wheel unfolded, with
all 49 of them. To whoever is given a representation, the norms *before* it tell something: what lies behind it follows
from the representation itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def norms_before(classifier, depth: int) -> list[nn.BatchNorm2d]:
    """The batch norms with running statistics in the first `depth` blocks of a classifier; none where it has none."""
    modules = [module for block in classifier.blocks[:depth] for module in block.modules()]
    return [m for m in modules if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]


@contextmanager
def distances(norms: list[nn.BatchNorm2d]) -> Iterator[list[Tensor]]:
    """Inside `with distances(norms) as found:` each pass appends one scalar a norm, differentiable in the images.

    It is the mean over channels of the squared difference of means, in variances, and of standard deviations in ratio,
    between all images of the pass together and the training photos: 0 where they agree.
    """
    found: list[Tensor] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        h, spread = inputs[0], norm.running_var + norm.eps
        mean = h.mean((0, 2, 3))
        variance = h.square().mean((0, 2, 3)) - mean.square()
        ratio = (variance.clamp_min(0) + norm.eps) / spread
        found.append(((mean - norm.running_mean).square() / spread + (ratio.sqrt() - 1).square()).mean())

    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def mean_distance(found: list[Tensor]) -> Tensor:
    """The mean over norms, emptied for the next pass; 0 where there is no norm."""
    total = torch.stack(found).mean() if found else torch.zeros(())
    found.clear()
    return total
