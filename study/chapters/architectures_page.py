"""Chapter 15: what it records, and its table, figure and words; `study.chapters.architectures` measures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invkit.statistics import Interval
from study import plots
from study.chapters.architectures import DepthResult, Photos, landmarks, title_of
from study.notebook import Study, listed, slug
from study.scores import MEASURES, SAME, verdict

Results = Mapping[str, Mapping[int, DepthResult]]  # {network: {depth: how good its reconstructions are}}


# ---- numbers and words -----------------------------------------------------------------------------------------------


def record_results(study: Study, networks: Mapping[str, object], depth_results: Results) -> None:
    """Record the measures of each network at its landmarks, as "<measure>_<network>_<landmark>".

    "gain" is the PSNR less that of each photo's own mean colour; "gain_next" and "found_next" are the control's.
    """
    for name, inverter in networks.items():
        for mark, depth in landmarks(inverter).items():
            one, place = depth_results[name][depth], slug(f"{name} {mark}")
            study.record_rows({place: one.scores.intervals()})
            study.record(f"gain_{place}", one.gain, unit="dB", digits=2, tolerance=0.5)
            study.record(f"gain_next_{place}", one.gain_next, unit="dB", digits=2, tolerance=1.0)
            study.record_interval("found", f"next {place}", one.next.intervals()["found"])
            study.record(f"convolutions_{place}", one.convolutions, digits=1, tolerance=0)
            study.record(f"zeros_{place}", 100 * one.zeros, unit="%", digits=2, tolerance=5)
        flat = next(iter(depth_results[name].values())).flat.intervals()["psnr"]
        study.record_interval("psnr", f"mean colour {name}", flat)


def record_differences(
    study: Study, pairs: Mapping[tuple[str, str, str], tuple[DepthResult, DepthResult]]
) -> dict[tuple[str, str], dict[str, str]]:
    """Record by how much the first network is inverted better than others, as "psnr_<first>_less_<other>_<landmark>".

    Returns rows of a table, one a pair and landmark, with what else the two differ in.
    """
    rows = {}
    for (first, other, mark), (ours, theirs) in pairs.items():
        by_measure = ours.scores.minus(theirs.scores)
        gain = by_measure["psnr"]
        better = verdict(gain, title_of(first), title_of(other))
        word = better if better == SAME else f"{better} is inverted better"
        study.record(slug(f"psnr {first} less {other} {mark}"), gain, unit="dB", digits=2, tolerance=0.5, verdict=word)
        rows[title_of(other), mark.replace("past", "more than")] = {
            "convolutions of each": f"{ours.convolutions}, {theirs.convolutions}",
            "numbers": f"{ours.numbers:.2f}, {theirs.numbers:.2f}",
            "zeros": f"{ours.zeros:.0%}, {theirs.zeros:.0%}",
            "PSNR, difference in dB": f"{gain:+.2f}",
            "inverted better": better,
            "perceptual, difference": f"{by_measure['perceptual']:+.3f}",
        }
    return rows


def record_words(
    study: Study, networks: Mapping[str, object], depth_results: Results, shown: Mapping[int, Photos]
) -> None:
    """Record what the text says of all networks together: which they are, the farthest result, how many photos.

    Which one is the farthest hangs on intervals, so it may be another on another machine.
    """
    last = {name: depth_results[name][landmarks(one)["deepest"]] for name, one in networks.items()}
    above = [title_of(name) for name, one in last.items() if one.gain.low > 0]
    study.record("networks", len(networks), digits=1, tolerance=0)
    study.record_text("names", listed([title_of(name) for name in networks]))
    words = f"{listed(above)}, {len(above)} of" if above else "none of"
    study.record_text("above_words", f"{words} the {len(networks)} networks", compared=False)
    name, one = farthest(depth_results)
    study.record_text("farthest_network", title_of(name), compared=False)
    study.record("farthest_convolutions", one.convolutions, digits=1, tolerance=None)
    study.record("farthest_gain", one.gain, unit="dB", digits=2, tolerance=None)
    study.record_interval("found", "farthest", one.scores.intervals()["found"], digits=2, tolerance=None)
    photos = next(iter(shown.values()))
    study.record("photos", len(photos.originals), digits=1, tolerance=0)
    study.record("candidates", len(photos.candidates), digits=1, tolerance=0)
    study.record("chance", 100 / len(photos.candidates), unit="%", digits=2, tolerance=0.1)


def farthest(depth_results: Results) -> tuple[str, DepthResult]:
    """The network, and its depth behind the most convolutions whose reconstructions are better than the mean colours.

    Where there is none, the one that comes nearest.
    """
    every = [(name, one) for name, by_depth in depth_results.items() for one in by_depth.values()]
    better = [(name, one) for name, one in every if one.gain.low > 0]
    if better:
        return max(better, key=lambda entry: entry[1].convolutions)
    return max(every, key=lambda entry: entry[1].gain.value)


def how_far(depth_results: Results, networks: Mapping[str, object]) -> str:
    """How far down each network can be inverted, by interval, as a Markdown list."""
    lines = []
    for name, inverter in networks.items():
        counts = [one.convolutions for one in depth_results[name].values() if one.gain.low > 0]
        last = depth_results[name][landmarks(inverter)["deepest"]]
        if not counts:
            words = "reconstructions are no better than the photos' mean colours"
        elif max(counts) == last.convolutions:
            words = (
                "reconstructions are better than the photos' mean colours at the deepest map that the inverter takes"
            )
        else:
            words = f"reconstructions are better than the photos' mean colours after up to {max(counts)} convolutions"
        lines.append(
            f"- **{title_of(name)}**: {words}; after {last.convolutions} convolutions the PSNR less theirs is "
            f"{last.gain:+.1f} dB, and {100 * last.scores.found.mean():.0f} % are found."
        )
    return "\n".join(lines)


def deepest_rows(networks: Mapping[str, object], depth_results: Results) -> dict[str, dict[str, object]]:
    """A row of a table for each network: the deepest map that is inverted, the inverter's training, its measures."""
    rows = {}
    for name, inverter in networks.items():
        one = depth_results[name][landmarks(inverter)["deepest"]]
        means = one.scores.intervals()
        rows[title_of(name)] = {
            "pixels": inverter.size,
            "convolutions": f"{one.convolutions} of {inverter.classifier.blocks[-1].convolutions}",
            "numbers": f"{one.numbers:.2f}",
            "zeros": f"{one.zeros:.0%}",
            "training, hours": f"{inverter.card['hours']:.2g}",
            "psnr": means["psnr"],
            "over the mean colour, dB": f"{one.gain:+.2f}",
            "perceptual": means["perceptual"],
            "found": means["found"],
        }
    return rows


