"""Labelled photos as their authors publish them: Tiny ImageNet (Stanford CS231n) and CIFAR-10 (Krizhevsky 2009).

Looked for in $INVKIT_DATA and in the repository's `data`; where neither holds them, the official archive is downloaded,
checked and unpacked there. Tiny ImageNet may have any number of classes: delete folders of `train` to have fewer.

A classifier's logits on its own training images are not its logits on others, so the published training images are
parted once for all, class by class: half to train classifiers, nearly half to train inverters, the rest to validate.
The published validation images (of CIFAR-10: test images) are the test split.
"""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.utils import download_url, extract_archive

from invkit.data.cache import decoded
from invkit.store import REPOSITORY

SPLITS = ("train", "inverter", "validation", "test")
SHARES = {"train": (0.0, 0.5), "inverter": (0.5, 0.95), "validation": (0.95, 1.0)}  # of each class
# name: (folder it unpacks to, folders that will do, URL, MD5 of the archive)
TINY = (
    "tiny-imagenet-200",
    "tiny-imagenet-*",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
CIFAR = (  # the binary version: the other one is a pickle
    "cifar-10-batches-bin",
    "cifar-10-batches-bin",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)


def tiny_imagenet(path: str, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """Images as memory-mapped bytes (N, 3, 64, 64), labels (N,) in the order of the classes' folders, file names.

    path: the unpacked archive, or "" to look for it. Raises FileNotFoundError or ValueError in one sentence.
    """
    folder = _folder(path, TINY)
    classes = sorted(child.name for child in (folder / "train").glob("*") if child.is_dir())
    if len(classes) < 2:
        what = f"only the class {classes[0]}" if classes else "no class"
        raise ValueError(f"{folder / 'train'} holds {what}: it needs a folder for each of two classes or more.")
    if split == "test":
        files = _tiny_test(folder, classes)
    else:
        files = []
        for label, name in enumerate(classes):
            found = sorted(file for file in (folder / "train" / name).rglob("*") if _is_image(file))
            if not found:
                raise ValueError(f"{folder / 'train' / name} holds no image: fill it, or delete the folder.")
            files += [(found[i], label) for i in _share(len(found), split)]
    if not files:
        raise ValueError(f"{folder} leaves no image for the split {split!r}: it needs more images a class.")
    place = sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    images = decoded([file for file, _ in files], f"{folder.name}-{place}-{split}")
    return images, torch.tensor([label for _, label in files]), [file.stem for file, _ in files]


def _tiny_test(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The published validation images of these classes, listed in a table whose first columns are file and class."""
    table = folder / "val" / "val_annotations.txt"
    if not table.is_file():
        raise FileNotFoundError(
            f"There is no file {table}: unpack the official archive again, it lists the test images."
        )
    rows = [line.split("\t")[:2] for line in table.read_text().splitlines() if line.strip()]
    return [(folder / "val" / "images" / file, classes.index(name)) for file, name in rows if name in classes]


def cifar10(path: str, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """Images as bytes (N, 3, 32, 32), labels (N,), names; path: the unpacked binary version, or "" to look for it."""
    folder = _folder(path, CIFAR)
    batches = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    files = [folder / f"{batch}.bin" for batch in batches]
    record = 1 + 3 * 32 * 32  # the label and the pixels, channel by channel
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no {file.name}: unpack the binary version of CIFAR-10 again.")
        if file.stat().st_size == 0 or file.stat().st_size % record:
            raise ValueError(f"{file} is damaged (its size is no multiple of {record} bytes): unpack it again.")
    records = torch.from_numpy(np.concatenate([np.fromfile(file, np.uint8).reshape(-1, record) for file in files]))
    labels = records[:, 0].long()
    rows = torch.arange(len(labels))
    if split != "test":
        of_class = [rows[labels == label] for label in labels.unique()]
        rows = torch.cat([members[_share(len(members), split)] for members in of_class])
    names = [f"{'test' if split == 'test' else 'train'} {row}" for row in rows.tolist()]
    return records[rows, 1:].view(-1, 3, 32, 32), labels[rows], names


def _share(count: int, split: str) -> list[int]:
    """Which of a class's images belong to the split, in order; the same for the same count."""
    low, high = (round(share * count) for share in SHARES[split])
    return sorted(np.random.default_rng(0).permutation(count)[low:high].tolist())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def _folder(path: str, archive: tuple[str, str, str, str]) -> Path:
    """Where the archive lies unpacked: at the path given, where it is looked for, or where it was now downloaded to."""
    if path:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}: check the path.")
        return folder
    roots = [Path(os.environ["INVKIT_DATA"])] if os.environ.get("INVKIT_DATA") else []
    roots.append(REPOSITORY / "data")
    for root in roots:
        found = sorted(child for child in root.glob(archive[1]) if child.is_dir())
        if len(found) > 1:
            raise ValueError(f"{root} holds {' and '.join(child.name for child in found)}: give the path of one.")
        if found:
            return found[0]
    return _download(roots[0], *archive)


def _download(root: Path, name: str, _: str, url: str, md5: str) -> Path:
    """Fetch the archive, check it and unpack it to root / name: whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
        try:
            download_url(url, partial, md5=md5)
        except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError where the checksum differs
            raise FileNotFoundError(
                f"There is no {name} in {root}, and {url} could not be downloaded whole ({error}): "
                f"go online, or unpack the archive there yourself."
            ) from error
        extract_archive(os.path.join(partial, os.path.basename(url)), partial)
        if not Path(partial, name).is_dir():
            raise ValueError(f"{url} holds no folder {name}: unpack it yourself and give its path.")
        os.replace(Path(partial, name), root / name)
    return root / name
