"""Trained divide-and-conquer inverters as one uses them, and how to train one for a network of one's own.

>>> inv = invkit.load_inverter("dci-lite0")
>>> representation = inv.represent(images, depth=8)  # what the classifier knows after block 8
>>> reconstructions = inv.invert(representation, depth=8)  # images again, from that alone
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import functional as TF
from tqdm import tqdm

from invkit import store
from invkit.dci import chain as chains
from invkit.dci import training as phases
from invkit.dci.chain import Chain
from invkit.dci.search import search as search_behind
from invkit.dci.synthetic import Pool
from invkit.dci.training import SCHEDULE, Schedule
from invkit.network.classifiers import Classifier
from invkit.network.generators import Generator
from invkit.training import Trained


class _ChainInverter:
    """A frozen chain of block inverses and the card that says how it was made.

    card["feedback"] maps a depth to the (steps, rate) of error feedback chosen for it; a depth without has none.
    """

    def __init__(self, chain: Chain, card: dict):
        self.chain = chain.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.chain.zero_grad(set_to_none=True)  # what training left behind
        self.card, self.size = card, card["size"]
        self.depths = list(range(1, len(chain.inverses) + 1))

    def save(self, folder: str | Path) -> dict:
        """Write weights (in half precision) and card for `load_inverter(folder)`; returns the card as written."""
        return store.save(folder, self.chain.state_dict(), self.card, half=True)

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

        feedback: correct the reading by the error feedback of the card (`dci.invert_representation`); False reads once.
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
        blocks = chains.classifier_blocks(self.classifier)
        if search:
            through = min(depth, len(self.depths) // 3 + 1)
            return search_behind(self.chain, blocks, representation, depth, through, steps=search)
        return chains.invert_representation(
            self.chain, blocks, representation, depth, self._feedback(depth, feedback), (0, 1)
        )

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

        feedback: correct the latents by the error feedback of the card (`dci.invert_representation`); False reads once.
        """
        self._check_noise(noise)
        depth = self.depths[-1]
        images = 2 * _fit(images, self.size) - 1
        return chains.invert_representation(
            self.chain, self.generator.blocks, images, depth, self._feedback(depth, feedback)
        )

    def reconstruct(self, images: Tensor, feedback: bool = True) -> Tensor:
        """G(invert(images)): images in [0, 1], (N, 3, size, size)."""
        return self.generator.images(self.invert(images, feedback=feedback))

    def to(self, device: torch.device | str) -> GeneratorInverter:
        self.chain.to(device)
        self.generator.to(device)
        return self


def _fit(images: Tensor, size: int) -> Tensor:
    """Shorter side resized to `size` with anti-aliasing, then the centre square; images that fit stay untouched."""
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"Images must be floats of shape (N, 3, H, W), not {images.dtype} {tuple(images.shape)}.")
    if images.shape[-2:] == (size, size):
        return images
    return TF.center_crop(TF.resize(images, size, antialias=True), size)


