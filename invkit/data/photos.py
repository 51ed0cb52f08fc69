"""Read any photo file the way a viewer would show it, crop it to a square, write PNGs whole or not at all.

Pillow reads the formats, those of photos alone (`FORMATS`). What is decided here is what Pillow leaves open:
orientation (Exif), transparency (composited on white), embedded colour profiles (converted to sRGB), greys of more than
8 bits (scaled, not clipped), CMYK and palettes (to RGB), and very large photos (shrunk while reading, most PNGs and
JPEGs without ever being held whole).
"""

import io
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from invkit.checks import check_image
from invkit.data.images import as_bytes, fit_square
from invkit.data.rows import bands_of, in_bands
from invkit.store import as_path, whole

MOST_PIXELS = 300_000_000  # more than this is refused
MOST_BYTES = 500_000_000  # of pixels that can only be decoded as a whole: more than this is refused, too
LARGE_PIXELS = 16_000_000  # larger photos are shrunk while reading: 200 MB as floats
KEPT_PIXELS = 8_000_000  # at most, of these
BAND_PIXELS = 1_000_000  # a large photo is converted this many pixels at a time
SRGB_ROUNDING = 2  # levels of 255 by which two versions of the sRGB profile may differ
FORMATS = "JPEG PNG GIF WEBP AVIF TIFF BMP PPM JPEG2000".split()  # Pillow reads others, some by another program
_opening = threading.Lock()  # Pillow's limit of pixels is one for all threads


