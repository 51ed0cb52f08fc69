"""Train the deep inverses of a chain further, where time goes into them alone.

Re-synchronising (`invkit.dci`) from a deep block spends its time mostly in the shallow inverses, whose maps are many
times larger than those in question. Here these are frozen, and they read only a *window* of the representation at the
cut: half as wide and high, it is a quarter of their work. What they read is compared with the image behind the window,
but for a margin, since places at a window's edge lack neighbours that they would have in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit.dci.chain import Chain, ChainLossWeights, loss_terms, represent, spread
from invkit.dci.training import draw_depths
from invkit.training import Player, Trained, train


def refine(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int], Tensor],
    depth: int,
    *,
    window: int,
    margin: int,
    steps: int,
    lr: float,
    weights: ChainLossWeights,
    often: Sequence[float] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> Trained:
    """Train the inverses deeper than `depth`, in place, on images batches(step); those above stay as they are.

    Args:
        batches: step -> images (N, 3, S, S) in [0, 1].
        depth: the cut.
        window: places on a side of the window of h_depth that is read as an image.
        margin: pixels on each side of what is read there that do not count.
        weights: of the block term and of the window's image term; the cycle term would need the whole image.
        often: how often depth + 1, depth + 2, … are read from, relative to each other; None: all alike.
        folder: for checkpoints; a stopped run goes on from there.

    Raises:
        ValueError: weights with a cycle term; a window larger than the map, or one of which the margin leaves nothing.
    """
    if weights.cycle:
        raise ValueError(
            "A cycle term needs the whole image, of which only a window is read: set ChainLossWeights(cycle=0)."
        )
    down_of = draw_depths(often, len(chain.inverses) - depth, seed)
    shallow, deep = chain.slice(0, depth), chain.slice(depth, len(chain.inverses))
    chain.requires_grad_(False)
    deep.requires_grad_(True)

    def read_back(module: nn.Module, images: Tensor, step: int):
        down = down_of(step)
        with torch.no_grad():
            path = represent(blocks, images, depth + down)[depth:]
        readings = module(path[-1], down)
        places, pixels = windows(readings[-1].shape[-1], images.shape[-1], window, margin, seed * 1_000_003 + step)
        seen = shallow(readings[-1][:, :, *places].contiguous(memory_format=torch.channels_last), depth)[-1]
        inner = slice(margin, seen.shape[-1] - margin)
        units = [spread(h) for h in path[-2::-1]]
        return loss_terms([*readings, seen[:, :, inner, inner]], [images[:, :, *pixels], *path], blocks, units, weights)

    done = train(
        Player("deep", deep, read_back, lr=lr, clip=1.0), batches, steps=steps, ema=0.995, folder=folder, seed=seed,
        precision=precision, progress=progress, description=f"inverses below {depth}",
    )  # fmt: skip
    chain.requires_grad_(True)
    return done


def windows(
    places: int, pixels: int, window: int, margin: int, seed: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """A random square window of a map of `places` on a side, as (rows, columns) of the map and of its image, of
    `pixels` on a side, from which a margin is taken off. Raises ValueError where there is no such window."""
    scale, rest = divmod(pixels, places)
    if rest or not 0 < window <= places or not 0 <= 2 * margin < window * scale:
        raise ValueError(
            f"There is no window of {window} places with a margin of {margin} pixels in a map of {places} places on a "
            f"side for images of {pixels} pixels: choose a smaller one, or another depth."
        )
    starts = torch.randint(places - window + 1, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
    on_map = tuple(slice(start, start + window) for start in starts)
    return on_map, tuple(slice(scale * s.start + margin, scale * s.stop - margin) for s in on_map)
