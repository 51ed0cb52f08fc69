"""Checks of arguments that many functions take. Each raises one sentence: what was expected, and what was given.

Images are float tensors (N, 3, H, W) in [0, 1] throughout the library.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import psutil
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from invkit.store import quoted

LIMITS = dict.fromkeys(("size", "source_size", "classifier_size"), 4096) | {"feedback": 1000}  # of a card's numbers
LIMITS |= dict.fromkeys(("shapes", "sizes", "classes", "generator", "options"), 2**20) | {"classifier": 2**16}
RANGE_SLACK = 1e-3  # how far beyond [0, 1] values may lie: rounding in half precision, not a wrong scale
F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """The function, or the class, which refuses in one sentence what the annotations of its arguments do not allow.

    A truth value is no number, and text is no truth value. What a sequence holds is left to the function.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    name, parameters = function.__qualname__.removesuffix(".__init__"), inspect.signature(function).parameters
    hints = cache(lambda: get_type_hints(function))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {', '.join(parameters)}.") from None
        for key, value in given.items():
            if not _allows(hints().get(key, Any), value):
                as_given = quoted(value) if isinstance(value, str | Real | None) else form_of(value)
                raise TypeError(f"{name} takes {key} as {parameters[key].annotation}, not {as_given}: give it so.")
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _allows(hint: Any, value: Any) -> bool:
    """Whether an annotation allows a value; of what a sequence holds, only that of a tuple is looked at."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_allows(part, value) for part in parts)
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        return number and bool(value == value)  # not NaN
    if kind in (tuple, Sequence):
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Tensor)
        return several and (kind is Sequence or all(_allows(parts[0], part) for part in value))
    if kind is Tensor:
        return is_dense(value)
    return kind is Any or not isinstance(kind, type) or isinstance(value, PathLike if kind is Path else kind)


def check_images(images: Any, name: str = "Images", slack: float = RANGE_SLACK, channels: int | None = 3) -> None:
    """Raise TypeError or ValueError for anything but float images (N, channels, H, W) in [0, 1].

    Args:
        images: what was given.
        name: what the sentence calls it, as its first words.
        slack: how far beyond [0, 1] values may lie.
        channels: how many the images must have; None for any number.
    """
    if not holds_floats(images):
        raise TypeError(f"{name} must be a float tensor in [0, 1], not {form_of(images)}: divide 8-bit ones by 255.")
    if images.dim() != 4 or channels not in (None, images.shape[1]) or images.numel() == 0:
        raise ValueError(f"{name} must have the shape (N, {channels or 'C'}, H, W), none 0, not {tuple(images.shape)}.")
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if not (low >= -slack and high <= 1 + slack):  # written so that NaN fails too
        raise ValueError(f"{name} must lie in [0, 1] without NaN, not in [{low:.3g}, {high:.3g}]: rescale or clamp.")


def check_image(image: Any) -> None:
    """Raise ValueError for anything but one float image (3, H, W) without NaN."""
    if not holds_floats(image) or image.dim() != 3 or image.shape[0] != 3 or not image.numel() or image.isnan().any():
        raise ValueError(f"One image must be a float tensor (3, H, W), none 0 or NaN, not {form_of(image)}.")


def check_image_pairs(a: Any, b: Any, least: int = 1, name: str = "This measure") -> None:
    """Raise TypeError or ValueError unless both are float images in [0, 1] of one shape (N, 3, H, W).

    Args:
        a, b: what was given.
        least: pixels that their sides must have.
        name: of what needs so many, for the sentence.
    """
    check_images(a, "The first images")
    check_images(b, "The second images")
    if a.shape != b.shape:
        raise ValueError(f"Both sets of images must have one shape, not {tuple(a.shape)} and {tuple(b.shape)}.")
    if min(a.shape[-2:]) < least:
        raise ValueError(
            f"{name} needs at least {least}x{least} pixels, not {a.shape[-1]}x{a.shape[-2]}: enlarge both first."
        )


def check_broadcastable(a: Any, b: Any) -> None:
    """Raise ValueError unless both are float images (…, 3, H, W) of shapes that fit, as for broadcasting."""
    floats = holds_floats(a) and holds_floats(b) and min(a.dim(), b.dim()) > 2
    if not floats or any(m != n and 1 not in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1], strict=False)):
        raise ValueError(f"Give float images (…, 3, H, W) of one shape each, not {form_of(a)} and {form_of(b)}.")


def as_floats(values: Any, shape: Sequence[int], begin: str, fix: str) -> Tensor:
    """Values as float32; ValueError for anything but finite floats (N, *shape) of one row at least.

    Args:
        values: what was given.
        shape: of one row.
        begin: how the sentence begins.
        fix: what makes such values.
    """
    if not holds_floats(values) or tuple(values.shape[1:]) != tuple(shape):
        raise ValueError(f"{begin} of shape (N, {', '.join(map(str, shape))}), not {form_of(values)}: {fix} gives it.")
    if not len(values) or not values.isfinite().all():
        what = "NaN or infinity" if len(values) else "no row at all"
        raise ValueError(f"{begin}, and these hold {what}: {fix} makes others.")
    return values.float()


def check_labels(labels: Any, count: int, classes: int | None = None) -> None:
    """Raise TypeError or ValueError for anything but `count` class numbers, int64, from 0 to below `classes`."""
    if not is_dense(labels) or labels.dtype != torch.int64 or labels.shape != (count,):
        raise TypeError(f"labels must be int64, one class number an image, ({count},), not {form_of(labels)}.")
    if classes is not None and not (0 <= labels.min() and labels.max() < classes):
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(f"Labels run from {low} to {high}, but there are {classes} classes, from 0: give others.")


def check_whole_number(value: Any, least: int, name: str, most: int = 10**9) -> None:
    """Raise ValueError for anything but a whole number from `least` to `most`; for more steps no machine has time."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {quoted(value)}.")
    if int(value) > most:
        raise ValueError(f"{name} must be at most {most}, not {quoted(value)}: give less.")


