"""What all trained inverters have in common, and how to load one by name or folder.

inv = invkit.load_inverter("dci-lite0")
representation = inv.represent(images, depth=8)  # the output of the classifier's block 8
reconstructions = inv.invert(representation, depth=8)  # images, from that alone
inv.reconstruct(images, depth=8)  # both in one call
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from invkit import store
from invkit.checks import built, checked, reading_card
from invkit.dci.chain import Chain, map_shapes
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import condition
from invkit.identity import find_classifier
from invkit.network.classifiers import Classifier
from invkit.network.generators import load_generator


@runtime_checkable
class Inverter(Protocol):
    """An inverter of a frozen network: images -> representation -> what it tells of the images.

    Three kinds follow this protocol. `ClassifierInverter` inverts any block of a classifier and `LogitInverter` its
    logits, both to images; `GeneratorInverter` inverts the images of a generator to its latents. All of them are
    deterministic, use no global random numbers, and let gradients pass to their inputs but not to their weights.

    Attributes:
        card: how the inverter was trained and what it reaches, JSON.
        size: side of its images in pixels.
    """

    card: dict
    size: int

    @property
    def depths(self) -> list[int]:
        """The depths of the network that it inverts, in order."""

    def represent(self, images: Tensor, depth: int | None = None) -> Tensor:
        """The network's representation of images.

        Args:
            images: floats in [0, 1], (N, 3, H, W), of any size. Only this method resizes.
            depth: one of `depths`; None for the deepest.

        Raises:
            ValueError: another depth, or no such images.
        """

    def invert(
        self, representation: Tensor, depth: int | None = None, noise: Tensor | None = None, *, search: int = 0
    ) -> Tensor:
        """What a representation tells: images in [0, 1], (N, 3, size, size), or latents of a generator.

        Args:
            representation: as `represent` returns it, (N, ...).
            depth: its depth; None for the deepest.
            noise: (N, noise_dim), of an inverter that samples; None for the centre of its prior.
            search: gradient steps of a search for a closer reconstruction; 0 for none.

        Raises:
            ValueError: a representation of another shape or depth; noise or a search where the inverter has none.
        """

    def reconstruct(
        self, images: Tensor, depth: int | None = None, noise: Tensor | None = None, *, search: int = 0
    ) -> Tensor:
        """Images in [0, 1], (N, 3, size, size), from the representation of images. Arguments as for `invert`."""

    def to(self, device: torch.device | str) -> Self:
        """Move the inverter and its network to a device; returns the inverter."""

    def save(self, folder: str | Path) -> dict:
        """Write weights, in half precision, and card for `load_inverter(folder)`; returns the card as written."""


@checked
def load_inverter(name: str | Path, classifier: Classifier | nn.Module | None = None, trust: bool = False) -> Inverter:
    """A trained inverter, frozen, on the CPU, with the network that it inverts.

    Args:
        name: the name of a shipped inverter, or a folder that an inverter's `save` wrote.
        classifier: the network that it inverts, where the card's name does not bring it back: a `Classifier`, or the
            module alone, whose preprocessing the card then tells.
        trust: make what the card names also where it is another network than a shipped one, timm's or torchvision's;
            for "package.module:factory" that runs code.

    Example:
        >>> import invkit
        >>> inverter = load_inverter("ffi-glyphs-robust")
        >>> glyphs = invkit.data.load("glyphs", n=2).images
        >>> logits = inverter.represent(glyphs)
        >>> inverter.invert(logits).shape
        torch.Size([2, 3, 32, 32])

    Raises:
        FileNotFoundError: there is no such name or folder.
        ValueError: the files are damaged, or hold something else; a classifier that cannot be had by its name, or is
            not the one that was inverted.
    """
    tensors, card = store.load(name)
    if str(card.get("method")) not in LOADERS:
        raise ValueError(f"{name} holds no inverter but {card.get('method')!r}: load it with what trained it.")
    if classifier is not None and card["method"] == "dci-gan":
        raise ValueError(f"{name} inverts the generator {card['network']}, which is no classifier: leave it out.")
    with reading_card(name):
        return LOADERS[card["method"]](tensors, card, classifier, trust)


def _of_a_classifier(tensors: dict[str, Tensor], card: dict, classifier, trust: bool) -> ClassifierInverter:
    chain = _chain(tensors, card)
    found = find_classifier(card, classifier, trust)
    shapes = [tuple(shape) for shape in card["shapes"]]
    if not set(card.get("depths") or [1]) <= set(range(1, len(shapes))):
        raise LookupError("depths of which it has no inverses")
    if classifier is not None and map_shapes(found)[: len(shapes)] != shapes:
        raise ValueError(f"{found.name} is cut into other blocks than when it was inverted: give the same cuts=.")
    return ClassifierInverter(chain, found, card)


def _chain(tensors: dict[str, Tensor], card: dict) -> Chain:
    return built(lambda: Chain(card["shapes"], card["sizes"]), card, tensors, card.get("name", "the weights"))


def _of_logits(tensors: dict[str, Tensor], card: dict, classifier, trust: bool) -> LogitInverter:
    options = card["generator"] | {"spectral": False}
    make = lambda: LogitGenerator(card["size"], card["classes"], **options)  # noqa: E731
    generator = built(make, card, tensors, card.get("name", "the weights"))
    condition(torch.zeros(1, card["classes"]), card["kind"])  # one that there is
    return LogitInverter(generator, find_classifier(card, classifier, trust), card)


LOADERS: dict[str, Callable[..., Inverter]] = {  # by the method on the card
    "dci": _of_a_classifier,
    "dci-gan": lambda found, card, *_: GeneratorInverter(_chain(found, card), load_generator(card["network"]), card),
    "ffi": _of_logits,
}
