"""Folders of photos: which files are photos, and the photos of a folder for each class."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that end as photos do and are not hidden, in order."""
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."))


def class_folders(folder: Path, least: int = 0) -> list[Path]:
    """The folders in a folder that are not hidden, in order: one for each class. ValueError for fewer than `least`."""
    classes = sorted(child for child in folder.glob("*") if child.is_dir() and not child.name.startswith("."))
    if len(classes) < least:
        what = f"only the class {classes[0].name}" if classes else "no class"
        raise ValueError(f"{folder} holds {what}: it needs a folder for each of {least} classes or more.")
    return classes


def files_by_class(folder: Path) -> list[list[Path]]:
    """The photos of each class, from a folder with one folder for each class; photos may lie deeper inside.

    Raises ValueError for fewer than two classes and for a class without photos.
    """
    classes = class_folders(folder, least=2)
    found = [image_files(child.rglob("*")) for child in classes]
    for child, files in zip(classes, found, strict=True):
        if not files:
            raise ValueError(f"{child} holds no image: fill it, or delete the folder.")
    return found


def place(folder: Path) -> str:
    """A short word for where a folder lies, to tell the caches of two folders of one name apart."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
