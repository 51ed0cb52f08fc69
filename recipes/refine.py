"""Further training of the deep inverses of a chain alone, on windows of the maps: our addition to Dong et al. (2021).

Re-synchronising (`invkit.dci.synchronise`) from a deep block spends most of its time in the shallow inverses, whose
maps are many times larger than those of the deep ones. Here the shallow inverses are frozen, and they invert only a
*window* of the representation at the cut between the two: half as wide and high, it is a quarter of their work. The
reconstruction of the window is compared with the image behind it, except for a margin, because places at the edge of a
window lack neighbours that they have in the whole map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit.dci.chain import Chain, ChainLossWeights, loss_terms, represent, spread
from invkit.dci.training import random_depths
from invkit.seeds import generator_for
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
    """Train the inverses deeper than `depth`, in place; those above it stay as they are.

    Args:
        chain: the inverses g_1 … g_K.
        blocks: the network's own frozen blocks f_1 … f_K.
        batches: batches(step) returns images (N, 3, S, S) in [0, 1]; they must depend on the step alone.
        depth: the cut, 1 to K - 1.
        window: side of the window of h_depth that the shallow inverses invert, in places of that map.
        margin: pixels on each side of the window's reconstruction that do not count.
        steps: training steps.
        lr: largest learning rate.
        weights: of the block term and of the window's input term; the cycle term would need the whole image.
        often: one number for each of the depths `depth` + 1, `depth` + 2, …, how often it is visited relative to the
            others; None visits all equally often.
        folder: for checkpoints; a stopped run goes on from there. None keeps none.
        seed, precision, progress: as for `train_chain`.

    Raises:
        ValueError: weights with a cycle term; a window larger than the map, or one of which the margin leaves nothing.
    """
    if weights.cycle:
        raise ValueError("A cycle term needs the whole image, and only a window is inverted: set the weight cycle=0.")
    down_of = random_depths(often, len(chain.inverses) - depth, seed)
    shallow, deep = chain.slice(0, depth), chain.slice(depth, len(chain.inverses))
    chain.requires_grad_(False)
    deep.requires_grad_(True)

    def loss(module: nn.Module, images: Tensor, step: int):
        down = down_of(step)
        with torch.no_grad():
            path = represent(blocks, images, depth + down)[depth:]
        reconstructions = module(path[-1], down)
        at_cut = reconstructions[-1]
        places, pixels = windows(at_cut.shape[-1], images.shape[-1], window, margin, generator_for(seed, step))
        image = shallow(at_cut[:, :, *places].contiguous(memory_format=torch.channels_last), depth)[-1]
        inner = slice(margin, image.shape[-1] - margin)
        units = [spread(h) for h in path[-2::-1]]
        return loss_terms(
            [*reconstructions, image[:, :, inner, inner]], [images[:, :, *pixels], *path], blocks, units, weights
        )

    done = train(
        Player("deep", deep, loss, lr=lr, clip=1.0), batches, steps=steps, ema=0.995, folder=folder, seed=seed,
        precision=precision, progress=progress, description=f"inverses below {depth}",
    )  # fmt: skip
    chain.requires_grad_(True)
    return done


def windows(
    places: int, pixels: int, window: int, margin: int, generator: torch.Generator
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """A random square window of a map, and the same window of the image behind that map.

    Args:
        places: side of the map.
        pixels: side of the image, a multiple of `places`.
        window: side of the window in places, 1 to `places`.
        margin: pixels that are taken off each side of the image's window.
        generator: of the window's position.

    Returns:
        (rows, columns) of the window in the map, and (rows, columns) in the image, as slices.

    Raises:
        ValueError: there is no such window.
    """
    scale, rest = divmod(pixels, places)
    if rest or not 0 < window <= places or not 0 <= 2 * margin < window * scale:
        raise ValueError(
            f"There is no window of {window} places with a margin of {margin} pixels in a map of {places} places on a "
            f"side for images of {pixels} pixels: choose a smaller one, or another depth."
        )
    top, left = torch.randint(places - window + 1, (2,), generator=generator).tolist()

    def pixels_of(start: int) -> slice:
        return slice(scale * start + margin, scale * (start + window) - margin)

    return (slice(top, top + window), slice(left, left + window)), (pixels_of(top), pixels_of(left))