def check_seed(seed: Any, most: int = 2**43) -> None:
    """Raise ValueError for anything but a whole number from 0 to `most`: a step's seed of 64 bits is made of it."""
    check_whole_number(seed, 0, "seed", most)


def check_size(n: Any, size: Any, least: int = 1) -> None:
    """Raise ValueError unless n images, one or more, of a side of `least` pixels or more fit into this machine."""
    check_whole_number(n, 1, "n")
    check_whole_number(size, least, "size")
    check_room(3 * int(n) * int(size) ** 2, f"{n} images of {size}x{size} pixels")


def check_room(numbers: int, what: str) -> None:
    """Raise ValueError where so many floats do not fit into this machine's memory; `what` begins the sentence."""
    needed = 4 * numbers >> 30  # GiB: in a training step, which needs none, the memory is not looked up
    if needed and needed > (there := psutil.virtual_memory().total >> 30):
        raise ValueError(f"{what} would take {needed} GiB, and this machine has {there}: ask for less.")


def check_depth(depth: Any, depths: Sequence[int], begin: str = "This inverter inverts") -> int:
    """The depth, or the last of `depths` for None; ValueError, which `begin` begins, for one that is none of them."""
    if depth is not None and (not isinstance(depth, Integral) or depth not in depths):
        first, last = depths[0], depths[-1]
        some = f"depth {first} alone" if first == last else f"depths {first} to {last}"
        if len(depths) <= last - first:
            some = f"depths {', '.join(map(str, depths))}"
        raise ValueError(f"{begin} {some}, not {quoted(depth)}.")
    return depths[-1] if depth is None else int(depth)


def check_device(device: Any) -> torch.device:
    """The device; ValueError, which names those that there are, for one that this machine has not."""
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, TypeError, AssertionError) as error:  # some builds assert that they were made for it
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        found += ["mps"] * torch.backends.mps.is_available()
        raise ValueError(f"There is no device {quoted(device)} on this machine: give {' or '.join(found)}.") from error


# ---- weights and their cards -----------------------------------------------------------------------------------------


@contextmanager
def reading_card(where: Any) -> Iterator[None]:
    """Within it, whatever a card lacks, or holds in another form than expected, is a ValueError of one sentence."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"The card of {where} does not describe its weights ({why}): fetch it again.") from error


class Unfilled(TorchFunctionMode):
    """Leaves out random initial values: a file's replace them, and without memory they cost a second's import."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def built(make: Callable[[], nn.Module], card: dict[str, Any], tensors: dict[str, Tensor], where: Any) -> nn.Module:
    """The module that a card describes, with the weights of its file.

    A card may come from anywhere. So the module is planned without memory first, and nothing is built whose shapes are
    not those in the file. PyTorch's global random numbers stay as they were.

    Args:
        make: builds the module as the card says.
        card: whose numbers are looked at before anything else.
        tensors: the state dict.
        where: the name or the folder, for sentences.

    Raises:
        ValueError: numbers that memory or time cannot bear; no module, or another than that of the weights.
    """
    with reading_card(where), torch.random.fork_rng([]):
        numbers = {key: [abs(n) if key == "classifier" else n for n in _numbers(card.get(key))] for key in LIMITS}
        numbers["size"] += _numbers(card.get("classifier", {}).get("size"))
        for key, limit in LIMITS.items():
            if any(not 0 <= number <= limit for number in numbers[key]):
                raise ValueError(f"The card of {where} has a number beyond 0 to {limit} in {key}: fetch it again.")
        blocks = [size[1] for size in card.get("sizes", [])] + list(card.get("options", {}).get("blocks", []))
        whole = [card["size"], *(steps for steps, _ in card.get("feedback", {}).values())]
        if sum(blocks) > len(tensors) or not all(isinstance(number, int) for number in whole):
            raise TypeError("more blocks than tensors, or a size or feedback that is no whole number")
        try:
            with torch.device("meta"), Unfilled():
                planned = {name: tensor.shape for name, tensor in make().state_dict().items()}
        except ValueError as error:
            raise TypeError(error) from error
        if planned != {name: tensor.shape for name, tensor in tensors.items()}:
            raise TypeError("the tensors of its network have other names or shapes")
        with Unfilled():
            module = make()
        module.load_state_dict(tensors)
        return module


def _numbers(value: Any) -> list[float]:
    """All numbers in JSON of any depth."""
    if isinstance(value, dict | list):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in _numbers(part)]
    return [value] if isinstance(value, int | float) else []


def holds_floats(value: Any) -> bool:
    """Whether it is a tensor of floats, each of which lies in memory."""
    return is_dense(value) and value.is_floating_point() and value.itemsize > 1  # with 8 bits none computes


def is_dense(value: Any) -> bool:
    """Whether it is a tensor, each of whose numbers lies in memory: not sparse, nested or jagged."""
    return isinstance(value, Tensor) and not (value.is_meta or value.is_nested or value.layout != torch.strided)


def form_of(value: Any) -> str:
    """What a value is, for a sentence: of a tensor the type and the shape."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    if not is_dense(value):
        return "a tensor that is sparse, nested or without memory (meta)"
    return f"{value.dtype} {tuple(value.shape)}"
