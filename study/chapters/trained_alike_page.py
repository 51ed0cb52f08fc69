"""Chapter 19, what its page records, tables and draws; `study.chapters.trained_alike` trains and measures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval, proportion
from study import plots
from study.chapters.architectures import DepthResult
from study.chapters.trained_alike import Pair
from study.notebook import Study, listed
from study.scores import MEASURES, SAME, verdict, written

Pairs = Mapping[str, Pair]  # {architecture: (trained, untrained)}
KINDS = "trained", "untrained"
# How far another machine's value may lie: it trains everything anew.
TOLERANCES = {"psnr": 2.0, "perceptual": 0.25, "found": 45}
CHART = {"gain": "PSNR above the mean colour, dB", "perceptual": "perceptual distance", "found": "found, %"}


def quality_of(one: DepthResult, measure: str) -> Interval:
    """One measure of reconstructions, in the unit of the chart."""
    if measure == "gain":
        return one.gain
    return one.scores.intervals()[measure].times(MEASURES[measure].factor)


def training_effect(pair: Pair, share: float, measure: str) -> Interval:
    """Of the trained network less of its untrained twin, on the same photos, after a share of the blocks."""
    trained, untrained = (measured.at[share].scores for measured in pair)
    return trained.minus(untrained)[measure]


# ---- numbers and words -----------------------------------------------------------------------------------------------


def record_alike(study: Study, pairs: Pairs) -> None:
    """Record how often each network is right, what its reconstructions are worth, and what training changes in them."""
    for name, pair in pairs.items():
        for kind, measured in zip(KINDS, pair, strict=True):
            study.record_interval("right", f"{name} {kind}", proportion(measured.right), tolerance=30)
            for share, one in measured.at.items():
                place = f"{name} {kind} after {100 * share:.0f}"
                for measure, interval in one.scores.intervals().items():
                    study.record_interval(measure, place, interval, tolerance=TOLERANCES[measure])
        for share in pair[0].at:
            row = {measure: training_effect(pair, share, measure) for measure in TOLERANCES}
            study.record_rows({f"training {name} after {100 * share:.0f}": row}, digits=2, tolerance=None)


def record_alike_answer(study: Study, pairs: Pairs) -> None:
    """Record what the first lines of the page say: the best and the worst last map, and what training changes."""
    last = {name: trained.last for name, (trained, _) in pairs.items()}
    order = sorted(last, key=lambda name: last[name].gain.value, reverse=True)
    for word, name in (("best", order[0]), ("worst", order[-1])):
        study.record_text(f"{word}_name", name, compared=False)
        study.record(f"{word}_gain", last[name].gain, unit="dB", digits=2, tolerance=None)
        study.record_interval("found", word, last[name].scores.intervals()["found"], tolerance=None)
    between = last[order[0]].scores.minus(last[order[-1]].scores)["psnr"]
    study.record("best_less_worst", between, unit="dB", digits=2, tolerance=None)
    above = [name for name in order if last[name].gain.low > 0]
    words = f"{listed(above)}, {len(above)} of" if above else "none of"
    study.record_text("above_words", f"{words} the {len(pairs)} architectures", compared=False)
    for measure in ("psnr", "found"):
        study.record_text(f"training_{measure}", effect_words(pairs, measure), compared=False)


def effect_words(pairs: Pairs, measure: str) -> str:
    """Of which networks a measure of the last map is lower after training, or higher, by interval, as a phrase."""
    share = max(next(iter(pairs.values()))[0].at)
    words = {name: verdict(training_effect(pair, share, measure), "more", "less") for name, pair in pairs.items()}
    groups = {word: [name for name in pairs if words[name] == word] for word in ("less", "more", SAME)}
    phrases = {"less": "lower for {}", "more": "higher for {}", SAME: "not told apart for {}"}
    return listed([phrases[word].format(listed(names)) for word, names in groups.items() if names])


def record_alike_controls(study: Study, pairs: Pairs) -> None:
    """Record the checks: what the first measured place of each trained network finds at least, what another photo's
    reconstructions find at most, and by how much these exceed the mean colours at most."""
    least = min((trained.at[min(trained.at)].scores.intervals()["found"] for trained, _ in pairs.values()), key=_value)
    others = [trained.last for trained, _ in pairs.values()]
    most = max((one.next.intervals()["found"] for one in others), key=_value)
    study.record_interval("found", "control positive", least, tolerance=45)
    study.record_interval("found", "control negative", most, tolerance=10)
    study.record("gain_control_negative", max((one.gain_next for one in others), key=_value), unit="dB", tolerance=3.0)


def _value(interval: Interval) -> float:
    return interval.value


def record_alike_costs(study: Study, pairs: Pairs) -> None:
    """Record the hours of all trainings: of the networks, and of the inverters."""
    every = [measured.hours for pair in pairs.values() for measured in pair]
    for id, hours in zip(("network_hours", "inverter_hours"), zip(*every, strict=True), strict=True):
        study.record(id, sum(hours), unit="hours", digits=2, tolerance=None)


# ---- tables and figures ----------------------------------------------------------------------------------------------


def alike_rows(pairs: Pairs) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: every network, and what its last map or tokens give back."""
    rows = {}
    for name, pair in pairs.items():
        for kind, measured in zip(KINDS, pair, strict=True):
            one, means = measured.last, measured.last.scores.intervals()
            rows[name, kind] = {
                "right": proportion(measured.right),
                "blocks": measured.blocks,
                "numbers": f"{one.numbers:.2f}",
                "over the mean colour, dB": f"{one.gain:+.2f}",
                **{measure: means[measure] for measure in TOLERANCES},
            }
    return rows


