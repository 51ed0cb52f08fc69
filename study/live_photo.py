"""Chapter 7, live: a photo of the reader's own, represented at six depths and read back from each (`study.live`).

The classifier is cut behind the depths that the chapter speaks of, and its chain of inverses at the same places, so
that one part each serves all depths behind it: parts 1 to k represent at the k-th depth, inverses k to 1 lead back. The
error feedback of an inversion is the page's own loop over them (``book/_static/live_photo.js``).
"""

from __future__ import annotations

import base64

import torch
from PIL import Image
from torch import Tensor, nn

import invkit
from invkit import data, store
from invkit.network import lite0
from study import live
from study.live_onnx import as_onnx
from study.live_text import as_file, as_script, as_text
from study.touch import packed

INVERTER = "dci-lite0"
STEP = 997  # of the numbers that a graphics processor is tried by
WITHIN = 1 / 255  # how far it may be from PyTorch: a level of a pixel, which nobody sees
SECONDS = 1.4  # that it may take once: a photo takes seven times as many operations, and should take ten seconds
DEPTHS = (2, 4, 6, 9, 12, 15)  # 3, 9, 15, 24, 33 and 42 convolutions
SAMPLES = {"cat": "chelsea", "coffee": "coffee", "motorcycle": "motorcycle_left"}  # free pictures, see `invkit.data`
CODE = tuple(
    f"invkit/{name}.py"
    for name in ("store", "dci/chain", "dci/inverse_block", "network/classifiers", "network/lite0", "network/partition")
) + ("study/live_photo.py",)


def rounded_inverter():
    """The inverter, shipped in bytes, and its classifier with the weights that the page has: halves.

    The classifier's are few, and how well it can be inverted hangs on them.
    """
    inverter = invkit.load_inverter(INVERTER)
    weights = inverter.classifier.model.state_dict()
    store.round_in_place({name: weight for name, weight in weights.items() if weight.dim() == 4})
    inverter.chain.to(memory_format=torch.contiguous_format)
    return inverter


class Forth(nn.Module):
    """The blocks of a classifier between two depths; from the image, they begin with its normalisation."""

    def __init__(self, classifier, above: int, depth: int):
        super().__init__()
        self.blocks = nn.Sequential(*classifier.blocks[above:depth])
        self.normalise = classifier.normalise if above == 0 else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return self.blocks(self.normalise(h))


class Back(nn.Module):
    """The inverses of the blocks between two depths; they end in an image between 0 and 1."""

    def __init__(self, chain, above: int, depth: int):
        super().__init__()
        self.inverses = nn.Sequential(*reversed(chain.inverses[above:depth]))
        self.image = above == 0

    def forward(self, h: Tensor) -> Tensor:
        h = self.inverses(h)
        return h.clamp(0, 1) if self.image else h


def parts(inverter) -> list[dict[str, object]]:
    """For each of DEPTHS: its number of convolutions, its feedback (steps, rate), the shape there, and two networks.

    "forth" leads from the depth before (or the image) to this one, "back" from here to there, each as ONNX.
    """
    found, above = [], 0
    h = torch.zeros(1, 3, inverter.size, inverter.size)
    for depth in DEPTHS:
        networks = Forth(inverter.classifier, above, depth).eval(), Back(inverter.chain, above, depth).eval()
        with torch.no_grad():
            there = networks[0](h)
        forth, back = (as_onnx(one, (x,), ["x"], ["y"]) for one, x in zip(networks, (h, there), strict=True))
        facts = {"number": inverter.classifier.blocks[depth - 1].convolutions, "shape": list(there.shape)}
        facts["feedback"] = inverter.card.get("feedback", {}).get(str(depth), (0, 1.0))
        found.append(facts | {"forth": forth, "back": back})
        h, above = there, depth
    return found


def samples(size: int) -> dict[str, Tensor]:
    """{name: photo (3, size, size)} that the page offers to those who bring none."""
    free = data.load("photos", size=size)
    return {name: free.images[free.names.index(file)] for name, file in SAMPLES.items()}


def trial(inverter, photo: Tensor, seconds: float) -> dict[str, object]:
    """What a graphics processor has to find, and how soon, before the page trusts it with the reader's photo.

    values: of what is read back of a photo (3, H, W), a sample of the book, from the deepest place, every (step)-th
    number. within: how far what the page finds may be from them. seconds: how long that may take once.
    """
    whole = (0, DEPTHS[-1])
    forth, back = Forth(inverter.classifier, *whole).eval(), Back(inverter.chain, *whole).eval()
    with torch.no_grad():
        made = back(forth((255 * photo[None]).round() / 255))
    return {"step": STEP, "values": made.flatten()[::STEP].tolist(), "within": WITHIN, "seconds": seconds}


# ---- what study.live asks for ----------------------------------------------------------------------------------------


def _key() -> str:
    return live.key_of([store.read_card(INVERTER)["sha256"], lite0.SHA256], CODE)


def script_of(inverter, seconds: float = SECONDS) -> bytes:
    """The script with what `rounded_inverter` returns. seconds: see `trial`."""
    facts = {"size": inverter.size, "samples": {}, "parts": []}
    photos = samples(inverter.size)
    facts["trial"] = trial(inverter, next(iter(photos.values())), seconds)
    for name, photo in photos.items():
        png = base64.b64encode(as_file(packed(photo[None], 1))).decode()
        facts["samples"][name] = f"data:image/png;base64,{png}"
    for part in parts(inverter):
        facts["parts"].append(part | {name: as_text(part[name]) for name in ("forth", "back")})
    return as_script("photo", facts)


def _still() -> bytes:
    """A WebP: a sample photo in each row, and its reconstructions from the six depths behind it."""
    inverter = rounded_inverter()
    photos = torch.stack(list(samples(inverter.size).values()))
    with torch.no_grad():
        columns = [photos, *(inverter.reconstruct(photos, depth) for depth in DEPTHS)]
    picture = packed(torch.stack(columns, 1).flatten(0, 1), len(columns))
    return as_file(picture.resize([side // 2 for side in picture.size], Image.Resampling.LANCZOS), "WEBP", quality=85)


KIND = live.Kind(_key, lambda: script_of(rounded_inverter()), _still, "webp", graphics=True)
