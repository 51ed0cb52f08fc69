"""Chapter 11: photos from logits (Teterwak et al. 2021) and from every depth (Dong et al. 2021), networks compared.

Here is what comparing networks on natural images needs: photos at the size that a classifier is shown and at the size
of an inverter's reconstructions, the kinds of place at which a network is cut, a curve over training images, and the
rules that turn intervals into words. Every rule is about 95 % intervals of paired differences over the same photos, and
was fixed before the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from invkit import data, ffi
from invkit.data.images import as_bytes
from invkit.data.sources import SOURCES
from invkit.ffi.pairs import pairs
from invkit.statistics import Interval, proportion
from study import baselines
from study.notebook import listed
from study.reconstructions import Reconstruction, reconstruct, reconstruct_every_depth, represent_all
from study.scores import EVERY, MEASURES, SAME, Scores, score, word

YES, PARTLY, MIXED, NO, UNTESTED = "yes", "in part", "both ways", "no", "not tested"

# ---- photos ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """The same N photos, (N, 3, S, S) in [0, 1], as classifiers are `shown` them and as inverters `drawn` them.

    labels (N,): -1 where unknown.
    """

    shown: Tensor
    drawn: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Photos:
        return Photos(*(tensor.to(device) for tensor in (self.shown, self.drawn, self.labels)))


def sizes(inverters: Mapping[str, object]) -> tuple[int, int]:
    """(pixels that the classifiers are shown, pixels that the inverters draw), alike for all that are compared."""
    if not inverters:
        raise ValueError("There is no inverter to compare: train one with `python -m recipes train ffi-tiny-standard`.")
    found = {name: (getattr(tool, "source_size", tool.size), tool.size) for name, tool in inverters.items()}
    if len(set(found.values())) > 1:
        raise ValueError(f"Compare inverters that are shown and draw photos of the same sizes, not {found}.")
    return next(iter(found.values()))


def load_photos(name: str, split: str, n: int | None, seed: int, shown: int, drawn: int) -> Photos:
    """n photos of a data set (None: all) at the two `sizes`, antialiased."""
    some = data.load(name, split=split, n=n, seed=seed, size=shown)
    return Photos(some.images, shrink(some.images, drawn), some.labels)


def shrink(images: Tensor, size: int) -> Tensor:
    """Square images (N, 3, S, S) at another size, antialiased."""
    if images.shape[-1] == size:
        return images
    parts = [F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in images.split(500)]
    return torch.cat(parts).clamp(0, 1)


def teaches(name: str) -> bool:
    """Whether a data set has images of its own to learn from (a split "inverter"), or only some to be tested on."""
    source = name.partition(":")[0]
    return source in SOURCES and "inverter" in SOURCES[source][1]


# ---- from the logits -------------------------------------------------------------------------------------------------


def cached_logits(inverter, shown: Tensor, folder: str | Path | None = None) -> Tensor:
    """Logits (N, classes) of photos at the size that classifiers are shown; `folder` keeps them, for some are slow."""
    return pairs(inverter.classifier, shown, folder=folder).logits[0].to(shown.device)


def class_seen(inverter, images: Tensor, logits: Tensor) -> Interval:
    """The share of images (N, 3, S, S) in which the inverted classifier sees the class that these logits (N, K) say."""
    return proportion(represent_all(inverter, images).argmax(1) == logits.argmax(1))


def same_for_all(image: Tensor, n: int) -> Reconstruction:
    """The one image (3, S, S) as the reconstruction from each of n logit vectors."""
    images = image.expand(n, *image.shape)
    return Reconstruction(images, images)


# ---- from inside -----------------------------------------------------------------------------------------------------


def cut_kind(block) -> str:
    """What kind of numbers a block of a classifier hands on: told from its last operation and its shape."""
    if len(block.shape) < 3:
        return "vector"
    if not hasattr(block.body, "graph"):
        return "cut by hand"
    last = block.body.graph.output_node().args[0]
    if last.op == "call_module":
        label = type(block.body.get_submodule(last.target)).__name__.lower()
    else:
        label = getattr(last.target, "__name__", str(last.target)).lower()
    if "relu" in label:
        return "after a ReLU"
    if label.startswith(("add", "iadd")):
        return "residual stream"
    return "no activation after the convolution" if "conv" in label or "norm" in label else f"after {label}"


def by_depth(inverter, photos: Tensor, batch: int = 25) -> tuple[dict[int, Tensor], dict[int, Scores]]:
    """Square photos (N, 3, S, S), resized to the inverter's size: ({depth: reconstructions}, {depth: their scores})."""
    photos = shrink(photos, inverter.size)
    found = {depth: timed.images for depth, timed in reconstruct_every_depth(inverter, photos, batch=batch).items()}
    return found, {depth: score(images, photos) for depth, images in found.items()}


