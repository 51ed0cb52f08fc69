"""Chapter 11: what it records, and its tables, figures and words; `study.chapters.natural_images` measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit import metrics, statistics
from invkit.statistics import Interval
from study import plots
from study.chapters.natural_images import (
    BASELINES,
    BUDGET_TRAINING,
    CONTRAST,
    UNTESTED,
    YES,
    AdversaryAlone,
    answer,
    climbing,
    cut_kind,
    easier,
    who_knows_the_class,
)
from study.notebook import listed
from study.probes import share_of_zeros
from study.scores import MEASURES, Scores, confidence, judged, word, written

SHOWN = ("psnr", "ssim", "found", "perceptual")  # columns of the tables
RECORDED = (*SHOWN, "perceptual_second")


def record_scores(study, scored: Mapping[str, Scores]) -> None:
    """Record the mean of every score of every inverter and baseline, {name: scores}."""
    for name, some in scored.items():
        for measure, interval in some.intervals().items():
            study.record_interval(measure, name.replace("-", ""), interval)


def score_rows(scored: Mapping[str, Scores], inverters: Mapping[str, str]) -> dict:
    """Rows of a table, {(made by, logits of): {measure: mean}}."""
    rows = {}
    for name, some in scored.items():
        by, _, whose = name.partition(", ")
        place = ("inverter", name) if name in inverters else (by, "standard, class only" if by == "one-hot" else whose)
        rows[place] = some.intervals()
    return rows


def network_rows(study, tools: Mapping, logits: Mapping[str, Tensor], labels: Tensor | None) -> dict:
    """Rows of a table, {network: facts about it and its logits}; records the accuracy on photos of its own classes.

    labels: of the test photos, where they are of the data set that the small networks know; else None.
    """
    rows = {}
    for name, tool in tools.items():
        network, z = tool.classifier, logits[name]
        card = network.card.get("accuracy", {})
        accuracy = f"{100 * card['clean']:.1f} (its card)" if "clean" in card else None
        if labels is not None and network.classes == int(labels.max()) + 1:
            accuracy = statistics.proportion(z.argmax(1) == labels)
            study.record_interval("accuracy", name, accuracy)
        rows[name] = {"network": network.name, "logits": z.shape[1], "accuracy": accuracy}
        rows[name] |= {
            "logits, mean ± spread": f"{z.mean():.1f} ± {z.std():.1f}",
            "mean confidence": f"{confidence(z).mean():.3f}",
        }
    return rows


def record_photos(study, images: str, n: int, n_examples: int | None, sizes: tuple[int, int], samples: int) -> None:
    """Record the words of the sentences about the photos.

    n: test photos.
    n_examples: photos from which the baselines learn, None where there are none.
    sizes: see `sizes`.
    samples: noise vectors a photo.
    """
    what = {"photos": "photos from the wheels of foolbox and scikit-image"}.get(images, f"test photos of {images}")
    words = f"The figures here are for {n:,} {what}."
    if n_examples:
        words += f" The baselines learn from {n_examples:,} others, on which the inverters were trained too."
    else:
        words += (
            " Nothing is given to learn from, so the baselines that need training images (class mean, ridge "
            "regression, nearest training image) are left out, and the mean image is that of the tested photos "
            "themselves, which nobody could know beforehand. Few of these photos show one of the classes that the "
            "small networks know."
        )
    texts = {"data_words": words, "shown_size": sizes[0], "drawn_size": sizes[1], "samples": samples, "n": f"{n:,}"}
    for id, text in (texts | {"perceptual_name": metrics.perceptual_name()}).items():
        study.record_text(id, text)
    study.record("chance", 100 / n, unit="%", digits=2, tolerance=0)


def record_noise(study, spread: Mapping[str, Interval], asked: Mapping[tuple[str, str], Scores]) -> None:
    """Record how far samples of the same logits lie apart, and the scores of the three ways to use the generator."""
    for name, interval in spread.items():
        study.record_interval("spread", name.replace("-", ""), interval, digits=2)
    for (name, way), some in asked.items():
        for measure, interval in some.intervals().items():
            study.record_interval(measure, f"{way} {name.replace('-', '')}", interval)
    study.record_text("spread_words", listed([f"{one.value:.3f} ({name})" for name, one in spread.items()]))


def found_dots(scored: Mapping[str, Scores], inverters: Sequence[str]) -> Figure:
    """How often each inverter and baseline finds the photo, with chance as a mark on each row."""
    found = {name: some.intervals()["found"].times(100) for name, some in scored.items()}
    series = {
        name: {by: found[name if by == "inverter" else f"{by}, {name}"] for by in ("inverter", *BASELINES)
               if by == "inverter" or f"{by}, {name}" in found}
        for name in inverters
    }  # fmt: skip
    titles = {"one-hot": "one-hot generator", "mean image": "mean image"}
    series["class at most"] = {title: found[name] for name, title in titles.items() if name in found}
    rows = dict.fromkeys(row for values in series.values() for row in values)
    photos = len(next(iter(scored.values())).psnr)
    chance = {"": {"chance": dict.fromkeys(rows, 100 / photos)}}
    return plots.dots({"": series}, "original found, %", ticks=chance)


def record_opponents(study, against: Mapping, beyond: Mapping[str, str]) -> None:
    """Record the differences of `differences_to` and the verdicts, {network: `beyond_class`}."""
    for name, by_opponent in against.items():
        study.record(f"beyond_{name}", beyond[name] == YES, tolerance=None, verdict=beyond[name])
        for by, differences in by_opponent.items():
            for measure in RECORDED:
                title = f"{name} over {by.replace('-', '')}"
                study.record_interval(measure, title, differences[measure], digits=2)
    study.record_text("beyond_words", "; ".join(f"{name}: {verdict}" for name, verdict in beyond.items()))
    known = who_knows_the_class(next(iter(against.values())))
    words = " and the ".join({"one-hot": "one-hot generator"}.get(by, by) for by in known)
    study.record_text("class_words", f"Against the {words}" if words else "Nothing that knows the class alone is here")


def opponent_rows(against: Mapping) -> dict:
    """Rows of a table, {(logits of, minus): {heading: difference and word}}."""
    return {
        (name, by): {MEASURES[m].heading: judged(m, differences[m]) for m in SHOWN}
        for name, by_opponent in against.items()
        for by, differences in by_opponent.items()
    }


def record_robust(study, contrast: Mapping[str, Mapping[str, Interval]]) -> None:
    """Record the differences of `robust_minus_standard` and the verdict of each."""
    for by, differences in contrast.items():
        for measure in SHOWN:
            title = "robust minus standard" + " ridge" * (by == "ridge")
            study.record_interval(measure, title, differences[measure], digits=2)
    verdict = easier(contrast["inverter"]) if "inverter" in contrast else UNTESTED
    study.record("robust_easier", verdict == YES, tolerance=None, verdict=verdict)
    study.record_text("robust_words", verdict, compared=False)
    ridge = "ridge regression was not tried: nothing to learn from"
    if "ridge" in contrast:
        ridge = f"by ridge regression, {easier(contrast['ridge'])}"
    study.record_text("ridge_words", ridge)


def robust_rows(contrast: Mapping[str, Mapping[str, Interval]]) -> dict:
    """Rows of a table, {made by: {heading: difference and word}}."""
    return {
        by: {MEASURES[m].heading: judged(m, differences[m]) for m in SHOWN} | {"easier": easier(differences)}
        for by, differences in contrast.items()
    }


def record_by_heart(study, learnt: Mapping[str, Mapping[str, Scores]]) -> None:
    """Record the scores of `by_heart`."""
    for name, sides in learnt.items():
        for title, some in sides.items():
            for measure, interval in some.intervals().items():
                study.record_interval(measure, f"{title} {name.replace('-', '')}", interval)


def by_heart_rows(learnt: Mapping[str, Mapping[str, Scores]]) -> dict:
    """Rows of a table, {network: {measure and side: mean}}."""
    return {
        name: {
            f"{MEASURES[m].title}, {title}": written(m, some.intervals()[m])
            for m in CONTRAST
            for title, some in sides.items()
        }
        for name, sides in learnt.items()
    }


def record_depths(
    study, at_depth: Mapping[str, Mapping[int, Scores]], gaps: Mapping[int, Mapping], floor: Interval, photos: Tensor
) -> None:
    """Record the scores of each network at each depth, their differences, the mean colour's PSNR, and all in words."""
    study.record_interval("psnr", "mean colour", floor)
    study.record_text("depth_words", _depth_words(photos, floor, gaps))
    for name, by in at_depth.items():
        for depth, some in by.items():
            for measure, interval in some.intervals().items():
                study.record_interval(measure, f"{name} depth {depth}", interval)
    for depth, gap in gaps.items():
        for m in CONTRAST:
            title = f"robust minus standard depth {depth}"
            study.record_interval(m, title, gap[m], digits=2, verdict=word(m, gap[m]))


