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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms import functional as TF

from invkit import dci, optimize, statistics
from invkit.dci import matching, synthetic
from invkit.dci.chain import Chain, ChainLossWeights
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.synthetic import Pool
from invkit.dci.training import Schedule
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study import plots
from study.chapters.leakage_defences import Defence, Statistics, describe, make
from study.notebook import listed
from study.reconstructions import TimedImages, break_even, reconstruct, represent
from study.scores import MEASURES, Scores, judged, score, word, written

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
        side = 3 * size // 2
        start = synthetic.dead_leaves(matched, side, (seed + 1) * 100_003).to(classifier.device)
        natural = matching.batch_norm_matched(classifier, matched, side, steps=steps, lr=0.1, start=start)
        return cls(size, pool, Pool(natural.cpu(), seed))

    def batches(self, n: int) -> Callable[[int, int], Tensor]:
        """batches(step, depth), n images each, as `recipes.invert_classifier` takes them."""

        def batch(step: int, depth: int) -> Tensor:
            pool = self.matched if self.matched and step % 4 == 0 else self.leaves
            return pool.batch(step, n, self.size)

        return batch


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
    logits = represent(inverter, images)
    began = time.perf_counter()
    found = torch.cat([inverter.invert(part) for part in logits.split(batch)])
    seconds = (time.perf_counter() - began) / len(images)
    return TimedImages(found, seconds), reconstruct(inverter, logits, 1, seed).sample


def optimise(classifier: Classifier, images: Tensor, depth: int, steps: int, seed: int = 0) -> TimedImages:
    """Images found by moving pixels until the classifier's features of that depth agree."""
    found = optimize.invert_features(classifier, send(classifier, images, depth), depth, steps=steps, seed=seed)
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


def resized(images: Tensor, size: int) -> Tensor:
    """Square images (N, 3, S, S) in [0, 1] shrunk or enlarged to `size`; as they are if they have it."""
    if images.shape[-1] == size:
        return images
    return TF.resize(images, [size, size], antialias=True).clamp(0, 1)


def in_words(words: Mapping[str, str]) -> str:
    """{"depth 1": "better", "depth 2": "better", "the logits": "worse"} -> each word once, with its places."""
    places = {word: [place for place, other in words.items() if other == word] for word in words.values()}
    return "; ".join(f"{word} at {listed(at)}" for word, at in places.items())


# ---- split computing -------------------------------------------------------------------------------------------------


@torch.no_grad()
def send(classifier: Classifier, images: Tensor, depth: int, batch: int = 250) -> Tensor:
    """The features of that depth that a device sends, (N, *shape)."""
    return torch.cat([classifier.features(part, depth) for part in images.split(batch)])


@torch.no_grad()
def answer(classifier: Classifier, features: Tensor, depth: int, batch: int = 250) -> Tensor:
    """The cloud's logits (N, classes) from features of that depth."""
    answers = []
    for h in features.split(batch):
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
    logits = answer(classifier, defended(defend, features, seed), depth)
    return Cost((logits.argmax(1) == labels).float(), divergence(answer(classifier, features, depth), logits))


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
def invert(chain: Chain, features: Tensor, depth: int, batch: int = 100) -> Tensor:
    """Images in [0, 1] that a chain reconstructs from features of that depth, in one pass."""
    return torch.cat(
        [dci.invert_representation(chain, [], part, depth, bounds=(0, 1)) for part in features.split(batch)]
    )


@dataclass(frozen=True)
class DefenceOutcome:
    """One defence of one strength: what it costs; what the attacker reconstructs as it was, and tuned against that."""

    name: str
    strength: float
    cost: Cost
    as_was: Scores
    tuned: Scores
    reconstructions: Mapping[str, Tensor]  # "as was" and "tuned", of the first images

    @property
    def label(self) -> str:
        return describe(self.name, self.strength)

    def leaked(self, measure: str) -> Tensor:
        """Per image, "psnr" or "found" of the attacker that does better by it on average: who attacks has both."""
        both = [scores[measure] for scores in (self.tuned, self.as_was)]
        return max(both, key=lambda values: values.mean().item())


