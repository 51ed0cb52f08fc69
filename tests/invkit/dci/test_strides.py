"""A depthwise convolution with a stride is the same one without, sampled: outputs, gradients, and no other layer."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from invkit.dci.strides import Dense


def run(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        lambda: nn.Conv2d(6, 12, 3, (2, 1), (1, 2), groups=6, bias=False),
        lambda: nn.Conv2d(6, 6, 3, 3, 2, dilation=2, groups=6),
        lambda: Conv2dSame(6, 6, 5, 2, groups=6, bias=False),
    ],
)
def test_outputs_and_gradients_are_those_of_the_convolution_with_its_stride(layer, size):
    torch.manual_seed(0)
    layer, x = layer(), torch.randn(2, 6, size, size)
    plain = run(layer, x)
    with Dense(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as seen:
        dense = run(layer, x)
    torch.testing.assert_close(dense, plain)
    # It really is done without: the convolution's own output has more places than the layer's.
    grad = next(e for e in seen.events() if e.name == "aten::convolution_backward").input_shapes[0]
    assert torch.Size(grad).numel() > plain[0].numel()


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1, groups=2), nn.Conv2d(1, 6, 3, 2)])
def test_other_convolutions_are_left_as_they_are(layer):
    x = torch.randn(2, layer.in_channels, 8, 8)
    plain = run(layer, x)
    with Dense():
        dense = run(layer, x)
    assert all(map(torch.equal, dense, plain))
