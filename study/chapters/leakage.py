"""What a representation leaks, to whom and at what cost; and what a device can do about it.

Attackers are compared on one classifier and the same images: divide-and-conquer inversion (Dong et al. 2021, arXiv
2107.06304), feedforward inversion of the logits (Teterwak et al. 2021, arXiv 2103.07470) and optimisation of the pixels
(Mahendran & Vedaldi 2015, arXiv 1412.0035).

The second version of Dong et al. turns the first of them on split computing: a device sends the features of depth k,
h = f_k ∘ … ∘ f_1(x), a cloud computes the logits from them, and who listens reconstructs x̂ = g_1 ∘ … ∘ g_k(h). With a
defence d (see `leakage_defences`) the device sends d(h). What that costs is `cost`: the classes that are still right,
and the divergence KL(p ‖ p') of the cloud's answer. What it buys is measured against an attacker who knows the defence
and adapts, `tune`: the last block of the network now ends in the defence, and the chain is re-synchronised (`dci`) to

    g_1 ∘ … ∘ g_k(d(h)) ≈ x

on synthetic images, with fresh random numbers of the defence in every step. It still has not seen a real image.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invkit import dci, optimize, statistics
from invkit.dci import synthetic
from invkit.dci.chain import Chain, ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.layout import Layout, layout_of
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from recipes import matching
from study.baselines import Examples, mean_colours, predict
from study.chapters.leakage_defences import Defence, Statistics, make, setting_label
from study.notebook import listed
from study.reconstructions import TimedImages, reconstruct, represent_all
from study.reconstructions import resized as resized  # the notebook calls it
from study.scores import Scores, score

TUNING = 10**6  # the first step of tuning, and of taking statistics: their crops are not those of training
STATISTICS = 2 * TUNING
MEASURED = ("psnr", "found", "perceptual")  # of every attacker

# ---- attackers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """Synthetic images for an attack on a classifier of this size: dead leaves and 1/f noise, and every fourth batch
    leaves made natural for the classifier by batch-norm matching, where there are any."""

    size: int
    leaves: Pool
    matched: Pool | None = None

    @classmethod
    def draw(cls, classifier: Classifier, leaves: int, matched: int, seed: int = 0, steps: int = 30) -> Sources:
        """leaves, matched: how many images of each kind; matched=0 for a classifier without batch norm."""
        size = classifier.size
        pool = synthetic.draw_pool(leaves, 2 * size, seed)
        if not matched:
            return cls(size, pool)
        side = 3 * size // 2 if takes_images_of(classifier, 3 * size // 2) else size
        start = synthetic.dead_leaves(matched, side, (seed + 1) * 100_003).to(classifier.device)
        natural = matching.batch_norm_matched(classifier, matched, side, steps=steps, lr=0.1, start=start)
        return cls(size, pool, Pool(natural.cpu(), seed))

    def batches(self, n: int) -> Callable[[int, int], Tensor]:
        """batches(step, depth), n images each, as `recipes.invert_classifier` takes them."""

        def batch(step: int, depth: int) -> Tensor:
            pool = self.matched if self.matched and step % 4 == 0 else self.leaves
            return pool.batch(step, n, self.size)

        return batch


@torch.no_grad()
def takes_images_of(classifier: Classifier, side: int) -> bool:
    """Whether a classifier takes images of so many pixels a side, or only those of its own size."""
    try:
        classifier.logits(torch.full((1, 3, side, side), 0.5, device=classifier.device))
    except (RuntimeError, ValueError):
        return False
    return True


def train_attacker(
    classifier: Classifier,
    sources: Sources,
    *,
    width: int,
    divide: int,
    synchronise: int,
    batch: int = 16,
    rate: float = 2e-3,
    precision: str = "auto",
    folder: str | Path | None = None,
    seed: int = 0,
) -> ClassifierInverter:
    """A divide-and-conquer inverter of every depth, the logits included, with one residual block in each inverse.

    width: of every inverse. divide, synchronise, rate: see `dci.Schedule`.
    """
    return dci.invert_classifier(
        classifier,
        sources.batches(batch),
        depth=len(classifier.blocks),
        sizes=[(width, 1)] * len(classifier.blocks),
        schedule=Schedule(divide, synchronise, synchronise_lr=rate, cycle_every=4),
        weights=ChainLossWeights(block=1, input=0, cycle=0),
        synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0.1),
        precision=precision,
        folder=folder,
        seed=seed,
    )


@torch.no_grad()
def reconstruct_from_logits(
    inverter: LogitInverter, images: Tensor, seed: int = 0, batch: int = 100
) -> tuple[TimedImages, Tensor]:
    """Reconstruct images (N, 3, S, S) from their logits: without noise, which is timed, and one sample with noise."""
    logits = represent_all(inverter, images)
    began = time.perf_counter()
    found = torch.cat([inverter.invert(part) for part in logits.split(batch)])
    seconds = (time.perf_counter() - began) / len(images)
    return TimedImages(found, seconds), reconstruct(inverter, logits, 1, seed).sample


def optimise_from_features(
    classifier: Classifier, images: Tensor, depth: int, steps: int, seed: int = 0
) -> TimedImages:
    """Images found by moving pixels until the classifier's features of that depth agree."""
    given = _layout(classifier, depth).from_map(send(classifier, images, depth))
    found = optimize.invert_features(classifier, given, depth, steps=steps, seed=seed)
    return TimedImages(found.estimate, found.seconds / len(images))


