"""Arguments of a report that can be checked at once, before PyTorch is imported or anything is trained.

A name that is misspelt in the first line of a long run is told of within a second. What only loading can tell, such as
whether weights fit their network, is left to `load_classifier`.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invkit import store
from invkit.network import reach

IN_WHEELS = ("squeezenet", "resnet50-thin", "vgg16-edges", "lite1", "lite2")  # see `invkit.network.wheels`
OWN = ("lite0", *IN_WHEELS)  # networks in installed packages
LIBRARIES = ("timm", "torchvision", "hf-hub")  # prefixes of a classifier's name
WITH_SPLITS = ("glyphs", "faces", "tiny-imagenet", "imagenet", "folder")  # data sets with a split to train inverters on
IMAGE_ENDINGS = ".jpg .jpeg .jfif .png .gif .webp .avif .tif .tiff .bmp .ppm .pgm".split()
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def check_report(
    classifier: Any,
    weights: str | Path | None = None,
    images: str | None = None,
    minutes: float = 10,
    depths: int | Sequence[int] | None = None,
    out: str | Path | None = None,
) -> None:
    """Raise a sentence for arguments of a report that cannot work.

    Args:
        classifier: a name as for `load_classifier`; any other is left to that.
        weights: a file of weights, .safetensors, .pth, .pt, .ckpt or .bin; None for none.
        images: "folder:PATH" or a data set's name; None for none.
        minutes: above 0.
        depths: a whole number, or several, from 1; None for the default.
        out: a folder for results, which need not exist.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
        TypeError: an argument of another type.
        FileNotFoundError: a file or a folder that is not there.
    """
    check_minutes(minutes)
    several = [depths] if isinstance(depths, int) else [] if depths is None else list(depths)
    if not all(isinstance(depth, int) and not isinstance(depth, bool) and depth >= 1 for depth in several):
        wanted = "depths is a number of blocks or a list of depths from 1, such as [1, 4]"
        raise ValueError(f"{wanted}, not {store.quoted(depths)}.")
    if out is not None and store.as_path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"{out} is a file: name a folder for the results.")
    if weights is not None:
        _check_weights(weights)
    _check_images(images)
    if isinstance(classifier, str):  # a network itself is checked by `load_classifier`
        _check_classifier(classifier, weights is None)


def check_minutes(minutes: Any) -> None:
    """Raise TypeError or ValueError for anything but a number above 0, and at most a million: two years."""
    if not isinstance(minutes, int | float) or isinstance(minutes, bool):
        raise TypeError(f"minutes is a number, such as 10 or 0.5, not {store.quoted(minutes)}.")
    if not 0 < minutes <= 10**6:
        raise ValueError(f"minutes must be above 0 and at most a million, not {minutes}: give others.")


def _check_weights(weights: str | Path) -> None:
    if Path(weights).suffix not in WEIGHT_ENDINGS:
        raise ValueError(f"{str(weights)!r} does not end in {' or '.join(WEIGHT_ENDINGS)}: give a state dict's file.")
    store.existing(weights, "file of weights")


def _check_images(images: str | None) -> None:
    if images is None:
        return
    if not isinstance(images, str):
        raise TypeError(f'images is "folder:PATH" or the name of a data set, not {images!r}.')
    source, _, path = images.partition(":")
    if source not in WITH_SPLITS:
        names, own = ", ".join(WITH_SPLITS[:-1]), images if images and store.as_path(images).is_dir() else "PATH"
        raise ValueError(f'There is no data set {images!r} to train on: give "folder:{own}", or one of {names}.')
    if source == "folder":
        folder = store.existing(path or "PATH")
        if not any(file.suffix.lower() in IMAGE_ENDINGS for file in folder.rglob("*")):
            raise ValueError(f"{folder} holds no image ({', '.join(IMAGE_ENDINGS)}): check the path.")


def _check_classifier(name: str, fetched: bool) -> None:
    if not name:
        raise ValueError(f"classifier is a name, such as torchvision:resnet18 or mymodule:factory, not {name!r}.")
    source, colon, rest = name.partition(":")
    ending = Path(name).suffix.lower()
    if Path(source).suffix == ".py":
        raise ValueError(f"{name} is a file: give {Path(source).stem}:{rest or 'factory'} in the folder that holds it.")
    if ending in (".onnx", *WEIGHT_ENDINGS) and not colon:
        if ending != ".onnx":
            raise ValueError(f"{name} is a file of weights: give mymodule:factory, and weights={name!r}.")
        store.existing(name, "file")
    elif not colon:
        if name not in OWN and name not in store.recorded() and not store.as_path(name).is_dir():
            raise ValueError(
                f"There is no classifier {name!r}: for a network of a library give timm:{name} or torchvision:{name}, "
                "for your own package.module:factory; python -m invkit list has the shipped ones."
            )
    elif source not in LIBRARIES:
        _check_factory(source, rest)
    elif fetched and (server := reach.out_of_reach(source)):
        raise FileNotFoundError(
            f"The weights of {name} are not here, and {server} does not answer: "
            "connect to the network, or give weights of your own."
        )


def _check_factory(module: str, factory: str) -> None:
    """That the module is found and, as far as its source tells, holds the factory; the module is not imported."""
    if sys.path[:1] not in ([""], [str(Path.cwd())]):
        sys.path.insert(0, "")  # a notebook's kernel and an installed command do not look in the current folder
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ValueError(
            f"There is no module {module!r}, looked for in {Path.cwd()} and among the installed packages: "
            "go to the folder that holds it, or put that folder into PYTHONPATH."
        )
    if found.origin and found.origin.endswith(".py"):
        _check_holds(Path(found.origin), factory)


def _check_holds(file: Path, factory: str) -> None:
    """That a module's source defines a name; a source that imports `*`, or is no valid Python, is not judged."""
    try:
        nodes = list(ast.walk(tree := ast.parse(file.read_text(encoding="utf-8"))))
    except (SyntaxError, UnicodeDecodeError):
        return
    made = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    if factory not in made and "*" not in made:
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)][:20]
        raise ValueError(f"{file} has no {factory!r}; its functions and classes are {', '.join(functions) or 'none'}.")
