"""A network that estimates the factors an image was drawn from: the instrument of the invariance profile (chapter 3).

Glyphs are drawn from known factors (`invkit.data.glyphs`): ink, ground, place, size, font. A small network is trained
on real images to estimate all of them at once. How well it does so on reconstructions, compared with the originals,
says factor by factor what a classifier's logits have kept (`study.chapters.invariances`).

Factors are {name: values}: float (N, D) for a measured factor, int64 (N,) for a category. Estimates are {name: float
tensor}: (N, D) for a measured factor, (N, categories) scores for a category, of which the largest counts.
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
from invkit.data.images import Data, as_bytes
from invkit.training import Player, train

Factors = Mapping[str, Tensor]
Estimates = dict[str, Tensor]

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


def factor_widths(factors: Factors) -> dict[str, int]:
    """How many numbers an estimate of each factor has."""
    return {name: v.shape[1] if v.is_floating_point() else int(v.max()) + 1 for name, v in factors.items()}


def check_factors(factors: Factors, n: int) -> None:
    """Raises ValueError unless every factor has n values of a dtype and shape that this module knows."""
    for name, values in factors.items():
        measured = values.is_floating_point() and values.ndim == 2
        if len(values) != n or not (measured or (values.dtype == torch.int64 and values.ndim == 1)):
            what = f"{values.dtype} {tuple(values.shape)}"
            raise ValueError(f"Factor {name!r} must be float ({n}, D) or int64 ({n},), not {what}.")


# ---- the network -----------------------------------------------------------------------------------------------------


class FactorRegressor(nn.Module):
    """Estimates every factor of an image at once: three strided convolutions, a hidden layer, one linear layer.

    The feature map is never averaged over space, because the place of a glyph is one of the factors. Inside, measured
    factors are in standard deviations of the training images; `predict` returns them in their own units.

    Args:
        measured: how many numbers each measured factor has, {name: D}.
        categories: how many values each categorical factor has, {name: count}.
        size: side of the images in pixels.
        width: channels of the first convolution.
        hidden: width of the hidden layer.
        card: how the network was trained.
    """

    def __init__(
        self, measured: Mapping[str, int], categories: Mapping[str, int], size: int, width: int = 24, hidden: int = 256,
        card: dict | None = None,
    ):  # fmt: skip
        super().__init__()
        self.card = card or {}
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
            raise ValueError(f"This regressor takes (N, 3, {self.size}, {self.size}), not {tuple(images.shape)}.")
        return self.trunk(torch.cat([images * 4 - 2, distance_from_border(images) * 4 - 2], dim=1))

    def forward(self, images: Tensor) -> Estimates:
        """Estimates, with measured factors in standard deviations from the mean of the training images."""
        parts = self.heads(self.features(images)).split(list(self.widths.values()), dim=1)
        return dict(zip(self.widths, parts, strict=True))

    @torch.no_grad()
    def predict(self, images: Tensor, batch: int = 500) -> Estimates:
        """Estimates for images (N, 3, size, size), `batch` at a time, with measured factors in their own units."""
        parts = [self(part) for part in images.split(batch)]
        found = {name: torch.cat([part[name] for part in parts]) for name in self.widths}
        for name in self.measured:
            found[name] = found[name] * self.get_buffer(f"std {name}") + self.get_buffer(f"mean {name}")
        return found

    def save(self, folder: str | Path) -> dict:
        """Write weights (in half precision) and card for `load_factor_regressor`; returns the card."""
        # Cards call the method "reader", as they always did.
        facts = {"method": "reader", "size": self.size, "measured": self.measured, "categories": self.categories}
        return store.save(folder, self.state_dict(), self.card | facts, half=True)


def distance_from_border(images: Tensor) -> Tensor:
    """How far each pixel's colour lies from the border's median colour, (N, 1, H, W), in units of the farthest.

    It shows the shape whatever the colours, which a small network learns from much sooner.
    """
    edge = [images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]]
    ground = torch.cat(edge, dim=2).median(2).values[:, :, None, None]
    distance = (images - ground).square().sum(1, keepdim=True).sqrt()
    return distance / distance.amax((2, 3), keepdim=True).clamp_min(1e-6)


# ---- training --------------------------------------------------------------------------------------------------------


def train_factor_regressor(
    images: Tensor, factors: Factors, *, steps: int, batch: int = 128, seed: int = 0, lr: float = 3e-3,
    folder: str | Path | None = None, progress: bool = False,
) -> FactorRegressor:  # fmt: skip
    """Train a factor regressor on the device where the images are.

    The loss is the mean over factors of the squared error in standard deviations (measured factors) and of the
    cross-entropy in units of that of a uniform guess (categories).

    Args:
        images: (N, 3, S, S), floats in [0, 1] or bytes.
        factors: their N values of every factor.
        steps: training steps, of `batch` images each.
        lr: largest learning rate of Adam.
        folder: where checkpoints go; a stopped call goes on from there. None keeps nothing.

    Raises:
        ValueError: factors that do not fit the images.
    """
    check_factors(factors, len(images))
    widths = factor_widths(factors)
    measured = {name: widths[name] for name, values in factors.items() if values.is_floating_point()}
    categories = {name: width for name, width in widths.items() if name not in measured}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        regressor = FactorRegressor(measured, categories, images.shape[-1])
    targets = dict(factors)
    for name in measured:
        mean, std = factors[name].mean(0), factors[name].std(0).clamp_min(1e-6)
        regressor.get_buffer(f"mean {name}").copy_(mean)
        regressor.get_buffer(f"std {name}").copy_(std)
        targets[name] = (factors[name] - mean) / std

    def batches(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        per_epoch = max(1, len(images) // batch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + step // per_epoch))
        rows = order[step % per_epoch * batch :][:batch]
        chosen = images[rows] if images.is_floating_point() else images[rows].float() / 255
        return chosen, {name: values[rows] for name, values in targets.items()}

    def loss(module: nn.Module, pair: tuple[Tensor, dict[str, Tensor]], step: int) -> tuple[Tensor, dict]:
        inputs, wanted = pair
        losses = [
            F.mse_loss(found, wanted[name])
            if name in measured
            else F.cross_entropy(found, wanted[name]) / math.log(max(2, found.shape[1]))
            for name, found in module(inputs).items()
        ]
        return torch.stack(losses).mean(), {}

    player = Player("reader", regressor, loss, lr=lr, weight_decay=0.02)
    train(player, batches, steps=steps, folder=folder, seed=seed, progress=progress, description="factor regressor")
    regressor.card = {"images": len(images), "steps": steps, "seed": seed}
    regressor.card |= {"machine": store.machine_class(), "code": store.code_version()}
    return regressor.requires_grad_(False)


def train_glyph_factor_regressor(folder: str | Path, seed: int = 0, scale: float = 1.0) -> FactorRegressor:
    """Train the factor regressor that is shipped as "glyphs-reader"; some minutes on one core.

    It sees the independent world alone, where colour says nothing about the character: a hue can then only be estimated
    from the image and not guessed from the character. Its images are of the inverters' split, which shares no image
    with the test split.

    Args:
        folder: where checkpoints go; a stopped call goes on from there.
        scale: share of the published steps and images.
    """
    drawn = [
        data.load("glyphs:independent", "inverter", n=4000, seed=100 + i) for i in range(max(1, round(10 * scale)))
    ]
    images = torch.cat([as_bytes(d.images) for d in drawn])
    named = [named_factors(d) for d in drawn]
    factors = {name: torch.cat([part[name] for part in named]) for name in named[0]}
    steps = max(1, round(2000 * scale))
    regressor = train_factor_regressor(images, factors, steps=steps, seed=seed, folder=folder, progress=True)
    regressor.card["data"] = "glyphs:independent"
    return regressor


def load_factor_regressor(name: str | Path) -> FactorRegressor:
    """A factor regressor by shipped name or folder, frozen.

    Raises:
        FileNotFoundError: no such name or folder. ValueError: weights of another kind.
    """
    tensors, card = store.load(name)
    if card.get("method") != "reader":
        raise ValueError(f"{name} holds no factor regressor but {card.get('method')!r}.")
    regressor = FactorRegressor(card["measured"], card["categories"], card["size"], card=card)
    regressor.load_state_dict(tensors)
    return regressor.eval().requires_grad_(False)
