"""Glyphs: unlimited labelled images of characters, each drawn from factors that are known.

What survives inside a classifier can be measured factor by factor only where the factors are known, as in dSprites
(Matthey et al. 2017). Here an image is one of `CHARACTERS`, in ink of one colour on a ground of another:

    image = ground + mask(character, font, slant, weight, stroke; x, y, size, rotation) * (ink - ground)

The class is the character. In the `informative` world each class prefers a hue, with wide spread, as things in nature
do; in the `independent` world colour says nothing about the class. The contrast in brightness between ink and ground is
often low, so that being robust costs something.

The characters come from the fonts inside matplotlib. Every mask is drawn once a process, as large as the image is wide;
a batch is one affine grid and one bilinear look-up on the device.
"""

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from invkit.checks import check_room, check_seed, check_size
from invkit.data.images import Data

# Unmistakable: no two that differ only in size (c, C) or hardly at all (O, 0), and all of them in every font below.
CHARACTERS = tuple(
    "O123456789ABCDEFGHJKLMNPQRSTUVWXYZadefhrtΔΞΣΦΨΩβζηλμξπσωДЖЙЛЦЧШЫЭЮЯЪЂЉ?¿!#$%&@+±=<>{)*^~¬«§¶†‡€£¥¤ÆŒ"
)
# (upright, slanted) x (regular, bold): files in matplotlib's font folder
FAMILIES = {
    "sans": (("DejaVuSans", "DejaVuSans-Bold"), ("DejaVuSans-Oblique", "DejaVuSans-BoldOblique")),
    "serif": (("DejaVuSerif", "DejaVuSerif-Bold"), ("DejaVuSerif-Italic", "DejaVuSerif-BoldItalic")),
    "mono": (("DejaVuSansMono", "DejaVuSansMono-Bold"), ("DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique")),
    "stix": (("STIXGeneral", "STIXGeneralBol"), ("STIXGeneralItalic", "STIXGeneralBolIta")),
}
FONTS = {"train": ("sans", "serif", "mono"), "test": ("stix",)}  # the second is never trained on
STROKES = (0.0, 0.02, 0.04)  # how far the outline is moved outwards, as a share of the longer side of the glyph's box
WORLDS = ("informative", "independent")

X = Y = (-0.15, 0.15)  # of the centre of the glyph's box from the image's, as shares of its side; y downwards
SIZE = (0.5, 0.85)  # longer side of the glyph's box, stroke included, as a share of the image's side
ROTATION = (-25.0, 25.0)  # degrees, counterclockwise
CONTRAST = (0.1, 0.7)  # of luma between ink and ground; skewed towards low
HUE_SPREAD = 0.1  # standard deviation of a class's hues in the informative world, in turns
LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R BT.601


def draw(
    n: int,
    seed: int = 0,
    world: str = "informative",
    fonts: str = "train",
    size: int = 32,
    device: torch.device | str = "cpu",
    **fixed: float | Tensor,
) -> Data:
    """Glyphs with their labels and factors.

    The same for the same arguments, on any device up to rounding; fewer glyphs are the first of more. `data.load` takes
    seeds of its own for each split.

    Args:
        n: how many, at least 1.
        seed: 0 or more.
        world: "informative" or "independent", see above.
        fonts: "train" for three families or "test" for the unseen one.
        size: side of the images in pixels, at least 8.
        device: where they are drawn.
        fixed: any factor, or the label, held at one value or at n values; all others stay what they were. The factor
            "size" is held by `glyph_size`, since `size` is the image's side in pixels.

    Returns:
        Images (n, 3, size, size), labels (index in CHARACTERS), and the factors "font" (index in FAMILIES), "slant",
        "weight" (0 or 1), "stroke" (index in STROKES), as int64; "x", "y", "size" (shares of the side), "rotation"
        (degrees), as floats; "ink", "ground" as RGB (n, 3).

    Raises:
        ValueError: anything out of range.
    """
    _check(n, seed, world, fonts, size)
    factors = _factors(n, seed, world, fonts)
    for name, value in fixed.items():
        name = {"glyph_size": "size"}.get(name, name)
        factors[name] = _fix(name, value, factors)
    factors = {name: value.to(device) for name, value in factors.items()}
    images = render(factors, size)
    labels = factors.pop("label")
    names = tuple(f"{CHARACTERS[label]} {i}" for i, label in enumerate(labels.tolist()))
    return Data(images, labels, names, factors=factors)


