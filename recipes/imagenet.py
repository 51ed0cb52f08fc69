"""The papers' scale: ImageNet-1k at 128 and 224 pixels on eight GPUs. `profiles/imagenet.yaml` reads what these train.

    INVKIT_IMAGENET=/data/imagenet accelerate launch --num_processes 8 -m recipes train ffi-resnet152 --folder FOLDER
    accelerate launch --num_processes 8 -m recipes train dci-resnet50 --folder FOLDER
    python -m recipes dry-run imagenet        # no data or weights: builds all, one step each, on a GPU its memory

`LogitPlan` is Teterwak et al. (2021): BigGAN's own networks and the adversarial objective alone, on photos. `BlockPlan`
is Dong et al. (2021): a chain of block inverses, trained on images that were computed. A batch is shared among however
many GPUs there are; each must get the same number. What the papers say could be confirmed only in part: every setting
below that is marked "our choice" is not from them.

No recipe here was ever run to its end: the study's own numbers come from the smaller ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor, nn

from invkit import store
from invkit.data import imagenet
from invkit.dci import synthetic
from invkit.dci.chain import ChainLossWeights
from invkit.dci.invert import add_feedback, invert_classifier
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.training import Schedule
from invkit.ffi import biggan, training
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import condition, logits_of, shuffled_rows
from invkit.network.classifiers import Classifier, load_classifier
from invkit.seeds import generator_for
from invkit.training import Player, train
from recipes.matching import matched_pool

ROBUST = "recipes.imagenet:robust_resnet50"
ROBUST_WEIGHTS = "INVKIT_ROBUST_RESNET50"
ARCHITECTURE = {ROBUST: "torchvision:resnet50"}  # what a factory builds, for dry runs without its weights


def robust_resnet50() -> Classifier:
    """The adversarially trained ResNet-50 of Salman et al. (2020, arXiv 2007.08489), L-infinity 4/255.

    Published as `resnet50_linf_eps4.0.ckpt` in madrylab/robust-imagenet-models on the Hugging Face hub: a pickle, and
    nothing is unpickled here. The file named by INVKIT_ROBUST_RESNET50 holds the tensors of its "model" as safetensors.
    """
    file = Path(os.environ.get(ROBUST_WEIGHTS) or "resnet50_linf_eps4.0.safetensors")
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {file}: convert resnet50_linf_eps4.0.ckpt of madrylab/robust-imagenet-models to "
            f"safetensors and name it by {ROBUST_WEIGHTS}."
        )
    tensors = {name.removeprefix("module.model."): tensor for name, tensor in load_file(file).items()}
    model = torchvision.models.resnet50(weights=None)
    wanted = model.state_dict().keys()
    if not wanted <= tensors.keys():
        raise ValueError(f"{file} lacks {sorted(wanted - tensors.keys())[0]}: it must hold torchvision's resnet50.")
    model.load_state_dict({name: tensors[name] for name in wanted})
    return Classifier(model, ROBUST, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# ---- inverters of logits ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogitPlan:
    """How a feedforward inverter is trained. The values are those of BigGAN (Brock et al. 2018, appendices B and C)."""

    classifier: str
    kind: str = "logits"  # or "one-hot": the predicted class alone, the control
    size: int = 128  # our choice, BigGAN's smallest ImageNet model; the classifier sees these images enlarged
    width: int = 96
    batch: int = 2048
    gpus: int = 8  # that the batch is planned for: our choice, the papers had TPUs
    steps: int = 150_000  # our choice: 240 times through the images
    generator_lr: float = 5e-5
    discriminator_lr: float = 2e-4  # BigGAN has two of its steps for one of the generator; one each is our choice
    ema: float = 0.9999


def logit_networks(plan: LogitPlan, classes: int) -> tuple[biggan.LogitGenerator, biggan.ProjectionDiscriminator]:
    """BigGAN's generator and discriminator as published, the class replaced by the logits, their weights random."""
    generator, discriminator = biggan.published(plan.size, plan.width)
    return (
        biggan.LogitGenerator(condition_dim=classes, **generator),
        biggan.ProjectionDiscriminator(condition_dim=classes, **discriminator),
    )


