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

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit.dci.chain import Chain, ChainLossWeights, loss_terms, represent, spread
from invkit.training import Player, Trained, train


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


WEIGHTS, SCHEDULE = ChainLossWeights(), Schedule()  # the defaults


def train_chain(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int, int], Tensor],
    *,
    schedule: Schedule = SCHEDULE,
    weights: ChainLossWeights = WEIGHTS,
    synchronise_weights: ChainLossWeights | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
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
    weights: ChainLossWeights = WEIGHTS,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
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
