"""Checkpoints of a training run: one safetensors file, replaced whole, its scalars as JSON in the file's header.

The file holds weights, moving averages and Adam's moments under "PLAYER/weights/NAME", "PLAYER/ema/NAME" and
"PLAYER/adam/NAME/MOMENT". Nothing is pickled. The header holds a hash of all of it, and the checkpoint before is kept,
so that a damaged one costs the minutes between two.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from invkit.store import LOCK, folder_made, read_tensors, write_tensors

CHECKPOINT, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process that holds it; ValueError where another one does."""
    with ExitStack() as held:
        if folder is not None:
            folder_made(folder)
            try:
                held.enter_context(FileLock(folder / LOCK, timeout=0))
            except Timeout:
                raise ValueError(f"Another process trains in {folder}: wait for it to end, or use another.") from None
            except OSError:  # a finished run may be read from a folder that cannot be written to
                pass
        yield


def write(folder: Path, tensors: Mapping[str, Tensor], run: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by a new one, once that is complete on the disk; the one before is kept.

    Args:
        folder: made if it is missing.
        tensors: on any device, in any memory format.
        run: the run's scalars, of values that JSON can hold.
    """
    for left in folder.glob(f".{CHECKPOINT}.*.partial"):  # by processes that were killed while they wrote
        left.unlink(missing_ok=True)
    new = folder / f".{CHECKPOINT}.new"
    write_tensors(new, tensors, json.dumps(run))
    if (folder / CHECKPOINT).exists():
        (folder / BEFORE).unlink(missing_ok=True)
        try:
            os.link(folder / CHECKPOINT, folder / BEFORE)  # so that there is a checkpoint at every moment
        except OSError:  # a disk without links: after a kill between the two renames, `newest` finds the one before
            os.replace(folder / CHECKPOINT, folder / BEFORE)
    os.replace(new, folder / CHECKPOINT)


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
    checkpoint = newest(folder)
    if checkpoint is None:
        return None
    tensors, run = checkpoint
    again = "use another folder, or delete this one to train from the start."
    made, wanted = run["settings"], json.loads(json.dumps(settings))
    for key in made | wanted:
        if made.get(key) != wanted.get(key):
            raise ValueError(f"{folder} was made with {key} = {made.get(key)}, not {settings.get(key)}: {again}")
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "/adam/" not in name}
    for name in sorted(found | dict(shapes)):
        if found.get(name) != shapes.get(name):
            what = f"{name}: {found.get(name)} there, {shapes.get(name)} here"
            raise ValueError(f"{folder} was made by another network ({what}): {again}")
    return tensors, run


def newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of a folder that is whole, with a warning where a newer one is damaged.

    Returns None where there is none; ValueError where all are damaged.
    """
    damage = ""
    for path in (folder / CHECKPOINT, folder / BEFORE):
        try:
            if path.exists():
                tensors, text = read_tensors(path)
                run = _run(path, text)
                if damage:
                    warnings.warn(f"{damage}: the one before, of step {run['step']}, is used.", stacklevel=2)
                    os.replace(path, folder / CHECKPOINT)  # or the next one written would put the damaged one here
                return tensors, run
        except ValueError as error:
            damage = damage or str(error)
    if damage:
        raise ValueError(f"{damage}, and there is none before: delete {folder} to train from the start.")
    return None


def seconds(folder: Path) -> float:
    """How long the run with this folder has trained so far; 0 where there is no checkpoint."""
    return checkpoint[1]["seconds"] if (checkpoint := newest(folder)) else 0.0


def _run(path: Path, text: str) -> dict[str, Any]:
    """The scalars of a run; ValueError where they are none."""
    with suppress(ValueError, KeyError, TypeError):
        run = json.loads(text)
        if 0 <= run["step"] <= run["steps"] and run["seconds"] >= 0 and run["settings"] and run["precision"]:
            return run
    raise ValueError(f"{path} is damaged (its step is not one of its run)")
