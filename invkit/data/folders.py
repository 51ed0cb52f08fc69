"""Folders of photos: which files are photos, the photos of a folder for each class, and how a folder is parted.

A folder of one's own is parted once for all, so that no image is in two splits: by a hash of each file's path in the
folder, so that an image stays in its split when others are added. A folder that holds folders train/ and val/ or test/
is parted by these: a classifier has been trained on train/, and inverters are trained and tested on the others.
"""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from invkit.arguments import IMAGE_ENDINGS
from invkit.store import existing

# photos too, which nothing here reads
UNREAD_ENDINGS = tuple(f".{kind}" for kind in "heic heif dng cr2 cr3 nef arw orf rw2 raf svg jp2 jxl jpe tga".split())
# folders that archives, disks and programs add, some with remains of photos
NO_PHOTOS = set("__MACOSX @eaDir @Recycle #recycle #snapshot $RECYCLE.BIN lost+found __pycache__".split())
NO_PHOTOS.add("System Volume Information")

SPLITS = ("train", "inverter", "validation", "test")
SHARES = {"train": (0.0, 0.4), "inverter": (0.4, 0.75), "validation": (0.75, 0.8), "test": (0.8, 1.0)}
HELD_OUT = {"inverter": (0.0, 0.6), "validation": (0.6, 0.7), "test": (0.7, 1.0)}  # of one folder beside train/
VALIDATION = {"inverter": (0.0, 0.9), "validation": (0.9, 1.0)}  # of val/ where there is a test/ too
WHOLE = (0.0, 1.0)
PARTS = set("train training val valid validation dev eval test testing".split())  # names of splits, never of classes
Labelled = tuple[Path, int]  # a file and the number of its class


def image_files(folder: Path, deep: bool = True) -> list[Path]:
    """The files in a folder that end as photos do, in order, without what is hidden or lies in a folder of no photos.

    Args:
        folder: where to look.
        deep: also in the folders inside.

    Warns (UserWarning): how many photos there are of kinds that are not read.
    """
    files = []
    for file in folder.rglob("*") if deep else folder.iterdir():
        inside = file.relative_to(folder).parts
        if NO_PHOTOS.isdisjoint(inside) and not any(part.startswith(".") for part in inside):
            files.append(file)
    unread = sorted(file.suffix.lower() for file in files if file.suffix.lower() in UNREAD_ENDINGS)
    if unread:
        kinds = ", ".join(dict.fromkeys(unread))
        warnings.warn(f"{len(unread)} photos in {folder} are not read ({kinds}): convert them to JPEG.", stacklevel=2)
    return sorted(file for file in files if file.suffix.lower() in IMAGE_ENDINGS)


def class_folders(folder: Path, least: int = 0) -> list[Path]:
    """The folders in a folder that are not hidden, in order: one for each class. ValueError for fewer than `least`."""
    children = (child for child in folder.glob("*") if child.is_dir() and not child.name.startswith("."))
    classes = sorted(child for child in children if child.name not in NO_PHOTOS)
    if len(classes) < least:
        what = f"only the class {classes[0].name}" if classes else "no class"
        raise ValueError(f"{folder} holds {what}: it needs a folder for each of {least} classes or more.")
    return classes


def files_by_class(folder: Path, classes: Path | None = None) -> list[list[Path]]:
    """The photos of each class, from a folder with one folder for each class; photos may lie deeper inside.

    Args:
        folder: of the classes' folders.
        classes: the folder whose classes these are, in its order: a class has one number in all splits, also where a
            split lacks another class. None for `folder` itself, in which every class must have photos.

    Raises ValueError for fewer than two classes, for a class without photos, and for one that `classes` lacks.
    """
    names = [child.name for child in class_folders(classes or folder, least=2)]
    if others := [child.name for child in class_folders(folder, least=2) if child.name not in names]:
        raise ValueError(f"{folder} has the class {others[0]}, which {classes} has not: delete it, or add it there.")
    found = [image_files(folder / name) if (folder / name).is_dir() else [] for name in names]
    for child, files in zip((folder / name for name in names), found, strict=True):
        if not files and classes is None:
            raise ValueError(f"{child} holds no image: fill it, or delete the folder.")
    return found


def rows_of_share(count: int, low: float, high: float) -> list[int]:
    """Which of so many images of a class belong to a share of them, such as 0.5 to 0.95, in order; always the same."""
    return sorted(np.random.default_rng(0).permutation(count)[round(low * count) : round(high * count)].tolist())


def place(folder: Path) -> str:
    """A short word for where a folder lies, to tell the caches of two folders of one name apart."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]


def labelled_images(folder: Path, split: str | None = None) -> list[Labelled]:
    """The photos of a folder with their classes, -1 where there are none, in order.

    Args:
        folder: one folder of photos, or one with a folder for each class; or one with such folders train/, and val/ or
            test/ or both.
        split: one of SPLITS; None for all photos.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no photo, photos beside folders of photos, one class only, or none left for the split.
    """
    folder = existing(folder)
    parts = [(part, shares) for part, shares in _parts(folder) if split is None or split in shares]
    named = (child.name for part, _ in _parts(folder) for child in class_folders(part))
    classes = list(dict.fromkeys(named))  # those of train/ first, whose numbers a classifier trained on them has
    found: list[Labelled] = []
    for part, shares in parts:
        low, high = WHOLE if split is None else shares[split]
        found += [(file, label) for file, label in _of_one(part, classes) if low <= _chance(file, part) < high]
    if not found:
        raise ValueError(f"{folder} leaves no image for the split {split!r}: it needs more images.")
    return found


def _parts(folder: Path) -> list[tuple[Path, dict[str, tuple[float, float]]]]:
    """The folders that hold the photos, and which share of each is which split's."""
    validation = next((folder / name for name in ("val", "valid", "validation") if (folder / name).is_dir()), None)
    test = folder / "test" if (folder / "test").is_dir() else None
    if not (folder / "train").is_dir() or not (validation or test):
        names = {child.name.casefold() for child in class_folders(folder)}
        if names and names <= PARTS:
            named = " and ".join(sorted(names))
            raise ValueError(f"{folder} holds {named}, splits, no classes: call them train and val.")
        return [(folder, SHARES)]
    train = (folder / "train", {"train": WHOLE})
    if validation and test:
        return [train, (validation, VALIDATION), (test, {"test": WHOLE})]
    return [train, (validation or test or folder, HELD_OUT)]


def _of_one(folder: Path, classes: list[str]) -> list[Labelled]:
    children = class_folders(folder)
    labelled = [(file, classes.index(child.name)) for child in children for file in image_files(child)]
    flat = [(file, -1) for file in image_files(folder, deep=False)]
    if labelled and flat:
        raise ValueError(f"{folder} holds images and folders of images: make it one folder a class, or one folder.")
    if not labelled and not flat:
        raise ValueError(f"{folder} holds no image ({', '.join(IMAGE_ENDINGS)}), nor do folders in it: check the path.")
    held = {label for _, label in labelled}
    if len(held) == 1:
        only = folder / classes[held.pop()]
        raise ValueError(f"{folder} holds images of one class only, {only.name}: add others, or give folder:{only}.")
    return labelled or flat


def _chance(file: Path, folder: Path) -> float:
    """A number from 0 to 1, 1 excluded, that a file's path in the folder decides."""
    digest = hashlib.sha256(os.fsencode(file.relative_to(folder).as_posix())).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
