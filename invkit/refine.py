"""Train the deep inverses of a chain further, where time goes into them alone.

Re-synchronising (`invkit.dci`) from a deep block spends its time mostly in the shallow inverses, whose maps are many
times larger than those in question. Here the chain is cut below some depth: the representations of that depth are
computed once for thousands of synthetic images (`remember`), and the inverses of the blocks below train on these. Their
image term is read by a *preview*, a small network taught before, and then frozen, to read a thumbnail of the image from
the representations at the cut. What a deep block still knows of an image is coarse, so a thumbnail judges it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from invkit import store
from invkit.dci import Chain, Weights, draw_depths, log_error, loss_terms, represent, spread
from invkit.networks import InverseBlock
from invkit.training import Player, Trained, train


@dataclass(frozen=True)
class Remembered:
    """Representations of one depth, (N, C, H, W) in bfloat16, and thumbnails (N, 3, s, s), uint8, of their images."""

    hidden: Tensor
    thumbnails: Tensor

    def batch(self, step: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n of them, (hidden, thumbnails in [0, 1]) in float32; the same for the same step and seed."""
        g = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(self.hidden), (n,), generator=g)
        hidden = self.hidden[chosen].float().contiguous(memory_format=torch.channels_last)
        return hidden, self.thumbnails[chosen].float() / 255


@torch.no_grad()
def remember(
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int], Tensor],
    depth: int,
    count: int,
    thumbnail: int,
    file: Path | None = None,
) -> Remembered:
    """What the network's blocks make of batches(0) … batches(count - 1), images in [0, 1], at that depth.

    file: kept there, whole or not at all, for a run that is stopped and started again.
    """

    def make() -> dict[str, Tensor]:
        hidden, thumbnails = [], []
        for step in tqdm(range(count), desc=f"representations of depth {depth}", unit="batch"):
            images = batches(step)
            with torch.autocast(images.device.type, torch.bfloat16):
                hidden.append(represent(blocks, images, depth)[-1].bfloat16().contiguous())
            small = F.interpolate(images, (thumbnail, thumbnail), mode="area")
            thumbnails.append((small * 255).round().to(torch.uint8))
        return {"hidden": torch.cat(hidden), "thumbnails": torch.cat(thumbnails)}

    return Remembered(**store.kept(file, make))


def refine(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    remembered: Remembered,
    depth: int,
    deepest: int,
    *,
    batch: int,
    steps: int,
    preview_steps: int,
    lr: float,
    weights: Weights,
    preview: tuple[int, int] = (96, 3),
    often: Sequence[float] | None = None,
    folder: Path | None = None,
    seed: int = 0,
    precision: str = "no",
    progress: bool = True,
) -> list[Trained]:
    """Train g_{depth+1} … g_deepest, in place, from representations of `depth`; all other inverses stay as they are.

    preview: (width, residual blocks) of the network that reads thumbnails, trained for preview_steps.
    weights: of the block term and of the preview's image term; the cycle term would need the image itself.
    often: how often depth + 1, depth + 2, … deepest are read from, relative to each other; None: all alike.

    Raises:
        ValueError: weights with a cycle term.
    """
    if weights.cycle:
        raise ValueError("A cycle term needs the image itself, which a preview does not give: set Weights(cycle=0).")
    settings = {"seed": seed, "precision": precision, "progress": progress, "ema": 0.999}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = InverseBlock(chain.inverses[depth].out_shape, remembered.thumbnails.shape[1:], *preview)
    reader = reader.to(next(chain.parameters()).device, memory_format=torch.channels_last)
    reader.calibrate(*remembered.batch(0, 256, seed))

    def look(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        error = log_error(module(pair[0]), pair[1])
        return error, {"input": error}

    taught = train(
        Player("preview", reader, look, lr=2e-3, clip=1.0),
        lambda step: remembered.batch(step, batch, seed + 1),
        steps=preview_steps,
        folder=folder and folder / f"preview-{depth:02d}",
        description=f"preview from depth {depth}",
        **settings,
    )
    reader.requires_grad_(False)
    down_of = draw_depths(often, deepest - depth, seed)

    def read_back(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        hidden, thumbnails = pair
        down = down_of(step)
        with torch.no_grad():
            path = represent(blocks[depth:], hidden, down)
        readings = module(path[-1], down)
        units = [spread(h) for h in path[-2::-1]]
        return loss_terms([*readings, reader(readings[-1])], [thumbnails, *path], blocks, units, weights)

    chain.requires_grad_(False)
    deep = chain.part(depth, deepest).requires_grad_(True)
    trained = train(
        Player("deep", deep, read_back, lr=lr, clip=1.0),
        lambda step: remembered.batch(step, batch, seed + 2),
        steps=steps,
        folder=folder and folder / f"refine-{depth:02d}",
        description=f"inverses {depth + 1} to {deepest}",
        **settings,
    )
    chain.requires_grad_(True)
    return [taught, trained]
