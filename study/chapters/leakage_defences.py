"""What a device can do to features before it sends them: additive noise, coarse numbers, dropout, fewer channels.

Split computing (Dong et al. 2021, arXiv 2107.06304, version 2): a device computes the first blocks of a classifier and
sends their output to a cloud, which computes the rest. Whoever listens may reconstruct the image; a *defence* changes
what is sent, h -> h', and hopes that the cloud can still classify:

- `noise`:    h' = h + s σ ε,  ε ~ N(0, I), in units of each channel's standard deviation σ;
- `quantise`: h' = μ + Δσ (⌊(h - μ) / Δσ⌋ + 1/2), clipped to 2^b values a channel;
- `dropout`:  h' = m h / (1 - p),  a share p of the mask m being 0 (Srivastava et al. 2014);
- `prune`:    the channels that vary least are not sent, and the cloud puts their mean μ in their place.

μ and σ are those of `Statistics`, over synthetic images: a defence, which an attacker is assumed to know, must not tell
of private ones. Each function here makes a defence of one strength; the defence is a pure function of features
(N, C, ...) and a generator of random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEARNED = "NoPeek"  # the defence of `leakage_learned`, which changes the network, not what it sends
Defence = Callable[[Tensor, torch.Generator | None], Tensor]  # (features, generator) -> features of the same shape

# Steps, in standard deviations, of the uniform quantiser of 1, 2, … 8 bits that suits a Gaussian best (Max 1960).
STEPS = (1.596, 0.9957, 0.586, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, (C,), over images and places."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Those of features (N, C, ...)."""
        values = features.transpose(0, 1).flatten(1)
        if values.shape[1] < 2:
            raise ValueError(
                f"Features {tuple(features.shape)} have one number a channel: take statistics of more images."
            )
        return cls(values.mean(1), values.std(1))

    def like(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation shaped to go with features (N, C, ...)."""
        if features.dim() < 2 or features.shape[1] != len(self.mean):
            raise ValueError(
                f"These statistics are of {len(self.mean)} channels, the features are {tuple(features.shape)}: take "
                "the statistics at the depth that is sent."
            )
        shape = (1, -1) + (1,) * (features.dim() - 2)
        return self.mean.to(features).view(shape), self.std.to(features).view(shape)


def none(strength: float = 0, statistics: Statistics | None = None) -> Defence:
    """The features as they are."""
    return lambda features, generator=None: features


def noise(sd: float, statistics: Statistics) -> Defence:
    """Adds Gaussian noise of `sd` standard deviations of each channel."""
    if not isinstance(sd, int | float) or not 0 <= sd < math.inf:
        raise ValueError(f"Noise has a finite standard deviation of 0 or more, not {sd!r}.")

    def defend(features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        _, std = statistics.like(features)
        drawn = torch.randn(features.shape, generator=generator, device=features.device, dtype=features.dtype)
        return features + sd * std * drawn

    return defend


def quantise(bits: int, statistics: Statistics) -> Defence:
    """Rounds to 2^bits equally spaced values a channel, symmetric about its mean, with a Gaussian's best spacing.

    The error is half a step at most within 2^(bits - 1) steps of the mean; what is farther off is clipped.
    """
    if bits not in range(1, len(STEPS) + 1):
        raise ValueError(f"Quantise to a whole number of bits from 1 to {len(STEPS)}, not {bits!r}.")
    half = 2 ** (int(bits) - 1)

    def defend(features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, std = statistics.like(features)
        step = STEPS[int(bits) - 1] * std
        cell = ((features - mean) / step.clamp_min(1e-12)).floor().clamp(-half, half - 1)
        return mean + (cell + 0.5) * step

    return defend


def dropout(share: float, statistics: Statistics | None = None) -> Defence:
    """Sets each number to 0 with probability `share` and divides the others by 1 - share, which keeps the mean."""
    _check_share(share)

    def defend(features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        drawn = torch.rand(features.shape, generator=generator, device=features.device)
        return features * (drawn >= share) / (1 - share)

    return defend


def prune(share: float, statistics: Statistics) -> Defence:
    """Replaces the `share` of the channels whose variance is least by their mean."""
    kept = kept_channels(share, statistics)

    def defend(features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, _ = statistics.like(features)
        keep = torch.zeros_like(mean, dtype=torch.bool)
        keep[:, kept.to(keep.device)] = True
        return torch.where(keep, features, mean)

    return defend


def kept_channels(share: float, statistics: Statistics) -> Tensor:
    """The channels that `prune` leaves, in order: all but the round(share * C) of least variance."""
    _check_share(share)
    order = statistics.std.argsort(stable=True)
    return order[round(share * len(order)) :].sort().values


def _check_share(share: float) -> None:
    if not isinstance(share, int | float) or not 0 <= share < 1:
        raise ValueError(f"A share is from 0 to below 1, not {share!r}: something must be sent.")


DEFENCES: dict[str, Callable[[float, Statistics], Defence]] = {
    "none": none,
    "noise": noise,
    "quantisation": quantise,
    "dropout": dropout,
    "pruning": prune,
}


def make(name: str, strength: float, statistics: Statistics) -> Defence:
    """A defence by name: noise (standard deviations), quantisation (bits), dropout (share), pruning (share), none."""
    if name not in DEFENCES:
        raise ValueError(f"There is no defence {name!r}: choose one of {', '.join(DEFENCES)}.")
    return DEFENCES[name](strength, statistics)


def setting_label(name: str, strength: float) -> str:
    """A short label, such as "noise, 0.5 s.d." or "quantisation, 1 bit"."""
    if name == "none":
        return "no defence"
    if name == LEARNED:
        return f"{name}, w = {strength:g}"
    if name == "noise":
        return f"{name}, {strength:g} s.d."
    if name == "quantisation":
        return f"{name}, {strength:g} bit{'s' * (strength != 1)}"
    return f"{name}, {strength:.0%}".replace("%", " %")
