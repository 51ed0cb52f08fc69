"""Images with their logits: what a feedforward inverter trains on, computed once.

The logits of every view of every image are kept on disk under a hash of all that they depend on (images, classifier),
since the classifier is frozen and often costs more than the inverter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as TF
from tqdm import tqdm

from invkit import store
from invkit.data.images import Data
from invkit.network.classifiers import Classifier


def condition(logits: Tensor, kind: str = "logits") -> Tensor:
    """What an inverter of this kind reads, (N, classes), from logits (N, classes).

    kind: "logits" as they are; "probabilities", their softmax; "one-hot", the predicted class alone; "top-K" for a
    number K, the K largest logits, all others set to the smallest of these K.
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
    raise ValueError(
        f"kind must be logits, probabilities, one-hot or top-K with K from 1 to {logits.shape[1]}, not {kind!r}."
    )


def logits_of(classifier: Classifier, images: Tensor) -> Tensor:
    """The logits (N, classes) of square images of any size, enlarged or shrunk to what the classifier takes."""
    if images.shape[-1] != classifier.size:
        images = TF.resize(images, [classifier.size, classifier.size], antialias=True)
    return classifier.logits(images)


@dataclass(frozen=True)
class Pairs:
    """Images with their logits: images uint8 (V, N, 3, S, S) and logits float32 (V, N, classes), V views of each."""

    images: Tensor
    logits: Tensor

    def batch(self, step: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n pairs of step `step`: images in [0, 1] and logits. Every image comes once before any comes again."""
        views, count = self.logits.shape[:2]
        places = torch.arange(step * n, (step + 1) * n)
        rounds = places // count
        chosen = torch.cat([self._order(r, seed)[places[rounds == r] % count] for r in rounds.unique().tolist()])
        view = torch.randint(views, (n,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        return self.images[view, chosen].float() / 255, self.logits[view, chosen]

    def _order(self, number: int, seed: int) -> Tensor:
        count = self.logits.shape[1]
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + 7919 * number))


def pairs(
    classifier: Classifier,
    images: Tensor | Data,
    *,
    views: int = 1,
    size: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    batch: int | None = None,
) -> Pairs:
    """The images and their logits, computed once and kept in `folder` under the hash of all that they depend on.

    Args:
        images: (N, 3, S, S), uint8 or float in [0, 1], or Data.
        views: 1 for the images as they are; more add flipped crops, at least seven eighths of a side wide, with logits
            of their own.
        size: pixels of the inverter's images, by default the images' own, which the classifier sees in any case.
        batch: images the classifier sees at a time; by default few on a CPU, where more would not fit into its cache.

    Raises TypeError or ValueError for what are no images.
    """
    images = _eight_bit(images.images if isinstance(images, Data) else images)
    if views < 1:
        raise ValueError(f"Ask for at least one view of every image, not views={views}.")
    batch = batch or (8 if classifier.device.type == "cpu" else 256)
    seen = images[None]
    if views > 1:
        others = [_view(images, seed * 1_000_003 + v) for v in range(1, views)]
        seen = torch.stack([images, *others])
    tensors = [seen, *classifier.model.state_dict().values()]
    key = content_hash(tensors, f"{classifier.name} {classifier.size} {classifier.mean} {classifier.std}")
    file = Path(folder) / f"logits-{key[:16]}.safetensors" if folder is not None else None

    def make() -> dict[str, Tensor]:
        logits = []
        with torch.inference_mode():
            for part in tqdm(seen.flatten(0, 1).split(batch), desc="logits", unit="batch", disable=len(images) < 2000):
                logits.append(logits_of(classifier, part.to(classifier.device).float() / 255).cpu())
        logits = torch.cat(logits).unflatten(0, (views, -1))
        if not logits.isfinite().all():
            raise ValueError(f"{classifier.name} gives logits that are not finite for some images: check both.")
        return {"logits": logits}

    drawn = seen
    if size and size != images.shape[-1]:
        parts = [TF.resize(part, [size, size], antialias=True) for part in seen.flatten(0, 1).split(256)]
        drawn = torch.cat(parts).unflatten(0, (views, -1))
    return Pairs(drawn, store.kept(file, make)["logits"])


def content_hash(tensors: list[Tensor], text: str = "") -> str:
    """SHA-256 of the tensors' shapes and bytes, and of a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _view(images: Tensor, seed: int) -> Tensor:
    """Every image cropped at random and resized back, half of them flipped."""
    g = torch.Generator().manual_seed(seed)
    side = images.shape[-1]
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        crop = int(torch.randint(side - side // 8, side + 1, (), generator=g))
        top, left = torch.randint(0, side - crop + 1, (2,), generator=g).tolist()
        view = TF.resized_crop(image, top, left, crop, crop, [side, side], antialias=True)
        out[i] = view.flip(-1) if torch.rand((), generator=g) < 0.5 else view
    return out


def _eight_bit(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        what = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"Images to train on are a tensor (N, 3, S, S), at least one, not {what}.")
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"Images to train on must be squares, not {tuple(images.shape[-2:])}: crop them first.")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise TypeError(f"Images to train on are uint8, or floats in [0, 1], not {images.dtype}.")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # so written, NaN fails it as well
        raise ValueError(f"Images must lie in [0, 1] without NaN, not in [{low:.3g}, {high:.3g}]: rescale or clamp.")
    return torch.cat([(part * 255).round().byte() for part in images.split(1024)])