def logit_players(plan: LogitPlan, generator: nn.Module, discriminator: nn.Module, grace: int) -> list[Player]:
    """The adversarial objective alone, as the paper has it; grace: steps in which drawings may still be alike."""
    weights = training.GeneratorLossWeights(pixel=0, adversary=1, features=0)
    players = training.adversarial_players(
        generator, discriminator, weights, None, plan.generator_lr, augment=False, grace=grace
    )
    players[1].lr = plan.discriminator_lr
    return players


def logit_batches(
    plan: LogitPlan, images: Tensor, classifier: Classifier, batch: int, seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """batches(step) = (images, conditions) on the classifier's device, `batch` of each; half of them are flipped.

    images: uint8 (N, 3, size, size). Every image comes once before any comes again, however many processes share them.
    """

    def batches(step: int) -> tuple[Tensor, Tensor]:
        flipped = torch.rand(batch, 1, 1, 1, generator=generator_for(seed, step)) < 0.5
        shown = images[shuffled_rows(len(images), step, batch, seed)]
        shown = torch.where(flipped, shown.flip(-1), shown).to(classifier.device).float() / 255
        with torch.no_grad(), torch.autocast(classifier.device.type, torch.bfloat16):
            logits = logits_of(classifier, shown).float()
        return shown.contiguous(memory_format=torch.channels_last), condition(logits, plan.kind)

    return batches


def invert_logits(folder: Path, seed: int = 0, scale: float = 1.0, *, plan: LogitPlan) -> LogitInverter:
    """Train on the photos of INVKIT_IMAGENET. Each GPU's batch norm sees its own share of the batch: our choice."""
    images, _, _ = imagenet.imagenet("", "inverter", plan.size)
    state, steps = PartialState(), max(2, round(plan.steps * scale))
    share = _share(plan.batch, state.num_processes)
    classifier = load_classifier(plan.classifier).to(state.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator, discriminator = logit_networks(plan, classifier.classes)
    batches = logit_batches(plan, images, classifier, share, seed)
    players = logit_players(plan, generator, discriminator, grace=max(100, steps // 5))
    done = train(
        players, batches, steps=steps, folder=folder, seed=seed, ema=plan.ema, warmup=0, schedule="constant",
        precision="bf16", checkpoint_every_minutes=20,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator.set_standing_statistics(
            (torch.randn(len(z), generator.noise_dim, device=z.device), z) for _, z in map(batches, range(32))
        )
    options = biggan.published(plan.size, plan.width)[0] | generator.fold()
    card = {
        "method": "ffi",
        "network": plan.classifier,
        "classifier_size": classifier.size,
        "classes": classifier.classes,
        "objective": "adversarial",
        "kind": plan.kind,
        "generator": {key: value for key, value in options.items() if key != "size"},
        "images": len(images),
        "data": "imagenet",
    }
    card |= {"size": plan.size, "batch": share * state.num_processes, "generator_lr": plan.generator_lr}
    card |= {"discriminator_lr": plan.discriminator_lr, "ema": plan.ema, "failure": None}
    return LogitInverter(generator, classifier, card | _made(seed, done.steps, done.seconds))


# ---- zero-shot inverters ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockPlan:
    """How a divide-and-conquer inverter is trained. What Dong et al. (2021) had could not be confirmed: all our choice.

    widths: of each inverse, by the side of the map that it reads: {largest side: (width, residual blocks)}.
    pool, matched: images drawn by each process, dead leaves and batch-norm-matched ones.
    """

    classifier: str
    batch: int = 256
    gpus: int = 8
    widths: tuple[tuple[int, tuple[int, int]], ...] = (
        (7, (512, 2)), (14, (256, 3)), (28, (192, 3)), (56, (128, 3)), (224, (64, 3)),
    )  # fmt: skip
    pool: int = 8192
    matched: int = 512
    schedule: Schedule = Schedule(
        divide=5000, synchronise=100_000, divide_lr=1e-3, synchronise_lr=4e-4, cycle_every=2
    )  # fmt: skip
    weights: ChainLossWeights = ChainLossWeights(
        block=0.1, input=1.0, cycle=0.1
    )  # of re-synchronising; dividing has the block term alone


def block_sizes(plan: BlockPlan, classifier: Classifier) -> list[tuple[int, int]]:
    """(width, residual blocks) of the inverse of every block that ends in a map."""
    sides = [block.shape[1] for block in classifier.blocks if len(block.shape) == 3]
    return [next(size for largest, size in plan.widths if side <= largest) for side in sides]


def invert_blocks(folder: Path, seed: int = 0, scale: float = 1.0, *, plan: BlockPlan) -> ClassifierInverter:
    """Train on synthetic images alone, of which every fourth batch is batch-norm-matched."""
    state, share = PartialState(), min(1.0, scale)
    own = seed * 1009 + state.process_index  # every process draws images of its own
    classifier = load_classifier(plan.classifier).to(state.device)
    leaves = synthetic.draw_pool(max(64, round(plan.pool * share)), 320, own)
    file = folder / f"matched-{state.process_index}.safetensors"
    matched = matched_pool(classifier, max(16, round(plan.matched * share)), own, file)
    steps = {phase: max(1, round(getattr(plan.schedule, phase) * scale)) for phase in ("divide", "synchronise")}
    schedule = replace(plan.schedule, **steps)
    batch = _share(plan.batch, state.num_processes)

    def batches(step: int, depth: int) -> Tensor:
        pool = leaves if step // state.num_processes % 4 else matched
        return pool.batch(step, batch, classifier.size).to(state.device)

    inverter = invert_classifier(
        classifier, batches, sizes=block_sizes(plan, classifier), schedule=schedule, folder=folder, seed=seed,
        precision="bf16", weights=ChainLossWeights(block=1, input=0, cycle=0), synchronise_weights=plan.weights,
    )  # fmt: skip
    inverter.card |= {"batch": batch * state.num_processes, "pool": plan.pool, "matched": plan.matched}
    held_out = synthetic.dead_leaves(8, classifier.size, (seed + 2) * 100_003).to(state.device)
    return add_feedback(inverter, held_out)


def _share(batch: int, processes: int) -> int:
    if batch % processes:
        raise ValueError(f"A batch of {batch} cannot be shared among {processes} GPUs: take a number that divides it.")
    return batch // processes


def _made(seed: int, steps: int, seconds: float) -> dict:
    facts = {"seed": seed, "steps": steps, "hours": round(seconds / 3600, 2)}
    return facts | {"machine": store.machine_class(), "code": store.code_version()}


# Weights by name. The residual networks are those of torchvision's first recipe, without label smoothing or mixing; no
# robust ResNet-152 has a name here, so a robust ResNet-50 and a standard one beside it are our choice.
LOGIT_PLANS = {
    "ffi-resnet152": LogitPlan("timm:resnet152.tv_in1k"),
    "ffi-onehot-resnet152": LogitPlan("timm:resnet152.tv_in1k", kind="one-hot"),
    "ffi-inception-v3": LogitPlan("timm:inception_v3.tf_in1k"),
    "ffi-robust-inception-v3": LogitPlan("timm:inception_v3.tf_adv_in1k"),  # single-step attacks (Kurakin et al. 2017)
    "ffi-resnet50": LogitPlan("timm:resnet50.tv_in1k"),
    "ffi-robust-resnet50": LogitPlan(ROBUST),
}
BLOCK_PLANS = {
    "dci-repvgg-a0": BlockPlan("timm:repvgg_a0.rvgg_in1k"),
    "dci-resnet50": BlockPlan("timm:resnet50.tv_in1k"),
    "dci-robust-resnet50": BlockPlan(ROBUST),
}
PLANS: dict[str, LogitPlan | BlockPlan] = LOGIT_PLANS | BLOCK_PLANS
