"""Images made from a representation alone, as several chapters make and time them.

An inverter of logits (Teterwak et al. 2021) gives a different image for every noise vector. The mean over many of them
is the best guess in the sense of PSNR; a single one is what an image looks like. An inverter of a classifier's features
(Dong et al. 2021) gives one image for each depth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from invkit import store
from invkit.inverters import load_inverter
from invkit.network.classifiers import Classifier
from invkit.seeds import seed_for


@dataclass(frozen=True)
class Reconstruction:
    """N reconstructions: a best guess and one sample for each, which are the same where no noise is involved.

    mean: the best guess, usually the mean over several noise vectors, (N, 3, S, S) in [0, 1].
    sample: the reconstruction under a single noise vector, of the same shape.
    """

    mean: Tensor
    sample: Tensor

    def first(self, n: int) -> Reconstruction:
        """Those of the first n images only."""
        return Reconstruction(self.mean[:n], self.sample[:n])


@dataclass(frozen=True)
class TimedImages:
    """N reconstructions, (N, 3, size, size) in [0, 1], and the seconds that each took on average."""

    images: Tensor
    seconds: float


def resized(images: Tensor, size: int) -> Tensor:
    """Square images (N, 3, S, S) in [0, 1] shrunk or enlarged to `size`; as they are if they have it."""
    if images.shape[-1] == size:
        return images
    return resize(images, [size, size], antialias=True).clamp(0, 1)


@torch.no_grad()
def represent_all(inverter, images: Tensor, batch: int = 100) -> Tensor:
    """Representations of images (N, 3, H, W), `batch` at a time: for an inverter of logits, logits (N, classes)."""
    return torch.cat([inverter.represent(part) for part in images.split(batch)])


@torch.no_grad()
def batched_logits(network: Classifier, images: Tensor, batch: int = 250) -> Tensor:
    """Logits (N, classes) of images (N, 3, size, size), on the images' device, computed on the network's."""
    device = next(network.model.parameters()).device
    return torch.cat([network.logits(part.to(device)).to(images.device) for part in images.split(batch)])


@torch.no_grad()
def reconstruct(inverter, logits: Tensor, samples: int = 16, seed: int = 0, batch: int = 100) -> Reconstruction:
    """Invert logits under several noise vectors each.

    logits: (N, classes).
    samples: how many noise vectors the mean is taken over; the sample comes from the first. With 0 the best guess is
        the inverter's output without noise, in one pass, and the sample is computed besides.
    seed: of the noise.
    Raises ValueError for a negative number of samples.
    """
    if samples < 0:
        raise ValueError(f"samples must be at least 0, not {samples}.")

    def images(k: int) -> Tensor:
        noise = inverter.sample_noise(len(logits), seed=seed_for(seed, k)).to(logits.device)
        parts = zip(logits.split(batch), noise.split(batch), strict=True)
        return torch.cat([inverter.invert(z, noise=e) for z, e in parts])

    sample = images(0)
    if not samples:
        return Reconstruction(torch.cat([inverter.invert(z) for z in logits.split(batch)]), sample)
    count = samples if inverter.noise_dim else 1
    return Reconstruction(sum(map(images, range(1, count)), sample) / count, sample)


@torch.no_grad()
def reconstruct_every_depth(
    inverter, photos: Tensor, depths: Sequence[int] | None = None, batch: int = 5
) -> dict[int, TimedImages]:
    """Reconstruct photos from each depth of a classifier, `batch` at a time.

    photos: (N, 3, size, size) of the inverter's size.
    depths: by default all that the inverter has.
    Only the inversion is timed, because the representation is what an attacker is given.
    Raises ValueError for photos of another size.
    """
    depths = list(depths or inverter.depths)
    if photos.shape[-2:] != (inverter.size, inverter.size):
        raise ValueError(
            f"This inverter takes photos of {inverter.size} pixels, not {tuple(photos.shape)}: resize them first."
        )
    images, seconds = {depth: [] for depth in depths}, dict.fromkeys(depths, 0.0)
    for part in photos.split(batch):
        h = inverter.classifier.preprocess(part)
        for block in inverter.classifier.blocks[: max(depths)]:
            h = block(h)
            if block.depth in images:
                began = time.perf_counter()
                images[block.depth].append(inverter.invert(h, block.depth))
                seconds[block.depth] += time.perf_counter() - began
    return {depth: TimedImages(torch.cat(images[depth]), seconds[depth] / len(photos)) for depth in depths}


def break_even(training_hours: float, seconds: float, rival_seconds: float) -> float:
    """After how many images training has paid for itself against a rival that needs none; infinite if it never does.

    seconds, rival_seconds: that one image takes.
    """
    saved = rival_seconds - seconds
    return math.ceil(training_hours * 3600 / saved) if saved > 0 else math.inf


def load_available(inverters: Mapping[str, str], device: str = "cpu") -> tuple[dict[str, Any], str]:
    """Load those of some inverters whose weights are there, and say in a sentence which are left out.

    inverters: a name of one's own -> a shipped name or a folder. Some are shipped as cards only, to save space.
    Returns ({name of one's own: inverter}, sentence), the sentence empty where nothing is missing.
    Raises FileNotFoundError for a name that is neither shipped nor a folder, such as a mistyped one.
    """
    missing = [name for name, where in inverters.items() if not store.exists(where)]
    for name in missing:
        store.find(inverters[name])
    sentence = f"Left out, because their weights are not shipped: {', '.join(missing)}." if missing else ""
    there = {name: where for name, where in inverters.items() if name not in missing}
    return {name: load_inverter(where, trust=True).to(device) for name, where in there.items()}, sentence


def kind_of(name: str) -> str:
    """What a network or an inverter is called in tables: "robust" for "glyphs-robust-0" and for "runs/my-robust".

    It is the last word of its name, or of its folder's name, without the number of the seed.
    """
    words = Path(name).name.split("-")
    return words[-2] if len(words) > 1 and words[-1].isdigit() else words[-1]


def by_kind(names: Sequence[str]) -> dict[str, str]:
    """{what it is called: name} of some networks or inverters, by `kind_of`; by the whole name where two share that."""
    kinds = [kind_of(name) for name in names]
    return dict(zip(kinds if len(set(kinds)) == len(names) else names, names, strict=True))
