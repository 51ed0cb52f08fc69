"""Chapter 10: what it records, and its tables, figures and words; `study.chapters.leakage` measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invkit import statistics
from invkit.dci.inverter import ClassifierInverter
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study import plots
from study.chapters.leakage import (
    MEASURED,
    SHORT,
    DefenceChoice,
    DefenceOutcome,
    places_by_word,
    places_in_words,
    won_back,
)
from study.chapters.leakage_defences import LEARNED
from study.notebook import listed
from study.reconstructions import TimedImages, break_even
from study.scores import MEASURES, Scores, judged, word, written

FAR_APART = 10  # times as many errors: then their scale is logarithmic
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # per cent of errors


def trade_off(panels: Mapping[str, Sequence[DefenceOutcome]], floor: Mapping[str, Mapping[str, float]]) -> Figure:
    """Privacy against accuracy: {"depth 2": outcomes, ...} side by side; above in PSNR, below in the share found.

    Across: the cloud's errors, on a logarithmic scale that tells 0.2 % from 1 % where they are so far apart. A line
    joins the strengths of one defence, whose marks grow with them: filled for the tuned attacker, hollow for the
    attacker as it was, crosses for one that was trained anew; 95 % intervals on both axes. floor: {"psnr": {label: dB},
    "found": {label: share}}, dashed and dotted.
    """
    names = list(dict.fromkeys(o.name for outcomes in panels.values() for o in outcomes if o.name != "none"))
    measures = {"psnr": ("PSNR of the attacker, dB", 1), "found": ("originals found, %", 100)}
    grid = {"nrows": len(measures), "ncols": len(panels), "squeeze": False, "sharey": "row", "sharex": True}
    errors = [_errors(o).value for outcomes in panels.values() for o in outcomes]
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
                if max(errors) > FAR_APART * min(errors):
                    axis.set_xscale("log")
                    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
                    axis.minorticks_off()
        found |= floors
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4)
    return figure


def _draw(axis: Axes, outcomes: Sequence[DefenceOutcome], measure: str, factor: float, colour: int):
    """One defence in one panel, its path over the strengths for both attackers; returns what stands in the legend."""
    style = {"color": plots.COLOURS[colour], "marker": plots.MARKERS[colour], "markersize": 3, "capsize": 0}
    marks = {"marker": style["marker"], "s": [20 + 18 * place for place in range(len(outcomes))], "zorder": 3}
    x, across = _ends([_errors(o) for o in outcomes])
    y, _ = _ends([o.as_was.intervals()[measure].times(factor) for o in outcomes])
    axis.errorbar(x, y, **style | {"linestyle": ":", "linewidth": 1, "alpha": 0.6})
    axis.scatter(x, y, facecolor="white", edgecolor=style["color"], **marks)
    y, up = _ends([o.tuned.intervals()[measure].times(factor) for o in outcomes])
    axis.scatter(x, y, color=style["color"], **marks)
    for o in outcomes:
        if o.anew:
            value = o.anew.intervals()[measure].times(factor).value
            axis.scatter(_errors(o).value, value, marker="x", s=50, color=style["color"], zorder=4)
    return axis.errorbar(x, y, xerr=across, yerr=up, elinewidth=1, **style | {"markersize": 4})


def _errors(outcome: DefenceOutcome) -> Interval:
    """The cloud's errors in per cent; half an image where there is none, since a logarithm has no place for 0."""
    half, errors = 50 / len(outcome.cost.correct), statistics.proportion(1 - outcome.cost.correct).times(100)
    return Interval(*(max(half, v) for v in (errors.value, errors.low, errors.high)), errors.n)


