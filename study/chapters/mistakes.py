"""Chapter 4: what reconstructions show where the classifier was wrong, the input or the class that it mistook it for.

Mistaken predictions are compared with correct ones of the same confidence, which `match` finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invkit import metrics
from invkit.statistics import Interval
from study.scores import verdict as sign_of


def match(wrong: Tensor, groups: Tensor, right: Tensor, right_groups: Tensor) -> Tensor:
    """The nearest control of the same group for each of N values; the same control may serve several.

    wrong, right: (N,) and (M,), for instance the confidence in mistaken and in correct predictions.
    groups, right_groups: (N,) and (M,), for instance their true classes.
    Returns indices (N,) into `right`, -1 where a group has none.
    """
    distance = (wrong.unsqueeze(1) - right.unsqueeze(0)).abs()
    distance[groups.unsqueeze(1) != right_groups.unsqueeze(0)] = torch.inf
    if not len(right):
        return torch.full_like(groups, -1)
    best, index = distance.min(1)
    return torch.where(best.isfinite(), index, -1)


@dataclass(frozen=True)
class Distances:
    """Between N reconstructions and one image each: root mean squared pixel error and perceptual distance, (N,)."""

    pixel: Tensor
    perceptual: Tensor


@torch.no_grad()
def distances(reconstructions: Tensor, images: Tensor) -> Distances:
    """Reconstructions (N, 3, S, S) against images of the same shape, pair by pair."""
    return Distances(metrics.distance(reconstructions, images), metrics.perceptual(reconstructions, images))


@torch.no_grad()
def seen_as(seen: Tensor, true: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Which reconstructions another classifier assigns to the true class, to the predicted one, or to a third.

    seen, true, predicted: classes (N,). Returns masks (N,).
    """
    is_true, is_predicted = seen == true, seen == predicted
    return {"true class": is_true, "predicted class": is_predicted & ~is_true, "another": ~(is_true | is_predicted)}


def verdict(to_input_minus_to_wrong: Interval, true_minus_predicted: Interval) -> str:
    """What reconstructions of mistakes look like, by a rule fixed before the numbers.

    to_input_minus_to_wrong: perceptual distance to the input minus that to the wrong class.
    true_minus_predicted: share of reconstructions that an independent classifier assigns to the true class minus the
        share that it assigns to the predicted one.
    """
    nearer = sign_of(to_input_minus_to_wrong, "like the wrong class", "like the input", "as much like either")
    named = sign_of(true_minus_predicted, "as the true class", "as the predicted class", "as either")
    return f"look {nearer} and are read {named}"