def depth_gaps(at_depth: Mapping[str, Mapping[int, Scores]]) -> dict[int, dict[str, Interval]]:
    """`depth_differences` of the robust network and the standard one; {} where one of them is not there."""
    if not {"robust", "standard"} <= at_depth.keys():
        return {}
    return depth_differences(at_depth["robust"], at_depth["standard"])


def depth_differences(a: Mapping[int, Scores], b: Mapping[int, Scores]) -> dict[int, dict[str, Interval]]:
    """{depth: {measure: mean of a - b over the same photos}}.

    Raises ValueError for networks that were not cut at the same depths.
    """
    if list(a) != list(b):
        raise ValueError(f"Compare two networks cut at the same depths, not at {list(a)} and {list(b)}.")
    return {depth: a[depth].minus(b[depth]) for depth in a}


# ---- is it the budget? -----------------------------------------------------------------------------------------------


def budget_curve(
    classifier,
    images: Tensor,
    budgets: Sequence[int],
    judge: Callable[[object], Scores],
    seed: int = 0,
    folder: Path | None = None,
    **training,
) -> dict[int, Scores]:
    """{number of training images: scores} of inverters that differ only in how many different images they are given.

    images: (M, 3, S, S), in random order, uint8 or float in [0, 1]; each inverter gets the first so many, so that every
    set holds the smaller ones. judge: inverter -> scores, on the same photos for all. training: of `ffi.train_inverter`
    and the same for all, steps and batch size above all: fewer images are seen more often.
    """
    budgets = list(budgets)
    if budgets != sorted(set(budgets)) or not budgets or not 2 <= budgets[0] or budgets[-1] > len(images):
        raise ValueError(f"budgets are rising numbers of images from 2 to the {len(images)} there are, not {budgets}.")
    curve = {}
    for budget in budgets:
        place = folder and folder / f"budget-{budget}"
        inverter = ffi.train_inverter(
            classifier, images[:budget], folder=place, seed=seed, progress=False, **training
        )  # fmt: skip
        curve[budget] = judge(inverter)
    return curve


