"""Small classifiers that train on a CPU within minutes, of two families: with skip connections, and without.

- `ResidualNet`: pre-activation residual blocks (He et al. 2016, arXiv 1603.05027).
- `PlainNet`: convolutions in a row, as in VGG (Simonyan & Zisserman 2015, arXiv 1409.1556), with batch norm. No skip
  connection, no depthwise convolution.

Both shrink by max-pooling and end in a linear map of what a 2 x 2 grid sees; with strided convolutions and a global
average instead, glyphs are learnt more slowly. Both spend their work on dense 3 x 3 convolutions of at most 16 x 16
pixels, which is what CPUs do fast: a stem halves the image until it has that size, once for 32 pixels, twice for 64.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

STAGE_SIZE = 16  # pixels that the stem leaves


class PreActivationBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))); the skip is a 1 x 1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.relu(self.norm1(x)))
        return self.skip(x) + self.conv2(self.relu(self.norm2(h)))


class ResidualNet(nn.Module):
    """Images (N, 3, size, size), normalised -> logits (N, classes).

    Args:
        classes: how many logits.
        size: side of the images: 16 pixels times a power of two, from 32.
        widths: channels of each stage, the first of 16 x 16 pixels and every later one half the side of the one before.
        blocks: how many residual blocks each stage has.
    """

    def __init__(
        self, classes: int, size: int = 32, widths: Sequence[int] = (32, 64, 72), blocks: Sequence[int] = (1, 1, 1)
    ):
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"Give as many widths as numbers of blocks, not {len(widths)} and {len(blocks)}.")
        self.stem = _stem(size, widths[0])
        inputs, stages = widths[0], []
        for stage, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            if stage:
                stages.append(nn.MaxPool2d(2))
            for _ in range(n):
                stages.append(PreActivationBlock(inputs, width))
                inputs = width
        self.blocks = nn.Sequential(*stages)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveMaxPool2d(2)
        self.flatten, self.head = nn.Flatten(), nn.Linear(4 * inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(self.flatten(self.pool(h)))


class PlainNet(nn.Module):
    """Images (N, 3, size, size), normalised -> logits (N, classes).

    Args:
        classes: how many logits.
        size: side of the images: 16 pixels times a power of two, from 32.
        widths: channels of the convolutions after the stem, 8 at most; the sides of the map are halved by max-pooling
            after every second one and after the last.
    """

    def __init__(self, classes: int, size: int = 32, widths: Sequence[int] = (32, 48, 64, 64, 80)):
        super().__init__()
        inputs, side, layers = widths[0], STAGE_SIZE, []
        for i, width in enumerate(widths):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if i % 2 or i == len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            inputs = width
        if side < 1:
            raise ValueError(f"{len(widths)} convolutions halve the map too often: give 8 widths at most.")
        stem = _stem(size, widths[0])
        self.features = nn.Sequential(*stem, nn.BatchNorm2d(widths[0]), nn.ReLU(), *layers)
        self.flatten, self.head = nn.Flatten(), nn.Linear(inputs * side**2, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.features(x)))


ARCHITECTURES = {"residual": ResidualNet, "plain": PlainNet}


def build(architecture: str, classes: int, size: int = 32, **options: Any) -> nn.Module:
    """A network with random weights, of PyTorch's global generator.

    Args:
        architecture: "residual" or "plain".
        classes: how many logits, at least 2.
        size: side of the images: 16 pixels times a power of two, from 32.
        options: the network's own `widths` and `blocks`.

    Raises:
        ValueError: an unknown name, fewer than two classes, another size, or options that the network does not take.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"There is no architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}.")
    if not isinstance(classes, int) or classes < 2:
        raise ValueError(f"A classifier tells at least 2 classes apart, not {classes!r}: give data of more classes.")
    try:
        return ARCHITECTURES[architecture](classes, size, **options)
    except TypeError as error:
        raise ValueError(f"The architecture {architecture!r} does not take these options: {error}.") from error


def _stem(size: int, width: int) -> nn.Sequential:
    """Strided 3 x 3 convolutions from `size` to 16 pixels; the last gives `width` channels, each before it half."""
    halvings = (size // STAGE_SIZE).bit_length() - 1
    if halvings < 1 or STAGE_SIZE << halvings != size:
        raise ValueError(f"A small network takes images of 32, 64, 128, ... pixels, not {size}: resize them.")
    layers, inputs = [], 3
    for left in reversed(range(halvings)):
        outputs = max(8, width >> left)
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False))
        if left:
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers)


def initialise(network: nn.Module) -> None:
    """Random kernels of He et al. (2015, arXiv 1502.01852), by the number of outputs, for all convolutions."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
