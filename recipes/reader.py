"""What an image was drawn from, read back: the invariance profile of a classifier.

Where images are drawn from known factors (`invkit.glyphs`), "how much of the image is left in the logits" can be
answered factor by factor. Three readers, one scale:

- `Reader`, a small network trained on real images; blur and other marks of an inverter can fool it;
- `cross_fit` on what that network reads in reconstructions: a linear reader fitted to such images in k folds, so that
  it never saw the image it scores. It learns, say, that blur makes everything look larger;
- `fit_linear` straight on the logits or features, without any inverter (Alain & Bengio 2016, arXiv 1610.01644).

A *score* is 1 - error / error of the best constant guess: for a measured factor that is R², for a category the accuracy
scaled so that 0 is always guessing the commonest and 1 is never wrong (Cohen's kappa has the same form). The ceiling is
what the same reader reads from the originals, the floor what it reads when logits and images are paired at random.

Factors are {name: values}: float (N, D) for a measured factor, int64 (N,) for a category. Readings are {name: float
tensor}: (N, D) estimates of a measured factor, (N, categories) scores of a category, of which the largest counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit import data, store
from invkit.data.glyphs import LUMA
from invkit.data.images import Data
from invkit.training import Player, train

Factors = Mapping[str, Tensor]
Readings = dict[str, Tensor]

# ---- factors ---------------------------------------------------------------------------------------------------------


def named_factors(drawn: Data) -> dict[str, Tensor]:
    """The factors of drawn images as this module takes them, colours first.

    Two colours "ink" and "ground" (N, 3) give six: each colour in RGB, the hue of each (`chroma`), the "contrast" of
    their luma and the "polarity", 1 where the ink is the lighter. Raises ValueError for data without factors.
    """
    if not drawn.factors:
        raise ValueError("These images have no known factors: draw some by data.load('glyphs').")
    known = dict(drawn.factors)
    made = {}
    for name in ("ink", "ground"):
        if name in known:
            colour = known.pop(name).float()
            made[f"{name} colour"], made[f"{name} hue"] = colour, chroma(colour)
    if len(made) == 4:
        step = (made["ink colour"] - made["ground colour"]) @ torch.tensor(LUMA, device=colour.device).unsqueeze(1)
        made["contrast"], made["polarity"] = step.abs(), (step.squeeze(1) > 0).long()
    for name, values in known.items():
        made[name] = values.float().reshape(len(values), -1) if values.is_floating_point() else values.long()
    return made


def chroma(colours: Tensor) -> Tensor:
    """RGB (N, 3) -> (N, 2): a vector whose angle is the hue, 0° red, 120° green, and whose length is how colourful.

    Grey has no hue, so an angle alone would make noise of it.
    """
    angle = torch.arange(3, device=colours.device) * (2 * math.pi / 3)
    return colours @ torch.stack([angle.cos(), angle.sin()], dim=1).to(colours.dtype)


def _widths(factors: Factors) -> dict[str, int]:
    """How many numbers a reading of each factor has."""
    return {name: v.shape[1] if v.is_floating_point() else int(v.max()) + 1 for name, v in factors.items()}


def _check(factors: Factors, n: int) -> None:
    for name, values in factors.items():
        measured = values.is_floating_point() and values.ndim == 2
        if len(values) != n or not (measured or (values.dtype == torch.int64 and values.ndim == 1)):
            what = f"{values.dtype} {tuple(values.shape)}"
            raise ValueError(f"Factor {name!r} must be float ({n}, D) or int64 ({n},), not {what}.")


# ---- a reader trained on real images ---------------------------------------------------------------------------------


class Reader(nn.Module):
    """Reads every factor from an image at once: three strided convolutions, a hidden layer, one linear layer.

    measured: {name: D}, categories: {name: how many}. The map is never averaged over space: where a thing stands is one
    of the factors. Inside, measured factors are in standard deviations; outside, in their own units.
    """

    def __init__(
        self, measured: Mapping[str, int], categories: Mapping[str, int], size: int, width: int = 24, hidden: int = 256
    ):
        super().__init__()
        self.measured, self.categories, self.size = dict(measured), dict(categories), size
        self.widths = self.measured | self.categories
        for name, d in self.measured.items():
            self.register_buffer(f"mean {name}", torch.zeros(d))
            self.register_buffer(f"std {name}", torch.ones(d))
        layers, channels = [], 4
        for out in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        flat = channels * (-(-size // 8)) ** 2
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())
        self.heads = nn.Linear(hidden, sum(self.widths.values()))

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, size, size) in [0, 1] -> (N, hidden), what the heads see."""
        if images.ndim != 4 or images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"This reader takes (N, 3, {self.size}, {self.size}), not {tuple(images.shape)}.")
        return self.trunk(torch.cat([images * 4 - 2, distance_from_border(images) * 4 - 2], dim=1))

    def forward(self, images: Tensor) -> Readings:
        """Readings, measured factors in standard deviations from the mean of the training images."""
        parts = self.heads(self.features(images)).split(list(self.widths.values()), dim=1)
        return dict(zip(self.widths, parts, strict=True))

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 500) -> Readings:
        """Readings of images (N, 3, size, size), measured factors in their own units."""
        parts = [self(part) for part in images.split(batch)]
        found = {name: torch.cat([part[name] for part in parts]) for name in self.widths}
        for name in self.measured:
            found[name] = found[name] * self.get_buffer(f"std {name}") + self.get_buffer(f"mean {name}")
        return found


