"""Depthwise convolutions with a stride, done at every place and then sampled: the same numbers, sooner on a CPU.

On a CPU, PyTorch takes longer for the gradient of a depthwise convolution with a stride than for that of the same one
without, and a network of inverted residuals (MobileNet, EfficientNet) has a few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Dense(TorchFunctionMode):
    """Inside `with Dense():` every depthwise convolution with a stride runs without it and keeps one place in `stride`.

    Outputs and gradients are the same but for rounding. Four times the products of one cheap layer buy a kernel that
    is made for it; a convolution over all channels, where that would not pay, is left as it is.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.conv2d and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            down, across = (stride, stride) if isinstance(stride, int) else stride
            if weight.shape[1] == 1 and groups > 1 and (down > 1 or across > 1):
                return func(x, weight, bias, 1, padding, dilation, groups)[..., ::down, ::across]
        return func(*args, **(kwargs or {}))
