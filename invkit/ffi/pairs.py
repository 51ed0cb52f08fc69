"""Pairs of images and their logits: the training data of a feedforward inverter (Teterwak et al. 2021).

The classifier is frozen, and it often costs more than the inverter. So the logits of every view of every image are
computed once and kept on disk, under a hash of everything that they depend on: the images and the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from invkit import store
from invkit.checks import check_images, check_seed, check_size, check_whole_number, checked, form_of, is_dense
from invkit.data.images import Data, as_bytes, fit_square
from invkit.network.classifiers import Classifier
from invkit.seeds import generator_for


@checked
def condition(logits: Tensor, kind: str = "logits") -> Tensor:
    """What the generator and the discriminator get of the logits, (N, classes).

    Args:
        logits: (N, classes).
        kind: "logits" for the logits themselves; "probabilities" for their softmax; "one-hot" for the predicted class
            alone; "top-K", K a number from 1 to the classes, for the K largest logits, where all others are set to the
            smallest of these.

    Raises:
        ValueError: another kind.
    """
    if kind == "logits":
        return logits
    if kind == "probabilities":
        return logits.softmax(1)
    if kind == "one-hot":
        return F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
    name, _, k = kind.partition("-")
    if name == "top" and k.isdecimal() and 1 <= int(k) <= logits.shape[1]:
        return logits.clamp_min(logits.topk(int(k), dim=1).values[:, -1:])
    raise ValueError(f"kind is logits, probabilities, one-hot or top-K, K from 1 to {logits.shape[1]}, not {kind!r}.")


def logits_of(classifier: Classifier, images: Tensor) -> Tensor:
    """The logits (N, classes) of images, resized to what the classifier takes.

    Args:
        classifier: any classifier.
        images: squares in [0, 1], (N, 3, S, S).
    """
    return classifier.logits(classifier.convert(fit_square(images, classifier.size)))


@dataclass(frozen=True)
class Pairs:
    """Images and their logits, in V views of N images.

    Attributes:
        images: uint8 (V, N, 3, S, S).
        logits: float32 (V, N, classes), or what `condition` makes of them.
    """

    images: Tensor
    logits: Tensor

    def batch(self, step: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The batch of a training step, each image in a random view. All images come once before any comes again.

        Args:
            step: number of the step, from 0.
            n: pairs in every batch.
            seed: of the order and of the views.

        Returns:
            Images (n, 3, S, S) in [0, 1] and their logits (n, classes).
        """
        check_size(n, self.images.shape[-1])
        views, count = self.logits.shape[:2]
        chosen = shuffled_rows(count, step, n, seed)
        view = torch.randint(views, (n,), generator=generator_for(seed, step))
        view, chosen = (rows.to(self.images.device, non_blocking=True) for rows in (view, chosen))
        return self.images[view, chosen].float() / 255, self.logits[view, chosen]

    def to(self, device: torch.device | str) -> Pairs:
        """The pairs on a device, where all batches are then gathered."""
        return Pairs(self.images.to(device), self.logits.to(device))


def shuffled_rows(count: int, step: int, n: int, seed: int = 0) -> Tensor:
    """The rows, int64 (n,), of a training step's batch: random, but all rows come once before any comes again.

    Args:
        count: how many rows there are.
        step: number of the step, from 0.
        n: rows in every batch.
        seed: of the order.
    """
    places = torch.arange(step * n, (step + 1) * n)
    rounds = places // count
    return torch.cat([_order(count, r, seed)[places[rounds == r] % count] for r in rounds.unique().tolist()])


@lru_cache(2)
def _order(count: int, number: int, seed: int) -> Tensor:
    """The random order of the rows in one round through all; 7919 keeps its seed apart from those of the steps."""
    return torch.randperm(count, generator=generator_for(seed, 7919 * number))


@checked
def pairs(
    classifier: Classifier,
    images: Tensor | Data,
    *,
    views: int = 1,
    size: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    batch: int | None = None,
    progress: bool = True,
) -> Pairs:
    """Pair images with their logits.

    Args:
        classifier: gives the logits.
        images: squares, (N, 3, S, S), uint8 or float in [0, 1]; or Data.
        views: how many views of every image, 1 or more. The first is the image itself; each further one is a random
            crop, at least seven eighths of a side wide, half of them flipped, with logits of its own.
        size: side of the pairs' images in pixels; None for that of the images. The logits are those of the images as
            they were given in any case.
        seed: of the crops.
        folder: where the logits are kept; None keeps nothing.
        batch: images that the classifier gets at a time; None for few on a CPU, where more would not fit its cache.
        progress: show a progress bar, where there are many.

    Raises:
        TypeError: no images.
        ValueError: images that are no squares or not in [0, 1]; no view; logits that are not finite.
    """
    images = _eight_bit(images.images if isinstance(images, Data) else images)
    check_whole_number(views, 1, "views")
    check_size(views * len(images), size or images.shape[-1])
    check_whole_number(batch or 1, 1, "batch")
    check_seed(seed)
    batch = batch or (8 if classifier.device.type == "cpu" else 256)
    every = images[None]  # without a copy: these may be gigabytes
    if views > 1:
        every = torch.stack([images, *(_view(images, generator_for(seed, v)) for v in range(1, views))])
    tensors = [every, *classifier.model.state_dict().values()]
    key = store.content_hash(tensors, f"{classifier.name} {classifier.size} {classifier.mean} {classifier.std}")
    file = store.as_path(folder) / f"logits-{key[:16]}.safetensors" if folder is not None else None

    def make() -> dict[str, Tensor]:
        logits = []
        with torch.inference_mode():
            parts = every.flatten(0, 1).split(batch)
            for part in tqdm(parts, desc="logits", unit="batch", disable=not progress or len(images) < 2000):
                logits.append(logits_of(classifier, part.to(classifier.device).float() / 255).cpu())
        logits = torch.cat(logits).unflatten(0, (views, -1))
        if not logits.isfinite().all():
            raise ValueError(f"{classifier.name} gives logits that are not finite for some images: check both.")
        return {"logits": logits}

    from torchvision.transforms import functional as TF  # takes seconds to import

    resized = every
    if size and size != images.shape[-1]:
        parts = [TF.resize(part, [size, size], antialias=True) for part in every.flatten(0, 1).split(256)]
        resized = torch.cat(parts).unflatten(0, (views, -1))
    return Pairs(resized, store.kept(file, make)["logits"])


def _view(images: Tensor, g: torch.Generator) -> Tensor:
    """Every image cropped at random and resized back, half of them flipped."""
    from torchvision.transforms import functional as TF  # takes seconds to import

    side = images.shape[-1]
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        crop = int(torch.randint(side - side // 8, side + 1, (), generator=g))
        top, left = torch.randint(0, side - crop + 1, (2,), generator=g).tolist()
        view = TF.resized_crop(image, top, left, crop, crop, [side, side], antialias=True)
        out[i] = view.flip(-1) if torch.rand((), generator=g) < 0.5 else view
    return out


def _eight_bit(images: Tensor) -> Tensor:
    """Checked images as uint8 (N, 3, S, S)."""
    if not is_dense(images) or images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        raise TypeError(f"Images to train on are a tensor (N, 3, S, S), at least one, not {form_of(images)}.")
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"Images to train on must be squares, not {tuple(images.shape[-2:])}: crop them first.")
    if images.dtype == torch.uint8:
        return images
    check_images(images, "Images to train on, other than uint8 ones,", slack=0)
    return torch.cat([as_bytes(part) for part in images.split(1024)])
