"""Photos decoded once into a memory-mapped array of bytes, so that reading them is never what training waits for.

The array lies in the environment's INVKIT_CACHE, or else in ~/.cache/invkit. Its name holds a hash of every file's
path, size and time of change: whatever is added, removed or altered is decoded anew, and the older array is deleted.
"""

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invkit.checks import pixels
from invkit.data.images import fit_square
from invkit.data.photos import read_photo
from invkit.store import whole

CHUNK = 1024  # photos decoded at a time, on all cores


def cache_folder() -> Path:
    """Where decoded photos lie."""
    try:
        return Path(os.environ.get("INVKIT_CACHE") or Path.home() / ".cache" / "invkit")
    except RuntimeError:
        raise FileNotFoundError("There is no home folder for decoded photos: name one by INVKIT_CACHE.") from None


def decoded(files: Sequence[Path], name: str, size: int | None = None) -> Tensor:
    """The photos in these files as bytes, memory-mapped; what is written to the tensor stays in memory.

    Of the processes that `accelerate launch` started, the first decodes and the others wait.

    Args:
        files: one photo each.
        name: of the array; no other list of files may use it.
        size: the side of the squares that the photos become (`fit_square`); None for photos that are of one size.

    Returns:
        Images uint8 (N, 3, H, W).

    Raises:
        FileNotFoundError, ValueError: as `read_photo`, or for a photo of another size. Nothing is kept then.
    """
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{key}.npy"
    while not path.is_file() and int(os.environ.get("RANK", 0)):
        time.sleep(1)
    if path.is_file():
        with suppress(ValueError, OSError, EOFError, SyntaxError):  # cut off, or with another header
            array = np.load(path, mmap_mode="c")
            if array.dtype == np.uint8 and array.ndim == 4 and len(array) == len(files):
                return torch.from_numpy(array)
        warnings.warn(f"{path} is damaged: the photos are decoded anew.", stacklevel=2)
    _decode(files, path, name, size)
    _delete_older(path, name)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _decode(files: Sequence[Path], path: Path, name: str, size: int | None) -> None:
    """Write the array, whole or not at all."""
    from tqdm.auto import tqdm

    def read(file: Path) -> Tensor:
        photo = read_photo(file)
        return photo if size is None else fit_square(photo[None], size)[0].clamp(0, 1)

    def levels(file: Path) -> np.ndarray:
        photo = read(file)
        if photo.shape != first.shape:
            sizes = f"{pixels(photo)} pixels, the first {pixels(first)}"
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


def _delete_older(path: Path, name: str) -> None:
    """Delete the older arrays of that name, and what killed processes left of one."""
    import psutil

    arrays = f"{name}-{'?' * 16}.npy"
    older = [other for other in path.parent.glob(arrays) if other != path]
    left = path.parent.glob(f".{arrays}.*.partial")
    for file in older + [other for other in left if not psutil.pid_exists(int(other.suffixes[-2][1:]))]:
        file.unlink(missing_ok=True)
