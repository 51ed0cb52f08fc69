"""Read any photo file the way a viewer would show it, crop it to a square, write PNGs whole or not at all.

Pillow reads the formats; what is decided here is what Pillow leaves open: orientation (Exif), transparency (composited
on white), 16-bit greys (scaled, not clipped), CMYK and palettes (to RGB), and very large photos (shrunk while reading).
"""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

MOST_PIXELS = 300_000_000  # more than this is refused: decoding alone would take over a gigabyte
KEPT_PIXELS = 16_000_000  # larger photos are shrunk by a whole factor while reading: 200 MB as floats
BAND_PIXELS = 8_000_000  # a large photo is converted this many pixels at a time
UPRIGHT = {  # Exif orientation -> what brings the pixels (H, W, 3) upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


def read_photo(path: str | os.PathLike, notes: list[str] | None = None) -> Tensor:
    """The photo as a float tensor (3, H, W) in [0, 1], upright, transparency composited on white.

    What was done beyond reading (shrunk, composited, ...) is appended to `notes`, one sentence each. Photos above 16
    million pixels are shrunk by a whole factor so that memory stays bounded; of an animation the first frame is read.
    Raises FileNotFoundError, or ValueError for what is not a whole image or has more than 300 million pixels.
    """
    path, notes = Path(path), [] if notes is None else notes
    if not path.is_file():
        problem = "is a folder: name the photo files in it" if path.is_dir() else "does not exist: check the path"
        raise FileNotFoundError(f"{path} {problem}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): fetch the photo again.")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow's is 179 million; ours is checked below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about odd Exif or palettes: the pixels are still right
            with Image.open(path) as image:
                if math.prod(image.size) <= MOST_PIXELS:
                    return torch.from_numpy(_pixels(image, notes).transpose(2, 0, 1).copy())
                size = image.size
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read: convert it to JPEG or PNG.") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damage
        raise ValueError(f"{path} cannot be read; if it is truncated or damaged, fetch it again ({error}).") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    most = f"{MOST_PIXELS // 10**6} million"
    raise ValueError(f"{path} has {size[0]}x{size[1]} pixels, more than {most}: shrink it first.")


def fit(image: Tensor, size: int) -> tuple[Tensor, str]:
    """The central square of a photo (3, H, W), resized to (3, size, size); and a sentence that says so.

    The same picture as resizing the shorter side and then cropping the centre, but a very elongated photo costs no
    memory. Bilinear, antialiased.
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            f"A photo is a float tensor (3, H, W), not {image.dtype} {tuple(image.shape)}: see read_photo."
        )
    if size < 1:
        raise ValueError(f"The size must be at least 1 pixel, not {size}.")
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    cropped = f"{width}x{height} pixels"
    if height != width:
        cropped += f" cropped to the central {side}x{side}"
    if side == size:
        return square.clone(), f"{cropped}, not resized"
    resized = F.interpolate(square[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return resized.clamp(0, 1), f"{cropped}, resized to {size}x{size} (bilinear, antialiased)"


def write_png(path: str | os.PathLike, image: Tensor) -> None:
    """Write an image (3, H, W) in [0, 1] as an 8-bit PNG: whole, or not at all."""
    path = Path(path)
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"write_png takes a float image (3, H, W), not {image.dtype} {tuple(image.shape)}.")
    levels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(levels).save(partial, format="PNG")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _pixels(image: Image.Image, notes: list[str]) -> np.ndarray:
    """The opened image as float32 (H, W, 3) in [0, 1], upright; a large one shrunk by a whole factor, band by band."""
    size = image.size
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"the first of its {image.n_frames} frames was read")
    factor = math.ceil(math.sqrt(math.prod(size) / KEPT_PIXELS))
    if factor > 1:
        image.draft(None, (size[0] // factor, size[1] // factor))  # a JPEG can be decoded at 1/2, 1/4 or 1/8
        factor = math.ceil(factor / round(size[0] / image.size[0]))
    image.load()
    if image.has_transparency_data:
        notes.append("its transparent parts were put on white")
    width, height = image.size
    rows = max(1, BAND_PIXELS // (width * factor)) * factor
    bands = [_band(image.crop((0, top, width, min(top + rows, height))), factor) for top in range(0, height, rows)]
    pixels = np.concatenate(bands)
    if pixels.shape[:2] != size[::-1]:
        notes.append(f"its {size[0]}x{size[1]} pixels were shrunk to {pixels.shape[1]}x{pixels.shape[0]} while reading")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"values from {pixels.min():g} to {pixels.max():g} leave open what is white: save it with 8 or 16 bits"
        )
    return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation), lambda pixels: pixels)(pixels)


def _band(band: Image.Image, factor: int) -> np.ndarray:
    """Some rows of an image in any Pillow mode as float32 (rows / factor, W / factor, 3) in [0, 1]."""
    if band.mode.startswith("I") or band.mode == "F":  # 16-bit greys: Pillow's own conversion to RGB clips at 255
        scale = 1 if band.mode == "F" else 65535
        grey = Image.fromarray(np.asarray(band, dtype=np.float32) / scale).reduce(factor)
        return np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    if band.has_transparency_data:
        band = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
    return np.asarray(band.convert("RGB").reduce(factor), dtype=np.float32) / 255