def networks_by_depth_rows(
    blocks: Mapping, photos: Tensor, at_depth: Mapping[str, Mapping[int, Scores]], gaps: Mapping
) -> dict:
    """Rows of a table, {depth: {column: value}}: where the networks are cut, and what comes back from there.

    blocks: {network: its divide-and-conquer inverter}.
    photos: of the classifiers' size; on the first of them the share of zeros is counted.
    """
    rows, network = {}, next(iter(blocks.values())).classifier
    for depth in next(iter(at_depth.values())):
        block = network.blocks[depth - 1]
        row = {"kind of cut": cut_kind(block), "convolutions": str(block.convolutions)}
        row["numbers"] = f"{torch.Size(block.shape).numel() / photos[0].numel():.2f}"
        for name, tool in blocks.items():
            row[f"zeros, {name}"] = f"{share_of_zeros(tool.classifier, photos[:8], depth):.0%}"
            row[f"PSNR, {name}, dB"] = written("psnr", at_depth[name][depth].intervals()["psnr"])
        if gaps:
            row |= {f"robust − standard, {MEASURES[m].heading}": judged(m, gaps[depth][m]) for m in CONTRAST}
        rows[f"{depth}"] = row
    return rows


def _depth_words(photos: Tensor, floor: Interval, gaps: Mapping[int, Mapping[str, Interval]]) -> str:
    side = photos.shape[-1]
    text = (
        f"On {len(photos)} photos of {side} × {side} pixels, each looked for among these {len(photos)}. "
        f"The mean colour of each photo, an image without any structure, scores {floor:.1f} dB."
    )
    where: dict[str, list[int]] = {}
    for depth, gap in gaps.items():
        said = {"better": "easier to invert", "worse": "harder to invert"}
        how = said.get(word("psnr", gap["psnr"]), "not told apart from the standard one")
        where.setdefault(how, []).append(depth)
    parts = [f"{how} {_at_depths(depths, len(gaps))}" for how, depths in where.items()]
    return f"{text} By PSNR the robust network is {listed(parts)}." if parts else text


