"""How the shipped zero-shot inverters were trained: `python -m recipes train dci-lite0 --folder FOLDER` runs one.

To train one for a network of one's own, use `invkit.dci.invert_classifier` or `invert_generator`, as here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit import dci, store
from invkit.dci import synthetic
from invkit.dci.chain import ChainLossWeights, map_shapes
from invkit.dci.invert import add_feedback, invert_classifier, invert_generator, new_card
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.dci.training import Schedule
from invkit.identity import identity
from invkit.minutes import DATA, FEEDBACK
from invkit.network.classifiers import Classifier, load_classifier
from invkit.network.generators import load_generator
from invkit.training import Progress
from recipes import matching
from recipes.minutes import RecipeBudget
from recipes.refine import refine

# On a GPU a step has four times the images: with fewer, the GPU would wait for the CPU.
BATCHES = {"cpu": 1, "cuda": 4}
# Every inverse is first trained by itself with the block term alone.
DIVIDE_WEIGHTS = ChainLossWeights(block=1, input=0, cycle=0)

# lite0 at 224 pixels. Down to the 28 x 28 maps, crops of 128 pixels have a third of the work; below, they would
# be mostly padding.
LITE0_SIZES = [
    (32, 2), (32, 2), (64, 3), (48, 2), (96, 3), (64, 2), (144, 3), (96, 2), (96, 2), (144, 2), (112, 2), (112, 2),
    (192, 2), (128, 2), (128, 2), (128, 2), (144, 2), (80, 2),
]  # fmt: skip
LITE0_OFTEN = (0.5, 2, 1, 1.5, 1, 1.5, 1, 1, 1.5, 1, 1, 1.5, 0.8, 0.8, 1.2, 0.6, 0.6, 0.6)
LITE0_SHALLOW = 9  # below it maps have 14 x 14 places or fewer
LITE0_SHALLOW_OFTEN = (0.2, 0.6, 0.3, 0.8, 0.5, 2.5, 0.4, 0.4, 2.5)
LITE0_CUT = 6  # of maps with 28 x 28 places
LITE0_DEEP_OFTEN = (0.5, 0.5, 1, 0.8, 0.8, 2, 0.8, 0.8, 2.5, 0.8, 1, 1)


def dci_lite0(
    folder: Path, seed: int = 0, scale: float = 1.0, *, device: str = "cpu", budget: RecipeBudget | None = None
) -> ClassifierInverter:
    """The zero-shot inverter of EfficientNet-Lite0, every block down to the last convolution.

    Divided and re-synchronised; then the first nine inverses are re-synchronised by themselves, at a higher rate; then
    the last twelve are trained further through the first six, which are frozen (`refine`). Each phase has leaves
    and noise of its own. Some batches of the first phase and of the last are cut from batch-norm-matched images.
    """
    classifier = load_classifier("lite0").to(device)
    frozen = low_precision(classifier)
    blocks = dci.classifier_blocks(frozen)
    leaves = _leaves(4096, 320, seed, scale, device, budget, share=0.03)
    few = max(16, round(256 * min(1.0, scale)))
    if budget:
        few = budget.amount("matched", few, lambda n: matching.matched_pool(classifier, n, seed, None), share=0.03)
    matched = matching.matched_pool(classifier, few, seed, folder / "matched.safetensors").to(device)
    schedule = Schedule(
        divide=round(250 * scale), synchronise=round(3000 * scale), divide_lr=2e-3, synchronise_lr=8e-4,
        often=LITE0_OFTEN, cycle_every=4,
    )  # fmt: skip
    settings = {"seed": seed, "precision": "auto"}
    larger = BATCHES[device]

    def crops(depth: int) -> tuple[int, int]:
        """Images in a batch, and their side in pixels."""
        return (24 * larger, 128) if depth <= 6 else (8 * larger, 224)

    def batches(step: int, depth: int) -> Tensor:
        synchronising = step >= schedule.divide  # its steps are counted on from there
        pool = matched if synchronising and step % 4 == 0 else leaves
        return pool.batch(step, *crops(depth))

    if budget:
        budget.early = _early(classifier, LITE0_SIZES, schedule, seed)
    inverter = invert_classifier(
        frozen, batches, depth=18, sizes=LITE0_SIZES, schedule=schedule, folder=folder, **settings,
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0.1),
    )  # fmt: skip
    leaves = _leaves(4096, 320, seed + 1, scale, device, budget, share=0.02)
    shallow = dci.synchronise(
        inverter.chain.slice(0, LITE0_SHALLOW), blocks[:LITE0_SHALLOW],
        lambda step, depth: leaves.batch(step, *crops(depth)), weights=ChainLossWeights(block=0.1, input=1, cycle=0),
        schedule=Schedule(synchronise=round(2400 * scale), synchronise_lr=1.5e-3, often=LITE0_SHALLOW_OFTEN),
        folder=folder / "shallow", **settings,
    )  # fmt: skip
    leaves = _leaves(4096, 320, seed + 2, scale, device, budget, share=0.02)
    deep = refine(
        inverter.chain, blocks, lambda step: (leaves if step % 3 else matched).batch(step, 24 * larger, 224), LITE0_CUT,
        window=14, margin=16, steps=round(1250 * scale), lr=1.2e-4,
        weights=ChainLossWeights(block=0.1, input=1, cycle=0), often=LITE0_DEEP_OFTEN, folder=folder / "deep",
        **settings,
    )  # fmt: skip
    inverter.card["steps"] += shallow.steps + deep.steps
    inverter.card["hours"] = round(inverter.card["hours"] + (shallow.seconds + deep.seconds) / 3600, 4)
    _round_to_eight_bits(inverter)
    return _finished(inverter, classifier, synthetic.dead_leaves(8, 224, (seed + 2) * 100_003), budget)


def dci_small(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, device: str = "cpu",
    budget: RecipeBudget | None = None,
) -> ClassifierInverter:  # fmt: skip
    """The zero-shot inverter of a small classifier, down to its last map.

    The same schedule for all, so that two classifiers of one architecture can be compared.
    """
    network = load_classifier(classifier).to(device)
    leaves = _leaves(4096, 2 * network.size, seed, scale, device, budget)
    sizes = [(32, 2) for block in network.blocks if len(block.shape) == 3]
    schedule = Schedule(divide=round(60 * scale), synchronise=round(500 * scale), divide_lr=2e-3, synchronise_lr=1e-3)
    if budget:
        budget.early = _early(network, sizes, schedule, seed)
    inverter = invert_classifier(
        low_precision(network), leaves, sizes=sizes, crops=lambda depth: (24 * BATCHES[device], network.size),
        schedule=schedule, folder=folder, seed=seed, precision="auto",
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0),
    )  # fmt: skip
    return _finished(inverter, network, synthetic.dead_leaves(32, network.size, (seed + 2) * 100_003), budget)


def dci_network(
    folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str, depth: int, divide: int, synchronise: int,
    device: str = "cpu", budget: RecipeBudget | None = None,
) -> ClassifierInverter:  # fmt: skip
    """The zero-shot inverter of an ImageNet network down to a depth: one recipe, and no setting but the steps.

    Every inverse starts as the linear map of least squares; all are trained by themselves at the same time, and then
    re-synchronised, the deeper ones more often. Its weights are kept in 8 bits each.

    Args:
        folder, seed, scale, device, budget: as for every recipe.
        classifier: name of the network.
        depth: the deepest block to invert.
        divide: steps in which the inverses are trained by themselves.
        synchronise: steps in which all are trained together, each from one random depth.
    """
    network = load_classifier(classifier).to(device)
    shapes = map_shapes(network)[: depth + 1]
    leaves = _leaves(4096, network.size + 96, seed, scale, device, budget)
    sizes = [network_size(shape) for shape in shapes[1:]]
    often = tuple(0.5 + k / depth for k in range(1, depth + 1))
    schedule = Schedule(
        divide=round(divide * scale), synchronise=round(synchronise * scale), divide_lr=2e-3, synchronise_lr=1e-3,
        often=often, cycle_every=4,
    )  # fmt: skip
    if budget:
        budget.early = _early(network, sizes, schedule, seed)
    inverter = invert_classifier(
        low_precision(network), leaves, depth=depth, sizes=sizes, at_once=True, schedule=schedule, folder=folder,
        seed=seed, precision="auto", crops=lambda depth: (8 * BATCHES[device], network.size),
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0.1),
    )  # fmt: skip
    _round_to_eight_bits(inverter)
    return _finished(inverter, network, synthetic.dead_leaves(8, network.size, (seed + 2) * 100_003), budget)


def network_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, residual blocks) of the inverse of a map of this shape: the smaller the map, the wider."""
    return (32 if shape[1] > 56 else 48 if shape[1] > 14 else 64), 1


