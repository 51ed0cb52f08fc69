"""Networks that others wrote: timm's, torchvision's, one's own factory's, a file of ONNX.

Each function here returns a module and, as keyword arguments for `Classifier`, how its images are normalised.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invkit.network import reach
from invkit.store import existing

Made = tuple[nn.Module, dict[str, Any]]


def from_timm(name: str, pretrained: bool, size: int | None, arguments: dict[str, Any]) -> Made:
    """A model of timm, or of the Hugging Face hub ("hf-hub:OWNER/NAME") by way of timm."""
    import timm  # with its thousand models it takes seconds to import

    hub = name.startswith(("hf-hub:", "hf_hub:"))
    if not hub and not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: timm.list_models() says what it has.")
    fix = "put its files into the Hugging Face cache (HF_HOME)"
    fix += "" if hub else ", or pass pretrained=False for random weights"
    build = _sized(lambda **more: timm.create_model(name, pretrained=pretrained, **more), "img_size", size, arguments)
    with _hub_at_once(pretrained or hub):
        model = _create(build, name if hub else f"timm:{name}", pretrained or hub, fix)
    config = timm.data.resolve_model_data_config(model)
    fixed = arguments.get("img_size")
    made = {"size": size or (fixed if isinstance(fixed, int) else config["input_size"][-1])}
    if "in_chans" in arguments:  # the metadata are of colour images: `Classifier` takes their mean
        return model, made
    return model, made | {"mean": config["mean"], "std": config["std"]}


def from_torchvision(name: str, pretrained: bool, size: int | None, arguments: dict[str, Any]) -> Made:
    """A classifier of torchvision, with its best weights."""
    import torchvision  # takes seconds to import, and only its own networks need it

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classifier {name!r}: torchvision.models.list_models() says what it has.")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    # these two warn unless told whether to draw random weights by their own slow way; PyTorch's way will do
    if name in ("googlenet", "inception_v3") and not pretrained:
        arguments = {"init_weights": False} | arguments
    cache = Path(torch.hub.get_dir()) / "checkpoints"

    def build(**more: Any) -> nn.Module:
        if pretrained and not (cache / Path(weights.url).name).is_file() and not reach.reachable(weights.url):
            raise ConnectionError(f"{weights.url} cannot be reached")
        return torchvision.models.get_model(name, weights=weights if pretrained else None, **more)

    build = _sized(build, "image_size", size if name.startswith("vit") else None, arguments)
    fix = f"put {weights.url} into {cache}, or pass pretrained=False for random weights"
    model = _create(build, f"torchvision:{name}", pretrained, fix)
    recipe = weights.transforms()
    return model, {"size": size or recipe.crop_size[0], "mean": recipe.mean, "std": recipe.std}


def libraries_with(name: str) -> list[str]:
    """["timm:resnet18", "torchvision:resnet18"] of "resnet18": the names of libraries' models that are called so."""
    import timm
    import torchvision

    plain = torchvision.models.list_models(module=torchvision.models)
    return [f"timm:{name}"] * timm.is_model(name) + [f"torchvision:{name}"] * (name in plain)


def _sized(build: Callable[..., nn.Module], key: str, size: int | None, arguments: dict[str, Any]):
    """build(**arguments) for images of this size: also with `key=size` where the network can be built for a size."""
    if size is None or key in arguments:
        return lambda: build(**arguments)

    def make() -> nn.Module:
        try:
            return build(**arguments, **{key: size})
        except (TypeError, ValueError, AssertionError):  # a network of any size has no such argument
            return build(**arguments)

    return make


def _create(build: Callable[[], nn.Module], name: str, fetched: bool, fix: str) -> nn.Module:
    """build(), with one sentence for arguments that the library does not take and for what cannot be fetched."""
    try:
        return build()
    except Exception as error:  # every library and its hub raise their own
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not fetched or not isinstance(error, OSError):
            other = ", or pass pretrained=False" if fetched else ""
            raise ValueError(f"{name} cannot be built so ({why}): change the keyword arguments{other}.") from error
        raise FileNotFoundError(
            f"The weights of {name} cannot be had ({type(error).__name__}): connect to the network, or {fix}."
        ) from error


@contextmanager
def _hub_at_once(needed: bool) -> Iterator[None]:
    """Where the hub cannot be reached, look into its cache only: its own five retries take half a minute."""
    constants: Any = importlib.import_module("huggingface_hub.constants")  # it comes with timm
    before = constants.HF_HUB_OFFLINE
    if needed and not before:
        constants.HF_HUB_OFFLINE = not reach.reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


# ---- one's own -------------------------------------------------------------------------------------------------------


def from_factory(name: str, arguments: dict[str, Any]) -> Any:
    """What "package.module:factory" returns; the module is looked for in the current folder first, then on sys.path.

    Raises:
        ValueError: there is no such module or factory, or it fails; the sentence says where was looked.
    """
    module, _, factory = name.partition(":")
    with _current_folder_first():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(error.name + ".")):
                raise ValueError(
                    f"There is no factory {name!r}: no module {error.name!r} was found in {Path.cwd()}, in PYTHONPATH, "
                    "or among the installed packages; go to the folder that holds it, or put that into PYTHONPATH."
                ) from error
            raise ValueError(f"{module} needs the module {error.name!r}, which is not installed: add it.") from error
        except (Exception, SystemExit) as error:
            raise ValueError(f"{module} cannot be imported ({_why(error)}): mend it.") from error
        build = getattr(found, factory, None)
        if not callable(build):
            functions = [key for key, value in vars(found).items()
                         if callable(value) and getattr(value, "__module__", None) == module]  # fmt: skip
            raise ValueError(
                f"There is no factory {name!r}: {getattr(found, '__file__', None) or module} has "
                f"{', '.join(functions[:20]) or 'no function or class'}."
            )
        try:
            inspect.signature(build).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{name} cannot be called so ({error}): change the keyword arguments.") from error
        except ValueError:  # a factory without a signature
            pass
        try:
            return build(**arguments)
        except FileNotFoundError:  # its weights: the factory itself says which
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(f"{name}() fails ({_why(error)}): mend the factory.") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """As `python -m` does: notebooks and installed commands do not look in the current folder by themselves."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _why(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it ends the program by exit"
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"


def from_onnx(file: str | Path) -> nn.Module:
    """The network of an ONNX file, converted by onnx2torch, which must be installed."""
    path = existing(file, "file")
    try:
        converter = importlib.import_module("onnx2torch")
    except ImportError as error:
        raise ValueError(
            f"{path} is ONNX, which is converted by onnx2torch: pip install onnx2torch, or give the PyTorch network."
        ) from error
    try:
        return converter.convert(str(path))
    except Exception as error:
        raise ValueError(f"onnx2torch cannot convert {path} ({_why(error)}): give the PyTorch network.") from error
