"""A defence that is learned: the classifier is trained until the features that it sends tell less of the image.

NoPeek (Vepakomma et al. 2020, arXiv 2008.09161) trains the network for

    cross-entropy + w · dCor²(x, h),

where h are the features that the device sends, and dCor² is the squared distance correlation of images and features
(Székely, Rizzo and Bakirov 2007, "Measuring and testing dependence by correlation of distances"), from 0 for
independence to 1. Here a trained classifier goes on so, its norms with the statistics that they have. With w = 0 it
goes on without the term: what further training alone does. An attacker is assumed to know the new network. One adapts
to it as to any other defence; another is trained from scratch against it (`train_anew`), since an attacker that starts
from the weights for another network may be the weaker one, and the defence would get the credit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit import data, dci
from invkit.data.images import as_bytes
from invkit.dci.chain import Chain, ChainLossWeights
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier
from invkit.training import Player, train
from recipes.classifiers import shuffled_batches
from study.chapters.leakage import (
    Cost,
    DefenceOutcome,
    DefenceTrial,
    Sources,
    cloud_logits,
    divergence,
    images_of,
    send,
    tune,
)
from study.chapters.leakage_defences import LEARNED, none
from study.scores import score

BATCH, RATE = 64, 3e-4  # of the classifier's further training
ATTACK_BATCH = 8  # images in a step of an attacker that is trained from scratch, as of one that is tuned


def distance_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance correlation of the rows of a (N, ...) and b (N, ...), from 0 to 1; differentiable.

    The distances of rows are Euclidean. Of a batch the value is larger than of all images: chance correlates a few.
    """
    first, second = (_centred_distances(rows.flatten(1).float()) for rows in (a, b))
    scale = first.square().mean() * second.square().mean()
    return (first * second).mean() / scale.sqrt().clamp_min(1e-12)


def _centred_distances(rows: Tensor) -> Tensor:
    """Distances of all pairs of rows, less the means of their row and column, plus the mean of all."""
    squares = rows.square().sum(1)
    squared = squares[:, None] + squares - 2 * rows @ rows.T
    distances = squared.clamp_min(1e-9).sqrt() * (1 - torch.eye(len(rows), device=rows.device))
    return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()


class _Cut(nn.Module):
    """A network in blocks: normalised images (N, C, H, W) -> (features of that depth, logits)."""

    def __init__(self, classifier: Classifier, depth: int):
        super().__init__()
        self.blocks, self.depth = nn.ModuleList(classifier.blocks), depth

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        sent = h
        for block in self.blocks:
            h = block(h)
            sent = h if block.depth == self.depth else sent
        return sent, h


def train_hiding(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    depth: int,
    weight: float,
    steps: int,
    augment: bool = False,
    folder: Path | None = None,
    seed: int = 0,
) -> Classifier:
    """A copy of the classifier, trained further so that its features of that depth tell less of the image.

    images, labels: bytes (M, 3, S, S) of its classes and size, and int64 (M,).
    weight: w, of the squared distance correlation; 0 for further training alone.
    augment: whether images are flipped and shifted.
    """
    if not weight >= 0:
        raise ValueError(f"The weight of the distance correlation is 0 or more, not {weight}.")
    name = f"{classifier.name}, hiding depth {depth} by {weight:g}"
    hiding = Classifier(copy.deepcopy(classifier.model), name, classifier.size, classifier.mean, classifier.std)
    hiding = hiding.to(classifier.device)
    whole = _Cut(hiding, depth).requires_grad_(True)

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict]:
        seen, truth = batch[0].float() / 255, batch[1]
        sent, logits = module(hiding.normalise(seen))
        wrong = F.cross_entropy(logits.float(), truth)
        told = distance_correlation(seen, sent) if weight else seen.new_zeros(())
        return wrong + weight * told, {"cross_entropy": wrong.detach(), "distance_correlation": told.detach()}

    player = Player("classifier", whole, loss, RATE, clip=1.0)
    batches = shuffled_batches(images, labels, BATCH, seed, augment)
    train(player, batches, steps=steps, folder=folder, seed=seed, ema=None, precision="no", progress=False)
    whole.requires_grad_(False)
    return hiding