def _ends(intervals: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up."""
    values = [i.value for i in intervals]
    return values, [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]


def depth_words(classifier: Classifier, depth: int) -> str:
    """ "depth 3", or "the logits" for the last one."""
    return "the logits" if depth == len(classifier.blocks) else f"depth {depth}"


def intervals(scored: Mapping[str, Mapping[int, Scores]]) -> dict[str, dict[int, dict[str, Interval]]]:
    """{attacker: {depth: {measure: mean over images}}} of {attacker: {depth: scores}}."""
    return {who: {depth: some.intervals() for depth, some in at.items()} for who, at in scored.items()}


def record_leaks(
    study, classifier: Classifier, scored: Mapping, floors: Mapping[str, Scores], first: int, candidates: int
) -> None:
    """Record every attacker's scores at every depth, those of the floors, and where the zero-shot attack succeeds.

    scored: {attacker: {depth: scores}}.
    floors: {name: scores}, of the mean image and of others.
    candidates: how many images an original is looked for among.
    first: the depth whose zero-shot scores are also recorded as "zero first".
    """
    for attacker, by_depth in intervals(scored).items():
        for depth, values in by_depth.items():
            name = f"{SHORT[attacker]} {depth}" if attacker in SHORT else "fed"
            for measure, interval in values.items():
                study.record_interval(measure, name, interval)
    mean = floors["mean image"]
    for name, floor in floors.items():
        for measure, interval in floor.intervals().items():
            study.record_interval(measure, "mean" if floor is mean else name, interval)
    study.record("chance", 100 / candidates, unit="%", digits=1, tolerance=0)
    zero = scored["zero-shot"]
    for measure in ("psnr", "found"):
        study.record_interval(measure, "zero first", zero[first].intervals()[measure])
    above = [depth_words(classifier, d) for d, some in zero.items() if some.minus(mean)["psnr"].low > 0]
    chance = 1 / candidates
    known = [depth_words(classifier, d) for d, some in zero.items() if some.intervals()["found"].low > chance]
    study.record_text("first", first)
    study.record_text("above_words", f"at {places_in_words(above)}" if above else "nowhere", compared=False)
    study.record_text("known_words", f"at {places_in_words(known)}" if known else "nowhere", compared=False)


def leak_rows(classifier: Classifier, scored: Mapping, floors: Mapping[str, Scores]) -> dict:
    """Rows of a table, {(place, attacker): {column: value}}, by depth; the floors come last."""
    means, rows = intervals(scored), {}
    for depth in sorted({depth for by_depth in means.values() for depth in by_depth}):
        block = classifier.blocks[depth - 1]
        sent = torch.Size(block.shape).numel() / (3 * classifier.size**2)
        facts = {"block": block.name, "convolutions": str(block.convolutions), "numbers": f"{sent:.2f}"}
        for attacker, by_depth in means.items():
            if depth in by_depth:
                rows[depth_words(classifier, depth), attacker] = facts | by_depth[depth]
    given = {"mean image": "nothing", "own mean colour": "the image", "next image": "another image"}
    return rows | {(given.get(name, "the logits"), name): floor.intervals() for name, floor in floors.items()}


def leak_chart(scored: Mapping, mean: Scores, candidates: int) -> Figure:
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
        dashed = {"chance": 100 / candidates} if measure == "found" else {"mean image": floor[measure].value}
        reference[known.heading] = dashed
    return plots.panels(depths, groups, "depth", reference=reference)


def record_attackers(
    study, classifier: Classifier, pairs: Mapping[tuple[int, str, str], Mapping[str, Interval]]
) -> None:
    """Record `attacker_differences` with the word that each allows, and zero-shot against optimised in words."""
    words: dict[str, dict[str, str]] = {"psnr": {}, "perceptual": {}}
    for (depth, one, other), differences in pairs.items():
        name = f"{SHORT.get(one, 'fed')} minus {SHORT.get(other, 'mean')}" + f" {depth}" * (one in SHORT)
        for measure, difference in differences.items():
            study.record_interval(measure, name, difference, digits=2, verdict=word(measure, difference))
            if one in SHORT and measure in words:
                words[measure][depth_words(classifier, depth)] = word(measure, difference)
    psnr, look = (places_by_word(some) for some in words.values())
    study.record_text("against_words", f"By PSNR zero-shot is {psnr}; by the perceptual distance it is {look}")


def attacker_rows(classifier: Classifier, pairs: Mapping[tuple[int, str, str], Mapping[str, Interval]]) -> dict:
    """Rows of a table, {(place, attackers): {heading: difference and word}}."""
    return {
        (depth_words(classifier, depth), f"{one} − {other}"): {
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
        depth_words(classifier, d): {who: f"{1000 * at[d].seconds:,.1f}" for who, at in found.items() if d in at}
        for d in depths
    }


def record_outcomes(study, outcomes: Mapping[int, Sequence[DefenceOutcome]]) -> None:
    """Record what each defence costs, what attackers then get, tuned or trained anew, and what the tuning gained.

    outcomes: {depth: outcomes}, the first of each without a defence. The costliest is looked for at the first depth.
    What is gained by tuning against a learned defence, which has another network, is left out of that mean.
    """
    won = []
    for depth, (plain, *tried) in outcomes.items():
        for o in (plain, *tried):
            id = f"{o.name}_{o.strength:g}_depth_{depth}".replace(".", "")
            study.record_interval("accuracy", id, statistics.proportion(o.cost.correct), tolerance=4)
            study.record(f"kl_{id}", statistics.bootstrap(o.cost.divergence), unit="nats", tolerance=None)
            for attacker, scores in {"tuned": o.tuned, "anew": o.anew}.items():
                for measure, interval in scores.intervals().items() if scores else ():
                    study.record_interval(measure, f"{attacker} {id}", interval)
        gain = won_back([o for o in tried if o.name != LEARNED], plain)
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


def record_drowned(study, drowned: DefenceOutcome, strength: float) -> None:
    """Record the control, noise of a strength that surely hides the image: what the cloud and the attackers get."""
    study.record_text("drowning", f"{strength:g} standard deviations")
    study.record_interval("accuracy", "drowned", statistics.proportion(drowned.cost.correct), tolerance=4)
    study.record_interval("found", "drowned", statistics.proportion(drowned.leaked("found")))


def outcome_rows(outcomes: Mapping[int, Sequence[DefenceOutcome]]) -> dict:
    """Rows of a table, {(depth, defence): {column: value}}: what it costs, and attackers' PSNR and share found."""
    rows = {}
    for depth, tried in outcomes.items():
        for o in tried:
            row = {"accuracy": statistics.proportion(o.cost.correct), "KL, nats": f"{o.cost.divergence.mean():.2g}"}
            for measure in ("psnr", "found"):
                known, as_was = MEASURES[measure], o.as_was.intervals()[measure].value
                row[f"{known.title} as was"] = f"{known.factor * as_was:.{known.digits}f}"
                row[f"{known.title} tuned, {known.unit}"] = written(measure, o.tuned.intervals()[measure])
                if o.anew:
                    row[f"{known.title} anew, {known.unit}"] = written(measure, o.anew.intervals()[measure])
            rows[f"{depth}", o.label] = row
    return rows


def trade_off_chart(outcomes: Mapping[int, Sequence[DefenceOutcome]], mean: Scores, candidates: int) -> Figure:
    """`trade_off` of every depth, with the mean image's PSNR and chance as its floors."""
    floor = {"psnr": {"mean image": mean.psnr.mean().item()}, "found": {"chance": 1 / candidates}}
    return trade_off({f"depth {depth}": tried for depth, tried in outcomes.items()}, floor)


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
    study.record_text("hiding_words", text, compared=False)
    counted = "; ".join(f"{verdict}: {listed(list(some))}" for verdict, some in by_verdict.items() if some)
    study.record_text("choice_words", counted or "no setting is tolerated", compared=False)
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


def record_setting(
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
