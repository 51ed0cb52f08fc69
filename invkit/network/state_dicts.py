"""Weights that somebody saved for a network of their own: a state dict in a file, alone or inside a checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from invkit.store import existing

NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")  # keys of checkpoints
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")  # of wrappers around the network


def read_state_dict(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of one that torch.save wrote; nothing is unpickled but plain tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind, or without a state dict.
    """
    path = existing(file, "file of weights")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # damage has many errors
        kind = "holds more than tensors" if isinstance(error, pickle.UnpicklingError) else "cannot be read as weights"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{path} {kind} ({reason}): save the network's state dict alone, torch.save(model.state_dict(), FILE)."
        ) from error
    for key in NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {name: t for name, t in found.items() if isinstance(t, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no state dict: save it by torch.save(model.state_dict(), FILE).")
    return tensors


def put_into(model: nn.Module, file: str | Path, name: str) -> None:
    """Give a network the weights of a file, every one of them.

    Args:
        model: whose tensors are replaced.
        file: as for `read_state_dict`; prefixes of wrappers, as "module.", are taken off.
        name: of the network, for sentences.

    Raises:
        ValueError: tensors that the network has and the file has not, or the other way round, or of another shape.
    """
    expected, tensors = model.state_dict(), read_state_dict(file)
    while not expected.keys() & tensors.keys():
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    problems = []
    for words, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has beyond the network", tensors.keys() - expected.keys()),
    ):
        names = {key for key in names if not key.endswith("num_batches_tracked")}  # older files have none
        if names:
            first = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            problems.append(f"{words} {first}")
    for key in [key for key in expected if key in tensors and expected[key].shape != tensors[key].shape][:1]:
        problems.append(f"has {key} of shape {tuple(tensors[key].shape)} where {tuple(expected[key].shape)} is needed")
    if problems:
        raise ValueError(
            f"{file} does not fit {name}: it {', and '.join(problems)}; build the network as it was trained, "
            "with keyword arguments such as num_classes=10 if need be."
        )
    expected.update(tensors)  # in place, with the version of each module's state, for which torchvision's MNASNet asks
    model.load_state_dict(expected, strict=False)
