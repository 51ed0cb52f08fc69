"""Tiny ImageNet (Stanford CS231n) as its authors publish it: labelled photos of 200 ImageNet classes, 64 pixels.

It is looked for in $INVKIT_DATA and in the repository's `data`; where neither holds it, the official archive is
downloaded, checked and unpacked there. It may have any number of classes: delete folders of `train` to have fewer.

A classifier's logits on its own training images are not its logits on others, so the published training images are
parted once for all, class by class: half to train classifiers, nearly half to train inverters, the rest to validate.
The published validation images are the test split.
"""

import os
import tempfile
from pathlib import Path

from torch import Tensor

from invkit.data.cache import decoded_split
from invkit.data.folders import SPLITS, class_folders, files_by_class, rows_of_share  # noqa: F401
from invkit.store import REPOSITORY, as_path, existing, folder_made

SHARES = {"train": (0.0, 0.5), "inverter": (0.5, 0.95), "validation": (0.95, 1.0)}  # of each class
NAME, FOLDERS = "tiny-imagenet-200", "tiny-imagenet-*"  # what the archive unpacks to, and what will do
URL, MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"


def tiny_imagenet(path: str, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """One split of Tiny ImageNet.

    Args:
        path: the unpacked archive, or "" to look for it.
        split: one of SPLITS.

    Returns:
        Images uint8 (N, 3, 64, 64), memory-mapped; labels int64 (N,) in the order of the classes' folders; file names
        without endings.

    Raises:
        FileNotFoundError, ValueError: the archive is missing, incomplete or damaged.
    """
    folder = existing(path) if path else _found_or_downloaded()
    by_class = files_by_class(folder / "train") if split != "test" else []
    files = [(found[i], k) for k, found in enumerate(by_class) for i in rows_of_share(len(found), *SHARES[split])]
    if split == "test":
        files = _test_files(folder)
    return decoded_split(files, folder, folder.name, split)


def _test_files(folder: Path) -> list[tuple[Path, int]]:
    """The published validation images of these classes, listed in a table whose first columns are file and class."""
    classes = [child.name for child in class_folders(folder / "train", least=2)]
    table = folder / "val" / "val_annotations.txt"
    if not table.is_file():
        raise FileNotFoundError(f"There is no {table}: unpack the official archive again, it lists the test images.")
    rows = [line.split("\t")[:2] for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(len(row) == 2 for row in rows):
        raise ValueError(f"{table} has no tab between file and class, as the archive's has: unpack it again.")
    return [(folder / "val" / "images" / file, classes.index(name)) for file, name in rows if name in classes]


def _found_or_downloaded() -> Path:
    """Where the archive lies unpacked: where it is looked for, or where it was now downloaded to."""
    roots = [as_path(os.environ["INVKIT_DATA"])] if os.environ.get("INVKIT_DATA") else []
    roots.append(REPOSITORY / "data")
    for root in roots:
        found = sorted(child for child in root.glob(FOLDERS) if child.is_dir())
        if len(found) > 1:
            raise ValueError(f"{root} holds {' and '.join(child.name for child in found)}: give the path of one.")
        if found:
            return found[0]
    return _download(roots[0])


def _download(root: Path) -> Path:
    """Fetch the archive, check it and unpack it below root: whole or not at all."""
    from torchvision.datasets.utils import download_url, extract_archive

    with tempfile.TemporaryDirectory(dir=folder_made(root), prefix=".download-") as partial:
        try:
            download_url(URL, partial, md5=MD5)
        except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError where the checksum differs
            raise FileNotFoundError(
                f"There is no {NAME} in {root}, and {URL} could not be downloaded whole ({error}): "
                f"go online, or unpack the archive there yourself."
            ) from error
        extract_archive(os.path.join(partial, os.path.basename(URL)), partial)
        if not Path(partial, NAME).is_dir():
            raise ValueError(f"{URL} holds no folder {NAME}: unpack it yourself and give its path.")
        os.replace(Path(partial, NAME), root / NAME)
    return root / NAME
