"""Search behind a representation for what the attacked network represents as it, several times over, and average.

Error feedback (`invkit.dci.invert_representation`) corrects a reading without a gradient, and needs a chain that nearly undoes the
network. Deep down none does: what is read is represented as something else. Here the disagreement is followed by
gradients, in units of each channel's spread s. What moves is not the pixels but h, what the chain reads at a depth j;
the inverses above it read on to a depth c, and from there the network represents again,

    ĥ_c(h) = g_{c+1} ∘ … ∘ g_j (h),   minimise over h  log ((f_k ∘ … ∘ f_{c+1} (ĥ_c(h)) - y) / s)²,

and so keep ĥ_c what these inverses can make. It is the cycle term of Dong et al. (2021, arXiv 2107.06304), asked of one
representation instead of all of training, and of the network's middle: nearer to the photo the maps are large, where a
step would spend most of its time, and the chain undoes the network there in any case. The image g_1 ∘ … ∘ g_c (ĥ_c) is
made once at the end of a descent.

Many h are represented as nearly the same y, and a descent ends at one near which it began. The first begins at the
chain's own reading. Where steps are left, what it found is moved at random, part of the way to somewhere else, and goes
down again, and so on. What these ends have in common the representation tells, and their mean keeps; what each made up
averages out. The chain's own reading, which errs in yet another way, has a share.

The mean of each channel over its map tells of the whole image: its colour, its light, how busy it is. At first these
means move like all else, towards those of the chain's training, and a reading that has them all wrong gets out of that.
Moved so time after time, every end would owe something to images that the photo is not among; so from then on a descent
begins with the means that the ends before it have had on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from invkit.dci.chain import Chain, log_error, represent
from invkit.dci.strides import Dense
from invkit.precision import autocast

FIRST_DESCENT, DESCENT = 200, 40  # steps: of the first the most, since the others begin near what it found
RATES = 0.12, 0.03  # of Adam, at the beginning of a descent and at its end, in units of each channel's spread
KEPT, ADDED = 0.6, 0.64  # of a place where it is moved at random, and of noise, in units of each channel's spread
SETTLED = 4  # descents after which the means of the channels are held
OWN_SHARE = 0.25  # of the chain's own reading in the answer


def search(
    chain: Chain,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    y: Tensor,
    depth: int,
    through: int,
    cut: int | None = None,
    steps: int = 320,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Inputs (N, ...) within `bounds` behind the representations y of a depth; every row by itself, deterministic.

    Args:
        chain, blocks: as for `dci.invert_representation`, their parameters frozen.
        through: depth j of what is moved, 1 to `depth`.
        cut: depth c from which the network represents again, 0 (the image) to less than `through`; None: one less.
        steps: of all descents together: each takes 40 but for the first, which takes 200 to 239, or all if there are
            fewer. A step costs a pass through `through` - `cut` inverses and `depth` - `cut` blocks, and back.

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
            own = [y, *chain(y, depth)]
        moved, given = (chain.inverses[k - 1] for k in (through, depth))
        middle, shape = chain.slice(cut, through), own[depth - through].shape[1:]
        generator = torch.Generator().manual_seed(0)
        sooner = Dense if y.device.type == "cpu" else nullcontext

        def noise() -> Tensor:
            """In units of the spread, of mean zero: the same for all rows, so that none depends on the others."""
            drawn = torch.randn(1, *shape, generator=generator).to(y.device)
            return (drawn - _means(drawn)).expand(len(y), *shape)

        def read(place: Tensor) -> Tensor:
            """What a place is read as at the cut: an image where that is at 0."""
            h = middle(moved.in_mean + moved.in_std * place, through - cut)[-1]
            return h if cut else h.clamp(*bounds)

        def error(place: Tensor) -> Tensor:
            with autocast(y.device), sooner():
                again = represent(blocks[cut:], read(place), depth - cut)[-1]
            # The sum over rows, so that no row's step depends on how many there are.
            return len(y) * log_error(again, y, given.in_std)

        place, total, held = (own[depth - through] - moved.in_mean) / moved.in_std, 0, []
        for number, some in enumerate(descents(steps)):
            if number:
                means = _means(place)
                kept = sum(held) / len(held) if number > SETTLED else KEPT * means
                place = kept + KEPT * (place - means) + ADDED * noise()
            place = _descend(place, error, some)
            if number >= SETTLED:
                held.append(_means(place))
            with torch.no_grad():
                h = read(place)
                total = total + (chain(h, cut)[-1].clamp(*bounds) if cut else h)
        return OWN_SHARE * own[-1].clamp(*bounds) + (1 - OWN_SHARE) * total / (number + 1)


def descents(steps: int) -> list[int]:
    """The steps of each descent; the first takes what does not come out even: a short one would end too high up."""
    others = max(0, steps - FIRST_DESCENT) // DESCENT
    return [steps - others * DESCENT] + others * [DESCENT]


def _means(place: Tensor) -> Tensor:
    """Of each channel over its map (N, C, 1, ...); of what has no map, zero."""
    return place.mean(tuple(range(2, place.ndim)), keepdim=True) if place.ndim > 2 else torch.zeros_like(place)


def _descend(place: Tensor, error: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """A place of lower error, by so many steps of Adam from this one, of a rate that falls from RATES' first."""
    place = place.clone().requires_grad_()
    optimizer = torch.optim.Adam([place], lr=RATES[0])
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, RATES[1] / RATES[0], steps)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        error(place).backward()
        optimizer.step()
        falling.step()
    return place.detach()