def low_precision(classifier: Classifier) -> Classifier:
    """The frozen network as training uses it: on a GPU a copy whose convolutions and linear layers are bfloat16.

    Autocast alone would convert its weights anew in every step. On a CPU, the classifier itself.
    """
    if classifier.device.type != "cuda":
        return classifier
    classifier.blocks  # noqa: B018 (cut in float32, before there is a copy of them)
    return to_bfloat16(copy.deepcopy(classifier))


def to_bfloat16(classifier: Classifier) -> Classifier:
    """Convert the weights of convolutions and linear layers, in place, and their inputs whenever they are called."""

    def convert(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value.to(torch.bfloat16) for value in inputs)

    for module in classifier.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16).register_forward_pre_hook(convert)
    return classifier


def _leaves(
    n: int, size: int, seed: int, scale: float, device: str, budget: RecipeBudget | None, share: float = DATA
) -> synthetic.Pool:
    """A pool of n dead leaves and noise images, fewer in a rehearsal or where the minutes do not suffice."""
    n = max(64, round(n * min(1.0, scale)))
    if budget:
        make = partial(synthetic.draw_pool, size=size, seed=seed, device=device)
        n = budget.amount(f"leaves of seed {seed}", n, make, share=share)
    return synthetic.draw_pool(n, size, seed, device=device)


