"""Chapter 19: what four architectures still hold when they are trained on the same images for the same steps.

Chapter 15 compares networks that others trained, each on its own images for its own task. Here a ResNet (He et al.
2016, arXiv 1512.03385), a RepVGG (Ding et al. 2021, arXiv 2101.03697), a ConvNeXt (Liu et al. 2022, arXiv 2201.03545)
and a vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) of similar size see the same photos in the same
order for the same number of steps. Beside each stands its *untrained twin*: the same network with the random weights
that training began with. What only the trained one loses, training discards, or makes harder to invert.

Every network gets a zero-shot inverter by one recipe (Dong et al. 2021, arXiv 2107.06304): the same kind of inverses,
the same synthetic images, the same compute. The only thing that is chosen for a network is the learning rate of its
own training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import timm.models.byobnet as byobnet
import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from timm.utils import reparameterize_model
from torch import Tensor, nn

from invkit import data
from invkit.attacks import clean_accuracy
from invkit.data.images import Data, as_bytes
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier
from invkit.training import Player, train
from recipes.classifiers import shuffled_batches
from study.chapters.architectures import DepthResult, Photos, map_depths, score_depths
from study.chapters.depth_and_compute import BLOCK, SYNCHRONISED, WAYS, Way, operations_of
from study.chapters.method_or_knowledge import ChainSetting
from study.notebook import slug
from study.reconstructions import reconstruct_every_depth

SIZE = 64  # pixels a side of all images
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SMOOTHING, DECAY = 0.1, 0.05  # of the labels, and of the weights
SETTLING = 20  # batches by which the norms of an untrained network learn the spread of its maps
WAY = WAYS[SYNCHRONISED]  # to train inverses: divided, then all together

# ---- four architectures ----------------------------------------------------------------------------------------------


def resnet(classes: int) -> nn.Module:
    """Residual blocks with ReLUs, on maps of 16, 8, 4 and 2 places a side. `zero_init_last` would leave an untrained
    network without its residual branches."""
    return ResNet(BasicBlock, (1, 1, 1, 1), classes, channels=(48, 72, 144, 256), zero_init_last=False)


def repvgg(classes: int) -> nn.Module:
    """3 x 3 convolutions and ReLUs in a row, trained with branches beside them that are folded in afterwards."""
    stages = ((1, 48), (2, 96), (2, 160), (1, 256))
    blocks = tuple(byobnet.ByoBlockCfg(type="rep", d=d, c=width, s=2, gs=0) for d, width in stages)
    return byobnet.ByobNet(byobnet.ByoModelCfg(blocks=blocks, stem_chs=24, stem_pool=None), classes)


def convnext(classes: int) -> nn.Module:
    """Depthwise 7 x 7 convolutions, layer norms, GELUs, without layer scale, which short training does not outgrow."""
    return ConvNeXt(num_classes=classes, depths=(1, 1, 2, 1), dims=(48, 80, 160, 240), patch_size=4, ls_init_value=None)


def vit(classes: int) -> nn.Module:
    """Self-attention over 8 x 8 patches of 8 pixels a side, without a class token; the map never shrinks."""
    return VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=96, depth=6, num_heads=3, num_classes=classes, class_token=False,
        global_pool="avg",
    )  # fmt: skip


# {name: (classes -> network, largest learning rate)}: the rates are usual ones for networks with and without batch norm
ARCHITECTURES = {"ResNet": (resnet, 3e-3), "RepVGG": (repvgg, 3e-3), "ConvNeXt": (convnext, 1e-3), "ViT": (vit, 1e-3)}


@dataclass(frozen=True)
class AlikeTraining:
    """What all networks share.

    images, labels: uint8 (M, 3, SIZE, SIZE) and int64 (M,).
    steps, batch: of training.
    augment: whether images are flipped and shifted.
    seed: of the first weights and of the batches.
    folder: for checkpoints, from which a stopped run goes on.
    """

    images: Tensor
    labels: Tensor
    steps: int
    batch: int
    augment: bool
    folder: Path
    seed: int = 0
    precision: str = "auto"

    def untrained(self, name: str) -> nn.Module:
        """A network with its first weights."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return ARCHITECTURES[name][0](int(self.labels.max()) + 1).to(memory_format=torch.channels_last)

    def trained(self, name: str) -> Classifier:
        """A network, trained; its card holds the hours."""
        network = self.untrained(name)
        player = Player("classifier", network, cross_entropy, ARCHITECTURES[name][1], weight_decay=DECAY, clip=1.0)
        run = train(
            player, self.batches, steps=self.steps, warmup=0.05, seed=self.seed, precision=self.precision,
            folder=self.folder / slug(name), progress=False, description=name,
        )  # fmt: skip
        return as_classifier(network, name, hours=run.seconds / 3600)

    @torch.no_grad()
    def twin(self, name: str) -> Classifier:
        """The untrained network; its norms have seen images, without which its maps would grow from block to block."""
        network = self.untrained(name).train()
        for step in range(SETTLING):
            network(as_input(self.batches(step)[0]))
        return as_classifier(network, f"{name}, untrained", hours=0.0)

    def batches(self, step: int) -> tuple[Tensor, Tensor]:
        return shuffled_batches(self.images, self.labels, self.batch, self.seed, self.augment)(step)


