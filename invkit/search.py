"""Search behind a chain's reading for one that the attacked network represents as what was given.

Error feedback (`invkit.dci.read`) corrects a reading without a gradient, and needs a chain that nearly undoes the
network. Deep down none does: what is read is represented as something else. Here the disagreement is followed by
gradients, in units of each channel's spread s. What moves is not the pixels but h, what the chain reads at a shallower
depth j; the inverses above it read on to a depth c, and from there the network represents again,

    ĥ_c(h) = g_{c+1} ∘ … ∘ g_j (h),   minimise over h  log ((f_k ∘ … ∘ f_{c+1} (ĥ_c(h)) - y) / s)²,
                                      from h = g_{j+1} ∘ … ∘ g_k (y),

and so keep ĥ_c what these inverses can make. It is the cycle term of Dong et al. (2021, arXiv 2107.06304), asked of one
reading instead of all of training, and of the network's middle: nearer to the photo the maps are large, where a step
would spend most of its time, and the chain undoes the network there in any case. The image g_1 ∘ … ∘ g_c (ĥ_c) is made
once, at the end. The answer is the mean of the first reading and the last. Both err, not in the same way, and where
several images would do the first keeps nearer to what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invkit.dci import Chain, log_error, represent


def search(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    y: Tensor,
    depth: int,
    through: int,
    cut: int | None = None,
    steps: int = 160,
    rate: float = 0.06,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Inputs (N, ...) within `bounds` behind the representations y of a depth; every row by itself, deterministic.

    Args:
        chain, blocks: as for `dci.read`, their parameters frozen.
        through: depth j of what is moved, 1 to `depth`.
        cut: depth c from which the network represents again, 0 (the image) to less than `through`; None: one less.
        steps: of Adam. Each costs a pass through `through` - `cut` inverses and `depth` - `cut` blocks, and back.
        rate: its learning rate, in units of each channel's spread.

    Raises:
        ValueError: steps below 1, a depth to search through that is below `depth`, or a cut that is not above that one.
    """
    cut = through - 1 if cut is None else cut
    if steps < 1 or not 0 <= cut < through <= depth:
        raise ValueError(
            f"A search takes at least one step, through a depth from 1 to {depth} and a cut above it, not {steps} "
            f"through {through} with a cut at {cut}."
        )
    # Readings are usually made in inference mode, which a gradient cannot leave behind: what it needs is copied.
    with torch.inference_mode(False), torch.enable_grad():
        y = y.detach().clone()
        with torch.no_grad():
            start = [y, *chain.part(through, depth)(y, depth - through)][-1]
        unit, spread = (chain.inverses[k - 1].in_std for k in (through, depth))
        middle = chain.part(cut, through)
        moved = torch.zeros_like(start).requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=rate)

        def read() -> Tensor:
            """What the moved h is read as at the cut: an image where that is at 0."""
            h = middle(start + unit * moved, through - cut)[-1]
            return h if cut else h.clamp(*bounds)

        def image() -> Tensor:
            with torch.no_grad():
                return chain(read(), cut)[-1].clamp(*bounds) if cut else read()

        first = image()
        for _ in range(steps):
            with torch.autocast(y.device.type, torch.bfloat16):
                again = represent(blocks[cut:], read(), depth - cut)[-1]
            # The sum over rows, so that no row's step depends on how many there are.
            loss = len(y) * log_error(again, y, spread)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return (first + image()) / 2
