"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360): 26 convolutions, each followed by a ReLU, no normalisation.

Its ImageNet weights come in the package `ndf`, as a pickle of NumPy arrays.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Of each fire module: channels of its squeeze, and of each of its two expansions; "pool" halves the side.
LAYERS: tuple[str | tuple[str, int, int], ...] = (
    "pool", ("fire2", 16, 64), ("fire3", 16, 64), "pool", ("fire4", 32, 128), ("fire5", 32, 128), "pool",
    ("fire6", 48, 192), ("fire7", 48, 192), ("fire8", 64, 256), ("fire9", 64, 256),
)  # fmt: skip
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
ARRAYS = {("numpy", "dtype"): np.dtype, ("numpy", "ndarray"): np.ndarray} | {
    (module, "_reconstruct"): np._core.multiarray._reconstruct for module in MULTIARRAY
}  # all that the pickle may name


class Fire(nn.Module):
    """A 1 x 1 convolution to few channels, then 1 x 1 and 3 x 3 convolutions of it, side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze, self.relu = nn.Conv2d(inputs, squeeze, 1), nn.ReLU()
        self.expand1, self.expand3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.squeeze(x))
        return self.relu(torch.cat([self.expand1(h), self.expand3(h)], 1))


class SqueezeNet(nn.Module):
    """Images (N, 3, H, W), normalised -> logits (N, 1000) of the ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, 64, 3, 2), nn.ReLU()
        layers, inputs = nn.Sequential(), 64
        for place, layer in enumerate(LAYERS):
            if isinstance(layer, str):
                layers.add_module(f"pool{place}", nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                name, squeeze, expand = layer
                layers.add_module(name, Fire(inputs, squeeze, expand))
                inputs = 2 * expand
        self.layers, self.conv10 = layers, nn.Conv2d(inputs, 1000, 1)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(self.relu(self.conv1(x)))
        return self.flatten(self.pool(self.conv10(h)))


def squeezenet_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of the package's file under the names of `SqueezeNet`.

    Args:
        file: whose hash was checked. Even so, nothing but arrays is unpickled.

    Raises:
        ValueError: the pickle names something else, or a layer that the network does not have.
    """
    with file.open("rb") as stream:
        arrays = _Arrays(stream, encoding="latin1").load()
    found = {}
    for layer, (kernel, bias) in arrays.items():
        name = {"conv1": "conv1", "conv10": "conv10"}.get(layer) or _inside(layer)
        found[f"{name}.weight"] = torch.from_numpy(np.array(kernel)).permute(3, 2, 0, 1).contiguous()
        found[f"{name}.bias"] = torch.from_numpy(np.array(bias))
    return found


def _inside(layer: str) -> str:
    """ "fire2/expand3x3" -> "layers.fire2.expand3"."""
    fire, _, part = layer.partition("/")
    if part not in ("squeeze1x1", "expand1x1", "expand3x3"):
        raise ValueError(f"The SqueezeNet weights have a layer that the network has not: {layer!r}.")
    return f"layers.{fire}.{part[:-2].removesuffix('1') if part.startswith('squeeze') else part[:-2]}"


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise ValueError(f"The SqueezeNet weights hold {module}.{name}, which is no array.")
        return ARRAYS[module, name]