def render(factors: dict[str, Tensor], size: int) -> Tensor:
    """The images (n, 3, size, size) in [0, 1] of the factors that `draw` gives, and of the "label"s."""
    f = factors
    masks = _masks(size, f["x"].device)
    chosen = masks[f["label"], f["font"], f["slant"], f["weight"], f["stroke"]].float()[:, None] / 255
    # grid_sample asks, for every pixel of the image, where in the mask it lies: the inverse of placing the mask.
    angle = f["rotation"].deg2rad()
    cos, sin = angle.cos() / f["size"], angle.sin() / f["size"]
    x, y = 2 * f["x"], 2 * f["y"]  # its coordinates go from -1 to 1
    theta = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(x), 1, size, size], align_corners=False)
    mask = F.grid_sample(chosen, grid, align_corners=False)
    ink, ground = (f[name][:, :, None, None] for name in ("ink", "ground"))
    return torch.lerp(ground, ink, mask).clamp_(0, 1)


def hue(rgb: Tensor) -> Tensor:
    """Hue of RGB colours (..., 3), in turns in [0, 1): 0 is red, 1/3 green, 2/3 blue; that of a hexagon, as in HSV."""
    high, at = rgb.max(-1)
    low = rgb.min(-1).values
    r, g, b = rgb.unbind(-1)
    sixth = torch.stack([g - b, b - r, r - g], -1).gather(-1, at[..., None])[..., 0] / (high - low).clamp_min(1e-8)
    return ((sixth + 2 * at) / 6) % 1


def preferred_hue(label: Tensor) -> Tensor:
    """The hue, in turns, that a class's ink prefers in the informative world; its ground prefers the one 1/3 on."""
    return (label * ((5**0.5 - 1) / 2)) % 1  # the golden angle: neighbours in CHARACTERS are far apart in hue


def _factors(n: int, seed: int, world: str, fonts: str) -> dict[str, Tensor]:
    """Labels and factors on the CPU, one row of uniform numbers an image; NumPy draws a shorter table as its start."""
    u = iter(np.random.default_rng(seed).random((n, 16), dtype=np.float32).T)

    def one_of(count: int) -> Tensor:
        return torch.from_numpy((next(u) * count).astype(np.int64)).clamp_max(count - 1)

    def between(low: float, high: float) -> Tensor:
        return torch.from_numpy(low + (high - low) * next(u))

    families = torch.tensor([list(FAMILIES).index(name) for name in FONTS[fonts]])
    f = {"label": one_of(len(CHARACTERS)), "font": families[one_of(len(families))]}
    f.update(slant=one_of(2), weight=one_of(2), stroke=one_of(len(STROKES)))
    f.update(x=between(*X), y=between(*Y), size=between(*SIZE), rotation=between(*ROTATION))

    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * between(0, 1) ** 1.5
    middle = 0.05 + contrast / 2 + (0.9 - contrast) * between(0, 1)
    sign = 2 * one_of(2) - 1
    for name, side, turn in (("ink", sign, 0), ("ground", -sign, 1 / 3)):
        hues = torch.from_numpy(next(u))
        if world == "informative":
            normal = torch.special.ndtri(hues.double().clamp(1e-6, 1 - 1e-6)).float()
            hues = (preferred_hue(f["label"]) + turn + HUE_SPREAD * normal) % 1
        f[name] = colour(hues, middle + side * contrast / 2, between(0.2, 1))
    return f