@dataclass(frozen=True)
class DefenceTrial:
    """All that the outcomes at one depth share.

    features, labels: of the images that say what a defence costs, (M, *shape) and (M,); images: the first N of these,
    (N, 3, S, S), are attacked. tuning: keywords of `tune`. folder: for checkpoints, one subfolder a defence.
    """

    inverter: ClassifierInverter
    sources: Sources
    depth: int
    features: Tensor
    labels: Tensor
    images: Tensor
    tuning: Mapping[str, object]
    folder: Path | None = None
    seed: int = 0
    shown: int = 8

    def run(self, name: str, strength: float) -> DefenceOutcome:
        classifier, depth = self.inverter.classifier, self.depth
        defend = make(name, strength, channel_statistics(classifier, self.sources, depth))
        folder = self.folder and self.folder / f"{name}-{strength:g}-depth-{depth}"
        tuned = tune(self.inverter, depth, defend, self.sources, folder=folder, seed=self.seed, **self.tuning)
        sent = defended(defend, self.features[: len(self.images)], self.seed)
        reconstructions = {"as was": invert(self.inverter.chain, sent, depth), "tuned": invert(tuned, sent, depth)}
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


def choose(outcomes: Sequence[DefenceOutcome], plain: DefenceOutcome, tolerated: float) -> DefenceChoice | None:
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


# ---- chart -----------------------------------------------------------------------------------------------------------

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # per cent of errors


def trade_off(panels: Mapping[str, Sequence[DefenceOutcome]], floor: Mapping[str, Mapping[str, float]]) -> Figure:
    """Privacy against accuracy: {"depth 2": outcomes, ...} side by side; above in PSNR, below in the share found.

    Across: the cloud's errors, on a logarithmic scale that tells 0.2 % from 1 %. A line joins the strengths of one
    defence: filled for the tuned attacker, with the strength beside it, hollow for the attacker as it was; 95 %
    intervals on both axes. floor: {"psnr": {label: dB}, "found": {label: share}}, dashed and dotted.
    """
    names = list(dict.fromkeys(o.name for outcomes in panels.values() for o in outcomes if o.name != "none"))
    measures = {"psnr": ("PSNR of the attacker, dB", 1), "found": ("originals found, %", 100)}
    grid = {"nrows": len(measures), "ncols": len(panels), "squeeze": False, "sharey": "row", "sharex": True}
    with plots.canvas(plots.WIDTH, 7.5, **grid) as (figure, axes):
        found, floors = {}, {}
        for row, (measure, (label, factor)) in enumerate(measures.items()):
            axes[row][0].set_ylabel(label)
            for axis, (title, outcomes) in zip(axes[row], panels.items(), strict=True):
                for i, name in enumerate([*names, "none"]):
                    of_name = [o for o in outcomes if o.name == name]
                    if of_name:
                        found["no defence" if name == "none" else name] = _draw(axis, of_name, measure, factor, i)
                for what, value in floor[measure].items():
                    look = {"color": plots.GREY, "linestyle": plots.DASHES[row], "linewidth": 1.3}
                    floors[what] = axis.axhline(factor * value, **look)
                axis.set(title="" if row else title, xlabel="wrong classes with the defence, %" if row else "")
                axis.set_xscale("log")
                axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
                axis.minorticks_off()
        found |= floors
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4)
    return figure


def _draw(axis: Axes, outcomes: Sequence[DefenceOutcome], measure: str, factor: float, colour: int):
    """One defence in one panel, its path over the strengths for both attackers; returns what stands in the legend."""
    style = {"color": plots.COLOURS[colour], "marker": plots.MARKERS[colour], "markersize": 5, "capsize": 0}
    half = 50 / len(outcomes[0].cost.correct)  # a logarithm has no place for 0: half an image instead
    errors = [statistics.proportion(1 - o.cost.correct).times(100) for o in outcomes]
    x, across = _ends([Interval(*(max(half, v) for v in (e.value, e.low, e.high)), e.n) for e in errors])
    y, _ = _ends([o.as_was.intervals()[measure].times(factor) for o in outcomes])
    axis.errorbar(x, y, **style | {"markerfacecolor": "white", "linestyle": ":", "linewidth": 1, "alpha": 0.6})
    y, up = _ends([o.tuned.intervals()[measure].times(factor) for o in outcomes])
    for o, *place in [] if outcomes[0].name == "none" else zip(outcomes, x, y, strict=True):
        at = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8, "color": style["color"]}
        axis.annotate(f"{o.strength:g}", place, **at)
    return axis.errorbar(x, y, xerr=across, yerr=up, elinewidth=1, **style)


