"""Whatever network people bring as one module: normalised float32 images (N, C, H, W) -> float32 logits (N, classes).

Wrappers for speed are taken off; of several outputs one is picked; a network in another precision than float32 is
called in its own. What is no PyTorch network gets one sentence.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

USUAL_SIZES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 48, 160, 192, 240, 288, 320, 448, 512)
USUAL_CHANNELS = (3, 1, 2, 4)


class LogitsOf(nn.Module):
    """A network of another precision or with several outputs, as float32 images -> float32 logits.

    Args:
        network: what is called.
        dtype: of its images.
        output: key, attribute or index of the logits in what it returns; None where it returns them alone.
        column: whether they are (N,), of one class.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, output: str | int | None, column: bool = False):
        super().__init__()
        self.network, self.dtype, self.output, self.column = network, dtype, output, column

    def forward(self, images: Tensor) -> Tensor:
        found = self.network(images if self.dtype == torch.float32 else images.to(self.dtype))
        if self.output is not None:
            found = _member(found, self.output)
        if self.column:
            found = found[:, None]
        return found if self.dtype == torch.float32 else found.float()


def unwrapped(model: Any) -> nn.Module:
    """The module itself, out of torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        TypeError: what is no module that computes in Python; the sentence says what to give instead.
    """
    while isinstance(model, nn.Module):
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            break
    if getattr(model, "_compiled_call_impl", None) is not None:
        model = copy.copy(model)  # shares all weights, and is not compiled
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"A classifier is made of a PyTorch nn.Module, not of {_what(model)}.")
    if any(isinstance(tensor, nn.parameter.UninitializedTensorMixin) for tensor in model.parameters()):
        raise ValueError(f"{type(model).__name__} has lazy layers without weights: call it on one image first.")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f"{type(model).__name__} has weights without memory (meta): load them first.")
    return model


def _what(model: Any) -> str:
    """What was given in place of a module, and what to do."""
    kind = type(model)
    library = kind.__module__.partition(".")[0]
    if isinstance(model, str):
        return f"the string {model!r}: load_classifier({model!r}) takes names"
    if isinstance(model, torch.jit.ScriptModule):
        return "TorchScript, which cannot be cut: give the module that it was made from"
    if isinstance(model, torch.export.ExportedProgram):
        return "an exported program, which cannot be cut: give the module that it was exported from"
    if isinstance(model, Mapping):
        return 'a state dict, which is weights alone: load_classifier("package.module:factory", weights=FILE) builds it'
    if isinstance(model, type):
        return f"the class {model.__name__}: call it, {model.__name__}()"
    if library in ("keras", "tensorflow", "tf_keras", "jax", "flax"):
        return f'{library}: export it to ONNX and give load_classifier("FILE.onnx")'
    if library == "onnx":
        return 'ONNX: give load_classifier("FILE.onnx"), which needs onnx2torch'
    return f"{kind.__name__}: wrap it in a module whose forward(images) returns logits"


# ---- outputs ---------------------------------------------------------------------------------------------------------


