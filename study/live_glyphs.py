"""Chapter 5, live: a glyph drawn and read in one graph, and read back in another (`study.live`).

The first is `invkit.data.glyphs.render` and a classifier. One upright regular font without stroke is kept, since all
the masks would be larger than the networks.
"""

import contextlib
import math

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import invkit
from invkit import store
from invkit.data import glyphs
from invkit.ffi import biggan
from study import live
from study.live_onnx import OPSET, as_onnx
from study.live_text import as_file, as_script, as_text
from study.touch import packed

INVERTER = "ffi-glyphs-standard"
CODE = ("invkit/ffi/biggan.py", "invkit/data/glyphs.py", "study/live_glyphs.py")
FIRST = "R"  # the character shown first
MIDDLE, SATURATION = 0.5, 0.8  # luma between ink and ground, and saturation of both
FONT = 0  # index in `glyphs.FAMILIES`


def colours(factors: Tensor) -> tuple[Tensor, Tensor]:
    """RGB (N, 3) of ink and ground, from factors (N, 7) as for `Reader`."""
    contrast = factors[:, 6]
    full = torch.ones_like(contrast)
    ink, ground = (
        glyphs.colour(factors[:, place], MIDDLE + sign * contrast / 2, SATURATION * full)
        for place, sign in ((4, 1), (5, -1))
    )
    return ink, ground


class Reader(nn.Module):
    """From a character and its factors to the image, and to what the classifier answers."""

    def __init__(self, classifier, size: int):
        super().__init__()
        self.classifier = classifier
        upright = {"x": 0, "y": 0, "rotation": 0, "glyph_size": 1, "font": FONT, "slant": 0, "weight": 0, "stroke": 0}
        white_on_black = {"ink": torch.ones(3), "ground": torch.zeros(3)}
        every = torch.arange(len(glyphs.CHARACTERS))
        drawn = glyphs.draw(len(every), size=size, label=every, **upright, **white_on_black).images[:, 0]
        self.register_buffer("masks", (255 * drawn).round().byte())
        steps = (2 * torch.arange(size) + 1) / size - 1
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("places", torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3))
        self.size = size

    def forward(self, label: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) and logits (N, classes).

        label: int32 (N,), index in `glyphs.CHARACTERS`.
        factors: (N, 7): x, y, size (shares of the side), rotation (degrees), hue of ink and of ground (turns), and
            contrast, negative for an ink darker than the ground.
        """
        x, y, size, degrees = factors[:, :4].unbind(1)
        angle = degrees * (math.pi / 180)
        cos, sin = angle.cos() / size, angle.sin() / size
        x, y = 2 * x, 2 * y
        theta = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], 1).view(-1, 2, 3)
        grid = (self.places @ theta.transpose(1, 2)).view(-1, self.size, self.size, 2)
        chosen = self.masks[label.long()][:, None].float() / 255
        mask = F.grid_sample(chosen, grid, align_corners=False)
        ink, ground = (colour[:, :, None, None] for colour in colours(factors))
        images = (ground + mask * (ink - ground)).clamp(0, 1)
        return images, self.classifier.logits(images)


def reader(inverter) -> Reader:
    """The reader of an inverter's classifier."""
    return Reader(inverter.classifier, inverter.size).eval()


# ---- what study.live asks for ----------------------------------------------------------------------------------------


def _key() -> str:
    """What script and picture follow from: weights, by what the inverter's card says of both, and code."""
    card = store.read_card(INVERTER)
    return live.key_of([card["sha256"], card["classifier"]], CODE)


def load():
    """The inverter of glyphs, in the form that the exporter takes."""
    inverter = invkit.load_inverter(INVERTER)
    inverter.generator.to(memory_format=torch.contiguous_format)
    return inverter


def _script() -> bytes:
    """The script with both networks and what the sliders need to know. Raises ImportError without the package onnx."""
    inverter = load()
    label = glyphs.CHARACTERS.index(FIRST)
    facts = {"characters": glyphs.CHARACTERS, "label": label, "noise": inverter.noise_dim}
    facts["factors"] = start(torch.tensor([label]))[0].tolist()
    facts |= {name: as_text(network) for name, network in networks(inverter).items()}
    return as_script("glyphs", facts)


def start(labels: Tensor) -> Tensor:
    """Factors (N, 7), as `Reader` takes them, in the colours that each of these characters prefers."""
    hues = glyphs.preferred_hue(labels.double()).float()[:, None]
    plain = torch.tensor([[0.0, 0.0, 0.7, 0.0]]).expand(len(labels), 4)
    return torch.cat([plain, hues, (hues + 1 / 3) % 1, torch.full_like(hues, 0.5)], 1)


def _still() -> bytes:
    """A PNG: glyphs above, their reconstructions below, eight of them."""
    inverter = load()
    labels = torch.arange(10, 26, 2, dtype=torch.int32)
    factors = start(labels)
    factors[:, 3] = torch.linspace(-20, 20, 8)
    with torch.no_grad():
        images, logits = reader(inverter)(labels, factors)
        made = inverter.invert(logits, noise=inverter.sample_noise(8))
    picture = packed(torch.cat([images, made]), 8)
    return as_file(picture.resize([3 * side for side in picture.size], Image.Resampling.NEAREST))


def networks(inverter) -> dict[str, bytes]:
    """ONNX, for one glyph at a time: "read", (label, factors) -> (image, logits); "write", (noise, logits) -> made."""
    torch.onnx.register_custom_op_symbolic("aten::atanh", lambda graph, x: graph.op("Atanh", x), OPSET)
    label = torch.zeros(1, dtype=torch.int32)
    read = as_onnx(reader(inverter), (label, start(label)), ["label", "factors"], ["image", "logits"])
    given = (torch.zeros(1, inverter.noise_dim), torch.zeros(1, inverter.classifier.classes))
    with doubled_plainly():
        write = as_onnx(inverter.generator, given, ["noise", "logits"], ["made"])
    return {"read": read, "write": write}


@contextlib.contextmanager
def doubled_plainly():
    """In this context, generators enlarge a map and convolve it in two steps, which the exporter knows.

    Otherwise `biggan.double_and_convolve` gets the same numbers from the small map.
    """

    def double_and_convolve(x, weight, bias):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)

    usual, biggan.double_and_convolve = biggan.double_and_convolve, double_and_convolve
    try:
        yield
    finally:
        biggan.double_and_convolve = usual


KIND = live.Kind(_key, _script, _still)