def check_same(classifier: Classifier, *inverters: ClassifierInverter | LogitInverter) -> None:
    """ValueError, in one sentence, unless all inverters attack this classifier, from its features at its own size."""
    for inverter in inverters:
        attacked, of_features = inverter.classifier, isinstance(inverter, ClassifierInverter)
        if attacked.name != classifier.name or (of_features and inverter.size != classifier.size):
            raise ValueError(
                f"An inverter of {attacked.name} at {inverter.size} pixels cannot be compared on {classifier.name} at "
                f"{classifier.size}: give inverters of one classifier, of its features at its size."
            )


def places_by_word(words: Mapping[str, str]) -> str:
    """{"depth 1": "better", "depth 2": "better", "the logits": "worse"} -> each word once, with its places."""
    places = {word: [place for place, other in words.items() if other == word] for word in words.values()}
    return "; ".join(f"{word} at {places_in_words(at)}" for word, at in places.items())


def places_in_words(places: Sequence[str]) -> str:
    """["depth 1", "depth 2", "depth 3", "the logits"] -> "depths 1 to 3 and the logits"."""
    depths = [int(place.removeprefix("depth ")) for place in places if place.startswith("depth ")]
    runs: list[list[int]] = []
    for depth in depths:
        if runs and depth == runs[-1][-1] + 1:
            runs[-1].append(depth)
        else:
            runs.append([depth])
    parts = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    if parts:
        parts[0] = f"depth{'s' * (len(depths) > 1)} {parts[0]}"
    return listed([*parts, *(place for place in places if not place.startswith("depth "))])


# ---- split computing -------------------------------------------------------------------------------------------------


def _layout(classifier: Classifier, depth: int) -> Layout:
    """How the features of a depth are laid out as maps, which chains invert and defences disturb channel by channel."""
    layout = layout_of(classifier.blocks[depth - 1].shape, classifier.size)
    if layout is None:
        shape = classifier.blocks[depth - 1].shape
        raise ValueError(f"Depth {depth} of {classifier.name}, {shape}, is neither a map nor tokens: choose another.")
    return layout


@torch.no_grad()
def send(classifier: Classifier, images: Tensor, depth: int, batch: int = 250) -> Tensor:
    """The features of that depth that a device sends, with their channels first, tokens as maps: (N, C, ...)."""
    layout = _layout(classifier, depth)
    return torch.cat([layout.to_map(classifier.features(part, depth)) for part in images.split(batch)])


@torch.no_grad()
def cloud_logits(classifier: Classifier, features: Tensor, depth: int, batch: int = 250) -> Tensor:
    """The cloud's logits (N, classes) from features of that depth, as `send` returns them."""
    answers, layout = [], _layout(classifier, depth)
    for h in features.split(batch):
        h = layout.from_map(h)
        for block in classifier.blocks[depth:]:
            h = block(h)
        answers.append(h)
    return torch.cat(answers)


@torch.no_grad()
def channel_statistics(
    classifier: Classifier, sources: Sources, depth: int, batches: int = 16, n: int = 16
) -> Statistics:
    """Mean and standard deviation of each channel at that depth over synthetic images."""
    images = torch.cat([sources.batches(n)(STATISTICS + step, depth) for step in range(batches)])
    return Statistics.of(send(classifier, images.to(classifier.device), depth))


def defended(defend: Defence, features: Tensor, seed: int = 0) -> Tensor:
    """Features after the defence, its random numbers drawn from `seed`."""
    return defend(features, torch.Generator(features.device).manual_seed(seed))


@dataclass(frozen=True)
class Cost:
    """Per image (N,): whether the cloud's class is right, and how far its answer is from the undefended one, nats."""

    correct: Tensor
    divergence: Tensor