def _early(
    classifier: Classifier, sizes: list[tuple[int, int]], schedule: Schedule, seed: int
) -> Callable[[Progress], ClassifierInverter]:
    """What `RecipeBudget.early` needs: an inverter with a copy of the chain's moving average."""
    shapes = [(3, classifier.size, classifier.size), *(tuple(block.shape) for block in classifier.blocks[: len(sizes)])]

    def make(progress: Progress) -> ClassifierInverter:
        card = new_card("dci", classifier, shapes, sizes, schedule, seed, [])
        return ClassifierInverter(copy.deepcopy(progress.averages["chain"]), classifier, card)

    return make


def _finished(
    inverter: ClassifierInverter, classifier: Classifier, held_out: Tensor, budget: RecipeBudget | None
) -> ClassifierInverter:
    """The inverter of the classifier itself rather than of its copy in low precision, with its error feedback."""
    inverter = ClassifierInverter(inverter.chain, classifier, inverter.card | {"classifier": identity(classifier)})
    held_out = held_out.to(classifier.device)
    if budget:  # the deepest depth takes longest; without time for a single image there is no feedback
        deepest = inverter.depths[-1:]
        n = budget.amount(
            "held-out", len(held_out), lambda n: add_feedback(inverter, held_out[:n], deepest), few=1,
            share=FEEDBACK / len(inverter.depths), least=0,
        )  # fmt: skip
        if not n:
            inverter.card.pop("feedback", None)
            return inverter.to("cpu")
        held_out = held_out[:n]
    return add_feedback(inverter, held_out).to("cpu")


@torch.no_grad()
def _round_to_eight_bits(inverter: ClassifierInverter | GeneratorInverter) -> None:
    """Round the weights to what is kept, before the error feedback is chosen."""
    inverter.card["bits"] = 8
    store.round_in_place(inverter.chain.state_dict(), eight_bits=True)


FACEGAN_SIZES = [(0, 0)] * 5  # one convolution each


def dci_facegan(folder: Path, seed: int = 0, scale: float = 1.0, *, device: str = "cpu") -> GeneratorInverter:
    """The inverter of the face generator, from 64 x 64 images to latents.

    Synchronising has the error of the latent alone. Adding that of the regenerated face (the cycle term) gives a nearer
    face in one forward pass, from a worse latent: the live race of chapter 9 shows both. Its weights are kept in 8 bits
    each, which costs 0.04 dB.
    """
    schedule = Schedule(
        divide=round(300 * scale), synchronise=round(10000 * scale), divide_lr=2e-3, synchronise_lr=2e-3,
        often=(0, 0, 0, 0, 1),
    )  # fmt: skip
    generator = load_generator("facegan").to(device)
    inverter = invert_generator(
        generator, sizes=FACEGAN_SIZES, batch=64, schedule=schedule, folder=folder, seed=seed, precision="auto",
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0, input=1, cycle=0),
    )  # fmt: skip
    _round_to_eight_bits(inverter)
    return add_feedback(inverter, generator.sample_latents(256, seed=(seed + 2) * 100_003).to(device), most=10).to(
        "cpu"
    )


def chain_shares(inverses: int, divide: float, synchronise: float, **later: float) -> dict[str, float]:
    """The share of the minutes of every phase, by its folder; `divide` is that of all inverses together."""
    return {f"divide-{k:02d}": divide / inverses for k in range(1, inverses + 1)} | {"synchronise": synchronise} | later
