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

Reading can feed its own error back, without training and without an image (`read`): the reading is represented and read
again, and what that second reading loses, the first is given back, x̂ ← x̂ + r (g(y) - g(f(x̂))). Where a chain's errors
are systematic, a few such steps, a fixed number chosen on synthetic inputs, remove most of them.

The input is an image for a classifier and a latent for a generator: the code is the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit.networks import InverseBlock
from invkit.training import Player, Trained, train

FLOOR = 1e-5  # added to every squared error before its logarithm: what is below counts as exact


@dataclass(frozen=True)
class Weights:
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

    def part(self, above: int, deepest: int) -> Chain:
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


def read(
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
    readings: list[Tensor], hidden: list[Tensor], blocks: Sequence[Callable], units: Sequence[Tensor], weights: Weights
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


@dataclass(frozen=True)
class Schedule:
    """How long each phase lasts, in steps, and at which learning rate.

    divide: steps of each inverse by itself; 0 starts the chain as a whole. synchronise: steps of the chain as a whole;
        0 leaves every inverse as it was trained by itself. Both with one depth in `often` and the input term alone make
        the end-to-end decoder that the method is compared with.
    often: how often synchronising visits each depth, relative to the others; None visits all alike.
    cycle_every: synchronising adds the cycle term, which costs a pass through the network and back, in every so many
        steps.
    """

    divide: int = 1000
    synchronise: int = 10000
    divide_lr: float = 2e-3
    synchronise_lr: float = 5e-4
    often: tuple[float, ...] | None = None
    cycle_every: int = 1


WEIGHTS, SCHEDULE = Weights(), Schedule()  # the defaults


def train_chain(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int, int], Tensor],
    *,
    schedule: Schedule = SCHEDULE,
    weights: Weights = WEIGHTS,
    synchronise_weights: Weights | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "no",
    progress: bool = True,
) -> list[Trained]:
    """Divide, conquer and re-synchronise; returns what each phase of training leaves, the last being the whole chain's.

    Args:
        chain: the inverses, trained in place.
        blocks: the network's own frozen blocks f_1 … f_K.
        batches: batches(step, depth) gives the inputs of a step that trains that depth; it must depend on these alone.
        synchronise_weights: the weights of the second phase, by default those of the first.
        folder: for checkpoints, one subfolder a phase; a stopped run goes on from there. None keeps none.
    """
    folder = Path(folder) if folder is not None else None
    settings = {"seed": seed, "precision": precision, "progress": progress}
    done = []
    chain.requires_grad_(False)
    for depth, inverse in enumerate(chain.inverses, start=1):
        with torch.no_grad():
            hidden = represent(blocks, batches(0, depth), depth)
            inverse.calibrate(hidden[depth], hidden[depth - 1])
        if schedule.divide == 0:
            continue

        def divide(module: nn.Module, x: Tensor, step: int, depth: int = depth):
            with torch.no_grad():
                hidden = represent(blocks, x, depth)
            readings = [module(hidden[depth])]
            if weights.input or weights.cycle:
                readings += chain(readings[0], depth - 1)
            return loss_terms(readings, hidden, blocks, [spread(hidden[depth - 1])], weights)

        inverse.requires_grad_(True)
        trained = train(
            Player(f"g{depth}", inverse, divide, lr=schedule.divide_lr, clip=1.0),
            lambda step, depth=depth: batches(step, depth),
            steps=schedule.divide,
            ema=0.99,
            folder=folder and folder / f"divide-{depth:02d}",
            description=f"inverse {depth} of {len(blocks)}",
            **settings,
        )
        done.append(trained)
        inverse.requires_grad_(False)

    if schedule.synchronise:
        later = synchronise(
            chain,
            blocks,
            lambda step, depth: batches(schedule.divide + step, depth),
            schedule=schedule,
            weights=synchronise_weights or weights,
            folder=folder and folder / "synchronise",
            **settings,
        )
        done.append(later)
    chain.requires_grad_(True)
    return done


def synchronise(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int, int], Tensor],
    *,
    schedule: Schedule,
    weights: Weights = WEIGHTS,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "no",
    progress: bool = True,
) -> Trained:
    """Train all inverses of a chain together, every step from one random depth; arguments as for `train_chain`."""
    chain.requires_grad_(True)
    depth_of = draw_depths(schedule.often, len(chain.inverses), seed)
    cheap = dataclasses.replace(weights, cycle=0.0) if weights.block or weights.input else weights

    def loss(module: nn.Module, x: Tensor, step: int):
        depth = depth_of(step)
        with torch.no_grad():
            hidden = represent(blocks, x, depth)
        terms = cheap if step % schedule.cycle_every else weights
        units = ([spread(h) for h in hidden[-2:0:-1]] or [spread(x)]) if terms.block else []
        return loss_terms(module(hidden[depth], depth), hidden, blocks, units, terms)

    return train(
        Player("chain", chain, loss, lr=schedule.synchronise_lr, clip=1.0),
        lambda step: batches(step, depth_of(step)),
        steps=schedule.synchronise,
        ema=0.999,
        folder=folder,
        seed=seed,
        precision=precision,
        progress=progress,
        description="re-synchronising",
    )


def draw_depths(often: Sequence[float] | None, count: int, seed: int) -> Callable[[int], int]:
    """The depth, 1 to count, that each step of training visits: random, in proportion to `often`; None: all alike."""
    often = torch.tensor(often or (1.0,) * count, dtype=torch.float32)
    if len(often) != count:
        raise ValueError(f"`often` needs one number for each of the {count} inverses, not {len(often)}.")

    def depth_of(step: int) -> int:
        g = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return 1 + int(torch.multinomial(often, 1, generator=g))

    return depth_of
