"""ImageNet-1k as its owners unpack it, `train/CLASS/*` and `val/CLASS/*`, shrunk once to squares of bytes.

Nothing is downloaded: `data.load("imagenet:PATH")`, or the environment's INVKIT_IMAGENET, names the folder. Published
classifiers have seen every training image, so there is no split to train classifiers on: of each class, 95 % of the
training images are for inverters and the rest for choosing; the validation images are the tests.

The squares take 49 KB an image at 128 pixels, 60 GB in all; `invkit.data.cache` keeps them.
"""

import os
from pathlib import Path

from torch import Tensor

from invkit.data.cache import decoded_split
from invkit.data.folders import files_by_class, rows_of_share
from invkit.store import expanded

SPLITS = ("inverter", "validation", "test")
SHARES = {"inverter": (0.0, 0.95), "validation": (0.95, 1.0), "test": (0.0, 1.0)}  # of each class
SIDE = 128


def imagenet(path: str, split: str, side: int = SIDE) -> tuple[Tensor, Tensor, list[str]]:
    """One split of ImageNet as squares.

    Args:
        path: the folder with train/ and val/; "" for the environment's INVKIT_IMAGENET.
        split: "inverter", "validation" or "test".
        side: of the squares, in pixels.

    Returns:
        Images uint8 (N, 3, side, side), memory-mapped; labels int64 (N,) in the order of the classes' folders; file
        names without endings.

    Raises:
        FileNotFoundError, ValueError: no such folder, too few classes, or a photo that cannot be read.
    """
    folder = expanded(path or os.environ.get("INVKIT_IMAGENET") or "imagenet")
    if not (folder / "train").is_dir() or not (folder / "val").is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder with ImageNet's train/ and val/, which nobody may hand on: "
            "name one by INVKIT_IMAGENET, or as imagenet:PATH."
        )
    part = folder / ("val" if split == "test" else "train")
    files: list[tuple[Path, int]] = []
    for label, found in enumerate(files_by_class(part, folder / "train")):
        files += [(found[row], label) for row in rows_of_share(len(found), *SHARES[split])]
    return decoded_split(files, folder, f"imagenet-{side}", split, side)