def cost(classifier: Classifier, features: Tensor, labels: Tensor, depth: int, defend: Defence, seed: int = 0) -> Cost:
    """What a defence costs on features (N, *shape) of images with these true labels (N,)."""
    if len(labels) != len(features) or labels.min() < 0 or labels.max() >= classifier.classes:
        raise ValueError(
            f"Accuracy needs a label from 0 to {classifier.classes - 1} for each image: give labelled data of the "
            f"classes of {classifier.name}."
        )
    logits = cloud_logits(classifier, defended(defend, features, seed), depth)
    return Cost((logits.argmax(1) == labels).float(), divergence(cloud_logits(classifier, features, depth), logits))


def divergence(logits: Tensor, changed: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ softmax(changed)) of each pair (N, classes), in nats, (N,)."""
    p, q = logits.double().log_softmax(1), changed.double().log_softmax(1)
    return (p.exp() * (p - q)).sum(1).clamp_min(0).float()


def tune(
    inverter: ClassifierInverter,
    depth: int,
    defend: Defence,
    sources: Sources,
    *,
    steps: int,
    batch: int = 8,
    rate: float = 1e-3,
    precision: str = "auto",
    folder: str | Path | None = None,
    seed: int = 0,
) -> Chain:
    """A copy of the attacker's chain for that depth, trained further on defended features of synthetic images."""
    chain = copy.deepcopy(inverter.chain.slice(0, depth))
    *before, last = dci.classifier_blocks(inverter.classifier)[:depth]
    # the defence gets no generator: the training loop reseeds PyTorch's own in every step
    blocks = [*before, lambda h: defend(last(h), None)]
    batches = sources.batches(batch)
    dci.synchronise(
        chain,
        blocks,
        lambda step, depth: batches(TUNING + step, depth),
        schedule=Schedule(synchronise=steps, synchronise_lr=rate, often=(0.0,) * (depth - 1) + (1.0,)),
        weights=ChainLossWeights(block=0.1, input=1, cycle=0),
        precision=precision,
        folder=folder,
        seed=seed,
        progress=False,
    )
    return chain.requires_grad_(False)


@torch.no_grad()
def images_of(chain: Chain, features: Tensor, depth: int, batch: int = 100) -> Tensor:
    """Images in [0, 1] that a chain reconstructs from features of that depth, in one pass."""
    return torch.cat(
        [dci.invert_representation(chain, [], part, depth, bounds=(0, 1)) for part in features.split(batch)]
    )


@dataclass(frozen=True)
class DefenceOutcome:
    """One defence of one strength: what it costs, and how well attackers reconstruct the images.

    as_was, tuned: the attacker without knowledge of the defence, and trained further against it.
    reconstructions: of the first images, {"as was", "tuned" or "anew": (N, 3, S, S)}.
    anew: of an attacker that was trained from scratch against it; None where there is none.
    """

    name: str
    strength: float
    cost: Cost
    as_was: Scores
    tuned: Scores
    reconstructions: Mapping[str, Tensor]
    anew: Scores | None = None

    @property
    def label(self) -> str:
        return setting_label(self.name, self.strength)

    def leaked(self, measure: str) -> Tensor:
        """Per image, "psnr" or "found" of the attacker that does best by it on average: who attacks has them all."""
        attackers = [scores[measure] for scores in (self.tuned, self.as_was, self.anew) if scores]
        return max(attackers, key=lambda values: values.mean().item())


@dataclass(frozen=True)
class DefenceTrial:
    """All that the outcomes at one depth share.

    features, labels, images: of the images that say what a defence costs, (M, *shape), (M,) and (M, 3, S, S).
    attacked: the first so many of these are attacked; each original is looked for among all M.
    tuning: keywords of `tune`.
    folder: for checkpoints, one subfolder a defence.
    """

    inverter: ClassifierInverter
    sources: Sources
    depth: int
    features: Tensor
    labels: Tensor
    images: Tensor
    attacked: int
    tuning: Mapping[str, object]
    folder: Path | None = None
    seed: int = 0
    shown: int = 8

    def run(self, name: str, strength: float) -> DefenceOutcome:
        classifier, depth = self.inverter.classifier, self.depth
        defend = make(name, strength, channel_statistics(classifier, self.sources, depth))
        folder = self.folder and self.folder / f"{name}-{strength:g}-depth-{depth}"
        tuned = tune(self.inverter, depth, defend, self.sources, folder=folder, seed=self.seed, **self.tuning)
        sent = defended(defend, self.features[: self.attacked], self.seed)
        reconstructions = {
            "as was": images_of(self.inverter.chain, sent, depth),
            "tuned": images_of(tuned, sent, depth),
        }
        scores = [score(images, self.images, measures=("psnr", "found")) for images in reconstructions.values()]
        paid = cost(classifier, self.features, self.labels, depth, defend, self.seed)
        shown = {key: value[: self.shown] for key, value in reconstructions.items()}
        return DefenceOutcome(name, strength, paid, *scores, shown)