def _at_depths(depths: Sequence[int], count: int) -> str:
    """As in "at all 8 depths" or "at depths 1 and 2"."""
    if len(depths) == count:
        return f"at all {count} depths"
    return f"at depth{'s' * (len(depths) > 1)} {listed([str(depth) for depth in depths])}"


def record_answer(study, n: int, beyond: Mapping[str, str], contrast: Mapping, gaps: Mapping) -> None:
    """Record the chapter in one sentence, see `answer`.

    contrast: of `robust_minus_standard`.
    gaps: of `depth_differences`.
    """
    words = [word("psnr", gap["psnr"]) for gap in gaps.values()]
    logits = easier(contrast["inverter"]) if "inverter" in contrast else UNTESTED
    study.record_text("answer", answer(n, beyond, logits, words))


def networks_by_depth_chart(
    blocks: Mapping, at_depth: Mapping[str, Mapping[int, Scores]], gaps: Mapping, floor: Interval
) -> Figure:
    """PSNR, share found and the difference in PSNR over the convolutions inverted."""
    network = next(iter(blocks.values())).classifier
    convolutions = [network.blocks[depth - 1].convolutions for depth in next(iter(at_depth.values()))]
    groups = {
        MEASURES[m].heading: {
            name: [some.intervals()[m].times(MEASURES[m].factor) for some in by.values()]
            for name, by in at_depth.items()
        }
        for m in CONTRAST
    }
    dashed = {MEASURES["psnr"].heading: {"mean colour": floor.value}}
    if gaps:
        nothing = {name: [None] * len(gaps) for name in blocks}  # keeps the colours of the two for the two
        groups["robust − standard, dB"] = nothing | {"robust − standard": [gap["psnr"] for gap in gaps.values()]}
        dashed["robust − standard, dB"] = {"no difference": 0.0}
    figure = plots.panels(convolutions, groups, "convolutions inverted", reference=dashed)
    for axis in figure.axes:
        axis.set_xticks(convolutions)
    return figure


def depth_grid(blocks: Mapping, found_at: Mapping[str, Mapping[int, Tensor]], photos: Tensor, first: int = 3) -> Figure:
    """The first photos and what comes back of them from each depth, a row for each network."""
    rows = {
        f"{i + 1}, {name}": torch.stack([photos[i], *(some[i] for some in by.values())])
        for i in range(min(first, len(photos)))
        for name, by in found_at.items()
    }
    network = next(iter(blocks.values())).classifier
    titles = [str(network.blocks[depth - 1].convolutions) for depth in next(iter(found_at.values()))]
    return plots.image_grid(rows, ["photo", *titles], title="reconstructed after … convolutions")


