"""What a picture of the book is, told by the picture itself: a chart, or images such as photographs and glyphs, and how
large each image of a grid is, and where it lies.

A chart is drawn in one theme (`study.plots`): on white, in greys, and in the colours of the theme, also mixed with
white where a band is transparent or an edge is smooth. Photographs and glyphs have other colours, even small ones
inside a chart. So a dark page can invert a chart, and leaves photographs and glyphs as they are: of a grid of them,
it inverts what lies between the images.
"""

import re

import numpy as np
from PIL import Image

EVERY = 2  # pixels: every second one in a row and in a column says enough
WHITE, GREY = 240, 24  # of 255: what counts as white, and how far the channels of a grey differ at most
NEAR = 40  # of 255 in a channel: how far a chart's pixel lies from a colour of the theme mixed with white, at most
OTHERS = 0.01  # of all pixels: fewer than these have other colours in a chart; in pictures it is a thirtieth and more
GAP = 0.95  # of the height, white: a column of pixels between the images of a grid, which a title or a label may cross
FILLED = 0.3  # of a row of pixels within the columns, not white: it goes through images, and not through labels alone
LETTERS = 0.5  # of an image's width or height: what is smaller belongs to a title or a label
UNEVEN = 4  # pixels by which the images of a grid may differ in width, or in height
SKIPPED = 0.8  # of an image's width or height: a gap from which on a white image may lie in it
POINT = 96 / 72  # pixels
SVG_SIZE = re.compile(r'<svg[^>]*?\swidth="([\d.]+)(pt|px|)"\s+height="([\d.]+)', re.DOTALL)


def is_chart(path):
    """Whether a picture is a chart without images in it. An SVG is, since images are never drawn as one here."""
    if path.suffix == ".svg":
        return True
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))[::EVERY, ::EVERY].reshape(-1, 3).astype(np.float32)
    white = (pixels.min(1) >= WHITE).mean()
    coloured = pixels[np.ptp(pixels, axis=1) > GREY]
    return bool(white > 0.5 and (_from_theme(coloured) > NEAR).sum() < OTHERS * len(pixels))


def _from_theme(pixels):
    """How far pixels (N, 3) lie from the nearest mixture of one of the theme's colours and white, (N,)."""
    from study.plots import COLOURS  # here, because it loads PyTorch, which the commands of study.book start without

    nearest = np.full(len(pixels), np.inf, np.float32)
    for colour in COLOURS:
        towards = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) - 255
        share = np.clip((pixels - 255) @ towards / (towards @ towards), 0, 1)
        nearest = np.minimum(nearest, np.abs(pixels - 255 - share[:, None] * towards).max(1))
    return nearest


def tile_width(path):
    """How many pixels wide the widest image of a grid is; of a single image without gaps, the whole picture."""
    with Image.open(path) as picture:
        white = (np.asarray(picture.convert("L")) >= WHITE).mean(0) >= GAP
    edges = np.flatnonzero(np.diff(np.concatenate([[True], white, [True]]).astype(int)))
    return int(np.diff(edges)[::2].max(initial=0)) or white.size


def grid_of(path):
    """(columns, rows) of the images of a grid, each a list of (first, last) as shares of the picture's width or height.

    None where it is no grid, or where it seems to have white images, which cannot be told from what is around them.
    """
    with Image.open(path) as picture:
        drawn = np.asarray(picture.convert("L")) < WHITE
    height, width = drawn.shape
    columns = _in_line(drawn.mean(0) > 1 - GAP)
    if columns is None or len(columns) < 2:
        return None
    rows = _in_line(np.concatenate([drawn[:, first:last] for first, last in columns], axis=1).mean(1) > FILLED)
    if rows is None:
        return None
    return [tuple(run / width) for run in columns], [tuple(run / height) for run in rows]


def _in_line(mask):
    """(N, 2): where images in a line begin and have ended; mask: what is not white on this line.

    None where they are unequal, or where there is room for one more between or after them.
    """
    runs = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int))).reshape(-1, 2)
    sizes = np.ptp(runs, axis=1)
    longest = sizes.max(initial=0)
    images = runs[sizes > LETTERS * longest]
    gaps = np.append(images[1:, 0], len(mask)) - images[:, 1]
    if not len(images) or np.ptp(np.ptp(images, axis=1)) > UNEVEN or gaps.max() > SKIPPED * longest:
        return None
    return images


def picture_size(path):
    """(width, height) of a picture in whole pixels; None for an SVG that does not say its size."""
    if path.suffix != ".svg":
        with Image.open(path) as picture:
            return picture.size
    found = SVG_SIZE.search(path.read_text(encoding="utf-8"))
    if found is None:
        return None
    factor = POINT if found[2] == "pt" else 1
    return round(factor * float(found[1])), round(factor * float(found[3]))
