"""Checkpoints of a training run: one safetensors file, replaced whole, its scalars as JSON in the file's header.

The file holds weights, moving averages and Adam's moments under "PLAYER/weights/NAME", "PLAYER/ema/NAME" and
"PLAYER/adam/NAME/MOMENT". Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invkit.store import whole

CHECKPOINT = "checkpoint.safetensors"


def write(folder: Path, tensors: Mapping[str, Tensor], run: dict[str, Any]) -> None:
    """Replace the folder's checkpoint: until the new file is complete on the disk, the one before stays in its place.

    Args:
        folder: made if it is missing.
        tensors: on any device, in any memory format.
        run: the run's scalars, of values that JSON can hold.
    """
    stored = {name: plain(tensor) for name, tensor in tensors.items()}
    with whole(folder / CHECKPOINT) as partial:
        save_file(stored, partial, metadata={"run": json.dumps(run)})


def read(
    folder: Path, settings: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the scalars of a folder's checkpoint, or None where there is none.

    Args:
        folder: of the run.
        settings: of the call that wants to go on. They must be those in the scalars' "settings".
        shapes: of the tensors that it wants, Adam's moments aside: {name: shape}.

    Raises:
        ValueError: a checkpoint that cannot be read, or was made with other settings or by another network.
    """
    if not (folder / CHECKPOINT).exists():
        return None
    again = "use another folder, or delete this one to train from the start."
    with _opened(folder / CHECKPOINT) as file:
        run = json.loads(file.metadata()["run"])
        made, wanted = run["settings"], json.loads(json.dumps(settings))
        for key in made | wanted:
            if made.get(key) != wanted.get(key):
                raise ValueError(
                    f"{folder} was made with {key} = {made.get(key)}, this call has {settings.get(key)}: {again}"
                )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "/adam/" not in name}
    for name in sorted(found | dict(shapes)):
        if found.get(name) != shapes.get(name):
            raise ValueError(
                f"{folder} was made by another network ({name}: {found.get(name)} there, {shapes.get(name)} here): "
                + again
            )
    return tensors, run


def seconds(folder: Path) -> float:
    """How long the run with this folder has trained so far; 0 where there is no checkpoint."""
    if not (folder / CHECKPOINT).exists():
        return 0.0
    with _opened(folder / CHECKPOINT) as file:
        return json.loads(file.metadata()["run"])["seconds"]


def plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU, because safetensors takes neither channels_last nor shared memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open checkpoint, or one sentence about why it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({error}): delete it to train from the start."
        ) from error