def distance_from_border(images: Tensor) -> Tensor:
    """How far each pixel's colour lies from the border's median colour, (N, 1, H, W), in units of the farthest.

    It shows the shape whatever the colours, which a small network learns from much sooner.
    """
    edge = [images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]]
    ground = torch.cat(edge, dim=2).median(2).values[:, :, None, None]
    distance = (images - ground).square().sum(1, keepdim=True).sqrt()
    return distance / distance.amax((2, 3), keepdim=True).clamp_min(1e-6)


def train_reader(
    images: Tensor, factors: Factors, *, steps: int, batch: int = 128, seed: int = 0, lr: float = 3e-3,
    folder: str | Path | None = None, progress: bool = False,
) -> Reader:  # fmt: skip
    """A reader of these factors from images (N, 3, S, S), floats in [0, 1] or bytes, trained where the images are.

    Squared errors in standard deviations and cross-entropies in units of chance, all factors alike. Raises ValueError
    for factors that do not fit the images.
    """
    _check(factors, len(images))
    widths = _widths(factors)
    measured = {name: widths[name] for name, values in factors.items() if values.is_floating_point()}
    categories = {name: width for name, width in widths.items() if name not in measured}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = Reader(measured, categories, images.shape[-1])
    targets = dict(factors)
    for name in measured:
        mean, std = factors[name].mean(0), factors[name].std(0).clamp_min(1e-6)
        reader.get_buffer(f"mean {name}").copy_(mean)
        reader.get_buffer(f"std {name}").copy_(std)
        targets[name] = (factors[name] - mean) / std

    def batches(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        per_epoch = max(1, len(images) // batch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + step // per_epoch))
        chosen = order[step % per_epoch * batch :][:batch]
        drawn = images[chosen] if images.is_floating_point() else images[chosen].float() / 255
        return drawn, {name: values[chosen] for name, values in targets.items()}

    def loss(module: nn.Module, drawn, step: int) -> tuple[Tensor, dict]:
        inputs, wanted = drawn
        losses = [
            F.mse_loss(found, wanted[name])
            if name in measured
            else F.cross_entropy(found, wanted[name]) / math.log(max(2, found.shape[1]))
            for name, found in module(inputs).items()
        ]
        return torch.stack(losses).mean(), {}

    player = Player("reader", reader, loss, lr=lr, weight_decay=0.02)
    train(player, batches, steps=steps, folder=folder, seed=seed, progress=progress, description="reader")
    return reader.requires_grad_(False)


def train_glyph_reader(folder: str | Path, seed: int = 0, scale: float = 1.0) -> Reader:
    """The shipped reader, "glyphs-reader", into `folder`: some minutes on one core.

    Trained in the independent world alone, so that a hue can only be read from the image and not guessed from the
    character; on the inverters' split, which shares no image with the test split.
    """
    drawn = [
        data.load("glyphs:independent", "inverter", n=4000, seed=100 + i) for i in range(max(1, round(10 * scale)))
    ]
    images = torch.cat([(d.images * 255).round().byte() for d in drawn])
    named = [named_factors(d) for d in drawn]
    factors = {name: torch.cat([part[name] for part in named]) for name in named[0]}
    steps = max(1, round(2000 * scale))
    reader = train_reader(images, factors, steps=steps, seed=seed, folder=folder, progress=True)
    made = {"data": "glyphs:independent", "images": len(images), "steps": steps, "seed": seed}
    save_reader(folder, reader, made | {"machine": store.machine_class(), "code": store.code_version()})
    return load_reader(folder)


def save_reader(folder: str | Path, reader: Reader, card: dict) -> None:
    """Write a reader in half precision; `card` says how it was made."""
    card = card | {"method": "reader", "size": reader.size}
    card |= {"measured": reader.measured, "categories": reader.categories}
    store.save(folder, reader.state_dict(), card, half=True)


def load_reader(name: str | Path) -> Reader:
    """A reader by shipped name or folder, frozen. Raises FileNotFoundError or, for what is no reader, ValueError."""
    tensors, card = store.load(name)
    if card.get("method") != "reader":
        raise ValueError(f"{name} holds no reader but {card.get('method')!r}: give a folder of train_glyph_reader.")
    reader = Reader(card["measured"], card["categories"], card["size"])
    reader.load_state_dict(tensors)
    return reader.eval().requires_grad_(False)