def load_training_images(name: str, n: int | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of a data set to train on, uint8 (M, 3, SIZE, SIZE), with their labels; n: None for all of the split."""
    train = data.load(name, "train", n=n, seed=seed, size=SIZE)
    return as_bytes(train.images), train.labels


def as_input(images: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) as the networks take them."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def cross_entropy(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict]:
    """The loss of all networks, see `invkit.training.Player`."""
    images, labels = batch
    logits = network(as_input(images)).float()
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING), {"right": (logits.argmax(1) == labels).float()}


def as_classifier(network: nn.Module, name: str, hours: float) -> Classifier:
    """A trained network in one branch, as it would be used, with the hours of its training on its card."""
    return Classifier(reparameterize_model(network.eval()), name, SIZE, MEAN, STD, card={"hours": hours})


# ---- one recipe for their inverters ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EveryDepth(ChainSetting):
    """Inverses of all blocks down to the deepest map, trained for reconstructions from every one of them."""

    def schedule(self, divide: int, together: int, rate: float = 1.5e-3) -> Schedule:
        return Schedule(divide, together, divide_lr=rate, synchronise_lr=rate)

    def plan(self, compute: float, rate: float) -> Schedule:
        """The steps that a compute pays for, in floating-point operations: a share of `WAY` for the inverses by
        themselves, the rest for the chain, whose steps cost the mean over its depths.

        Raises ValueError for a compute that pays for no step.
        """
        start = operations_of(self, replace(WAY, divided=1.0), 1, 0)
        depths, one = range(1, self.depth + 1), replace(self, batch=1)  # a step costs as many images as it has
        divide = self.batch * operations_of(one, Way(1.0, BLOCK, linear=False), 1, 0)
        joint = Way(0.0, WAY.together, linear=False)
        each = (operations_of(replace(one, depth=depth), joint, 0, 1) for depth in depths)
        together = self.batch * sum(each) / self.depth
        left = compute - start
        steps = int(WAY.divided * left / divide), int((1 - WAY.divided) * left / together)
        if min(steps) < 1:
            least = start + max(divide / WAY.divided, together / (1 - WAY.divided))
            raise ValueError(f"{compute:.3g} operations train no inverter: give at least {least:.3g}.")
        return self.schedule(steps[0] + 1, steps[1], rate)  # a step comes with the linear start


@dataclass(frozen=True)
class InverterBudget:
    """What the inverter of every network may spend.

    pool: synthetic images to cut crops from.
    compute: floating-point operations.
    rate: largest learning rate.
    width: channels of an inverse at half the image's side; smaller maps have up to four times as many.
    batch: images a step.
    """

    pool: Pool
    compute: float
    rate: float
    width: int
    batch: int
    folder: Path
    seed: int = 0
    precision: str = "auto"

    def setting(self, classifier: Classifier) -> EveryDepth:
        deepest = max(block.depth for block in classifier.blocks if block.invertible)
        return EveryDepth(classifier, deepest, self.width, self.batch, self.precision)

    def plan(self, classifier: Classifier) -> Schedule:
        """The steps of the inverter of this classifier, and of its twin, whose blocks cost the same."""
        return self.setting(classifier).plan(self.compute, self.rate)

    def invert(self, classifier: Classifier, schedule: Schedule) -> ClassifierInverter:
        place = self.folder / slug(f"inverter of {classifier.name}")
        pool = self.pool.to(classifier.device)
        return self.setting(classifier).train(WAY, pool, schedule, seed=self.seed, folder=place)


# ---- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """One network: how often it is right, and what its reconstructions are worth.

    right: of every test photo, (M,).
    at: {share of the blocks: how good the reconstructions from there are}, only of maps and tokens.
    blocks: how many depths with a map or tokens there are.
    hours: of the network's training and of its inverter's.
    """

    right: Tensor
    at: Mapping[float, DepthResult]
    blocks: int
    hours: tuple[float, float]

    @property
    def last(self) -> DepthResult:
        """From the deepest map, or the last tokens."""
        return self.at[max(self.at)]


def measure_network(
    classifier: Classifier, inverter: ClassifierInverter, test: Data, n: int, shares: Sequence[float]
) -> Measured:
    """Measure a network and what its inverter reconstructs.

    test: photos with labels, of which the first n are reconstructed; each of these is looked for among all.
    shares: of the blocks, after which reconstructions are measured.
    """
    photos = Photos(test.images[:n].to(classifier.device), test.images.to(classifier.device))
    maps = map_depths(inverter)
    depths = {share: maps[max(0, round(share * len(maps)) - 1)] for share in shares}
    made = reconstruct_every_depth(inverter, photos.originals, sorted(set(depths.values())), batch=50)
    scored = score_depths(inverter, photos, made)
    right = clean_accuracy(classifier, photos.candidates, test.labels.to(classifier.device))
    hours = classifier.card["hours"], inverter.card["hours"]
    return Measured(right, {share: scored[depth] for share, depth in depths.items()}, len(maps), hours)


Pair = tuple[Measured, Measured]  # a trained network, and its untrained twin


def measure_pairs(
    names: Sequence[str], training: AlikeTraining, budget: InverterBudget, test: Data, n: int, shares: Sequence[float]
) -> dict[str, Pair]:
    """Train, invert and measure every architecture and its untrained twin: {name: (trained, untrained)}."""
    pairs = {}
    for name in names:
        both = training.trained(name), training.twin(name)
        schedule = budget.plan(both[0])
        pairs[name] = tuple(measure_network(one, budget.invert(one, schedule), test, n, shares) for one in both)
    return pairs


def check_alike(names: Sequence[str], shares: Sequence[float], n: int, among: int) -> None:
    """Raise ValueError, before anything is trained, for parameters that do not fit together."""
    unknown = [name for name in names if name not in ARCHITECTURES]
    if unknown or len(set(names)) < 2:
        raise ValueError(f"Give two or more of {', '.join(ARCHITECTURES)}, not {list(names)}.")
    in_range = all(0 < share <= 1 for share in shares)  # which NaN is not either
    if not shares or not in_range or list(shares) != sorted(set(shares)) or shares[-1] != 1:
        raise ValueError(f"Give shares of the blocks, rising from above 0 to 1, not {list(shares)}.")
    if not 2 <= n <= among:
        raise ValueError(f"Give at least 2 images, and as many or more to look for them among, not {n} and {among}.")
