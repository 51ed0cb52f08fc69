"""Read deep representations back as a whole: one inverse a depth, from the map to the image, and no chain.

Every inverse of a divide-and-conquer chain (`invkit.dci`) adds errors to what it is given, and training it through the
chain spends its time in the shallow inverses, whose maps are many times larger. Below some depth both cost more than
dividing earns. There a `networks.WholeInverse` reads a small image, and all depths are trained together: the network
represents a batch once, and every inverse reads its own depth. Only synthetic images are seen, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit.dci import Chain, log_error, represent
from invkit.networks import WholeInverse
from invkit.training import Player, Trained, train


def train_whole(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    batches: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float = 2e-3,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "no",
    progress: bool = True,
) -> Trained:
    """Train those inverses of a chain, in place, that read the image at once; the others stay as they are.

    The loss is the sum over their depths of `dci.log_error` of the small image.

    Args:
        batches: step -> images (N, 3, S, S) in [0, 1].
        folder: for checkpoints; a stopped run goes on from there.

    Raises:
        ValueError: a chain without such inverses.
    """
    deep = {depth: g for depth, g in enumerate(chain.inverses, start=1) if isinstance(g, WholeInverse)}
    if not deep:
        raise ValueError("No inverse of this chain reads the image at once: make it with Chain(..., whole=DEPTH).")

    def hidden_of(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return represent(blocks, images, max(deep))

    images = batches(0)
    hidden = hidden_of(images)
    for depth, inverse in deep.items():
        inverse.calibrate(hidden[depth], images)

    def loss(module: nn.ModuleList, images: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = hidden_of(images)
        errors = {
            f"depth {depth}": log_error(inverse.small(hidden[depth]), inverse.shrink(images))
            for depth, inverse in zip(deep, module, strict=True)
        }
        return sum(errors.values()), errors

    return train(
        Player("whole", nn.ModuleList(deep.values()), loss, lr=lr, weight_decay=0.02, clip=1.0), batches, steps=steps,
        ema=0.995, folder=folder, seed=seed, precision=precision, progress=progress, description="whole inverses",
    )  # fmt: skip