def in_random_order(images: Tensor, seed: int = 0) -> Tensor:
    """Images as bytes in an order that says nothing of their classes."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return as_bytes(images.cpu()[order])


def climbing(curve: Mapping[int, Scores]) -> tuple[dict[str, Interval], dict[str, str]]:
    """The last point of a budget curve minus the one before, by measure; and the word that each difference allows.

    The rule: "still climbing" if the whole interval is on the better side of 0, "falling" if it is on the worse side,
    else "no longer climbing that we could tell". A curve of one point climbs nowhere.
    """
    if len(curve) < 2:
        raise ValueError("Whether a curve is still climbing takes two numbers of images or more.")
    before, last = list(curve.values())[-2:]
    differences = last.minus(before)
    words = {"better": "still climbing", "worse": "falling", SAME: "no longer climbing that we could tell"}
    return differences, {measure: words[word(measure, difference)] for measure, difference in differences.items()}


# ---- rules -----------------------------------------------------------------------------------------------------------

BEYOND = ("psnr", "found", "perceptual")  # what the first rule looks at
CONTRAST = ("psnr", "found")  # what the second does


BEYOND_WORDS = {YES: "yes", PARTLY: "in part", MIXED: "in some measures more and in others less",
                SAME: "not told apart", NO: "no", UNTESTED: UNTESTED}  # fmt: skip
EASIER_WORDS = {YES: "easier", PARTLY: "easier in part", MIXED: "easier by one measure and harder by the other",
                SAME: "not told apart from it", NO: "harder, at least in part", UNTESTED: UNTESTED}  # fmt: skip


def one_word(words: Sequence[str]) -> str:
    """One verdict of several words: "yes" if all are "better"; "in part" if some are, and none "worse"; "both ways" if
    some are better and some worse; "no" if some are worse and none better; else "not told apart"."""
    if not words:
        return UNTESTED
    if "better" in words and "worse" in words:
        return MIXED
    if "better" in words:
        return YES if set(words) == {"better"} else PARTLY
    return NO if "worse" in words else SAME


def beyond_class(against: Mapping[str, Mapping[str, Interval]]) -> str:
    """Do logits tell more than the class?

    against: {opponent that knows the class alone: `Scores.minus` of the inverter of logits and the opponent}.
    Returns "yes" if PSNR, retrieval among all photos and perceptual distance are all better than every opponent's; the
    other verdicts are those of `one_word`. The rule of chapter 2, `logit_inversion.more_than_class`, looks among the
    images of one predicted class, of which there are too few here.
    """
    return one_word([word(m, differences[m]) for differences in against.values() for m in BEYOND])


def easier(differences: Mapping[str, Interval]) -> str:
    """Is one network easier to invert than another? By PSNR and retrieval, one minus the other; see `one_word`."""
    return one_word([word(m, differences[m]) for m in CONTRAST])


def target_words(figure: Interval, least: float) -> str:
    """Whether a figure reaches a target that was set beforehand, and whether its interval leaves that open."""
    if figure.value >= least:
        return "reached" if figure.low >= least else "reached, though the interval leaves it open"
    return "missed" if figure.high < least else "missed, though the interval leaves it open"


def answer(n: int, beyond: Mapping[str, str], logits: str, depths: Sequence[str]) -> str:
    """The chapter in one sentence, of verdicts alone.

    n: photos; beyond: network -> verdict of `beyond_class`; logits: that of `easier` for robust against standard;
    depths: the words of the same difference in PSNR at each depth, none if that was not run.
    """
    grouped: dict[str, list[str]] = {}
    for name, verdict in beyond.items():
        grouped.setdefault(verdict, []).append(name)
    first = ", ".join(f"{BEYOND_WORDS[verdict]} for {listed(names)}" for verdict, names in grouped.items())
    inside = "from the layers inside, the two were not compared"
    if depths:
        better, worse = (sum(w == kind for w in depths) for kind in ("better", "worse"))
        inside = f"from the layers inside, it is easier at {better} of {len(depths)} depths and harder at {worse}"
    return (
        "Do the logits of a photo tell more than its class, and is an adversarially robust network easier to invert "
        f"than a standard one? On {n:,} photos, by rules set before the numbers: {first or UNTESTED}; from its "
        f"logits, the robust network is {EASIER_WORDS[logits]}; {inside}."
    )


# ---- what the chapter compares ---------------------------------------------------------------------------------------


BUDGET_GENERATOR = {  # the networks of the shipped inverters of small photos
    "channels": (112, 96, 64, 32), "hidden": 192, "shared_dim": 96, "coarse": 16, "coarse_hidden": 192,
    "logit_noise": 0.3,
}  # fmt: skip
BUDGET_TRAINING = {  # of the curve over numbers of training images
    "steps": 600, "coarse_steps": 2200, "batch": 48, "lr": 5e-4, "shrink": 0.03, "identify": 0.06, "views": 2,
    "objective": "regression", "generator": BUDGET_GENERATOR,
}  # fmt: skip
BASELINES = ("class mean", "ridge", "nearest")  # of `study.baselines`: those that need photos to learn from
KNOW_THE_CLASS = ("one-hot", "class mean")  # opponents that are given the class alone


def learn_baselines(known: Photos, tools: Mapping, logits: Mapping[str, Tensor], folder: Path) -> dict:
    """{"ridge, standard": reconstructions, …}: every baseline, fitted on other photos, on the logits of every network.

    known: the photos to learn from.
    tools: {network: its inverter}.
    logits: {network: logits of the test photos}.
    """
    made = {}
    for name, tool in tools.items():
        taught = cached_logits(tool, known.shown, folder).to(logits[name])
        examples = baselines.Examples(taught, known.drawn.to(taught.device))
        for by in BASELINES:
            image = baselines.BASELINES[by](examples)(logits[name])
            made[f"{by}, {name}"] = Reconstruction(image, image)
    return made


def differences_to(scored: Mapping[str, Scores], inverters: Sequence[str]) -> dict[str, dict[str, dict[str, Interval]]]:
    """Each inverter minus each opponent on the same photos: {network: {opponent: {measure: difference}}}."""
    found: dict[str, dict] = {name: {} for name in inverters}
    for name in inverters:
        for by in ("mean image", "own mean colour", "one-hot", *BASELINES):
            opponent = by if by in scored else f"{by}, {name}"
            if opponent in scored:
                found[name][by] = scored[name].minus(scored[opponent])
    return found


def who_knows_the_class(against: Mapping[str, Mapping[str, Interval]]) -> dict[str, Mapping[str, Interval]]:
    """The opponents of one network, {opponent: differences}, that are given nothing but the class."""
    return {by: against[by] for by in KNOW_THE_CLASS if by in against}


def robust_minus_standard(scored: Mapping[str, Scores]) -> dict[str, dict[str, Interval]]:
    """Robust minus standard on the same photos: {"inverter", "ridge": differences}, of those that there are."""
    pairs = {by: [f"{by}, {name}".removeprefix("inverter, ") for name in ("robust", "standard")]
             for by in ("inverter", "ridge")}  # fmt: skip
    return {by: scored[a].minus(scored[b]) for by, (a, b) in pairs.items() if a in scored and b in scored}


def target_rows(targets: Mapping, scored: Mapping[str, Scores], against: Mapping) -> dict:
    """Rows of a table, {(network, figure): {"at least", "measured", "verdict"}}: targets that were set beforehand.

    targets: {network: {"found": least share, "gain": least dB over the mean image}}.
    """
    titles = {"found": ("found", "found among all"), "gain": ("psnr", "PSNR over the mean image")}
    rows = {}
    for name in [name for name in targets if name in against]:
        values = {"found": scored[name].intervals()["found"], "gain": against[name]["mean image"]["psnr"]}
        for kind, least in targets[name].items():
            measure, title = titles[kind]
            known = MEASURES[measure]
            row = {"at least": f"{known.factor * least:g} {known.unit}"}
            row["measured"] = f"{values[kind].times(known.factor):.2f} {known.unit}"
            rows[name, title] = row | {"verdict": target_words(values[kind], least)}
        for by, differences in who_knows_the_class(against[name]).items():
            words = [word(m, differences[m]) for m in ("found", "perceptual")]
            row = {"at least": "both better", "measured": " and ".join(words)}
            row["verdict"] = "reached" if set(words) == {"better"} else "missed"
            rows[name, f"found and perceptual, against the {by}"] = row
    return rows


def by_heart(tools: Mapping, own: Photos | None, test: Photos, made: Mapping, folder: Path, seed: int) -> dict:
    """{network: {"own", "test": scores}}: of photos that the inverters were trained on, and of as many test photos.

    own: None where there are no such photos; then nothing is returned.
    made: {network: reconstructions of the test photos}.
    """
    found: dict[str, dict] = {}
    for name, tool in tools.items() if own else ():
        images = own.drawn.to(test.drawn.device)
        k = min(len(images), len(test.drawn))
        learnt = reconstruct(tool, cached_logits(tool, own.shown.to(images.device), folder), 0, seed).mean
        pairs = {"own": (learnt, images), "test": (made[name].mean[:k], test.drawn[:k])}
        found[name] = {title: score(image, some, measures=CONTRAST) for title, (image, some) in pairs.items()}
    return found


def budget_scores(
    classifier, images: str, budgets: Sequence[int], test: Photos, seed: int, folder: Path
) -> dict[int, Scores]:
    """{number of training images: scores} of small inverters that differ in nothing else; see `budget_curve`.

    images: a data set with photos to learn from.
    Raises ValueError for one without.
    """
    if not teaches(images):
        raise ValueError(
            f"budgets need photos to learn from, not {images!r}: give images='tiny-imagenet', or budgets=[]."
        )
    taught = data.load(images, split="inverter", n=max(budgets), seed=seed, size=test.shown.shape[-1]).images

    def judge(inverter) -> Scores:
        logits = represent_all(inverter, test.shown)
        return score(reconstruct(inverter, logits, 1, seed), test.drawn, logits.argmax(1))

    training = BUDGET_TRAINING | {"size": test.drawn.shape[-1]}
    return budget_curve(classifier, in_random_order(taught, seed), budgets, judge, seed, folder, **training)


@dataclass(frozen=True)
class AdversaryAlone:
    """An inverter trained by the adversarial losses alone: its scores and samples, None where there is none.

    words: how the training went.
    network: whose logits it inverts.
    """

    scores: Scores | None
    samples: Tensor | None
    words: str
    network: str = "no network"


def adversary_alone(inverter, test: Photos, samples: int, seed: int, folder: Path) -> AdversaryAlone:
    """What an inverter reaches that was trained by the adversarial losses alone, as in Teterwak et al. (2021).

    inverter: None for none.
    samples: noise vectors over which the best guess is the mean; it was not trained for a guess without noise.
    seed: of the noise.
    folder: where the photos' logits are kept.
    Raises ValueError for an inverter of another objective.
    """
    if inverter is None:
        return AdversaryAlone(None, None, "It is left out here: the parameter `adversarial` is empty.")
    card = inverter.card
    if card.get("objective") != "adversarial":
        raise ValueError(
            f"`adversarial` names an inverter whose objective is {card.get('objective')!r}: give one that was trained "
            'by the adversary alone, such as "ffi-tiny-adversarial", or "".'
        )
    logits = cached_logits(inverter, test.shown, folder)
    made = reconstruct(inverter.to(logits.device), logits, samples, seed)
    seen = card["steps"] * card["batch"]
    words = (
        f"{card['failure'] or 'It neither diverged nor collapsed.'} It saw {seen:,} photos, {card['images']:,} "
        f"different ones, in {card['hours']:.1f} hours; BigGAN's own training saw {150_000 * 2048 / seen:,.0f} times "
        "as many."
    )
    return AdversaryAlone(
        score(made, test.drawn, logits.argmax(1), measures=EVERY), made.sample, words, card["network"]
    )