def record_curve(study, curve: Mapping[int, Scores]) -> None:
    """Record a curve over numbers of training images, and what its end allows one to say."""
    for budget, some in curve.items():
        for measure in CONTRAST:
            study.record_interval(measure, f"budget {budget}", some.intervals()[measure])
    text = "Not run here: the parameter `budgets` is empty; the published profile names the numbers of images."
    if curve:
        steps, coarse, batch = (BUDGET_TRAINING[key] for key in ("steps", "coarse_steps", "batch"))
        text = f"Each trained for {steps:,} steps of {batch} photos, after {coarse:,} cheap ones for a coarse image."
    if len(curve) > 1:
        differences, climb = climbing(curve)
        before, last = list(curve)[-2:]
        text += f" From {before:,} to {last:,} photos, on the same test photos:"
        for m, end in zip(CONTRAST, (";", "."), strict=True):
            study.record_interval(m, "budget last step", differences[m], digits=2, verdict=climb[m])
            unit = "points" if MEASURES[m].share else MEASURES[m].unit
            text += f" {MEASURES[m].title} {written(m, differences[m], '+')} {unit}, {climb[m]}{end}"
    study.record_text("curve_words", text)


def curve_rows(curve: Mapping[int, Scores], mean: Scores) -> dict:
    """Rows of a table, {number of training images: {column: value}}."""
    return {
        f"{budget:,}": {m: some.intervals()[m] for m in ("psnr", "found", "ssim")}
        | {"over the mean image, dB": written("psnr", some.minus(mean)["psnr"], "+")}
        for budget, some in curve.items()
    }


def curve_chart(curve: Mapping[int, Scores], mean: Scores) -> Figure | None:
    """PSNR and share found over the number of training images; None for fewer than two numbers."""
    if len(curve) < 2:
        return None
    groups = {
        MEASURES[m].heading: {"inverter": [some.intervals()[m].times(MEASURES[m].factor) for some in curve.values()]}
        for m in CONTRAST
    }
    dashed = {
        MEASURES["psnr"].heading: {"mean image": mean.psnr.mean().item()},
        MEASURES["found"].heading: {"chance": 100 / len(mean.psnr)},
    }
    figure = plots.panels(list(curve), groups, "training images", logx=True, reference=dashed)
    for axis in figure.axes:
        axis.set_xticks(list(curve), [f"{budget:,}" for budget in curve])
        axis.minorticks_off()
    return figure


def record_adversary(study, alone: AdversaryAlone, scored: Mapping[str, Scores], network: str) -> dict:
    """Record the adversary alone, itself and minus the hybrid and the mean image; returns rows of a table.

    network: whose hybrid inverter it is compared with.
    """
    study.record_text("adversarial_words", alone.words)
    study.record_text("adversarial_network", alone.network)
    if alone.scores is None:
        return {}
    rows = {"itself": alone.scores.intervals()}
    for measure in RECORDED:
        study.record_interval(measure, "adversarial", rows["itself"][measure], tolerance=None)
    for title, opponent in {"hybrid": scored[network], "mean image": scored["mean image"]}.items():
        differences = alone.scores.minus(opponent)
        rows[f"minus {title}"] = {m: judged(m, differences[m]) for m in SHOWN}
        for measure in SHOWN:
            name = f"adversarial minus {title}"
            study.record_interval(measure, name, differences[measure], digits=2, tolerance=None)
    return rows


def adversary_grid(alone: AdversaryAlone, rows: Mapping[str, Tensor]) -> Figure | None:
    """The rows of images and below them the adversary's samples; None where it left nothing."""
    if alone.samples is None:
        return None
    return plots.image_grid({**rows, "adversary alone": alone.samples[: len(next(iter(rows.values())))]})


def opponent_gain_chart(against: Mapping) -> Figure:
    """PSNR of each inverter minus that of each opponent, with a mark at 0."""
    series = {name: {by: found["psnr"] for by, found in opponents.items()} for name, opponents in against.items()}
    rows = dict.fromkeys((by for opponents in against.values() for by in opponents), 0.0)
    return plots.dots({"": series}, "PSNR over the opponent's, dB", ticks={"": {"no difference": rows}})


def show(study, id: str, figure: Figure | None) -> Figure | None:
    """Keep a figure, where there is one, and return it to be shown."""
    if figure is not None:
        study.figure(id, figure)
    return figure


def card_rows(tools: Mapping, blocks: Mapping) -> dict:
    """Rows of a table, {inverter: facts from its card}."""
    keys = ("network", "objective", "kind", "images", "views", "batch", "steps", "hours", "machine")
    cards = {name: tool.card for name, tool in tools.items()}
    cards |= {f"{name}, by depth": tool.card for name, tool in blocks.items()}
    return {name: {key: str(card.get(key, "–")) for key in keys} for name, card in cards.items()}