def _ends(intervals: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up."""
    values = [i.value for i in intervals]
    return values, [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]


# ---- what the chapter records and shows ------------------------------------------------------------------------------

SHORT = {"zero-shot": "zero", "optimised": "optimised"}  # in ids; the third attacker is "fed", on images of its kind


def place(classifier: Classifier, depth: int) -> str:
    """ "depth 3", or "the logits" for the last one."""
    return "the logits" if depth == len(classifier.blocks) else f"depth {depth}"


def intervals(scored: Mapping[str, Mapping[int, Scores]]) -> dict[str, dict[int, dict[str, Interval]]]:
    """{attacker: {depth: {measure: mean over images}}} of {attacker: {depth: scores}}."""
    return {who: {depth: some.intervals() for depth, some in at.items()} for who, at in scored.items()}


def record_leaks(study, classifier: Classifier, scored: Mapping, mean: Scores, first: int) -> None:
    """Record every attacker's scores at every depth, those of the mean image, and where the zero-shot attack succeeds.

    scored: {attacker: {depth: scores}}.
    mean: the scores of the mean image.
    first: the depth whose zero-shot scores are also recorded as "zero first".
    """
    for attacker, by_depth in intervals(scored).items():
        for depth, values in by_depth.items():
            name = f"{SHORT[attacker]} {depth}" if attacker in SHORT else "fed"
            for measure, interval in values.items():
                study.record_interval(measure, name, interval)
    for measure, interval in mean.intervals().items():
        study.record_interval(measure, "mean", interval)
    zero = scored["zero-shot"]
    for measure in ("psnr", "found"):
        study.record_interval(measure, "zero first", zero[first].intervals()[measure])
    above = [place(classifier, d) for d, some in zero.items() if some.minus(mean)["psnr"].low > 0]
    chance = 1 / len(mean.psnr)
    known = [place(classifier, d) for d, some in zero.items() if some.intervals()["found"].low > chance]
    study.record_text("first", first)
    study.record_text("above_words", f"at {listed(above)}" if above else "nowhere")
    study.record_text("known_words", f"at {listed(known)}" if known else "nowhere")


def leak_rows(classifier: Classifier, scored: Mapping, mean: Scores) -> dict:
    """Rows of a table, {(place, attacker): {column: value}}, by depth; the mean image comes last."""
    means, rows = intervals(scored), {}
    for depth in sorted({depth for by_depth in means.values() for depth in by_depth}):
        block = classifier.blocks[depth - 1]
        sent = torch.Size(block.shape).numel() / (3 * classifier.size**2)
        facts = {"block": block.name, "convolutions": str(block.convolutions), "numbers": f"{sent:.2f}"}
        for attacker, by_depth in means.items():
            if depth in by_depth:
                rows[place(classifier, depth), attacker] = facts | by_depth[depth]
    return rows | {("nothing", "mean image"): mean.intervals()}


def leak_chart(scored: Mapping, mean: Scores) -> Figure:
    """PSNR, share found and perceptual distance over depth, a line for each attacker."""
    means, floor = intervals(scored), mean.intervals()
    depths = sorted({depth for by_depth in means.values() for depth in by_depth})
    groups, reference = {}, {}
    for measure in MEASURED:
        known = MEASURES[measure]
        groups[known.heading] = {
            attacker: [at[d][measure].times(known.factor) if d in at else None for d in depths]
            for attacker, at in means.items()
        }
        dashed = {"chance": 100 / len(mean.psnr)} if measure == "found" else {"mean image": floor[measure].value}
        reference[known.heading] = dashed
    return plots.panels(depths, groups, "depth", reference=reference)


def against(scored: Mapping, mean: Scores) -> dict[tuple[int, str, str], dict[str, Interval]]:
    """One attacker minus another on the same images: {(depth, one, other): {measure: difference}}."""
    *_, fed = scored
    depth, trained = next(iter(scored[fed].items()))
    pairs = {(d, "zero-shot", "optimised"): s.minus(scored["optimised"][d]) for d, s in scored["zero-shot"].items()}
    for other in SHORT:
        if depth in scored[other]:
            pairs[depth, fed, other] = trained.minus(scored[other][depth])
    return pairs | {(depth, fed, "mean image"): trained.minus(mean)}


def record_against(study, classifier: Classifier, pairs: Mapping[tuple[int, str, str], Mapping[str, Interval]]) -> None:
    """Record the differences of `against` with the word that each allows, and zero-shot against optimised in words."""
    words: dict[str, dict[str, str]] = {"psnr": {}, "perceptual": {}}
    for (depth, one, other), differences in pairs.items():
        name = f"{SHORT.get(one, 'fed')} minus {SHORT.get(other, 'mean')}" + f" {depth}" * (one in SHORT)
        for measure, difference in differences.items():
            study.record_interval(measure, name, difference, digits=2, verdict=word(measure, difference))
            if one in SHORT and measure in words:
                words[measure][place(classifier, depth)] = word(measure, difference)
    psnr, look = (in_words(some) for some in words.values())
    study.record_text("against_words", f"By PSNR zero-shot is {psnr}; by the perceptual distance it is {look}")


def against_rows(classifier: Classifier, pairs: Mapping[tuple[int, str, str], Mapping[str, Interval]]) -> dict:
    """Rows of a table, {(place, attackers): {heading: difference and word}}."""
    return {
        (place(classifier, depth), f"{one} − {other}"): {
            MEASURES[measure].heading: judged(measure, difference) for measure, difference in differences.items()
        }
        for (depth, one, other), differences in pairs.items()
    }


def record_seconds(study, found: Mapping[str, Mapping[int, TimedImages]], training_seconds: float) -> None:
    """Record what an image costs each attacker at each depth, and when the zero-shot one's training has paid."""
    for attacker, by_depth in found.items():
        for depth, made in by_depth.items():
            id = f"seconds_{SHORT.get(attacker, 'fed')}_{depth}"
            study.record(id, made.seconds, unit="s", tolerance=None)
    ours, theirs = (sum(made.seconds for made in found[who].values()) / len(found[who]) for who in SHORT)
    study.record("training", training_seconds, unit="s", digits=2, tolerance=None)
    study.record("paid", break_even(training_seconds / 3600, ours, theirs), unit="images", tolerance=None)


def second_rows(classifier: Classifier, found: Mapping[str, Mapping[int, TimedImages]]) -> dict:
    """Rows of a table, {place: {attacker: milliseconds an image}}."""
    depths = sorted({depth for by_depth in found.values() for depth in by_depth})
    return {
        place(classifier, d): {who: f"{1000 * at[d].seconds:,.1f}" for who, at in found.items() if d in at}
        for d in depths
    }


def record_outcomes(study, outcomes: Mapping[int, Sequence[DefenceOutcome]]) -> None:
    """Record what each defence costs, what the tuned attacker then gets, and what the tuning gained.

    outcomes: {depth: outcomes}, the first of each without a defence. The costliest is looked for at the first depth.
    """
    won = []
    for depth, (plain, *tried) in outcomes.items():
        for o in (plain, *tried):
            id = f"{o.name}_{o.strength:g}_depth_{depth}".replace(".", "")
            study.record_interval("accuracy", id, statistics.proportion(o.cost.correct), tolerance=4)
            study.record(f"kl_{id}", statistics.bootstrap(o.cost.divergence), unit="nats", tolerance=None)
            for measure, interval in o.tuned.intervals().items():
                study.record_interval(measure, f"tuned {id}", interval)
        gain = won_back(tried, plain)
        won.append(f"{gain:+.2f} dB at depth {depth}")
        study.record_interval("psnr", f"won back {depth}", gain, digits=2)
        longer = plain.tuned.minus(plain.as_was)["psnr"]
        study.record_interval("psnr", f"longer {depth}", longer, digits=2)
    text = "What tuning against a defence gains beyond tuning as long without one is, on average over the settings,"
    study.record_text("won_words", f"{text} {listed(won)}.")
    worst = min(next(iter(outcomes.values())), key=lambda o: o.cost.correct.mean().item())
    study.record_text("costliest", f"the costliest setting tried there ({worst.label})")
    study.record("costliest_accuracy", statistics.proportion(worst.cost.correct).times(100), unit="%", tolerance=4)
    study.record_interval("found", "costliest", statistics.proportion(worst.leaked("found")), digits=2)


def outcome_rows(outcomes: Mapping[int, Sequence[DefenceOutcome]]) -> dict:
    """Rows of a table, {(depth, defence): {column: value}}: what it costs, and both attackers' PSNR and share found."""
    rows = {}
    for depth, tried in outcomes.items():
        for o in tried:
            row = {"accuracy": statistics.proportion(o.cost.correct), "KL, nats": f"{o.cost.divergence.mean():.2g}"}
            for measure in ("psnr", "found"):
                known, as_was = MEASURES[measure], o.as_was.intervals()[measure].value
                row[f"{known.title} as was"] = f"{known.factor * as_was:.{known.digits}f}"
                row[f"{known.title} tuned, {known.unit}"] = written(measure, o.tuned.intervals()[measure])
            rows[f"{depth}", o.label] = row
    return rows


def trade_off_chart(outcomes: Mapping[int, Sequence[DefenceOutcome]], mean: Scores) -> Figure:
    """`trade_off` of every depth, with the mean image's PSNR and chance as its floors."""
    floor = {"psnr": {"mean image": mean.psnr.mean().item()}, "found": {"chance": 1 / len(mean.psnr)}}
    return trade_off({f"depth {depth}": tried for depth, tried in outcomes.items()}, floor)


def choices_of(
    outcomes: Mapping[int, Sequence[DefenceOutcome]], tolerated: float
) -> dict[tuple[int, str], DefenceChoice | None]:
    """{(depth, defence): what `choose` takes of its outcomes}."""
    return {
        (depth, name): choose([o for o in tried if o.name == name], plain, tolerated)
        for depth, (plain, *tried) in outcomes.items()
        for name in dict.fromkeys(o.name for o in tried)
    }


def record_choices(study, choices: Mapping[tuple[int, str], DefenceChoice | None]) -> None:
    """Record what each tolerated defence takes from the attacker, and the verdicts in words."""
    for (depth, name), choice in choices.items():
        if choice:
            more = {"digits": 2, "verdict": choice.verdict, "strength": choice.outcome.strength}
            study.record_interval("psnr", f"{name} chosen {depth}", choice.psnr, tolerance=1.5, **more)
            study.record_interval("found", f"{name} chosen {depth}", choice.found, **more)
    by_verdict = {
        verdict: {f"{name} at depth {depth}": c for (depth, name), c in choices.items() if c and c.verdict == verdict}
        for verdict in ("fewer found", "only blurred", "no protection seen")
    }
    hides = by_verdict["fewer found"]
    text = "no defence tried is seen to let fewer originals be found"
    if hides:
        most = 100 * max(-choice.found.value for choice in hides.values())
        text = f"{listed(list(hides))} let{'s' * (len(hides) < 2)} fewer be found (by {most:.0f} % at most)"
    study.record_text("hiding_words", text)
    counted = "; ".join(f"{verdict}: {listed(list(some))}" for verdict, some in by_verdict.items() if some)
    study.record_text("choice_words", counted or "no setting is tolerated")
    study.record("hiding", len(hides), n=len(choices), digits=1, tolerance=None)


def choice_rows(choices: Mapping[tuple[int, str], DefenceChoice | None]) -> dict:
    """Rows of a table, {(depth, defence): {column: value}}: the price of each choice and what it takes."""
    rows = {}
    for (depth, name), choice in choices.items():
        if choice is None:
            rows[f"{depth}", f"{name}: none is tolerated"] = {}
            continue
        row = {"accuracy lost, %": f"{choice.lost.times(100):+.1f}"}
        row["KL, nats"] = f"{choice.outcome.cost.divergence.mean():.2g}"
        for measure in ("psnr", "found"):
            row[MEASURES[measure].heading] = written(measure, getattr(choice, measure), "+")
        rows[f"{depth}", choice.outcome.label] = row | {"verdict": choice.verdict}
    return rows


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


def record_words(
    study, classifier: Classifier, fed: LogitInverter, zero: ClassifierInverter, data: str, live: bool
) -> None:
    """Record the words of the chapter's sentences: what is attacked, on which kind of images, and by whom.

    fed: the inverter of logits that was trained on images of the kind `data`.
    zero: the zero-shot inverter, trained in the chapter if `live`.
    """
    one, many = {"glyphs": ("a glyph", "glyphs")}.get(data.partition(":")[0], ("a photo", "photos"))
    trained = f"was trained on this page, in {zero.card['steps']:,} short steps" if live else "comes with its weights"
    for id, text in {
        "network": classifier.name, "a_kind": one, "kind": many, "objective": fed.card["objective"],
        "logits_depth": len(classifier.blocks), "size_classifier": classifier.size, "size_compared": fed.size,
        "training_words": f"The zero-shot attacker {trained}.",
    }.items():  # fmt: skip
        study.record_text(id, f"{text}")
