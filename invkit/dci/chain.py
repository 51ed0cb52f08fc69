"""A chain of block inverses and its losses (Dong et al. 2021, arXiv 2107.06304).

A frozen network is a composition of shallow blocks, f = f_N ∘ … ∘ f_1. Every block gets an inverse g_k of its own, and
the chain x̂ = g_1 ∘ … ∘ g_k (y) reconstructs the input x from the representation y = f_k ∘ … ∘ f_1(x) of depth k. Three
terms train it:

    block term   g_k(f_k(h)) ≈ h       in the block's own input, in units of each channel's standard deviation
    input term   x̂ ≈ x                 on the synthetic inputs, through the inverses trained before
    cycle term   f_k ∘ … ∘ f_1(x̂) ≈ y  the reconstruction passed through the attacked network again

Each term is the mean over the batch of the *logarithm* of each sample's mean squared error (`log_error`). For the input
term of an image this is its PSNR up to sign and scale. It makes terms, samples and depths whose errors differ by orders
of magnitude comparable, so that none needs a weight of its own.

A trained chain can correct itself by error feedback (`invert_representation`), without training and without an image:
with g the chain and f the network up to the same depth, the reconstruction is represented and inverted again, and what
this second inversion loses is added to the first, x̂ ← x̂ + r (g(y) - g(f(x̂))). Where a chain's errors are systematic,
a few such steps remove most of them; their number is fixed beforehand on synthetic inputs (`choose_feedback`).

The input is an image for a classifier and a latent for a generator: the code is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import Tensor, nn

from invkit.checks import checked
from invkit.dci.inverse_block import InverseBlock
from invkit.dci.layout import Layout, layout_of
from invkit.network.classifiers import Classifier
from invkit.processes import mean_over_processes, process_count

FLOOR = 1e-5  # added to every squared error before its logarithm, so that an exact sample has a finite one


@checked
@dataclass(frozen=True)
class ChainLossWeights:
    """Weights of the three loss terms of a chain; a term of weight 0 is not computed.

    Attributes:
        block: weight of the block term, 0 or more.
        input: weight of the input term, 0 or more.
        cycle: weight of the cycle term, 0 or more; it costs one more pass through the network.

    Raises:
        ValueError: a negative weight, or three zeros.
    """

    block: float = 1.0
    input: float = 1.0
    cycle: float = 0.1

    def __post_init__(self):
        if min(self.block, self.input, self.cycle) < 0 or self.block + self.input + self.cycle == 0:
            raise ValueError(f"Loss weights must be zero or more, and not all zero: {self}.")


class Chain(nn.Module):
    """The inverses g_1 … g_K of the first K blocks of a network.

    Args:
        shapes: shapes of the input h_0 and of the blocks' outputs h_1, …, h_K, without the batch: K + 1 of them.
        sizes: (width, residual blocks) of each inverse, or (width, residual blocks, places), as for `InverseBlock`; a
            width of 0 makes it one convolution.

    Raises:
        ValueError: numbers of shapes and sizes that do not fit together.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]]):
        super().__init__()
        if len(shapes) != len(sizes) + 1:
            raise ValueError(f"{len(sizes)} inverses need {len(sizes) + 1} shapes (input's first), not {len(shapes)}.")
        self.inverses = nn.ModuleList(InverseBlock(shapes[k + 1], shapes[k], *size) for k, size in enumerate(sizes))

    def slice(self, above: int, deepest: int) -> Chain:
        """The chain of g_{above+1} … g_deepest, which shares these modules: it inverts depth `deepest` to `above`."""
        part = Chain([()], [])
        part.inverses = nn.ModuleList(self.inverses[above:deepest])
        return part

    def forward(self, h: Tensor | list[Tensor], depth: int) -> list[Tensor]:
        """Invert a representation step by step; or each of a list of them, [h_1, …, h_K], by its own inverse alone.

        Args:
            h: a representation of depth `depth`, (N, ...).
            depth: 0 (nothing to invert) to K.

        Returns:
            The reconstructions [ĥ_{depth-1}, …, ĥ_1, ĥ_0 = x̂] of all representations above it and of the input.
        """
        if isinstance(h, list):
            return [inverse(one) for inverse, one in zip(self.inverses, h, strict=True)]
        reconstructions = []
        for inverse in reversed(self.inverses[:depth]):
            h = inverse(h)
            reconstructions.append(h)
        return reconstructions


def represent(blocks: Sequence[Callable[[Tensor], Tensor]], x: Tensor, depth: int) -> list[Tensor]:
    """The inputs x and their representations [h_0 = x, h_1, …, h_depth] by the network's own blocks."""
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
    """Reconstruct the inputs of representations, with error feedback if wanted.

    Args:
        chain: the inverses g_1 … g_K.
        blocks: the network's own blocks f_1 … f_K; not used without feedback.
        y: representations of depth `depth`, (N, ...).
        depth: 1 to K.
        feedback: (steps, rate) of error feedback; every step costs one more pass through the network and the chain.
        bounds: smallest and largest value of an input, (0, 1) for images: every reconstruction is clipped to them.
            None clips nothing.

    Returns:
        Inputs, (N, ...).
    """
    steps, rate = feedback
    return next(islice(_corrected(chain, blocks, y, depth, rate, bounds), steps, None))