def colour(hues: Tensor, luma: Tensor, saturation: Tensor) -> Tensor:
    """RGB (n, 3) of that hue and luma; saturation as a share of the most that the RGB cube holds there."""
    pure = (1 - ((hues[:, None] * 6 - torch.tensor([0.0, 2.0, 4.0]) + 3) % 6 - 3).abs() + 1).clamp(0, 1)
    away = pure - (pure @ torch.tensor(LUMA))[:, None]  # from the grey of the same luma
    room = torch.where(away > 0, 1 - luma[:, None], luma[:, None]) / away.abs().clamp_min(1e-6)
    return (luma[:, None] + (saturation * room.amin(1))[:, None] * away).clamp(0, 1)


@lru_cache(maxsize=4)
def _masks(side: int, device: torch.device) -> Tensor:
    """The masks of all glyphs as bytes, (characters, families, slants, weights, strokes, side, side)."""
    masks = torch.zeros(len(CHARACTERS), len(FAMILIES), 2, 2, len(STROKES), side, side, dtype=torch.uint8)
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for family, files in enumerate(FAMILIES.values()):
        for slant in range(2):
            for weight in range(2):
                font = ImageFont.truetype(folder / f"{files[slant][weight]}.ttf", 3 * side)
                for label, character in enumerate(CHARACTERS):
                    for stroke, share in enumerate(STROKES):
                        mask = _mask(font, character, share, side)
                        masks[label, family, slant, weight, stroke] = torch.from_numpy(mask)
    return masks.to(device)


def _mask(font: ImageFont.FreeTypeFont, character: str, stroke: float, side: int) -> np.ndarray:
    """One character (side, side), its box in the centre, the longer side of which fills the square."""
    left, top, right, bottom = font.getbbox(character)
    stroke *= max(right - left, bottom - top)
    left, top, right, bottom = font.getbbox(character, stroke_width=stroke)
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), character, 255, font, stroke_width=stroke)
    glyph = canvas.crop(canvas.getbbox())
    scale = side / max(glyph.size)
    glyph = glyph.resize([max(1, round(scale * length)) for length in glyph.size], Image.Resampling.BOX)
    square = Image.new("L", (side, side))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return np.array(square)


def _check(n: int, seed: int, world: str, fonts: str, size: int) -> None:
    check_seed(seed)
    check_size(n, size, 8)
    check_room(1200 * size**2, f"The masks of all glyphs of {size}x{size} pixels")  # a byte for each of 4,800 glyphs
    if world not in WORLDS:
        raise ValueError(f"There is no world {world!r}: choose {' or '.join(WORLDS)}.")
    if fonts not in FONTS:
        raise ValueError(f"There are no fonts {fonts!r}: choose {' or '.join(FONTS)}.")


def _fix(name: str, value: float | Tensor, factors: dict[str, Tensor]) -> Tensor:
    """The factor's n values, all of them `value`; checked."""
    if name not in factors:
        raise ValueError(f"Glyphs have no factor {name!r}: choose from {', '.join(factors)}.")
    drawn = factors[name]
    counts = {"label": CHARACTERS, "font": FAMILIES, "slant": (0, 1), "weight": (0, 1), "stroke": STROKES}
    value = torch.as_tensor(value, device="cpu")
    if drawn.ndim == 1 and value.ndim > 1 or value.ndim and value.shape not in (drawn.shape, drawn.shape[1:]):
        raise ValueError(f"{name} must be one value or n of them, {tuple(drawn.shape)}, not {tuple(value.shape)}.")
    if name in counts and not (value == value.long()).all():
        raise ValueError(f"{name} must be a whole number, not {value.tolist()!r}.")
    value = value.to(drawn.dtype).expand_as(drawn).clone()
    low, high = {"size": (0.05, 2), "rotation": (-360, 360), "x": (-1, 1), "y": (-1, 1)}.get(name, (0, 1))
    if name in counts:
        low, high = 0, len(counts[name]) - 1
    if not ((value >= low) & (value <= high)).all():
        raise ValueError(f"{name} must lie in [{low}, {high}].")
    return value
