"""How all that is shipped was trained, exactly: `python -m invkit train NAME --folder FOLDER` runs one recipe.

`invert_classifier` and `invert_generator` are the two ways to train a divide-and-conquer inverter of one's own,
`ffi.train_inverter` trains a feedforward inverter of logits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from invkit import cards, dci, factors, ffi_recipes, recipes_classifiers, recipes_imagenet, store, synthetic
from invkit.adversarial import save_classifier
from invkit.classifiers import Classifier, load_classifier
from invkit.dci import SCHEDULE, Chain, Schedule, Weights
from invkit.generators import Generator, load_generator
from invkit.inverters import ClassifierInverter, GeneratorInverter, LogitInverter
from invkit.refine import refine
from invkit.training import Trained


def default_sizes(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """(width, residual blocks) of every inverse for shapes h_0, h_1, …: wide where the map is small, as work allows."""

    def size(shape: tuple[int, ...]) -> tuple[int, int]:
        side = shape[1] if len(shape) == 3 else 1
        return (32 if side > 56 else 64 if side > 28 else 96 if side > 14 else 128), 2

    return [size(shape) for shape in shapes[1:]]


def invert_classifier(
    classifier: Classifier,
    batches: Callable[[int, int], Tensor] | synthetic.Pool,
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
    if isinstance(batches, synthetic.Pool):
        pool, crops = batches, crops or (lambda depth: (16, classifier.size))

        def batches(step: int, depth: int) -> Tensor:
            return pool.batch(step, *crops(depth))

    shapes = [(3, classifier.size, classifier.size), *(tuple(b.shape) for b in classifier.blocks[:depth])]
    sizes = list(sizes or default_sizes(shapes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = Chain(shapes, sizes).to(classifier.device, memory_format=torch.channels_last)
    blocks = dci.classifier_blocks(classifier)[:depth]
    done = dci.train_chain(chain, blocks, batches, schedule=schedule, folder=folder, seed=seed, **training)
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
    done = dci.train_chain(chain, generator.blocks, latents, schedule=schedule, folder=folder, seed=seed, **training)
    card = _card("dci-gan", generator.name, generator.size, shapes, sizes, schedule, seed, done)
    return GeneratorInverter(chain, generator, card)


def add_feedback(
    inverter: ClassifierInverter | GeneratorInverter,
    held_out: Tensor,
    depths: Sequence[int] | None = None,
    most: int = 4,
) -> ClassifierInverter | GeneratorInverter:
    """Chooses how often a trained inverter corrects itself (`dci.read`) on synthetic inputs it has not seen.

    held_out: images (N, 3, size, size) in [0, 1] for a classifier, latents (N, latent_dim) for a generator, whose error
    is that of the regenerated images. most: steps to try. Returns the inverter, its card now holding the (steps, rate)
    of each depth.
    """
    choose = {}
    if isinstance(inverter, ClassifierInverter):
        blocks, bounds, error = dci.classifier_blocks(inverter.classifier), (0, 1), None
    else:
        blocks, bounds, generator = inverter.generator.blocks, None, inverter.generator
        images = generator.images(held_out)

        def error(latents: Tensor) -> Tensor:
            return dci.log_error(generator.images(latents), images)

        depths = [inverter.depths[-1]]
    for depth in tqdm(depths or inverter.depths, desc="error feedback", unit="depth"):
        choose[str(depth)] = dci.choose_feedback(inverter.chain, blocks, held_out, depth, bounds, error, most)
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
    matched = _matched_pool(classifier, max(16, round(256 * share)), seed, folder / "matched.safetensors")
    schedule = Schedule(
        divide=round(250 * scale), synchronise=round(3000 * scale), divide_lr=2e-3, synchronise_lr=8e-4,
        often=LITE0_OFTEN, cycle_every=4,
    )  # fmt: skip
    settings = {"seed": seed, "precision": "bf16"}

    def batches(step: int, depth: int) -> Tensor:
        synchronising = step >= schedule.divide  # its steps are counted on from there
        pool = matched if synchronising and step % 4 == 0 else leaves
        return pool.batch(step, *_lite0_crops(depth))

    inverter = invert_classifier(
        classifier, batches, depth=18, sizes=LITE0_SIZES, schedule=schedule, folder=folder, **settings,
        weights=Weights(block=1, input=0, cycle=0), synchronise_weights=Weights(block=0.1, input=1, cycle=0.1),
    )  # fmt: skip
    leaves = synthetic.draw_pool(max(64, round(4096 * share)), 320, seed + 1)
    shallow = dci.synchronise(
        inverter.chain.part(0, LITE0_SHALLOW), blocks[:LITE0_SHALLOW],
        lambda step, depth: leaves.batch(step, *_lite0_crops(depth)), weights=Weights(block=0.1, input=1, cycle=0),
        schedule=Schedule(synchronise=round(2400 * scale), synchronise_lr=1.5e-3, often=LITE0_SHALLOW_OFTEN),
        folder=folder / "shallow", **settings,
    )  # fmt: skip
    leaves = synthetic.draw_pool(max(64, round(4096 * share)), 320, seed + 2)
    deep = refine(
        inverter.chain, blocks, lambda step: (leaves if step % 3 else matched).batch(step, 24, 224), LITE0_CUT,
        window=14, margin=16, steps=round(1250 * scale), lr=1.2e-4, weights=Weights(block=0.1, input=1, cycle=0),
        often=LITE0_DEEP_OFTEN, folder=folder / "deep", **settings,
    )  # fmt: skip
    _add_time(inverter.card, [shallow, deep])
    return add_feedback(inverter, synthetic.dead_leaves(8, 224, (seed + 2) * 100_003))


def _lite0_crops(depth: int) -> tuple[int, int]:
    return (24, 128) if depth <= 6 else (8, 224)  # images a batch, their pixels


def _matched_pool(classifier: Classifier, n: int, seed: int, file: Path) -> synthetic.Pool:
    """Dead leaves of 240 pixels made more natural by 40 steps of batch-norm matching below the 56 x 56 maps.

    They take minutes: `file` keeps them for a resumed run.
    """

    def make() -> dict[str, Tensor]:
        images = []
        for start in tqdm(range(0, n, 16), desc="batch-norm matching", unit="batch"):
            first = synthetic.dead_leaves(16, 240, (seed + 1) * 100_003 + start).to(classifier.device)
            with torch.autocast(classifier.device.type, torch.bfloat16):
                matched = synthetic.batch_norm_matched(classifier, 16, 240, steps=40, lr=0.1, skip=10, start=first)
            images.append(matched.cpu())
        return {"images": synthetic.Pool(torch.cat(images), seed).images}

    return synthetic.Pool(store.kept(file, make)["images"], seed)


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
        folder=folder, seed=seed, precision="bf16",
        weights=Weights(block=1, input=0, cycle=0), synchronise_weights=Weights(block=0.1, input=1, cycle=0),
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
        generator, sizes=FACEGAN_SIZES, batch=64, schedule=schedule, folder=folder, seed=seed, precision="bf16",
        weights=Weights(block=1, input=0, cycle=0), synchronise_weights=Weights(block=0, input=1, cycle=0),
    )  # fmt: skip
    return add_feedback(inverter, generator.sample_latents(256, seed=(seed + 2) * 100_003), most=10)


def glyphs_reader(folder: Path, seed: int = 0, scale: float = 1.0) -> factors.Reader:
    """The reader of glyphs' factors that judges invariances (`factors.train_glyph_reader`); it inverts nothing."""
    reader = factors.train_glyph_reader(folder, seed, scale)
    reader.card = store.load(folder)[1]
    return reader


