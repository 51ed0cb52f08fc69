"""A trained inverter of logits as one uses it: represent images as logits, draw images from logits and noise.

>>> inv = invkit.load_inverter("ffi-glyphs-robust")
>>> drawings = inv.invert(inv.represent(images), inv.sample_noise(len(images), seed=0))  # from logits and noise
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invkit import store
from invkit.data.images import fit_square
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.pairs import condition, logits_of
from invkit.network.classifiers import Classifier


class LogitInverter:
    """Draws images from a classifier's logits and noise (`invkit.ffi`).

    Attributes: classifier, card (dict), size (pixels of its images), noise_dim, depths (the logits' depth alone).
    """

    def __init__(self, generator: LogitGenerator, classifier: Classifier, card: dict):
        self.generator = generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.generator.zero_grad(set_to_none=True)  # what training left behind
        self.classifier, self.card = classifier, card
        self.size, self.noise_dim, self.kind = generator.size, generator.noise_dim, card["kind"]
        self.source_size = card.get("source_size", self.size)

    @property
    def depths(self) -> list[int]:
        return [len(self.classifier.blocks)]

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """Logits (N, classes) of images in [0, 1], (N, 3, H, W), of any size: the only place that resizes.

        The images first get `source_size`, the size of those it was trained on, then what the classifier takes.
        """
        self._check_depth(depth)
        return logits_of(self.classifier, fit_square(images, self.source_size))

    def invert(self, logits: Tensor, noise: Tensor | None = None, depth: int | None = None) -> Tensor:
        """Images in [0, 1], (N, 3, size, size), from logits (N, classes) and noise (N, noise_dim).

        noise: None is zeros, the centre of its prior, where an inverter of photos gives its best guess; `sample_noise`
            draws from the prior.
        """
        self._check_depth(depth)
        classes = self.classifier.classes
        if not logits.is_floating_point() or logits.ndim != 2 or logits.shape[1] != classes:
            raise ValueError(
                f"This inverter reads float logits of shape (N, {classes}), not {logits.dtype} {tuple(logits.shape)}: "
                "represent(images) makes them."
            )
        if not logits.isfinite().all():
            raise ValueError("The logits hold NaN or infinity: check what made them.")
        if noise is None:
            noise = logits.new_zeros(len(logits), self.noise_dim)
        if not noise.is_floating_point() or noise.shape != (len(logits), self.noise_dim) or not noise.isfinite().all():
            raise ValueError(
                f"The noise for {len(logits)} logit vectors is a finite float tensor ({len(logits)}, {self.noise_dim}),"
                f" not {noise.dtype} {tuple(noise.shape)}: sample_noise({len(logits)}, seed=0) makes it."
            )
        return self.generator(noise, condition(logits, self.kind))

    def reconstruct(self, images: Tensor, noise: Tensor | None = None, depth: int | None = None) -> Tensor:
        """invert ∘ represent: images in [0, 1], (N, 3, size, size)."""
        return self.invert(self.represent(images, depth), noise)

    def sample_noise(self, n: int, seed: int = 0) -> Tensor:
        """Noise (n, noise_dim) of N(0, I), the same for the same seed; a shorter sample starts a longer one."""
        if n < 1:
            raise ValueError(f"Ask for at least one noise vector, not n={n}.")
        # NumPy draws its numbers in order, however many; torch.randn draws others for another n.
        values = np.random.default_rng(seed).standard_normal((n, self.noise_dim), dtype=np.float32)
        return torch.from_numpy(values).to(self.generator.norm.weight.device)

    def mean_reconstruction(self, logits: Tensor, samples: int = 16, seed: int = 0) -> Tensor:
        """The mean over `samples` noises of the images of logits (N, classes), (N, 3, size, size)."""
        noise = self.sample_noise(samples * len(logits), seed).to(logits.device).view(samples, len(logits), -1)
        return sum(self.invert(logits, some) for some in noise) / samples

    def to(self, device: torch.device | str) -> LogitInverter:
        self.generator.to(device)
        self.classifier.to(device)
        return self

    def save(self, folder: str | Path) -> dict:
        """Write weights (in half precision) and card for `load_inverter(folder)`; returns the card as written."""
        return store.save(folder, self.generator.state_dict(), self.card, half=True)

    def _check_depth(self, depth: int | None) -> None:
        if depth is not None and depth not in self.depths:
            raise ValueError(f"This inverter reads the logits alone, depth {self.depths[0]}, not {depth!r}.")