# ---- the figure ------------------------------------------------------------------------------------------------------

TITLES = {
    "gain": "PSNR above the mean colour, dB",
    "perceptual": "perceptual distance",
    "found": "found among the photos, %",
}


def quality(one: DepthResult, measure: str) -> Interval:
    """One measure at a depth as the figure draws it, in its unit."""
    if measure == "gain":
        return one.gain
    return one.scores.intervals()[measure].times(MEASURES[measure].factor)


def networks_chart(networks: Mapping[str, object], depth_results: Results) -> Figure:
    """Three measures of every network: above over the convolutions behind a depth, below over the numbers kept there.

    Lines join the depths of a network over convolutions; the numbers kept go up and down with depth, so their marks
    stand alone. Networks of the first one's image size have filled marks, others hollow ones and dashed lines: their
    photos are of another size.
    """
    size = next(iter(networks.values())).size
    with plots.canvas(plots.WIDTH, 6.4, nrows=2, ncols=3) as (figure, axes):
        for column, (measure, title) in enumerate(TITLES.items()):
            above, below = axes[:, column]
            for place, (name, inverter) in enumerate(networks.items()):
                look = _look(place, inverter.size == size)
                some = list(depth_results[name].values())
                label = title_of(name) + ("" if inverter.size == size else f", {inverter.size} px")
                _draw(above, [one.convolutions for one in some], some, measure, look | {"label": label})
                _draw(below, [one.numbers for one in some], some, measure, look | {"linestyle": "none"})
            above.set(title=title, xlabel="convolutions")
            below.set(xlabel="numbers per image number", xscale="log")
            below.invert_xaxis()
            below.xaxis.set_major_formatter("{x:g}")
            for axis in (above, below):
                if measure == "gain":
                    axis.axhline(0, color=plots.GREY, linestyle="--", linewidth=1.3)
                if measure == "found":
                    axis.set_ylim(-4, 104)
                else:
                    axis.set_ylim(_reach_of_means(depth_results, measure))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _reach_of_means(depth_results: Results, measure: str) -> tuple[float, float]:
    """The ends of an axis that holds all means: of few photos, an interval may be far wider than the figure."""
    values = [quality(one, measure).value for by_depth in depth_results.values() for one in by_depth.values()]
    low, high = min(values), max(values)
    margin = 0.12 * (high - low)
    return low - margin, high + margin


def _look(place: int, filled: bool) -> dict[str, object]:
    colour = plots.COLOURS[place % len(plots.COLOURS)]
    look = {"color": colour, "marker": plots.MARKERS[place % len(plots.MARKERS)], "markersize": 5, "capsize": 0}
    look |= {"linewidth": 1.6, "elinewidth": 1.0, "markerfacecolor": colour if filled else "white"}
    return look | {"linestyle": "-" if filled else "--"}


def _draw(axis: Axes, x: list[float], some: list[DepthResult], measure: str, look: Mapping[str, object]) -> None:
    values = [quality(one, measure) for one in some]
    reach = [[max(0.0, one.value - one.low) for one in values], [max(0.0, one.high - one.value) for one in values]]
    axis.errorbar(x, [one.value for one in values], yerr=reach, **look)