Recipe = Callable[..., ClassifierInverter | GeneratorInverter | LogitInverter | Classifier | factors.Reader]
RECIPES: dict[str, Recipe] = {
    "dci-facegan": dci_facegan,
    "dci-lite0": dci_lite0,
    **{f"dci-tiny-{kind}": partial(dci_small, classifier=f"tiny-{kind}") for kind in ("standard", "robust")},
    **ffi_recipes.RECIPES,
    **recipes_classifiers.RECIPES,
    **recipes_imagenet.RECIPES,
    "glyphs-reader": glyphs_reader,
}


def names() -> list[str]:
    """Names that `train` knows."""
    return sorted(RECIPES)


def needs(name: str) -> list[str]:
    """Names of the recipes whose weights this one loads: the classifier that it inverts, starts from or is matched to.

    They are loaded from `store.weights_folder()`: the shipped ones, or those in the folder INVKIT_WEIGHTS. Raises
    ValueError for an unknown name.
    """
    given = getattr(_recipe(name), "keywords", {})  # of the table's partial
    kind = given.get("kind")
    before = {"robust": "standard", "early": "robust"}.get(kind)  # of classifiers; kinds of inverters are others
    others = [given.get("classifier"), name.replace(kind, before) if before else None]
    return [other for other in others if other in RECIPES]


def train(name: str, folder: str | Path, seed: int = 0, scale: float = 1.0) -> dict:
    """Train what is shipped by this name from nothing into `folder` (checkpoints: `folder`/training); returns its card.

    scale: share of the published number of steps, 1 for all of them. A stopped run goes on where it was.

    Raises:
        ValueError: an unknown name or a scale that leaves no step.
    """
    recipe = _recipe(name)
    if not scale > 0:
        raise ValueError(f"scale is a share of the published steps and must be above 0, not {scale}.")
    folder = Path(folder)
    trained = recipe(folder / "training", seed, scale)
    if int(os.environ.get("RANK", 0)):  # under `accelerate launch` the first process writes
        return trained.card
    command = f"python -m invkit train {name} --folder FOLDER --seed {seed} --scale {scale:g}"
    card = cards.complete(trained.card | {"name": name, "command": command})
    if isinstance(trained, Classifier):
        return save_classifier(folder, trained, **card)
    if isinstance(trained, factors.Reader):
        return store.save(folder, trained.state_dict(), card, half=True)
    network = trained.generator if isinstance(trained, LogitInverter) else trained.chain
    store.save(folder, network.state_dict(), card, half=True)
    return card | {"metrics": cards.measure(folder)} if scale == 1 else card


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}: choose from {', '.join(names())}.")
    return RECIPES[name]