def as_logits(network: nn.Module, example: Callable[[], Tensor], name: str, output: str | int | None) -> nn.Module:
    """A network of normalised float32 images -> float32 logits: the network itself where it is one already.

    Args:
        network: in eval mode.
        example: makes one normalised float32 image (1, C, H, W) that it takes.
        name: of the network, for sentences.
        output: what the logits are called in the network's output; None where that leaves no doubt.

    Raises:
        ValueError: an output that holds no logits, or several tensors that might be.
    """
    dtype = dtype_of(network)
    with torch.no_grad():
        found = network(example().to(dtype))
    if output is None and isinstance(found, Tensor):
        column = found.shape == (1,)
        return network if dtype == torch.float32 and not column else LogitsOf(network, dtype, None, column)
    return LogitsOf(network, dtype, _where_logits_are(found, name, output))


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of a network: that of its first weights in floating point; float32 where it has none."""
    tensors = (*network.parameters(), *network.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _where_logits_are(found: Any, name: str, wanted: str | int | None) -> str | int:
    if isinstance(found, Tensor):
        raise ValueError(f"{name} returns one tensor, its logits: leave out output={wanted!r}.")
    members = dict(_members(found))
    if wanted is not None:
        try:
            _member(found, wanted)
        except Exception:  # whatever an output does with a key that it has not
            raise ValueError(f"The output of {name} has no {wanted!r}; it has {_listed(members)}.") from None
        return wanted
    rows = [key for key, value in members.items() if isinstance(value, Tensor) and value.dim() == 2 and len(value) == 1]
    if "logits" in rows or len(rows) == 1:
        return "logits" if "logits" in rows else rows[0]
    many = "several outputs that may be logits" if rows else "no logits, which are a tensor (N, classes)"
    raise ValueError(
        f"{name} returns {many}: pick one by output=KEY; {type(found).__name__} has {_listed(members) or 'nothing'}."
    )


def _members(found: Any) -> Iterator[tuple[str | int, Any]]:
    """(key or index, value) of what a network returned."""
    if isinstance(found, Mapping):
        yield from found.items()
    elif hasattr(found, "_fields"):  # a named tuple
        yield from zip(found._fields, found, strict=True)
    elif isinstance(found, tuple | list):
        yield from enumerate(found)
    elif dataclasses.is_dataclass(found):
        yield from ((field.name, getattr(found, field.name)) for field in dataclasses.fields(found))
    else:
        yield from getattr(found, "__dict__", {}).items()


def _member(found: Any, key: str | int) -> Any:
    if isinstance(key, str) and not isinstance(found, Mapping):
        return getattr(found, key)
    return found[key]


def _listed(members: Mapping[str | int, Any]) -> str:
    shapes = {key: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
              for key, value in members.items()}  # fmt: skip
    return ", ".join(f"{key!r} {shape}" for key, shape in shapes.items())


# ---- inputs ----------------------------------------------------------------------------------------------------------


def stated_preprocessing(model: nn.Module) -> dict[str, Any]:
    """The size, mean and std that a module states: by such attributes, as timm does, or as transformers does."""
    stated: dict[str, Any] = {}
    config = getattr(model, "config", None)
    if isinstance(size := getattr(config, "image_size", None), int):
        stated["size"] = size
    if isinstance(recipe := getattr(model, "pretrained_cfg", None), Mapping):
        stated |= {key: recipe[key] for key in ("mean", "std") if recipe.get(key)}
        if recipe.get("input_size"):
            stated["size"] = recipe["input_size"][-1]
    if isinstance(size := getattr(model, "size", None), int):
        stated["size"] = size
    for key in ("mean", "std"):  # a tensor is the module's own: it normalises by itself
        if isinstance(value := getattr(model, key, None), tuple | list | float | int):
            stated[key] = value
    return stated


def image_shape(model: nn.Module, name: str, size: int | None, stated: int | None, few: int | None) -> tuple[int, int]:
    """(channels, size) of the images that a module takes, found by trying.

    Args:
        model: in eval mode.
        name: of the module, for sentences.
        size: of the images; None to try `stated`, then usual ones.
        stated: the size that the module states.
        few: how many channels are likely; None for those of the first layer.

    Raises:
        ValueError: it takes no images of that size; the sentence names one that it takes, where there is one.
    """
    channels = list(dict.fromkeys(n for n in (few, _channels_of(model, size or stated), *USUAL_CHANNELS) if n))
    sizes = [size] if size else list(dict.fromkeys([*([stated] if stated else []), *USUAL_SIZES]))
    first: Exception | None = None
    for side in sizes:
        found = _taken(model, channels, side)
        if isinstance(found, int):
            return found, side
        first = first or found
    others = (side for side in USUAL_SIZES if size and isinstance(_taken(model, channels, side), int))
    fix = f": give size={other}" if (other := next(others, None)) else ""
    why = (str(first).strip() or type(first).__name__).splitlines()[0]
    raise ValueError(f"{name} does not map images of {sizes[0]} pixels to logits ({why}){fix}.") from first


def memory_of(model: nn.Module, channels: int, size: int) -> torch.memory_format:
    """The order of memory that a model is put into: channels_last, which is faster, where its forward() takes it.

    One that calls x.view(...) on a map, as many do before their linear layers, does not.
    """
    try:
        model.to(memory_format=torch.channels_last)
        _call(model, torch.zeros(1, channels, size, size), torch.channels_last)
        return torch.channels_last
    except Exception:  # whatever a forward() may do
        model.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format


@torch.no_grad()
def _call(model: nn.Module, images: Tensor, memory: torch.memory_format = torch.contiguous_format) -> None:
    place = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    model(images.to(place, dtype_of(model), memory_format=memory))


def _taken(model: nn.Module, channels: list[int], side: int) -> int | Exception:
    """The first of these numbers of channels with which a model takes images, or the error of the first."""
    errors = []
    for number in channels:
        try:
            _call(model, torch.zeros(1, number, side, side))
            return number
        except Exception as error:  # whatever a forward() may do with images of another kind
            errors.append(error)
    return errors[0]


def _channels_of(model: nn.Module, size: int | None) -> int | None:
    """The channels that the first layer takes, in the order of the modules; None where that does not tell."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
        if isinstance(module, nn.Linear):
            number, rest = divmod(module.in_features, (size or 224) ** 2)
            return number if number and not rest else None
    return None
