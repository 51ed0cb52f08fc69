"""Trained divide-and-conquer inverters (Dong et al. 2021, arXiv 2107.06304), of classifiers and of generators.

    inv = invkit.load_inverter("dci-lite0")
    representation = inv.represent(images, depth=8)  # the output of the classifier's block 8
    reconstructions = inv.invert(representation, depth=8)  # images, from that alone

`invkit.dci.invert_classifier` and `invert_generator` train them. They follow the protocol `invkit.inverters.Inverter`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from invkit import store
from invkit.checks import as_floats, check_depth, check_device, check_images, check_whole_number
from invkit.data.images import fit_square
from invkit.dci.chain import Chain, classifier_blocks, invert_representation
from invkit.dci.layout import layout_of
from invkit.dci.search import search as search_input
from invkit.network.classifiers import Classifier
from invkit.network.generators import Generator


class _ChainInverter:
    """A frozen chain of block inverses, the network that it inverts, and the card that says how it was trained.

    card["feedback"] maps a depth to the (steps, rate) of error feedback chosen for it; other depths have none.
    """

    def __init__(self, chain: Chain, network: Classifier | Generator, card: dict, depths: list[int]):
        self.chain = chain.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.chain.zero_grad(set_to_none=True)  # free the gradients of training
        self._network = network
        self.card: dict = card
        self.size: int = card["size"]
        self.depths: list[int] = depths

    def to(self, device: torch.device | str) -> Self:
        """Move the inverter and the network that it inverts; returns the inverter."""
        self._network.to(device)
        self.chain.to(check_device(device))
        return self

    def save(self, folder: str | Path) -> dict:
        """Write the weights, in half precision, and the card for `load_inverter(folder)`; returns the card as written.

        Where card["bits"] is 8, kernels are written in 8 bits a weight.

        Raises:
            ValueError: the card is not JSON, or a weight is too large for half precision.
        """
        return store.save(folder, self.chain.state_dict(), self.card, half=True, eight_bits=self.card.get("bits") == 8)

    def _feedback(self, depth: int, wanted: bool) -> tuple[int, float]:
        if not isinstance(wanted, bool):  # text would count as true
            raise TypeError(f"feedback is True or False, not {store.quoted(wanted)}: give one of these.")
        return tuple(self.card.get("feedback", {}).get(str(depth), (0, 1.0))) if wanted else (0, 1.0)

    def _check_noise(self, noise: Tensor | None) -> None:
        if noise is not None:
            raise ValueError("A divide-and-conquer inversion has no noise to choose: leave noise=None.")


class ClassifierInverter(_ChainInverter):
    """Reconstructs images from the output of any block of a classifier.

    Attributes:
        classifier: the network that is inverted.
        chain: the inverses of its blocks.
        card: how the inverter was trained, JSON.
        depths: the depths that it inverts, from 1.
        size: side of its images in pixels.
    """

    def __init__(self, chain: Chain, classifier: Classifier, card: dict):
        super().__init__(chain, classifier, card, card.get("depths") or list(range(1, len(chain.inverses) + 1)))
        self.classifier = classifier

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """The output of the classifier's block `depth`, (N, *classifier.blocks[depth-1].shape).

        Args:
            images: floats in [0, 1], (N, C, H, W), of any size, of the classifier's channels; colours become grey for
                a grey classifier. This is the only method that resizes (`fit_square`).
            depth: one of `depths`; None for the deepest.

        Raises:
            ValueError: another depth, or no such images.
        """
        squares = fit_square(self.classifier.convert(images), self.size)
        return self.classifier.features(squares, check_depth(depth, self.depths))

    def invert(
        self,
        representation: Tensor,
        depth: int | None = None,
        noise: None = None,
        *,
        search: int = 0,
        feedback: bool = True,
    ) -> Tensor:
        """Images in [0, 1], (N, C, size, size), from the output of one block alone; deterministic.

        Args:
            representation: floats, (N, *classifier.blocks[depth-1].shape), as `represent` returns them.
            depth: the depth of that block, one of `depths`; None for the deepest.
            noise: this inverter takes none.
            search: gradient steps of `invkit.dci.search`, applied a third of the way down the network in place of
                feedback; slow, for depths where feedback does not help. 0 for none.
            feedback: correct the reconstruction by the error feedback on the card (`invert_representation`).

        Raises:
            ValueError: another depth or shape, or noise.
        """
        self._check_noise(noise)
        depth = check_depth(depth, self.depths)
        shape = tuple(self.classifier.blocks[depth - 1].shape)
        begin, fix = f"Depth {depth} is inverted from floats", f"represent(images, depth={depth})"
        y = layout_of(shape, self.classifier.size).to_map(as_floats(representation, shape, begin, fix))
        blocks = classifier_blocks(self.classifier)
        check_whole_number(search, 0, "search")
        feedback_steps = self._feedback(depth, feedback)
        if search:
            through = min(depth, len(self.chain.inverses) // 3 + 1)
            return search_input(self.chain, blocks, y, depth, through, steps=search)
        return invert_representation(self.chain, blocks, y, depth, feedback_steps, (0, 1))

    def reconstruct(
        self, images: Tensor, depth: int | None = None, noise: None = None, *, search: int = 0, feedback: bool = True
    ) -> Tensor:
        """`invert` of `represent`: images in [0, 1], (N, 3, size, size). Arguments as there."""
        return self.invert(self.represent(images, depth), depth, noise, search=search, feedback=feedback)


class GeneratorInverter(_ChainInverter):
    """Finds the latents behind images of a generator.

    Its representation of an image is the image itself, the output of the generator's last block.

    Attributes:
        generator: the network that is inverted.
        chain: the inverses of its blocks.
        card: how the inverter was trained, JSON.
        depths: the depth of the generator's last block alone.
        size: side of its images in pixels.
    """

    def __init__(self, chain: Chain, generator: Generator, card: dict):
        super().__init__(chain, generator, card, [len(chain.inverses)])
        self.generator = generator

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """The images as the inverter takes them, (N, 3, size, size).

        Args:
            images: floats in [0, 1], (N, 3, H, W), of any size (`fit_square`).
            depth: that of the generator's last block, or None.

        Raises:
            ValueError: another depth, or no such images.
        """
        check_depth(depth, self.depths)
        check_images(images)
        return fit_square(images, self.size)

    def invert(
        self,
        representation: Tensor,
        depth: int | None = None,
        noise: None = None,
        *,
        search: int = 0,
        feedback: bool = True,
    ) -> Tensor:
        """Latents (N, latent_dim) of images; deterministic.

        Args:
            representation: images, floats in [0, 1], (N, 3, H, W), resized as by `represent`.
            depth: that of the generator's last block, or None.
            noise: this inverter takes none.
            search: 0; this inverter has no search.
            feedback: correct the latents by the error feedback on the card (`invert_representation`).

        Raises:
            ValueError: another depth, no such images, noise, or a search.
        """
        self._check_noise(noise)
        if search:
            raise ValueError("A search starts inside a classifier; this inverts a generator: leave out search.")
        depth = check_depth(depth, self.depths)
        check_images(representation)
        images = 2 * fit_square(representation, self.size) - 1
        return invert_representation(self.chain, self.generator.blocks, images, depth, self._feedback(depth, feedback))

    def reconstruct(
        self, images: Tensor, depth: int | None = None, noise: None = None, *, search: int = 0, feedback: bool = True
    ) -> Tensor:
        """The generator's images of the inverted latents, G(invert(images)), in [0, 1], (N, 3, size, size)."""
        latents = self.invert(self.represent(images, depth), depth, noise, search=search, feedback=feedback)
        return self.generator.images(latents)
