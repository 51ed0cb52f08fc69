"""Divide-and-conquer inversion (Dong et al. 2021, arXiv 2107.06304): a network read back block by block, without data.

A frozen network is a composition of shallow blocks, f = f_N ∘ … ∘ f_1. Every block gets an inverse g_k of its own, and
the chain g_1 ∘ … ∘ g_k reads the input x back from the representation of depth k, y = f_k ∘ … ∘ f_1(x). With its
reading x̂,

    block term   g_k(f_k(h)) ≈ h       in the block's own input, in units of each channel's standard deviation
    input term   x̂ ≈ x                 on the synthetic inputs, through the inverses trained before
    cycle term   f_k ∘ … ∘ f_1(x̂) ≈ y  the reading sent through the attacked network again

`train_chain` trains the inverses one after another from the input side (divide and conquer), then all together from
random depths, so that each learns to take what its successor puts out (re-synchronise). All three errors enter as the
mean over the batch of the *logarithm* of each sample's mean squared error. For the input term of an image this is its
PSNR up to sign and scale, and it makes terms, samples and depths of very different errors comparable without a weight
for each.

Reading can feed its own error back, without training and without an image (`invert_representation`): the reading is represented and read
again, and what that second reading loses, the first is given back, x̂ ← x̂ + r (g(y) - g(f(x̂))). Where a chain's errors
are systematic, a few such steps, a fixed number chosen on synthetic inputs, remove most of them.

The input is an image for a classifier and a latent for a generator: the code is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from invkit.dci.inverse_block import InverseBlock

FLOOR = 1e-5  # added to every squared error before its logarithm: what is below counts as exact


@dataclass(frozen=True)
class ChainLossWeights:
    """Weight of each loss term; 0 switches a term off (its cost too). The terms are in the module's docstring."""

    block: float = 1.0
    input: float = 1.0
    cycle: float = 0.1

    def __post_init__(self):
        if min(self.block, self.input, self.cycle) < 0 or self.block + self.input + self.cycle == 0:
            raise ValueError(f"Loss weights must be zero or more, and not all zero: {self}.")


class Chain(nn.Module):
    """The inverses g_1 … g_K of the first K blocks.

    Args:
        shapes: shapes of h_0 (the input), h_1, …, h_K without the batch.
        sizes: (width, residual blocks) of each inverse; a width of 0 is one convolution (`InverseBlock`).
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, int]]):
        super().__init__()
        if len(shapes) != len(sizes) + 1:
            raise ValueError(
                f"{len(sizes)} inverses need {len(sizes) + 1} shapes (the input's first), not {len(shapes)}."
            )
        self.inverses = nn.ModuleList(
            InverseBlock(shapes[k + 1], shapes[k], width, blocks) for k, (width, blocks) in enumerate(sizes)
        )

    def slice(self, above: int, deepest: int) -> Chain:
        """The chain of g_{above+1} … g_deepest, the same modules: it reads representations of depth `above` back."""
        part = Chain([()], [])
        part.inverses = nn.ModuleList(self.inverses[above:deepest])
        return part

    def forward(self, h: Tensor, depth: int) -> list[Tensor]:
        """Readings [ĥ_{depth-1}, …, ĥ_1, ĥ_0 = x̂] of a representation h of that depth."""
        readings = []
        for inverse in reversed(self.inverses[:depth]):
            h = inverse(h)
            readings.append(h)
        return readings


def represent(blocks: Sequence[Callable[[Tensor], Tensor]], x: Tensor, depth: int) -> list[Tensor]:
    """[h_0 = x, h_1, …, h_depth] by the network's own blocks."""
    hidden = [x]
    for block in blocks[:depth]:
        hidden.append(block(hidden[-1]))
    return hidden


def invert_representation(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    y: Tensor,
    depth: int,
    feedback: tuple[int, float] = (0, 1.0),
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """The input behind a representation y of a depth, after `feedback` = (steps, rate) of error feedback.

    Every step costs one more pass through the network and the chain. `bounds`, (0, 1) for images, clip every reading.
    """
    steps, rate = feedback
    return next(islice(_corrected(chain, blocks, y, depth, rate, bounds), steps, None))


def _corrected(chain, blocks, y, depth, rate, bounds) -> Iterator[Tensor]:
    """The first reading of y, then the reading after one more step of error feedback, and so on."""
    first = x = _clip(chain(y, depth)[-1], bounds)
    while True:
        yield x
        again = _clip(chain(represent(blocks, x, depth)[-1], depth)[-1], bounds)
        x = _clip(x + rate * (first - again), bounds)


def _clip(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


@torch.no_grad()
def choose_feedback(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    x: Tensor,
    depth: int,
    bounds: tuple[float, float] | None = None,
    error: Callable[[Tensor], Tensor] | None = None,
    most: int = 4,
    rates: Sequence[float] = (0.5, 1.0),
) -> tuple[int, float]:
    """The (steps, rate) of error feedback that read held-out synthetic inputs x best.

    error: what to minimise, given readings of x; by default their `log_error`. A step more must earn at least 0.1 dB.
    """
    error = error or (lambda reading: log_error(reading, x))
    y = represent(blocks, x, depth)[-1]
    earn = 0.01  # log10 of squared error, 0.1 dB
    best, lowest = (0, 1.0), math.inf
    for rate in rates:
        for steps, reading in enumerate(islice(_corrected(chain, blocks, y, depth, rate, bounds), most + 1)):
            value = error(reading) + earn * steps
            if value < lowest:
                best, lowest = (steps, rate), value
    return best


def classifier_blocks(classifier) -> list[Callable[[Tensor], Tensor]]:
    """The blocks of a classifier, the first of which takes images in [0, 1]."""
    first, *rest = classifier.blocks
    with torch.inference_mode(False):  # a gradient has to pass them
        mean, std = (
            torch.tensor(v, device=classifier.device).view(1, 3, 1, 1) for v in (classifier.mean, classifier.std)
        )
    return [lambda images: first((images - mean) / std), *rest]


def log_error(reading: Tensor, truth: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Mean over samples of log10 of the sample's mean squared error, in units of `scale`; a scalar in float32."""
    error = ((reading.float() - truth.float()) / scale).square().flatten(1).mean(1)
    return (error + FLOOR).log10().mean()


def loss_terms(
    readings: list[Tensor],
    hidden: list[Tensor],
    blocks: Sequence[Callable],
    units: Sequence[Tensor],
    weights: ChainLossWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms, and each term, for readings [ĥ_{k-1}, …, ĥ_0] of hidden[k].

    The block term is the mean over the readings' blocks that `units` (standard deviations of h_{k-1}, h_{k-2}, …) has.
    """
    terms = {}
    if weights.block:
        truths = hidden[-2::-1]
        errors = [log_error(r, h, u) for r, h, u in zip(readings, truths, units, strict=False)]
        terms["block"] = sum(errors) / len(errors)
    if weights.input:
        terms["input"] = log_error(readings[-1], hidden[0])
    if weights.cycle:
        again = represent(blocks, readings[-1], len(hidden) - 1)[-1]
        terms["cycle"] = log_error(again, hidden[-1], spread(hidden[-1]))
    return sum(getattr(weights, name) * value for name, value in terms.items()), terms


def spread(h: Tensor) -> Tensor:
    """Standard deviation of each channel over the batch, (1, C, 1, 1) or (1, C)."""
    return h.float().std(dim=[d for d in range(h.dim()) if d != 1], keepdim=True) + 1e-3