def _corrected(chain, blocks, y, depth, rate, bounds) -> Iterator[Tensor]:
    """The reconstruction of y, then the one after one more step of error feedback, and so on."""
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
    """Choose the error feedback of least error on held-out synthetic inputs.

    Args:
        chain, blocks, depth, bounds: as for `invert_representation`.
        x: inputs that training has not seen, (N, ...).
        error: what to minimise, a function of the reconstructions of x; None for their `log_error`.
        most: largest number of steps to try. One more step must lower the error by at least 0.1 dB.
        rates: rates to try.

    Returns:
        (steps, rate); (0, 1.0) where feedback does not help.
    """
    error = error or (lambda reconstruction: log_error(reconstruction, x))
    y = represent(blocks, x, depth)[-1]
    earn = 0.01  # log10 of squared error: 0.1 dB
    best, lowest = (0, 1.0), math.inf
    for rate in rates:
        for steps, reconstruction in enumerate(islice(_corrected(chain, blocks, y, depth, rate, bounds), most + 1)):
            value = error(reconstruction) + earn * steps
            if value < lowest:
                best, lowest = (steps, rate), value
    return best


def classifier_blocks(classifier: Classifier) -> list[Callable[[Tensor], Tensor]]:
    """The blocks of a classifier from map to map (`invkit.dci.layout`), the first from images in [0, 1].

    The first is preceded by the normalisation. Its images are not checked: the reconstructions of a chain in training
    may lie outside [0, 1].
    """
    image = layout_of((classifier.channels, classifier.size, classifier.size), classifier.size)
    layouts = [image, *(layout_of(block.shape, classifier.size) or image for block in classifier.blocks)]
    first, *rest = map(_between_maps, classifier.blocks, layouts, layouts[1:])
    return [lambda images: first(classifier.normalise(images)), *rest]


def map_shapes(classifier: Classifier) -> list[tuple[int, ...]]:
    """The shapes of h_0, h_1, … as a chain takes them: of the images, then of the blocks' outputs as maps.

    The last is that before the first output whose layout is not known.
    """
    image = (classifier.channels, classifier.size, classifier.size)
    layouts = (layout_of(block.shape, classifier.size) for block in classifier.blocks)
    return [image, *(layout.map_shape for layout in takewhile(lambda layout: layout is not None, layouts))]


def _between_maps(block: Callable[[Tensor], Tensor], before: Layout, after: Layout) -> Callable[[Tensor], Tensor]:
    if before.order == after.order == "as it is":
        return block
    return lambda h: after.to_map(block(before.from_map(h)))


def log_error(reconstruction: Tensor, truth: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """The mean over samples of log10 of each sample's mean squared error: minus a tenth of the mean PSNR in dB.

    Args:
        reconstruction, truth: (N, ...), of one shape.
        scale: unit of the error, a number or a tensor that broadcasts to them.

    Returns:
        A scalar in float32.
    """
    error = ((reconstruction.float() - truth.float()) / scale).square().flatten(1).mean(1)
    return (error + FLOOR).log10().mean()


def loss_terms(
    reconstructions: list[Tensor],
    hidden: list[Tensor],
    blocks: Sequence[Callable[[Tensor], Tensor]],
    units: Sequence[Tensor | float],
    weights: ChainLossWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a chain: the weighted sum of its terms.

    Args:
        reconstructions: [ĥ_{k-1}, …, ĥ_0], as `Chain.forward` returns them for hidden[k].
        hidden: [h_0 = x, …, h_k], as `represent` returns them.
        blocks: the network's own blocks f_1 … f_K, for the cycle term.
        units: standard deviations of h_{k-1}, h_{k-2}, …; the block term is the mean over as many blocks as have one.
        weights: of the terms.

    Returns:
        The loss, a scalar, and the terms by name without their weights.
    """
    terms = {}
    if weights.block:
        truths = hidden[-2::-1]
        errors = [log_error(r, h, u) for r, h, u in zip(reconstructions, truths, units, strict=False)]
        terms["block"] = sum(errors) / len(errors)
    if weights.input:
        terms["input"] = log_error(reconstructions[-1], hidden[0])
    if weights.cycle:
        again = represent(blocks, reconstructions[-1], len(hidden) - 1)[-1]
        terms["cycle"] = log_error(again, hidden[-1], spread(hidden[-1]))
    return sum(getattr(weights, name) * value for name, value in terms.items()), terms


def spread(h: Tensor) -> Tensor:
    """The standard deviation of each channel over its map and the batch, of all processes: (1, C, 1, 1) or (1, C)."""
    values, around = h.float(), [d for d in range(h.dim()) if d != 1]
    if process_count() == 1:
        return values.std(dim=around, keepdim=True) + 1e-3
    moments = torch.stack([values.mean(around, keepdim=True), values.square().mean(around, keepdim=True)])
    mean, square = mean_over_processes(moments)
    n = process_count() * h.numel() // h.shape[1]
    return ((square - mean.square()).clamp_min(0) * (n / (n - 1))).sqrt() + 1e-3
