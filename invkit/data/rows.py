"""A large PNG a few rows at a time: Pillow, which decodes images whole, is given small PNGs that hold these rows alone.

The pixels of a PNG are one compressed stream, in which a row is written as its difference from the one above. So each
small PNG begins with the last row of the one before.
"""

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile

Parts = Iterator[tuple[bytes, bytes]]  # of a PNG file: the kind of each, such as b"IHDR", and its content
NUMBERS = {"L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4}  # of a pixel, by Pillow's mode
MOST = 2**26  # pixels of a small PNG, of which Pillow refuses 179 million


def in_bands(image: ImageFile.ImageFile, height: int) -> bool:
    """Whether an image can be decoded so many rows at a time: a PNG of 8 bits, not interlaced, that was not loaded."""
    usual = image.format == "PNG" and image.mode in NUMBERS and not image.info.get("interlace") and image.tile
    of_8_bits = usual and image.tile[0][3] == image.mode  # else it is "RGB;16B", "P;4", …
    return bool(of_8_bits) and getattr(image, "n_frames", 1) == 1 and image.width * height < MOST


def bands_of(image: ImageFile.ImageFile, height: int) -> Iterator[Image.Image]:
    """Bands of an opened image, so many rows each, from the top to the bottom.

    They are decoded band by band where that can be (`in_bands`), of any other image as a whole. After the last band,
    `image.info` also holds what stands behind the pixels of how the image is turned.
    """
    if in_bands(image, height):
        parts = _parts(image.filename)
        yield from _decoded(image, height, next(parts)[1], parts)
        return
    for top in range(0, image.height, height):
        yield image.crop((0, top, image.width, min(top + height, image.height)))


def _decoded(image: ImageFile.ImageFile, height: int, header: bytes, parts: Parts) -> Iterator[Image.Image]:
    """Bands of a PNG of 8 bits; ValueError where rows are missing."""
    image.info.setdefault("exif", None)  # else Pillow decodes everything to look for it
    line, top, stream = 1 + NUMBERS[image.mode] * image.width, 0, zlib.decompressobj()
    colours, above, rows = b"", b"", bytearray()
    for kind, content in parts:
        if kind in (b"PLTE", b"tRNS"):
            colours += _part(kind, content)
        elif kind == b"eXIf":
            image.info["exif"] = b"Exif\0\0" + content
        elif kind == b"iTXt":
            image.info.setdefault("xmp", content)
        while kind == b"IDAT" and content and top < image.height:
            count = min(height, image.height - top)
            rows += stream.decompress(content, count * line - len(rows))
            content = stream.unconsumed_tail
            if len(rows) == count * line:
                size = image.width.to_bytes(4, "big") + (count + bool(above)).to_bytes(4, "big")
                pixels = zlib.compress(above + rows, 0)
                small = _part(b"IHDR", size + header[8:]) + colours + _part(b"IDAT", pixels) + _part(b"IEND", b"")
                band = Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + small), formats=["PNG"])
                yield band.crop((0, bool(above), image.width, band.height))
                above, top, rows = b"\0" + np.asarray(band)[-1].tobytes(), top + count, bytearray()
    if top < image.height:
        raise ValueError("its pixels end early")


def _parts(path: str | bytes) -> Parts:
    """The parts of a PNG file, each its kind and its content; ValueError where one is damaged."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(begin := file.read(8)) == 8:
            content = file.read(int.from_bytes(begin[:4], "big"))
            if begin + content + file.read(4) != _part(begin[4:], content):
                raise ValueError("a part of it is damaged")
            yield begin[4:], content


def _part(kind: bytes, content: bytes) -> bytes:
    """A part as it is written."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")
