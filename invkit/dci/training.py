"""Training of a chain of inverses: divide and conquer, then re-synchronise (Dong et al. 2021, arXiv 2107.06304).

`train_chain` first trains the inverses one after another from the input side, each on the outputs of its own block
(divide and conquer). It then trains all of them together, every step from one random depth, so that each inverse learns
to take what its successor puts out instead of the true representation (re-synchronise). The loss terms of both phases
are those of `invkit.dci.chain`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invkit.checks import check_whole_number, checked
from invkit.dci.chain import Chain, ChainLossWeights, log_error, loss_terms, represent, spread
from invkit.dci.inverse_block import InverseBlock
from invkit.processes import process_count
from invkit.seeds import generator_for
from invkit.store import as_path
from invkit.training import Player, Trained, train


@checked
@dataclass(frozen=True)
class Schedule:
    """How long each phase of training lasts, and at which learning rate.

    A schedule with `divide` = 0 and one depth alone in `often`, together with the input term alone, trains the
    end-to-end decoder that the method is compared with.

    Attributes:
        divide: training steps of each inverse by itself; 0 leaves this phase out.
        synchronise: training steps of the whole chain; 0 leaves this phase out.
        divide_lr, synchronise_lr: largest learning rate of each phase.
        often: one number for each depth, how often the second phase visits it relative to the others; None visits all
            depths equally often.
        cycle_every: the second phase computes the cycle term only in every so many steps, since it costs a pass
            through the network and back.
    """

    divide: int = 1000
    synchronise: int = 10000
    divide_lr: float = 2e-3
    synchronise_lr: float = 5e-4
    often: tuple[float, ...] | None = None
    cycle_every: int = 1

    def __post_init__(self) -> None:
        check_whole_number(self.cycle_every, 1, "cycle_every")


EXAMPLE_PIXELS = 2**22  # of the images that the linear start of inverses is fitted to, at most
WEIGHTS, SCHEDULE = ChainLossWeights(), Schedule()  # the defaults


@checked
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
    at_once: bool = False,
) -> list[Trained]:
    """Train the inverses of a chain, in place: each by itself, then all together.

    Args:
        chain: the inverses g_1 … g_K.
        blocks: the network's own frozen blocks f_1 … f_K.
        batches: batches(step, depth) returns the inputs (N, ...) of a step that trains this depth; they must depend on
            step and depth alone. The second phase counts its steps on from `schedule.divide`.
        schedule: steps and learning rates.
        weights: of the loss terms of the first phase.
        synchronise_weights: of the loss terms of the second phase; None for those of the first.
        folder: where checkpoints are kept, one subfolder a phase; a stopped run goes on from there. None keeps none.
        seed: 0 or more.
        precision: "auto", "bf16" or "no", as for `invkit.training.train`.
        progress: show a progress bar.
        at_once: train the inverses by themselves at the same time, with the block term alone (`divide_at_once`), not
            one after another.

    Returns:
        A record of each phase of training: of every inverse, if they were trained by themselves, then of the chain.
    """
    folder = as_path(folder) if folder is not None else None
    settings: dict[str, Any] = {"seed": seed, "precision": precision, "progress": progress}
    done = []
    chain.requires_grad_(False)
    if at_once:
        place = folder and folder / "divide"
        done.append(divide_at_once(chain, blocks, batches, schedule=schedule, folder=place, **settings))
    for depth, inverse in enumerate(() if at_once else chain.inverses, start=1):
        with torch.no_grad():
            hidden = represent(blocks, batches(0, depth), depth)
            inverse.calibrate(hidden[depth], hidden[depth - 1])
        if schedule.divide:
            inverse.requires_grad_(True)
            player = Player(f"g{depth}", inverse, _divide(chain, blocks, depth, weights), schedule.divide_lr, clip=1.0)
            own = {"steps": schedule.divide, "folder": folder and folder / f"divide-{depth:02d}"}
            own["description"] = f"inverse {depth} of {len(blocks)}"
            done.append(train(player, partial(_at_depth, batches, depth), ema=0.99, **own, **settings))
            inverse.requires_grad_(False)

    if schedule.synchronise:
        later = lambda step, depth: batches(schedule.divide * process_count() + step, depth)  # noqa: E731
        settings |= {"schedule": schedule, "weights": synchronise_weights or weights}
        done.append(synchronise(chain, blocks, later, folder=folder and folder / "synchronise", **settings))
    chain.requires_grad_(True)
    return done


def _at_depth(batches: Callable[[int, int], Tensor], depth: int, step: int) -> Tensor:
    return batches(step, depth)


def _divide(chain: Chain, blocks: Sequence[Callable[[Tensor], Tensor]], depth: int, weights: ChainLossWeights):
    """The loss of one inverse by itself; its output passes the inverses above it if a term needs the input."""

    def loss(module: nn.Module, x: Tensor, step: int):
        with torch.no_grad():
            hidden = represent(blocks, x, depth)
        reconstructions = [module(hidden[depth])]
        if weights.input or weights.cycle:
            reconstructions += chain(reconstructions[0], depth - 1)
        return loss_terms(reconstructions, hidden, blocks, [spread(hidden[depth - 1])], weights)

    return loss


def divide_at_once(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int, int], Tensor],
    *,
    schedule: Schedule,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> Trained:
    """Train every inverse of a chain by itself, in place, all in the same steps: one pass of the network serves all.

    Each starts as the linear map of least squares, in closed form, so that a few steps suffice.

    Args:
        chain, blocks, batches, folder, seed, precision, progress: as for `train_chain`.
        schedule: `divide` and `divide_lr` are used.
    """
    depth = len(chain.inverses)
    start_linear(chain, blocks, batches)
    chain.requires_grad_(True)

    def loss(module: nn.Module, x: Tensor, step: int):
        with torch.no_grad():
            hidden = represent(blocks, x, depth)
        # through forward, without which several processes would not share gradients
        errors = [log_error(x, h, spread(h)) for x, h in zip(module(hidden[1:], depth), hidden, strict=False)]
        return torch.stack(errors).mean(), {}

    done = train(
        Player("chain", chain, loss, lr=schedule.divide_lr, clip=1.0), partial(_at_depth, batches, depth),
        steps=schedule.divide, ema=0.99, folder=folder, seed=seed, precision=precision, progress=progress,
        description="every inverse by itself",
    )  # fmt: skip
    chain.requires_grad_(False)
    return done


@torch.no_grad()
def start_linear(
    chain: Chain, blocks: Sequence[Callable[[Tensor], Tensor]], batches: Callable[[int, int], Tensor]
) -> None:
    """Calibrate every inverse, and fit its linear path to as many examples as it needs, or as memory allows."""
    most = max(16, min(256, EXAMPLE_PIXELS // math.prod(chain.inverses[0].out_shape[1:])))
    wanted = [_examples(inverse, most) for inverse in chain.inverses]
    pairs: list[list[tuple[Tensor, Tensor]]] = [[] for _ in wanted]
    seen = step = 0
    while seen < max(wanted):
        h = batches(step, len(wanted))
        for k in range(max(k for k, n in enumerate(wanted) if n > seen) + 1):
            y = blocks[k](h)
            if seen < wanted[k]:
                pairs[k].append((y, h))
            h = y
        seen, step = seen + len(h), step + 1
    for inverse, found in zip(chain.inverses, pairs, strict=True):
        source, target = (torch.cat(parts) for parts in zip(*found, strict=True))
        inverse.calibrate(source, target)
        inverse.fit_linear(source, target)


def _examples(inverse: InverseBlock, most: int) -> int:
    """How many images: four places for each channel, at least 16 (64 where places differ), and at most 128 MB."""
    channels, *sides = inverse.in_shape
    numbers = math.prod(inverse.in_shape) + math.prod(inverse.out_shape)
    needed = max(16 if inverse.in_place is None else 64, 4 * channels // math.prod(sides))
    return max(2, min(needed, most, 2**25 // numbers))


@checked
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
    """Train all inverses of a chain together, in place, every step from one random depth.

    Args:
        chain, blocks, folder, seed, precision, progress: as for `train_chain`.
        batches: batches(step, depth) returns the inputs of a step, as for `train_chain`; its steps count from 0.
        schedule: `synchronise`, `synchronise_lr`, `often` and `cycle_every` are used.
        weights: of the loss terms.

    Raises:
        ValueError: `schedule.often` does not have one number for each inverse.
    """
    chain.requires_grad_(True)
    depth_of = random_depths(schedule.often, len(chain.inverses), seed)
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
        lambda step: batches(step, depth_of(step // process_count())),  # all processes visit one depth in a step
        steps=schedule.synchronise, ema=0.999, folder=folder, seed=seed, precision=precision, progress=progress,
        description="re-synchronising",
    )  # fmt: skip


def random_depths(often: Sequence[float] | None, count: int, seed: int) -> Callable[[int], int]:
    """A function from a training step to the depth, 1 to `count`, that this step visits.

    Args:
        often: one number for each depth; a depth is visited with a probability in proportion to it. None for all equal.
        count: number of depths.
        seed: the depths follow from it and the step alone.

    Raises:
        ValueError: `often` has another length.
    """
    probabilities = torch.tensor(often or (1.0,) * count, dtype=torch.float32)
    if len(probabilities) != count:
        raise ValueError(f"`often` needs one number for each of the {count} inverses, not {len(probabilities)}.")

    def depth_of(step: int) -> int:
        return 1 + int(torch.multinomial(probabilities, 1, generator=generator_for(seed, step)))

    return depth_of