def default_sizes(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """(width, residual blocks) of every inverse for shapes h_0, h_1, …: wide where the map is small, as work allows."""

    def size(shape: tuple[int, ...]) -> tuple[int, int]:
        side = shape[1] if len(shape) == 3 else 1
        return (32 if side > 56 else 64 if side > 28 else 96 if side > 14 else 128), 2

    return [size(shape) for shape in shapes[1:]]


def invert_classifier(
    classifier: Classifier,
    batches: Callable[[int, int], Tensor] | Pool,
    *,
    depth: int | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    crops: Callable[[int], tuple[int, int]] | None = None,
    schedule: Schedule = SCHEDULE,
    folder: str | Path | None = None,
    seed: int = 0,
    **training,
) -> ClassifierInverter:
    """Train an inverter of a classifier's first `depth` blocks on synthetic images.

    Args:
        batches: batches(step, depth) gives synthetic images (N, 3, H, W) in [0, 1]; or a pool to cut them from.
        depth: the deepest block to invert; by default the last that is a map (C, H, W).
        sizes: (width, residual blocks) of each inverse; by default `default_sizes`.
        crops: for a pool, crops(depth) gives (images a batch, their pixels); by default 16 of the classifier's size.
        folder, seed, training: as for `dci.train_chain`.
    """
    maps = [block.depth for block in classifier.blocks if len(block.shape) == 3]
    depth = depth or maps[-1]
    if isinstance(batches, Pool):
        pool, crops = batches, crops or (lambda depth: (16, classifier.size))

        def batches(step: int, depth: int) -> Tensor:
            return pool.batch(step, *crops(depth))

    shapes = [(3, classifier.size, classifier.size), *(tuple(b.shape) for b in classifier.blocks[:depth])]
    sizes = list(sizes or default_sizes(shapes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = Chain(shapes, sizes).to(classifier.device, memory_format=torch.channels_last)
    blocks = chains.classifier_blocks(classifier)[:depth]
    done = phases.train_chain(chain, blocks, batches, schedule=schedule, folder=folder, seed=seed, **training)
    card = _card("dci", classifier.name, classifier.size, shapes, sizes, schedule, seed, done)
    return ClassifierInverter(chain, classifier, card)


def invert_generator(
    generator: Generator,
    *,
    sizes: Sequence[tuple[int, int]],
    batch: int = 128,
    schedule: Schedule = SCHEDULE,
    folder: str | Path | None = None,
    seed: int = 0,
    **training,
) -> GeneratorInverter:
    """Train an inverter of a generator, from its images to its latents, on latents drawn from its prior."""
    shapes = [(generator.latent_dim,), *(tuple(block.shape) for block in generator.blocks)]

    def latents(step: int, depth: int) -> Tensor:
        g = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        return torch.randn(batch, generator.latent_dim, generator=g)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = Chain(shapes, sizes).to(generator.device, memory_format=torch.channels_last)
    done = phases.train_chain(chain, generator.blocks, latents, schedule=schedule, folder=folder, seed=seed, **training)
    card = _card("dci-gan", generator.name, generator.size, shapes, sizes, schedule, seed, done)
    return GeneratorInverter(chain, generator, card)


def add_feedback(
    inverter: ClassifierInverter | GeneratorInverter,
    held_out: Tensor,
    depths: Sequence[int] | None = None,
    most: int = 4,
) -> ClassifierInverter | GeneratorInverter:
    """Chooses how often a trained inverter corrects itself (`dci.invert_representation`) on synthetic inputs it has not seen.

    held_out: images (N, 3, size, size) in [0, 1] for a classifier, latents (N, latent_dim) for a generator, whose error
    is that of the regenerated images. most: steps to try. Returns the inverter, its card now holding the (steps, rate)
    of each depth.
    """
    choose = {}
    if isinstance(inverter, ClassifierInverter):
        blocks, bounds, error = chains.classifier_blocks(inverter.classifier), (0, 1), None
    else:
        blocks, bounds, generator = inverter.generator.blocks, None, inverter.generator
        images = generator.images(held_out)

        def error(latents: Tensor) -> Tensor:
            return chains.log_error(generator.images(latents), images)

        depths = [inverter.depths[-1]]
    for depth in tqdm(depths or inverter.depths, desc="error feedback", unit="depth"):
        choose[str(depth)] = chains.choose_feedback(inverter.chain, blocks, held_out, depth, bounds, error, most)
    inverter.card["feedback"] = choose
    return inverter


def _card(method, network, size, shapes, sizes, schedule, seed, done) -> dict:
    return {
        "method": method,
        "network": network,
        "size": size,
        "shapes": [list(shape) for shape in shapes],
        "sizes": [list(size) for size in sizes],
        "schedule": dataclasses.asdict(schedule),
        "seed": seed,
        "steps": sum(phase.steps for phase in done),
        "hours": round(sum(phase.seconds for phase in done) / 3600, 2),
        "machine": store.machine_class(),
        "code": store.code_version(),
    }


def _add_time(card: dict, done: Sequence[Trained]) -> None:
    """Counts further phases of training in a card."""
    card["steps"] += sum(phase.steps for phase in done)
    card["hours"] = round(card["hours"] + sum(phase.seconds for phase in done) / 3600, 2)