def training_rows(pairs: Pairs) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a table: what training changes in the reconstructions, after each share of the blocks."""
    return {
        (name, f"{share:.0%}"): {
            MEASURES[measure].heading: written(measure, training_effect(pair, share, measure), "+")
            for measure in TOLERANCES
        }
        | {"by PSNR, training": discards(training_effect(pair, share, "psnr"))}
        for name, pair in pairs.items()
        for share in pair[0].at
    }


def discards(difference: Interval) -> str:
    """What the interval of trained less untrained says of training."""
    return verdict(difference, "keeps more", "discards")


def alike_chart(pairs: Pairs) -> Figure:
    """Three measures by the share of the blocks: above the trained networks, below their untrained twins."""
    shares = list(next(iter(pairs.values()))[0].at)
    groups = {
        f"{kind}: {title}": {
            name: [quality_of(pair[which].at[share], measure) for share in shares] for name, pair in pairs.items()
        }
        for which, kind in enumerate(KINDS)
        for measure, title in CHART.items()
    }
    reference = {f"{kind}: {CHART['gain']}": {"mean colour": 0.0} for kind in KINDS}
    figure = plots.panels(shares, groups, "share of the blocks", reference=reference)
    for column in range(len(CHART)):  # one scale for both, so that they can be compared
        both = figure.axes[column], figure.axes[column + len(CHART)]
        low, high = zip(*(axis.get_ylim() for axis in both), strict=True)
        for axis in both:
            axis.set_ylim(min(low), max(high))
    for axis in figure.axes:
        axis.set_xticks(shares, [f"{share:.0%}" for share in shares])
        axis.set_title(axis.get_title().replace(": ", ":\n"))
    return figure


def alike_pictures(pairs: Pairs, photos: Tensor, count: int = 6) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The first test photos, and what the last map or tokens of each network give back: rows, captions."""
    rows, captions = {"original": photos[:count]}, {}
    for name, pair in pairs.items():
        for kind, measured in zip(KINDS, pair, strict=True):
            title = f"{name}, {kind}"
            rows[title] = measured.last.images[:count]
            captions[title] = [f"{value:.1f}" for value in measured.last.scores.psnr[:count]]
    return rows, captions
