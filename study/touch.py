"""Things to touch: pictures in a page that a script turns into something with sliders and buttons.

A chapter computes every frame that can be asked for, with its own inverter, and `widget` packs them into sheets. The
page shows the first sheet as a picture, and the others when they are unfolded; that is all where no script runs, as in
JupyterLab. In the book, the script of the same kind (``book/_static/touch_<kind>.js``) puts its controls in their
place. All numbers that it shows are handed over with the pictures; nothing is loaded or sent.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # study.pages, which needs `pictures_beside`, has no need of PyTorch
    from IPython.display import HTML
    from torch import Tensor

KINDS = ("depths", "surgery", "noise", "quiz")
LOSSLESS = 64  # pixels a side: below, compression is seen when a frame is enlarged, and saves little
MOST = 16383  # pixels a side that a WebP may have
PICTURE = re.compile(r'(<img class="touch-sheet" src=")data:image/webp;base64,([^"]+)"')


@dataclass(frozen=True)
class Sheet:
    """Frames of one size, (N, 3, S, S) in [0, 1], packed into one picture row by row, and what it shows in words."""

    frames: Tensor
    alt: str


def widget(kind: str, sheets: Mapping[str, Sheet], columns: int, order: str, caption: str, **facts: object) -> HTML:
    """A figure that the script of this kind turns into something to touch; to be a cell's last expression.

    kind: one of KINDS.
    sheets: {name: frames}, all with as many frames, of which the first is shown where no script runs.
    columns: frames in a row of a sheet.
    order: a sentence on which frame stands where, for the picture without the script.
    caption: below the figure, with the script and without.
    facts: what the script needs to know, as JSON has it; the tests of each kind say what.
    Raises ValueError for an unknown kind, no sheets, frames that do not fit together, and numbers that are not finite.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}.")
    shapes = {tuple(sheet.frames.shape) for sheet in sheets.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise ValueError("Give sheets with as many square frames (N, 3, S, S) each, at least one sheet.")
    facts |= {"columns": columns, "side": shape[-1]}
    try:
        told = json.dumps(facts, allow_nan=False)
    except ValueError:
        raise ValueError("The facts must hold finite numbers: give None for what was not measured.") from None
    first, *others = [_picture(name, sheet, columns) for name, sheet in sheets.items()]
    if others:
        more = f"<details class='touch-more'><summary>The same of others</summary>{''.join(others)}</details>"
        first += more
    from IPython.display import HTML  # here, because study.book has no need of it

    return HTML(
        f'<figure class="touch" data-touch="{kind}" data-facts="{html.escape(told)}">\n'
        f'<div class="touch-still">{first}<p>{html.escape(order)}</p></div>\n'
        f"<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
    )


def _picture(name: str, sheet: Sheet, columns: int) -> str:
    picture = packed(sheet.frames, columns)
    width, height = picture.size
    file = io.BytesIO()
    small = sheet.frames.shape[-1] <= LOSSLESS
    effort = 20 if small else 80  # without loss it says how long to look for a smaller file, else how much to keep
    picture.save(file, "WEBP", lossless=small, quality=effort, method=2)
    return (
        f'<img class="touch-sheet" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}" '
        f'alt="{html.escape(sheet.alt)}" width="{width}" height="{height}" data-name="{html.escape(name)}">'
    )


def packed(frames: Tensor, columns: int) -> Image.Image:
    """Frames (N, 3, S, S) in [0, 1] as one picture, row by row; what is left of the last row is white.

    Raises ValueError where the picture would be larger than a WebP may be.
    """
    n, _, side, _ = frames.shape
    rows = math.ceil(n / columns)
    if max(rows, columns) * side > MOST:
        raise ValueError(f"{rows} × {columns} frames of {side} pixels are too many for one sheet: give more columns.")
    pixels = (255 * frames.detach().float().cpu().clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy()
    grid = np.full((rows * columns, side, side, 3), 255, np.uint8)
    grid[:n] = pixels
    return Image.fromarray(grid.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, -1, 3))


def pictures_beside(page: str, folder: Path) -> str:
    """The HTML of a page whose sheets lie in files of a folder beside it, to be loaded when they are asked for."""

    def move(match: re.Match) -> str:
        content = base64.b64decode(match[2])
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.webp"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return f'{match[1]}{folder.name}/{name}"'

    return PICTURE.sub(move, page)
