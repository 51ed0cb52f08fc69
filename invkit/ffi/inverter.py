"""Trained inverters of logits (Teterwak et al. 2021, arXiv 2103.07470): images from a classifier's logits and noise.

    inv = invkit.load_inverter("ffi-glyphs-robust")
    logits = inv.represent(images)
    best_guess = inv.invert(logits)  # without noise
    samples = inv.invert(logits, noise=inv.sample_noise(len(images), seed=0))

`invkit.ffi.train_inverter` trains them. They follow the protocol `invkit.inverters.Inverter`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from invkit import store
from invkit.checks import as_floats, check_depth, check_device
from invkit.data.images import fit_square
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.pairs import condition, logits_of
from invkit.network.classifiers import Classifier
from invkit.seeds import standard_normal


class LogitInverter:
    """Reconstructs images from a classifier's logits, or samples images from logits and noise.

    Attributes:
        classifier: the network that is inverted.
        generator: the network that inverts it.
        card: how the inverter was trained, JSON.
        depths: the depth of the logits alone.
        size: side of its images in pixels.
        source_size: side of the images that it was trained on, which the classifier then saw enlarged.
        noise_dim: length of a noise vector.
        kind: what the generator sees of the logits, as for `invkit.ffi.condition`.
    """

    def __init__(self, generator: LogitGenerator, classifier: Classifier, card: dict):
        self.generator = generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.generator.zero_grad(set_to_none=True)  # free the gradients of training
        self.classifier = classifier
        self.card: dict = card
        self.size: int = generator.size
        self.noise_dim: int = generator.noise_dim
        self.kind: str = card["kind"]
        self.source_size: int = card.get("source_size", self.size)

    @cached_property
    def depths(self) -> list[int]:  # cutting a classifier into blocks takes a moment
        return [len(self.classifier.blocks)]

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """The classifier's logits (N, classes) of images.

        Args:
            images: floats in [0, 1], (N, 3, H, W), of any size. They are first resized to `source_size`, so that the
                logits hold no more detail than those that the inverter was trained on, then to what the classifier
                takes. This is the only method that resizes.
            depth: that of the logits, or None.

        Raises:
            ValueError: another depth, or no such images.
        """
        if depth is not None:
            check_depth(depth, self.depths)
        return logits_of(self.classifier, fit_square(images, self.source_size))

    def invert(
        self, representation: Tensor, depth: int | None = None, noise: Tensor | None = None, *, search: int = 0
    ) -> Tensor:
        """Images in [0, 1], (N, 3, size, size), from logits and noise.

        Args:
            representation: logits, floats (N, classes).
            depth: that of the logits, or None.
            noise: (N, noise_dim), from `sample_noise` for a sample. None for zeros, the centre of its prior, for which
                an inverter of photographs was trained to return its best guess.
            search: 0; this inverter has no search.

        Raises:
            ValueError: another depth; logits or noise of another shape, or not finite; a search.
        """
        if depth is not None:
            check_depth(depth, self.depths)
        if search:
            raise ValueError("A search starts inside a classifier; this inverter inverts its logits: leave out search.")
        begin = "This inverter takes float logits"
        logits = as_floats(representation, (self.classifier.classes,), begin, "represent(images)")
        if noise is None:
            noise = logits.new_zeros(len(logits), self.noise_dim)
        fix = f"sample_noise({len(logits)}, seed=0)"
        noise = as_floats(noise, (self.noise_dim,), f"The noise for {len(logits)} logit vectors is floats", fix)
        if len(noise) != len(logits):
            raise ValueError(f"The noise for {len(logits)} logit vectors is as many rows, not {len(noise)}: {fix}.")
        return self.generator(noise, condition(logits, self.kind))

    def reconstruct(
        self, images: Tensor, depth: int | None = None, noise: Tensor | None = None, *, search: int = 0
    ) -> Tensor:
        """`invert` of `represent`: images in [0, 1], (N, 3, size, size). Arguments as there."""
        return self.invert(self.represent(images, depth), depth, noise, search=search)

    def sample_noise(self, n: int, seed: int = 0) -> Tensor:
        """Noise (n, noise_dim) from N(0, I).

        Args:
            n: how many vectors, 1 or more; the first ones do not depend on how many follow.
            seed: 0 or more.

        Raises:
            ValueError: n below 1, or a seed below 0.
        """
        return standard_normal(n, self.noise_dim, seed).to(self.generator.norm.weight.device)

    def to(self, device: torch.device | str) -> LogitInverter:
        """Move the inverter and its classifier to a device; returns the inverter."""
        self.classifier.to(device)
        self.generator.to(check_device(device))
        return self

    def save(self, folder: str | Path) -> dict:
        """Write the weights, in half precision, and the card for `load_inverter(folder)`; returns the card as written.

        Raises:
            ValueError: the card is not JSON, or a weight is too large for half precision.
        """
        return store.save(folder, self.generator.state_dict(), self.card, half=True)
