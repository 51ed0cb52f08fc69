"""How all that is shipped was trained, exactly: `python -m invkit train NAME --folder FOLDER` runs one recipe.

`invert_classifier` and `invert_generator` are the two ways to train a divide-and-conquer inverter of one's own,
`ffi.train_inverter` trains a feedforward inverter of logits.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from invkit import dci
from invkit.dci import matching, synthetic
from invkit.dci.chain import ChainLossWeights
from invkit.dci.invert import add_feedback, add_training_time, invert_classifier, invert_generator
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.dci.refine import refine
from invkit.dci.training import Schedule
from invkit.network.classifiers import load_classifier
from invkit.network.generators import load_generator

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


def dci_lite0(folder: Path, seed: int = 0, scale: float = 1.0) -> ClassifierInverter:
    """The zero-shot inverter of EfficientNet-Lite0, every block down to the last convolution.

    Divided and re-synchronised; then the first nine inverses are re-synchronised by themselves, at a higher rate; then
    the last twelve go on through the first six, which are frozen (`invkit.refine`). Each phase has leaves and noise of
    its own. Some batches of the first phase and of the last are cut from batch-norm-matched images.
    """
    classifier = load_classifier("lite0")
    blocks = dci.classifier_blocks(classifier)
    share = min(1.0, scale)
    leaves = synthetic.draw_pool(max(64, round(4096 * share)), 320, seed)
    matched = matching.matched_pool(classifier, max(16, round(256 * share)), seed, folder / "matched.safetensors")
    schedule = Schedule(
        divide=round(250 * scale), synchronise=round(3000 * scale), divide_lr=2e-3, synchronise_lr=8e-4,
        often=LITE0_OFTEN, cycle_every=4,
    )  # fmt: skip
    settings = {"seed": seed, "precision": "auto"}

    def batches(step: int, depth: int) -> Tensor:
        synchronising = step >= schedule.divide  # its steps are counted on from there
        pool = matched if synchronising and step % 4 == 0 else leaves
        return pool.batch(step, *_lite0_crops(depth))

    inverter = invert_classifier(
        classifier, batches, depth=18, sizes=LITE0_SIZES, schedule=schedule, folder=folder, **settings,
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0.1),
    )  # fmt: skip
    leaves = synthetic.draw_pool(max(64, round(4096 * share)), 320, seed + 1)
    shallow = dci.synchronise(
        inverter.chain.slice(0, LITE0_SHALLOW), blocks[:LITE0_SHALLOW],
        lambda step, depth: leaves.batch(step, *_lite0_crops(depth)),
        weights=ChainLossWeights(block=0.1, input=1, cycle=0),
        schedule=Schedule(synchronise=round(2400 * scale), synchronise_lr=1.5e-3, often=LITE0_SHALLOW_OFTEN),
        folder=folder / "shallow", **settings,
    )  # fmt: skip
    leaves = synthetic.draw_pool(max(64, round(4096 * share)), 320, seed + 2)
    deep = refine(
        inverter.chain, blocks, lambda step: (leaves if step % 3 else matched).batch(step, 24, 224), LITE0_CUT,
        window=14, margin=16, steps=round(1250 * scale), lr=1.2e-4,
        weights=ChainLossWeights(block=0.1, input=1, cycle=0),
        often=LITE0_DEEP_OFTEN, folder=folder / "deep", **settings,
    )  # fmt: skip
    add_training_time(inverter.card, [shallow, deep])
    return add_feedback(inverter, synthetic.dead_leaves(8, 224, (seed + 2) * 100_003))


def _lite0_crops(depth: int) -> tuple[int, int]:
    return (24, 128) if depth <= 6 else (8, 224)  # images a batch, their pixels


def dci_small(folder: Path, seed: int = 0, scale: float = 1.0, *, classifier: str) -> ClassifierInverter:
    """The zero-shot inverter of a small classifier, down to its last map.

    The same schedule for all, so that two classifiers of one architecture can be compared.
    """
    network = load_classifier(classifier)
    leaves = synthetic.draw_pool(max(64, round(4096 * min(1.0, scale))), 2 * network.size, seed)
    maps = [block.depth for block in network.blocks if len(block.shape) == 3]
    schedule = Schedule(divide=round(60 * scale), synchronise=round(500 * scale), divide_lr=2e-3, synchronise_lr=1e-3)
    inverter = invert_classifier(
        network, leaves, sizes=[(32, 2)] * len(maps), crops=lambda depth: (24, network.size), schedule=schedule,
        folder=folder, seed=seed, precision="auto",
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0),
    )  # fmt: skip
    return add_feedback(inverter, synthetic.dead_leaves(32, network.size, (seed + 2) * 100_003))


FACEGAN_SIZES = [(0, 0)] * 5  # one convolution each


def dci_facegan(folder: Path, seed: int = 0, scale: float = 1.0) -> GeneratorInverter:
    """The inverter of the face generator, from 64 x 64 images to latents.

    Synchronising asks for the latent alone. Asking for the regenerated face too (the cycle term) gives a nearer face in
    one reading, from a worse latent: the live race of chapter 9 shows both.
    """
    schedule = Schedule(
        divide=round(300 * scale), synchronise=round(10000 * scale), divide_lr=2e-3, synchronise_lr=2e-3,
        often=(0, 0, 0, 0, 1),
    )  # fmt: skip
    generator = load_generator("facegan")
    inverter = invert_generator(
        generator, sizes=FACEGAN_SIZES, batch=64, schedule=schedule, folder=folder, seed=seed, precision="auto",
        weights=DIVIDE_WEIGHTS, synchronise_weights=ChainLossWeights(block=0, input=1, cycle=0),
    )  # fmt: skip
    return add_feedback(inverter, generator.sample_latents(256, seed=(seed + 2) * 100_003), most=10)
