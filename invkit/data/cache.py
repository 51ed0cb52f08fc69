"""Photos decoded once into a memory-mapped array of bytes, so that reading them is never what training waits for.

The array lies in the environment's INVKIT_CACHE, or else in ~/.cache/invkit. Its name holds a hash of every file's
path, size and time of change: whatever is added, removed or altered is decoded anew, and the older array is deleted.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from tqdm.auto import tqdm

from invkit.data.photos import read_photo


def cache_folder() -> Path:
    return Path(os.environ.get("INVKIT_CACHE") or Path.home() / ".cache" / "invkit")


def decoded(files: Sequence[Path], name: str) -> Tensor:
    """The photos in these files as bytes (N, 3, H, W), memory-mapped; what is written to them stays in memory.

    name: of the array, which no other list of files may use. All photos must be of one size.
    Raises what `read_photo` does, naming the file, and ValueError for a photo of another size; nothing is kept then.
    """
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{key}.npy"
    if not path.is_file():
        _decode(files, path, name)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _decode(files: Sequence[Path], path: Path, name: str) -> None:
    """Write the array whole or not at all, then delete the older ones of that name and what a killed run left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    shape = read_photo(files[0]).shape
    try:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), *shape))
        for i, file in enumerate(tqdm(files, desc=f"decoding {name}", leave=False, mininterval=1)):
            photo = read_photo(file)
            if photo.shape != shape:
                sizes = f"{photo.shape[2]}x{photo.shape[1]} pixels, the first {shape[2]}x{shape[1]}"
                raise ValueError(f"{file} is {sizes}: make all photos of a data set one size.")
            array[i] = np.rint(photo.numpy() * 255)
        array.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    older = [other for other in path.parent.glob(f"{name}-{'?' * 16}.npy") if other != path]
    left = path.parent.glob(f"{name}-{'?' * 16}.*.partial")
    for file in older + [other for other in left if not psutil.pid_exists(int(other.suffixes[-2][1:]))]:
        file.unlink(missing_ok=True)