@dataclass(frozen=True)
class Hiding:
    """How a classifier is trained to hide, and how an attacker adapts to that.

    images, labels: bytes (M, 3, S, S) and int64 (M,), of its classes.
    augment: whether they are flipped and shifted.
    steps: of that training.
    tuning: of the attacker against it, keywords of `tune`.
    anew: steps of each inverse by itself and of all together, of the attacker that is trained from scratch.
    precision: of that one's training.
    """

    images: Tensor
    labels: Tensor
    augment: bool
    steps: int
    tuning: Mapping[str, object]
    anew: tuple[int, int]
    precision: str = "auto"

    @classmethod
    def of(cls, name: str, size: int, learned: Mapping, precision: str, seed: int) -> Hiding:
        """On training images of a data set, shrunk or enlarged to `size`; characters are not augmented.

        learned: "images" and "steps" of the network's training, and of the attackers' "tune_steps" and "anew".
        """
        if missing := sorted({"images", "steps", "tune_steps", "anew"} - set(learned)):
            raise ValueError(f"`learned` takes images, steps, tune_steps and anew: it lacks {', '.join(missing)}.")
        known = data.load(name, split="train", n=learned["images"], seed=seed, size=size)
        tuning = {"steps": learned["tune_steps"], "precision": precision}
        images, augment = as_bytes(known.images), not name.startswith("glyphs")
        return cls(images, known.labels, augment, learned["steps"], tuning, tuple(learned["anew"]), precision)


def train_anew(
    network: Classifier,
    depth: int,
    sources: Sources,
    sizes: Sequence[tuple[int, int]],
    steps: tuple[int, int],
    precision: str = "auto",
    folder: Path | None = None,
    seed: int = 0,
) -> Chain:
    """An attacker's chain for features of that depth, trained from scratch on synthetic images.

    sizes: (width, residual blocks) of each inverse.
    steps: of each inverse by itself, after its linear start, and of all together, from that depth alone.
    """
    often = (0.0,) * (depth - 1) + (1.0,)
    inverter = dci.invert_classifier(
        network, sources.batches(ATTACK_BATCH), depth=depth, sizes=sizes[:depth], at_once=True,
        schedule=Schedule(*steps, divide_lr=2e-3, synchronise_lr=1e-3, often=often),
        weights=ChainLossWeights(block=1, input=0, cycle=0),
        synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0),
        precision=precision, folder=folder, seed=seed, progress=False,
    )  # fmt: skip
    return inverter.chain


def run_learned(trial: DefenceTrial, hiding: Hiding, weight: float) -> DefenceOutcome:
    """What the learned defence costs at a trial's depth, and what attackers get: as it was, tuned, and trained anew."""
    classifier, depth = trial.inverter.classifier, trial.depth
    place = trial.folder and trial.folder / f"{LEARNED}-{weight:g}-depth-{depth}"
    network = train_hiding(
        classifier, hiding.images, hiding.labels, depth, weight, hiding.steps, hiding.augment,
        folder=place and place / "network", seed=trial.seed,
    )  # fmt: skip
    attacker = copy.copy(trial.inverter)
    attacker.classifier = network
    tuned = tune(
        attacker, depth, none(), trial.sources, folder=place and place / "attack", seed=trial.seed, **hiding.tuning
    )
    anew = train_anew(
        network, depth, trial.sources, trial.inverter.card["sizes"], hiding.anew,
        precision=hiding.precision, folder=place and place / "anew", seed=trial.seed,
    )  # fmt: skip
    features = send(network, trial.images, depth)
    chains = {"as was": trial.inverter.chain, "tuned": tuned, "anew": anew}
    made = {key: images_of(chain, features[: trial.attacked], depth) for key, chain in chains.items()}
    as_was, tuned, anew = (score(images, trial.images, measures=("psnr", "found")) for images in made.values())
    before, after = cloud_logits(classifier, trial.features, depth), cloud_logits(network, features, depth)
    paid = Cost((after.argmax(1) == trial.labels).float(), divergence(before, after))
    shown = {key: images[: trial.shown] for key, images in made.items()}
    return DefenceOutcome(LEARNED, weight, paid, as_was, tuned, shown, anew)
