"""Train a divide-and-conquer inverter for a network of one's own (Dong et al. 2021, arXiv 2107.06304).

pool = synthetic.draw_pool(4096, 320)
inverter = dci.invert_classifier(classifier, pool, folder="runs/mine")
dci.add_feedback(inverter, synthetic.dead_leaves(8, classifier.size, seed=1))
inverter.save("weights/mine")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from invkit import store
from invkit.checks import check_depth, check_room, check_seed, check_size, checked
from invkit.dci.chain import Chain, choose_feedback, classifier_blocks, log_error, map_shapes
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import SCHEDULE, Schedule, train_chain
from invkit.identity import identity
from invkit.network.classifiers import Classifier
from invkit.network.generators import Generator
from invkit.seeds import generator_for


@checked
def invert_classifier(
    classifier: Classifier,
    batches: Callable[[int, int], Tensor] | Pool | Tensor,
    *,
    depth: int | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    crops: Callable[[int], tuple[int, int]] | None = None,
    schedule: Schedule = SCHEDULE,
    folder: str | Path | None = None,
    seed: int = 0,
    **training,
) -> ClassifierInverter:
    """Train an inverter of a classifier's first blocks on synthetic images.

    Args:
        classifier: the network to invert.
        batches: batches(step, depth) returns synthetic images (N, 3, H, W) in [0, 1]; or a pool to cut them from, or
            its images.
        depth: the deepest block to invert; None for the last one whose output is a map or tokens, and for the last of
            all where none is.
        sizes: (width, residual blocks) of each inverse; None for `default_sizes`.
        crops: for a pool, crops(depth) returns (images in a batch, their side in pixels); None for 16 images of the
            classifier's size.
        schedule: steps and learning rates.
        folder: for checkpoints; a stopped run goes on from there. None keeps none.
        seed: of the initial weights and of training.
        training: further arguments of `train_chain`.

    Raises:
        ValueError: a depth that the classifier does not have, or whose outputs have an unknown layout.
    """
    shapes = map_shapes(classifier)
    depth = deepest(shapes) if depth is None else depth
    depth = check_depth(depth, range(1, len(shapes)), f"{classifier.name} can be inverted at")
    shapes = shapes[: depth + 1]
    if isinstance(batches, Tensor):
        batches = Pool(batches)
    if isinstance(batches, Pool):
        pool, crops = batches, crops or (lambda depth: (16, classifier.size))

        def batches(step: int, depth: int) -> Tensor:
            return synthetic_for(classifier, pool.batch(step, *crops(depth)).to(classifier.device))

    sizes = list(sizes or default_sizes(shapes))
    chain = _new_chain(shapes, sizes, seed, classifier.device)
    blocks = classifier_blocks(classifier)[:depth]
    phases = train_chain(chain, blocks, batches, schedule=schedule, folder=folder, seed=seed, **training)
    card = new_card("dci", classifier, shapes, sizes, schedule, seed, phases)
    return ClassifierInverter(chain, classifier, card | {"classifier": identity(classifier)})


@checked
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
    """Train an inverter of a generator, from its images to its latents, on latents sampled from its prior.

    Args:
        generator: the network to invert.
        sizes: (width, residual blocks) of each inverse, from the latent's side.
        batch: latents in a batch.
        schedule, folder, seed, training: as for `invert_classifier`.
    """
    check_size(batch, generator.size)
    shapes = [(generator.latent_dim,), *(tuple(block.shape) for block in generator.blocks)]

    def latents(step: int, depth: int) -> Tensor:
        return torch.randn(batch, generator.latent_dim, generator=generator_for(seed + 1, step)).to(generator.device)

    chain = _new_chain(shapes, sizes, seed, generator.device)
    phases = train_chain(chain, generator.blocks, latents, schedule=schedule, folder=folder, seed=seed, **training)
    card = new_card("dci-gan", generator, shapes, sizes, schedule, seed, phases)
    return GeneratorInverter(chain, generator, card)


@checked
def add_feedback(
    inverter: ClassifierInverter | GeneratorInverter,
    held_out: Tensor,
    depths: Sequence[int] | None = None,
    most: int = 4,
    progress: bool = True,
) -> ClassifierInverter | GeneratorInverter:
    """Choose the error feedback of each depth of a trained inverter (`choose_feedback`) and write it on its card.

    Args:
        inverter: changed in place; its card's "feedback" becomes {depth: [steps, rate]}.
        held_out: synthetic inputs that training has not seen: images (N, 3, size, size) in [0, 1] for a classifier;
            latents (N, latent_dim) for a generator, where the error is that of the images generated from them.
        depths: for which depths; None for all of the inverter's.
        most: largest number of steps to try.
        progress: show a progress bar.

    Returns:
        The inverter.
    """
    if isinstance(inverter, ClassifierInverter):
        blocks: Sequence[Callable[[Tensor], Tensor]] = classifier_blocks(inverter.classifier)
        bounds, error = (0, 1), None
    else:
        blocks, bounds, generator = inverter.generator.blocks, None, inverter.generator
        images = generator.images(held_out)

        def error(latents: Tensor) -> Tensor:
            return log_error(generator.images(latents), images)

    chosen = {}
    for depth in tqdm(depths or inverter.depths, desc="error feedback", unit="depth", disable=not progress):
        chosen[str(depth)] = list(choose_feedback(inverter.chain, blocks, held_out, depth, bounds, error, most))
    inverter.card["feedback"] = chosen
    return inverter


@checked
def synthetic_for(classifier: Classifier, images: Tensor) -> Tensor:
    """Synthetic images (N, 3, H, W) with as many channels as a classifier takes; those that have them, as they are.

    Of more than three, the further ones show the next images in every second image, and the same image in the others:
    channels of real images have some of their edges in common, and some not.
    """
    if classifier.channels in (1, 3, images.shape[1]):
        return classifier.convert(images)
    odd = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1) % 2 > 0
    parts = [torch.where(odd, images.roll(k, 0), images) for k in range(-(-classifier.channels // 3))]
    return torch.cat(parts, 1)[:, : classifier.channels]


def deepest(shapes: Sequence[tuple[int, ...]]) -> int:
    """The last depth whose output is a map, for the shapes of h_0, h_1, …; the last of all where none is."""
    return max((depth for depth, shape in enumerate(shapes) if depth and len(shape) == 3), default=len(shapes) - 1)


def default_sizes(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """(width, residual blocks) of every inverse for the shapes of h_0, h_1, …: the smaller the map, the wider."""

    def size(shape: tuple[int, ...]) -> tuple[int, int]:
        side = shape[1] if len(shape) == 3 else 1
        return (32 if side > 56 else 64 if side > 28 else 96 if side > 14 else 128), 2

    return [size(shape) for shape in shapes[1:]]


def _new_chain(shapes, sizes, seed: int, device: torch.device) -> Chain:
    check_seed(seed)
    check_room(sum(18 * blocks * width**2 for width, blocks, *_ in sizes), f"Inverses of (width, blocks) {sizes}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Chain(shapes, sizes).to(device, memory_format=torch.channels_last)


def new_card(method: str, network: Classifier | Generator, shapes, sizes, schedule, seed, phases) -> dict:
    """The card of an inverter: what it inverts, the shapes of h_0 … h_K, its inverses' sizes, how it was trained."""
    return {
        "method": method,
        "network": network.name,
        "size": network.size,
        "shapes": [list(shape) for shape in shapes],
        "sizes": [list(size) for size in sizes],
        "schedule": dataclasses.asdict(schedule),
        "seed": seed,
        "steps": sum(phase.steps for phase in phases),
        "hours": round(sum(phase.seconds for phase in phases) / 3600, 4),
        "machine": store.machine_class(),
        "code": store.code_version(),
    }
