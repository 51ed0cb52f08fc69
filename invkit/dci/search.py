"""Search for an input that the attacked network maps to a given representation: several descents, averaged.

Error feedback (`invkit.dci.invert_representation`) corrects a reconstruction without a gradient, and needs a chain that
nearly undoes the network. In deep blocks no chain does: the network maps the chain's reconstruction to a different
representation. The search reduces this difference by gradient descent, measured in units of each channel's standard
deviation s. It does not move the pixels but h, the chain's output at a depth j; the inverses j … c + 1 turn h into a
representation of depth c, and the network maps that to depth k again:

    ĥ_c(h) = g_{c+1} ∘ … ∘ g_j (h),   minimise over h  log ((f_k ∘ … ∘ f_{c+1} (ĥ_c(h)) - y) / s)²

So ĥ_c stays something that these inverses can produce. The loss is the cycle term of Dong et al. (2021, arXiv
2107.06304), minimised for one representation instead of on average over a training set, and between two blocks of the
network instead of at the image: near the image the maps are large, so that steps are slow, and there the chain undoes
the network in any case. The image g_1 ∘ … ∘ g_c (ĥ_c) is computed once at the end of each descent.

Many h lead to nearly the same y, and a descent ends at one that is close to its start. The first descent starts from
the chain's own reconstruction. Each further descent starts from the result before it, moved by a random step. What all
results share is determined by the representation and survives in their mean; what differs among them averages out. The
chain's own reconstruction, whose errors are of another kind, is a part of that mean.

The mean of each channel over its map describes the image as a whole: its colour, its light, its amount of texture. In
the first descents these means move freely, since the chain's reconstruction may have them wrong. Every random step
shrinks them, and so pulls them towards the statistics of the synthetic training images; repeated again and again, this
would bias all results towards those images. After the first `settled` descents, each further one therefore starts from
the average channel means of the results since then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from invkit.dci.chain import Chain, log_error, represent
from invkit.precision import autocast

FIRST_DESCENT, DESCENT = 200, 40  # steps; the first descent has the longest way, the others start near its result
RATES = 0.12, 0.03  # Adam's learning rate at the start and at the end of a descent, in standard deviations
SETTLED = 4  # descents after which the channel means are held
OWN_SHARE = 0.25  # weight of the chain's own reconstruction in the result


def search(
    chain: Chain, blocks: Sequence[Callable[[Tensor], Tensor]], y: Tensor, depth: int, through: int,
    cut: int | None = None, steps: int = 320, bounds: tuple[float, float] = (0.0, 1.0), *,
    first_descent: int = FIRST_DESCENT, descent: int = DESCENT, kept: float = 0.6, noise: float = 0.64,
    settled: int = SETTLED, own_share: float = OWN_SHARE,
) -> Tensor:  # fmt: skip
    """Inputs within `bounds` that the network maps close to the representations y; deterministic.

    Every row is searched by itself: it does not depend on the other rows of the batch.

    Args:
        chain: the inverses, frozen.
        blocks: the network's own blocks f_1 … f_K, frozen, as for `invert_representation`.
        y: representations of one depth, (N, ...).
        depth: the depth k of y, 1 to K.
        through: the depth j of the representation that is moved, 1 to `depth`.
        cut: the depth c from which the network is applied again, from 0 (the image) to `through` - 1; None for
            `through` - 1. A step costs one pass, forwards and back, through `through` - `cut` inverses and
            `depth` - `cut` blocks.
        steps: gradient steps of all descents together, 1 or more.
        bounds: smallest and largest value of an input, (0, 1) for images.
        first_descent: steps of the first descent, plus those that do not fill a further descent.
        descent: steps of every further descent.
        kept: share of the place that a random step keeps; the rest is replaced by noise.
        noise: standard deviation of that noise, in units of each channel's standard deviation.
        settled: number of descents after which the channel means are held.
        own_share: weight of the chain's own reconstruction in the result, 0 to 1.

    Raises:
        ValueError: less than one step, or depths that are not 0 <= `cut` < `through` <= `depth`.
    """
    cut = through - 1 if cut is None else cut
    if steps < 1 or not 0 <= cut < through <= depth:
        raise ValueError(
            f"A search takes at least one step, through a depth from 1 to {depth} and a cut above it, not {steps} "
            f"through {through} with a cut at {cut}."
        )
    # Reconstructions are usually computed in inference mode, whose tensors take no gradient: copy what needs one.
    with torch.inference_mode(False), torch.enable_grad():
        y = y.detach().clone()
        with torch.no_grad():
            own = [y, *chain(y, depth)]
        moved, given = chain.inverses[through - 1], chain.inverses[depth - 1]
        middle, shape = chain.slice(cut, through), own[depth - through].shape[1:]
        generator = torch.Generator().manual_seed(0)
        faster = DenseDepthwise if y.device.type == "cpu" else nullcontext

        def random_step() -> Tensor:
            """Standard normal noise less its channel means; the same for all rows, so that rows stay independent."""
            values = torch.randn(1, *shape, generator=generator).to(y.device)
            return (values - _channel_means(values)).expand(len(y), *shape)

        def at_cut(place: Tensor) -> Tensor:
            """The representation of depth `cut` (an image where that is 0) that belongs to a standardised h."""
            h = middle(moved.in_mean + moved.in_std * place, through - cut)[-1]
            return h if cut else h.clamp(*bounds)

        def error(place: Tensor) -> Tensor:
            with autocast(y.device), faster():
                again = represent(blocks[cut:], at_cut(place), depth - cut)[-1]
            # log_error is a mean over rows; the sum makes the gradient of a row independent of their number.
            return len(y) * log_error(again, y, given.in_std)

        place, total = (own[depth - through] - moved.in_mean) / moved.in_std, 0
        held: list[Tensor] = []  # channel means of the results since they settled
        for number, length in enumerate(descents(steps, first_descent, descent)):
            if number:
                means = _channel_means(place)
                level = sum(held) / len(held) if number > settled else kept * means
                place = level + kept * (place - means) + noise * random_step()
            place = _descend(place, error, length)
            if number >= settled:
                held.append(_channel_means(place))
            with torch.no_grad():
                h = at_cut(place)
                total = total + (chain(h, cut)[-1].clamp(*bounds) if cut else h)
        return own_share * own[-1].clamp(*bounds) + (1 - own_share) * total / (number + 1)


def descents(steps: int, first: int = FIRST_DESCENT, other: int = DESCENT) -> list[int]:
    """The steps of each descent.

    The first descent takes the steps that do not fill another one, since a short descent would end too far from y.
    """
    others = max(0, steps - first) // other
    return [steps - others * other] + others * [other]


def _channel_means(h: Tensor) -> Tensor:
    """The mean of each channel of maps (N, C, H, W) over its map, (N, C, 1, 1); zero for vectors (N, C)."""
    return h.mean(tuple(range(2, h.ndim)), keepdim=True) if h.ndim > 2 else torch.zeros_like(h)


def _descend(place: Tensor, error: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Minimise `error` from a starting place by Adam, with a learning rate that falls linearly."""
    place = place.clone().requires_grad_()
    optimizer = torch.optim.Adam([place], lr=RATES[0])
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, RATES[1] / RATES[0], steps)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        error(place).backward(inputs=[place])  # the network's parameters may take gradients, which are its owner's
        optimizer.step()
        falling.step()
    return place.detach()


class DenseDepthwise(TorchFunctionMode):
    """Inside `with DenseDepthwise():` depthwise convolutions with a stride run without it and are then subsampled.

    Outputs and gradients are the same up to rounding. On CPUs, PyTorch takes longer for the gradient of a strided
    depthwise convolution than for that of a dense one, although the dense one has four times the products; networks of
    inverted residuals (MobileNet, EfficientNet) have a few strided ones. Other convolutions are left as they are.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.conv2d and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            down, across = (stride, stride) if isinstance(stride, int) else stride
            if weight.shape[1] == 1 and groups > 1 and (down > 1 or across > 1):
                return func(x, weight, bias, 1, padding, dilation, groups)[..., ::down, ::across]
        return func(*args, **(kwargs or {}))
