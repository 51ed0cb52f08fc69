"""Trained inverters as one uses them: represent an image inside a network, read it back.

>>> inv = invkit.load_inverter("dci-lite0")
>>> representation = inv.represent(images, depth=8)  # what the classifier knows after block 8
>>> readings = inv.invert(representation, depth=8)  # images again, from that alone

>>> inv = invkit.load_inverter("ffi-glyphs-robust")
>>> drawings = inv.invert(inv.represent(images), inv.sample_noise(len(images), seed=0))  # from logits and noise
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as TF

from invkit import dci, store
from invkit.classifiers import Classifier, load_classifier
from invkit.dci import Chain
from invkit.generators import Generator, load_generator
from invkit.networks import LogitGenerator
from invkit.pairs import condition, show
from invkit.search import search as search_behind


def load_inverter(name: str | Path) -> ClassifierInverter | GeneratorInverter | LogitInverter:
    """An inverter by shipped name or folder, frozen, with the network it inverts.

    Raises:
        FileNotFoundError: no such name or folder. ValueError: a damaged one, or one of another kind.
    """
    tensors, card = store.load(name)
    if card.get("method") not in (*INVERTERS, "ffi"):
        raise ValueError(f"{name} holds no inverter but {card.get('method')!r}: load it with what trained it.")
    if card["method"] == "ffi":
        classifier = load_classifier(card["network"])
        generator = LogitGenerator(card["size"], card["classes"], **card["generator"] | {"spectral": False})
        generator.load_state_dict(tensors)
        return LogitInverter(generator, classifier, card)
    kind, network = INVERTERS[card["method"]]
    chain = Chain(card["shapes"], card["sizes"])
    chain.load_state_dict(tensors)
    return kind(chain, network(card["network"]), card)


class _ChainInverter:
    """A frozen chain of block inverses and the card that says how it was made.

    card["feedback"] maps a depth to the (steps, rate) of error feedback chosen for it; a depth without has none.
    """

    def __init__(self, chain: Chain, card: dict):
        self.chain = chain.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.chain.zero_grad(set_to_none=True)  # what training left behind
        self.card, self.size = card, card["size"]
        self.depths = list(range(1, len(chain.inverses) + 1))

    def _feedback(self, depth: int, wanted: bool) -> tuple[int, float]:
        return tuple(self.card.get("feedback", {}).get(str(depth), (0, 1.0))) if wanted else (0, 1.0)

    def _check_noise(self, noise: Tensor | None) -> None:
        if noise is not None:
            raise ValueError("A divide-and-conquer inversion has no noise to choose: leave noise=None.")


class ClassifierInverter(_ChainInverter):
    """Reads images back from any block of a classifier; `depths` lists them, from 1.

    Attributes: classifier, card (dict), depths, size (pixels of its images).
    """

    def __init__(self, chain: Chain, classifier: Classifier, card: dict):
        super().__init__(chain, card)
        self.classifier = classifier

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """The classifier's output of block `depth` (default: the deepest), (N, *classifier.blocks[depth-1].shape).

        images: floats in [0, 1], (N, 3, H, W), of any size: the only place that resizes (shorter side, then centre).
        """
        return self.classifier.features(_fit(images, self.size), self._depth(depth))

    def invert(
        self,
        representation: Tensor,
        depth: int | None = None,
        noise: None = None,
        feedback: bool = True,
        search: int = 0,
    ) -> Tensor:
        """Images in [0, 1], (N, 3, size, size), from the output of block `depth` alone; deterministic.

        feedback: correct the reading by the error feedback of the card (`dci.read`); False reads once.
        search: steps of `invkit.search` in its place, a third of the way down the network; slow, for depths where
            feedback is of no use.
        """
        self._check_noise(noise)
        depth = self._depth(depth)
        shape = tuple(self.classifier.blocks[depth - 1].shape)
        if not representation.is_floating_point() or tuple(representation.shape[1:]) != shape:
            raise ValueError(
                f"Depth {depth} is read from floats of shape (N, {', '.join(map(str, shape))}), not "
                f"{representation.dtype} {tuple(representation.shape)}: represent(images, depth={depth}) makes them."
            )
        blocks = dci.classifier_blocks(self.classifier)
        if search:
            through = min(depth, len(self.depths) // 3 + 1)
            return search_behind(self.chain, blocks, representation, depth, through, steps=search)
        return dci.read(self.chain, blocks, representation, depth, self._feedback(depth, feedback), (0, 1))

    def reconstruct(self, images: Tensor, depth: int | None = None, feedback: bool = True, search: int = 0) -> Tensor:
        """invert ∘ represent: images in [0, 1], (N, 3, size, size)."""
        return self.invert(self.represent(images, depth), depth, feedback=feedback, search=search)

    def _depth(self, depth: int | None) -> int:
        if depth is None:
            return self.depths[-1]
        if depth not in self.depths:
            raise ValueError(f"This inverter reads depths {self.depths[0]} to {self.depths[-1]}, not {depth!r}.")
        return int(depth)

    def to(self, device: torch.device | str) -> ClassifierInverter:
        self.chain.to(device)
        self.classifier.to(device)
        return self


class GeneratorInverter(_ChainInverter):
    """Reads the latent behind an image of a generator.

    Attributes: generator, card (dict), depths, size (pixels of its images).
    """

    def __init__(self, chain: Chain, generator: Generator, card: dict):
        super().__init__(chain, card)
        self.generator = generator

    def invert(self, images: Tensor, noise: None = None, feedback: bool = True) -> Tensor:
        """Latents (N, latent_dim) of images in [0, 1], (N, 3, H, W): resized to `size` (shorter side, then centre).

        feedback: correct the latents by the error feedback of the card (`dci.read`); False reads once.
        """
        self._check_noise(noise)
        depth = self.depths[-1]
        images = 2 * _fit(images, self.size) - 1
        return dci.read(self.chain, self.generator.blocks, images, depth, self._feedback(depth, feedback))

    def reconstruct(self, images: Tensor, feedback: bool = True) -> Tensor:
        """G(invert(images)): images in [0, 1], (N, 3, size, size)."""
        return self.generator.images(self.invert(images, feedback=feedback))

    def to(self, device: torch.device | str) -> GeneratorInverter:
        self.chain.to(device)
        self.generator.to(device)
        return self


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
        return show(self.classifier, _fit(images, self.source_size))

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

    def _check_depth(self, depth: int | None) -> None:
        if depth is not None and depth not in self.depths:
            raise ValueError(f"This inverter reads the logits alone, depth {self.depths[0]}, not {depth!r}.")


def _fit(images: Tensor, size: int) -> Tensor:
    """Shorter side resized to `size` with anti-aliasing, then the centre square; images that fit stay untouched."""
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"Images must be floats of shape (N, 3, H, W), not {images.dtype} {tuple(images.shape)}.")
    if images.shape[-2:] == (size, size):
        return images
    return TF.center_crop(TF.resize(images, size, antialias=True), size)


INVERTERS = {"dci": (ClassifierInverter, load_classifier), "dci-gan": (GeneratorInverter, load_generator)}