def read_photo(path: str | os.PathLike, notes: list[str] | None = None) -> Tensor:
    """The photo as a float tensor (3, H, W) in [0, 1]: upright, in sRGB, transparency composited on white.

    Photos above 16 million pixels are shrunk by a whole factor to 8 million at most, so that memory is bounded. Of an
    animation the first frame is read.

    Args:
        path: the file, in one of `FORMATS`, whatever its name ends in. None other is opened: for some, such as EPS,
            Pillow would start a program that draws them.
        notes: a list to which a sentence is appended for whatever was done beyond reading (shrunk, composited, ...).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole image; one of more than 300 million pixels, or of more than 500 MB where it can only be
            decoded as a whole, as TIFFs and PNGs of 16 bits can.
    """
    path, notes = as_path(path), [] if notes is None else notes
    if not path.is_file():
        problem = "is a folder: name the photos in it" if path.is_dir() else "does not exist, or is a link to nothing"
        if path.exists() and not path.is_dir():
            problem = "is a pipe or a device, and photos are read from files: save it to one first"
        raise FileNotFoundError(f"{path} {problem}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): fetch the photo again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about odd Exif or palettes: the pixels are still right
            with _any_size():
                image = Image.open(path, formats=FORMATS)
            with image:
                return _pixels(image, notes)
    except _TooLarge as error:
        raise ValueError(f"{path} has {error}.") from None
    except UnidentifiedImageError as error:
        wanted = f"an image that is read ({', '.join(FORMATS)})"
        raise ValueError(f"{path} is not {wanted}: convert it to JPEG or PNG.") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damage
        raise ValueError(f"{path} cannot be read; if it is truncated or damaged, fetch it again ({error}).") from error


class _TooLarge(ValueError):
    """An image that would take too much memory: its size in pixels, and what to do."""


def fit(image: Tensor, size: int) -> tuple[Tensor, str]:
    """The central square of a photo (3, H, W), resized to (3, size, size); and a sentence that says so.

    See `fit_square`, which does it.
    """
    check_image(image)
    height, width = image.shape[1:]
    side = min(height, width)
    said = f"{width}x{height} pixels"
    if height != width:
        said += f" cropped to the central {side}x{side}"
    said += ", not resized" if side == size else f", resized to {size}x{size} (bilinear, antialiased)"
    return fit_square(image[None], size)[0].clamp(0, 1), said


def write_png(path: str | Path, image: Tensor) -> None:
    """Write an image (3, H, W) in [0, 1] as an 8-bit PNG: whole, or not at all. Values beyond [0, 1] are clipped."""
    check_image(image)
    with whole(path) as file:
        as_pillow(image).save(file, format="PNG")


def as_pillow(image: Tensor) -> Image.Image:
    """An image (3, H, W) as Pillow's, with 8 bits a number; values beyond [0, 1] are clipped."""
    return Image.fromarray(as_bytes(image.detach().cpu().clamp(0, 1)).permute(1, 2, 0).numpy())


@contextmanager
def _any_size() -> Iterator[None]:
    """Pillow alone would refuse above 179 million pixels, as it opens an image, and once more as it decodes a TIFF."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pixels(image: ImageFile.ImageFile, notes: list[str]) -> Tensor:
    """The opened image as floats (3, H, W) in [0, 1]; a large one is shrunk by a whole factor, band by band."""
    size = image.size
    if math.prod(size) > MOST_PIXELS:
        raise _TooLarge(f"{size[0]}x{size[1]} pixels, more than {MOST_PIXELS // 10**6} million: shrink it first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"the first of its {frames} frames was read")
    factor = math.ceil(math.sqrt(math.prod(size) / KEPT_PIXELS)) if math.prod(size) > LARGE_PIXELS else 1
    if factor > 1:
        image.draft(None, (size[0] // factor, size[1] // factor))  # a JPEG can be decoded at 1/2, 1/4 or 1/8
        factor = math.ceil(factor / round(size[0] / image.size[0]))
    width, height = image.size
    rows = max(1, BAND_PIXELS // (width * factor)) * factor
    if factor == 1 or not in_bands(image, rows):
        _load(image, size)
    if image.has_transparency_data:
        notes.append("its transparent parts were put on white")
    white, transform = _white_level(image, notes), _transform_to_srgb(image, notes)
    kept = Image.new("RGB" if white is None else "F", (math.ceil(width / factor), math.ceil(height / factor)))
    for i, band in enumerate(bands_of(image, rows)):
        kept.paste(_converted(band, white, transform).reduce(factor), (0, i * rows // factor))
    if math.prod(kept.size) != math.prod(size):
        notes.append(f"its {size[0]}x{size[1]} pixels were shrunk to {kept.width}x{kept.height} while reading")
    kept.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    image.close()  # its memory is needed for the floats
    ImageOps.exif_transpose(kept, in_place=True)
    values = torch.empty(3, kept.height, kept.width)
    for channel, plane in zip(values, kept.split() if white is None else [kept] * 3, strict=True):
        channel.copy_(torch.from_numpy(np.array(plane)))
    return values.div_(255) if white is None else values


def _load(image: ImageFile.ImageFile, size: tuple[int, int]) -> None:
    """Decode an opened image, of so many pixels in its file, as a whole; _TooLarge for one above `MOST_BYTES`."""
    taken: float = math.prod(image.size) * {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    if image.info.get("progressive"):  # a JPEG whose every detail is decoded before its first pixel
        areas = [across * down for _, across, down, _ in getattr(image, "layer")]  # noqa: B009 - unknown to mypy
        taken = max(taken, 2 * math.prod(size) * sum(areas) / max(areas))
    if taken > MOST_BYTES:
        megabytes = f"{taken / 10**6:.0f} MB to decode as a whole, more than {MOST_BYTES // 10**6}"
        raise _TooLarge(f"{size[0]}x{size[1]} pixels, which take {megabytes}: shrink it, or save it as a PNG of 8 bits")
    with _any_size():
        image.load()


def _white_level(image: Image.Image, notes: list[str]) -> float | None:
    """The value that is white, for greys of more than 8 bits; None for all other images."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales these itself
        return 65535
    if image.mode not in ("I", "F"):
        return None
    values = np.asarray(image)
    low, high = values.min().item(), values.max().item()  # NaN where one is, which Pillow's getextrema passes over
    levels = 1 if image.mode == "F" else 255 if high <= 255 else 65535  # what 32-bit integers hold in practice
    if not (low >= 0 and high <= levels):  # written so that NaN fails too
        raise ValueError(f"values from {low:g} to {high:g} leave open what is white: save it with 8 or 16 bits")
    if image.mode == "I":
        notes.append(f"its 32-bit values, up to {high}, were taken as levels from 0 to {levels}")
    return levels


def _transform_to_srgb(image: Image.Image, notes: list[str]) -> ImageCms.ImageCmsTransform | None:
    """From the image's embedded colour profile to sRGB; None where there is none, or it is sRGB itself."""
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    mode = image.mode if image.mode in ("L", "CMYK") else "L" if image.mode == "LA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        notes.append("its colour profile is damaged or does not fit its colours, and was ignored")
        return None
    if mode != "CMYK":
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        colours = levels if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        sample = Image.fromarray(np.atleast_2d(colours))
        change = np.asarray(ImageCms.applyTransform(sample, transform), int) - np.asarray(sample.convert("RGB"), int)
        if np.abs(change).max() <= SRGB_ROUNDING:
            return None
    notes.append(f"its colours were converted from {ImageCms.getProfileDescription(source).strip()} to sRGB")
    return transform


def _converted(band: Image.Image, white: float | None, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """Some rows of an image in any Pillow mode: as RGB on white, or as floats in [0, 1] where `white` is given."""
    if white is not None:  # Pillow's own conversion to RGB clips at 255
        return Image.fromarray(np.asarray(band, dtype=np.float32) / white)
    if band.has_transparency_data:
        band = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB")
    if transform is None:
        return band.convert("RGB")
    return ImageCms.applyTransform(band.convert(transform.inputMode), transform) or band
