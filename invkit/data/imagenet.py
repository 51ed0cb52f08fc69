"""ImageNet-1k as its owners unpack it, `train/CLASS/*` and `val/CLASS/*`, shrunk once to squares of bytes.

Nothing is downloaded: `data.load("imagenet:PATH")`, or the environment's INVKIT_IMAGENET, names the folder. Published
classifiers have seen every training image, so there is no split to train classifiers on: of each class, 95 % of the
training images are for inverters and the rest for choosing; the validation images are the tests.

The squares are a memory-mapped array in `data_cache.cache_folder()`, 49 KB an image at 128 pixels: 60 GB in all. The
first process makes it, others wait.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from invkit.data.cache import cache_folder
from invkit.data.photos import fit, read_photo

SPLITS = ("inverter", "validation", "test")
KEPT = 0.95  # share of a class's training images that inverters train on
SIDE = 128


def imagenet(path: str, split: str, side: int = SIDE) -> tuple[Tensor, Tensor, list[str]]:
    """Images as memory-mapped bytes (N, 3, side, side), labels (N,) in the order of the classes' folders, file names.

    path: the folder, or "" for INVKIT_IMAGENET. Raises FileNotFoundError or ValueError in one sentence.
    """
    folder = _folder(path)
    part = folder / ("val" if split == "test" else "train")
    classes = sorted(child for child in part.glob("*") if child.is_dir())
    if len(classes) < 2:
        raise FileNotFoundError(f"{part} needs a folder of images for each class: sort them there as ImageNet does.")
    files = []
    for label, child in enumerate(classes):
        found = sorted(file for file in child.iterdir() if file.suffix.lower() in IMG_EXTENSIONS)
        if not found:
            raise ValueError(f"{child} holds no image: fill it, or delete the folder.")
        order = np.random.default_rng(0).permutation(len(found))
        kept = round(KEPT * len(found))
        rows = {"inverter": order[:kept], "validation": order[kept:], "test": range(len(found))}[split]
        files += [(found[row], label) for row in sorted(rows)]
    if not files:
        raise ValueError(f"{part} leaves no image for the split {split!r}: it needs more images a class.")
    images = shrunk([file for file, _ in files], side, f"imagenet-{side}-{split}")
    return images, torch.tensor([label for _, label in files]), [file.stem for file, _ in files]


def shrunk(files: list[Path], side: int, name: str) -> Tensor:
    """The central squares of the photos in these files, resized to `side`: bytes (N, 3, side, side), memory-mapped."""
    facts = [(str(file), file.stat().st_size) for file in files]
    path = cache_folder() / f"{name}-{sha256(repr(facts).encode()).hexdigest()[:16]}.npy"
    while not path.is_file() and int(os.environ.get("RANK", 0)):  # under `accelerate launch` the first one makes it
        time.sleep(1)
    if not path.is_file():
        _shrink(files, side, path)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _shrink(files: list[Path], side: int, path: Path) -> None:
    """Write the array whole or not at all."""

    def square(file: Path) -> np.ndarray:
        return np.rint(fit(read_photo(file), side)[0].numpy() * 255).astype(np.uint8)

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), 3, side, side))
        with ThreadPoolExecutor() as pool:
            for start in tqdm(range(0, len(files), 1024), desc="shrinking ImageNet", unit="1024 images", mininterval=1):
                chunk = files[start : start + 1024]
                array[start : start + len(chunk)] = np.stack(list(pool.map(square, chunk)))
        array.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _folder(path: str) -> Path:
    folder = Path(path or os.environ.get("INVKIT_IMAGENET") or "imagenet").expanduser()
    if not (folder / "train").is_dir() or not (folder / "val").is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder with ImageNet's train/ and val/, which nobody may hand on: "
            "name one by INVKIT_IMAGENET, or as imagenet:PATH."
        )
    return folder
