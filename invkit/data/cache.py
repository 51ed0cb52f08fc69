"""Photos decoded once into a memory-mapped array of bytes, so that reading them is never what training waits for.

The array lies in the environment's INVKIT_CACHE, or else in ~/.cache/invkit. Its name holds a hash of every file's
path, size and time of change: whatever is added, removed or altered is decoded anew, and the older array is deleted.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invkit.data.folders import place
from invkit.data.images import fit_square
from invkit.data.photos import read_photo
from invkit.store import as_path, locked, whole

CHUNK = 1024  # photos decoded at a time, on all cores
LONGEST_WAIT = 12 * 3600  # seconds for another process that decodes


def cache_folder() -> Path:
    """Where decoded photos lie."""
    try:
        return as_path(os.environ.get("INVKIT_CACHE") or Path.home() / ".cache" / "invkit")
    except RuntimeError:
        raise FileNotFoundError("There is no home folder for decoded photos: name one by INVKIT_CACHE.") from None


def decoded_split(
    files: Sequence[tuple[Path, int]], folder: Path, name: str, split: str, size: int | None = None
) -> tuple[Tensor, Tensor, list[str]]:
    """A split of a folder, from its (file, class number) pairs: images as `decoded`, labels int64 (N,), files' stems.

    Raises ValueError where there are no files, and whatever `decoded` does.
    """
    if not files:
        raise ValueError(f"{folder} leaves no image for the split {split!r}: it needs more images a class.")
    images = decoded([file for file, _ in files], f"{name}-{place(folder)}-{split}", size)
    return images, torch.tensor([label for _, label in files]), [file.stem for file, _ in files]


def decoded(files: Sequence[Path], name: str, size: int | None = None) -> Tensor:
    """The photos in these files as bytes, memory-mapped; what is written to the tensor stays in memory.

    Of several processes, such as those that `accelerate launch` starts, one decodes and the others wait; where it
    dies, another one begins anew.

    Args:
        files: one photo each.
        name: of the array; no other list of files may use it.
        size: the side of the squares that the photos become (`fit_square`); None for photos that are of one size.

    Returns:
        Images uint8 (N, 3, H, W).

    Raises:
        FileNotFoundError, ValueError: as `read_photo`, or for a photo of another size. Nothing is kept then.
        TimeoutError: another process has been decoding for twelve hours.
    """
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{key}.npy"
    if (array := _kept(path, len(files))) is None:
        with locked(path.with_name(f"{name}.lock"), LONGEST_WAIT):
            if (array := _kept(path, len(files))) is None:  # no other process has decoded them meanwhile
                if path.is_file():
                    warnings.warn(f"{path} is damaged: the photos are decoded anew.", stacklevel=2)
                _decode(files, path, name, size)
                array = np.load(path, mmap_mode="c")
    return torch.from_numpy(array)


def _kept(path: Path, number: int) -> np.ndarray | None:
    """The array of so many photos in a file; None where there is none, or it is cut off or has another header."""
    with suppress(ValueError, OSError, EOFError, SyntaxError):
        array = np.load(path, mmap_mode="c")
        if array.dtype == np.uint8 and array.ndim == 4 and len(array) == number:
            return array
    return None


def _decode(files: Sequence[Path], path: Path, name: str, size: int | None) -> None:
    """Write the array, whole or not at all, and delete the older ones of that name, and what killed processes left."""
    from tqdm.auto import tqdm

    def read(file: Path) -> Tensor:
        photo = read_photo(file)
        return photo if size is None else fit_square(photo[None], size)[0].clamp(0, 1)

    def levels(file: Path) -> np.ndarray:
        photo = read(file)
        if photo.shape != first.shape:
            sizes = f"{photo.shape[-1]}x{photo.shape[-2]} pixels, the first {first.shape[-1]}x{first.shape[-2]}"
            raise ValueError(f"{file} is {sizes}: make all photos of a data set one size.")
        return np.rint(photo.numpy() * 255).astype(np.uint8)

    first = read(files[0])
    with whole(path) as partial, ThreadPoolExecutor() as pool:
        shape = (len(files), *first.shape)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # on a disk that is full, writing to a mapped file ends the process
            with open(partial, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        with tqdm(total=len(files), desc=f"decoding {name}", leave=False, mininterval=1) as bar:
            for start in range(0, len(files), CHUNK):
                chunk = files[start : start + CHUNK]
                for i, photo in enumerate(pool.map(levels, chunk), start=start):
                    array[i] = photo
                bar.update(len(chunk))
        array.flush()
    arrays = f"{name}-{'?' * 16}.npy"
    for other in {*path.parent.glob(arrays), *path.parent.glob(f".{arrays}.*.partial")} - {path}:
        other.unlink(missing_ok=True)