@dataclass(frozen=True)
class DefenceChoice:
    """The strongest setting of a defence whose cost is tolerated, and what attackers lose by it.

    lost: of accuracy, as a share; psnr, found: differences to no defence, in dB and as a share (paired, `leaked`).
    """

    outcome: DefenceOutcome
    lost: Interval
    psnr: Interval
    found: Interval

    @property
    def verdict(self) -> str:
        """By a rule fixed before the numbers: "fewer found" if fewer originals are found and the PSNR falls, "only
        blurred" if the PSNR alone does, each by its whole interval; else "no protection seen"."""
        if self.psnr.high >= 0:
            return "no protection seen"
        return "fewer found" if self.found.high < 0 else "only blurred"


def strongest_tolerated(
    outcomes: Sequence[DefenceOutcome], plain: DefenceOutcome, tolerated: float
) -> DefenceChoice | None:
    """Of one defence's outcomes, the weakest first, the strongest that is tolerated; None where none is.

    It is chosen by its cost alone: its loss of accuracy against `plain` (no defence), and that of every weaker setting,
    has its whole 95 % interval below `tolerated`, a share. So what it buys is judged on other numbers.
    """
    chosen = None
    for outcome in outcomes:
        lost = statistics.paired_bootstrap(plain.cost.correct, outcome.cost.correct)
        if lost.high >= tolerated:
            break
        chosen = outcome, lost
    if chosen is None:
        return None
    gains = [statistics.paired_bootstrap(chosen[0].leaked(name), plain.leaked(name)) for name in ("psnr", "found")]
    return DefenceChoice(*chosen, *gains)


def won_back(outcomes: Sequence[DefenceOutcome], plain: DefenceOutcome) -> Interval:
    """What tuning against a defence gains, in dB, beyond as much training without one; mean over outcomes, paired."""
    gains = torch.stack([o.tuned.psnr - o.as_was.psnr for o in outcomes]).mean(0)
    return statistics.paired_bootstrap(gains, plain.tuned.psnr - plain.as_was.psnr)


# ---- floors ----------------------------------------------------------------------------------------------------------


def floors(fed: LogitInverter, known: Tensor, images: Tensor) -> dict[str, Tensor]:
    """What attackers have to beat, {name: images (N, 3, S, S)}.

    The mean image, regressors from the logits that learnt from other images, and each image's own mean colour, for
    which one has to look at the image.
    fed: whose classifier gives the logits.
    known: other images of the same kind, (M, 3, S, S).
    images: those that are attacked, (N, 3, S, S).
    """
    examples = Examples(represent_all(fed, known), known)
    found = {name: made.mean for name, made in predict(examples, represent_all(fed, images)).items()}
    return found | {"own mean colour": mean_colours(images).mean}


# ---- what the chapter compares ---------------------------------------------------------------------------------------


SHORT = {"zero-shot": "zero", "optimised": "optimised"}  # in ids; the third attacker is "fed", on images of its kind


def attacker_differences(scored: Mapping, mean: Scores) -> dict[tuple[int, str, str], dict[str, Interval]]:
    """One attacker minus another on the same images: {(depth, one, other): {measure: difference}}."""
    *_, fed = scored
    depth, trained = next(iter(scored[fed].items()))
    pairs = {(d, "zero-shot", "optimised"): s.minus(scored["optimised"][d]) for d, s in scored["zero-shot"].items()}
    for other in SHORT:
        if depth in scored[other]:
            pairs[depth, fed, other] = trained.minus(scored[other][depth])
    return pairs | {(depth, fed, "mean image"): trained.minus(mean)}


def choices_of(
    outcomes: Mapping[int, Sequence[DefenceOutcome]], tolerated: float
) -> dict[tuple[int, str], DefenceChoice | None]:
    """{(depth, defence): what `strongest_tolerated` takes of its outcomes}."""
    return {
        (depth, name): strongest_tolerated([o for o in tried if o.name == name], plain, tolerated)
        for depth, (plain, *tried) in outcomes.items()
        for name in dict.fromkeys(o.name for o in tried)
    }


def picked(
    tried: Sequence[DefenceOutcome], choices: Mapping[tuple[int, str], DefenceChoice | None], depth: int
) -> list:
    """The outcomes worth a picture: no defence; and of each defence the tolerated setting and the strongest one."""
    some = [tried[0]]
    for name in dict.fromkeys(o.name for o in tried[1:]):
        choice = choices[depth, name]
        strongest = [o for o in tried if o.name == name][-1]
        some += [choice.outcome] if choice else []
        some += [strongest] if strongest not in some else []
    return some
