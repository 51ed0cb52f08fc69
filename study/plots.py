"""Image grids and charts in one style. Every function returns a matplotlib Figure and leaves no figure open.

Colours are Okabe and Ito's, told apart with any colour vision; lines also differ in their markers, so that a print in
grey can be read. The background is opaque white: photos and text look the same on a light and on a dark page. A number
with its interval is an `invkit.metrics.Interval`, drawn with a band or a bar; a plain number is drawn without.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("--", ":", "-.", (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 9.0  # inches: about the width of the book's text at 110 dots per inch
STYLE = {
    "figure.dpi": 110, "savefig.dpi": 110, "figure.facecolor": "white", "savefig.facecolor": "white",
    "figure.constrained_layout.use": True, "font.size": 11, "axes.titlesize": 11, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e4e4e4", "lines.linewidth": 2, "lines.markersize": 6, "errorbar.capsize": 3,
}  # fmt: skip

Number = float | Interval


@contextmanager
def _figure(width: float, height: float, title: str | None, **subplots):
    """(figure, axes) in the style; closed afterwards, so that a notebook shows it once and memory is freed."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), **subplots)
        if title:
            figure.suptitle(title)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def image_grid(
    rows: Mapping[str, Tensor],
    columns: Sequence[str] | None = None,
    captions: Mapping[str, Sequence[str]] | None = None,
    scale: float | None = None,
    title: str | None = None,
) -> Figure:
    """Rows of images, a column for each image: {"original": (N, 3, H, W), "depth 8": (N, 3, H, W), ...}.

    Images are floats in [0, 1]; each row may have its own H, W. columns: N titles above; captions: row label -> N short
    texts under its images; scale: inches per image (None fits N to the page). Small images keep hard pixels.
    """
    if not rows:
        raise ValueError("There is nothing to draw: give rows={label: images}.")
    n = len(next(iter(rows.values())))
    for what, values in [*rows.items(), ("columns", columns), *(captions or {}).items()]:
        if values is not None and len(values) != n:
            raise ValueError(
                f"Give the same number of images, titles and captions: {what!r} has {len(values)}, not {n}."
            )
    if unknown := set(captions or {}) - set(rows):
        raise ValueError(f"There are captions for {sorted(unknown)}, which are no rows: the rows are {list(rows)}.")
    margin = 0.2 + 0.085 * max(map(len, rows))  # inches that the longest label takes
    scale = scale or min(2.4, (WIDTH - margin) / n)
    height = sum(scale * images.shape[-2] / images.shape[-1] for images in rows.values()) + 0.23 * len(captions or {})
    size = (margin + scale * n, height + 0.3 * bool(columns) + 0.3 * bool(title) + 0.04 * len(rows))
    with _figure(*size, title, nrows=len(rows), ncols=n, squeeze=False) as (figure, axes):
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        for row, (label, images) in zip(axes, rows.items(), strict=True):
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
            hard = images.shape[-1] < scale * STYLE["figure.dpi"]
            for i, (axis, image) in enumerate(zip(row, images, strict=True)):
                pixels = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
                axis.imshow(pixels, interpolation="nearest" if hard else "antialiased")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if captions and label in captions:
                    axis.set_xlabel(captions[label][i], fontsize=9, labelpad=2)
        for axis, text in zip(axes[0], columns or [], strict=False):
            axis.set_title(text)
    return figure


def curve(
    x: Sequence[float],
    lines: Mapping[str, Sequence[Number]],
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logx: bool = False,
    logy: bool = False,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Lines over one x, {"ours": [Interval, ...], "baseline": [...]}, with 95 % bands; name the units in the labels.

    A value of None leaves a gap. reference: dashed horizontal lines, label -> y (a ceiling, chance, another's result).
    """
    for label, values in lines.items():
        if len(values) != len(x):
            raise ValueError(
                f"{label!r} has {len(values)} values for {len(x)} places on the x axis: give one for each."
            )
    with _figure(WIDTH * 0.8, 4.2, title) as (figure, axis):
        for i, (label, values) in enumerate(lines.items()):
            value, low, high = _columns(values)
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(x, value, color=colour, marker=MARKERS[i % len(MARKERS)], label=label)
            axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        _references(axis, reference)
        if logx:
            _plain_numbers(axis)
        if logy:
            axis.set_yscale("log")
        if len(x) <= 12:
            axis.set_xticks(x, [f"{place:g}" for place in x])
        axis.set(xlabel=xlabel, ylabel=ylabel)
        _legend(axis)
    return figure


def panels(
    x: Sequence[float],
    groups: Mapping[str, Mapping[str, Sequence[Number]]],
    xlabel: str,
    logx: bool = False,
    reference: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Several measures over one x, a small chart each: {"contrast": {"standard": [Interval, ...], ...}, ...}.

    The lines are those of `curve`, and the legend is common to all. reference: measure -> {label: y}, dashed.
    """
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    size = (WIDTH, 0.5 + 2.4 * down)
    dashed = dict.fromkeys(label for lines in (reference or {}).values() for label in lines)
    with _figure(*size, None, nrows=down, ncols=across, squeeze=False) as (figure, axes):
        for axis in axes.flat[len(groups) :]:
            axis.set_axis_off()
        for place, (axis, (measure, lines)) in enumerate(zip(axes.flat, groups.items(), strict=False)):
            for i, (label, values) in enumerate(lines.items()):
                value, low, high = _columns(values)
                colour = COLOURS[i % len(COLOURS)]
                axis.plot(x, value, color=colour, marker=MARKERS[i % len(MARKERS)], label=label, markersize=4)
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            for label, value in (reference or {}).get(measure, {}).items():
                dash = DASHES[list(dashed).index(label) % len(DASHES)]
                axis.axhline(value, color="#555555", linestyle=dash, linewidth=1.3, label=label)
            if logx:
                _plain_numbers(axis)
            axis.set_title(measure)
            if place + across >= len(groups):  # nothing below
                axis.set_xlabel(xlabel)
            else:
                axis.tick_params(labelbottom=False)
        found = {}
        for axis in axes.flat:
            found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=min(4, len(found)))
    return figure


def bars(
    groups: Mapping[str, Number | Mapping[str, Number]],
    ylabel: str,
    title: str | None = None,
    reference: Mapping[str, float] | None = None,
    horizontal: bool = False,
) -> Figure:
    """Bars with 95 % intervals: {"standard": Interval, ...}, or side by side {"depth 3": {"ours": Interval, ...}, ...}.

    horizontal: bars to the right, for long names.
    """
    if not groups:
        raise ValueError("There is nothing to draw: give groups={label: value}.")
    grouped = isinstance(next(iter(groups.values())), Mapping)
    table = groups if grouped else {label: {"": value} for label, value in groups.items()}
    series = list(dict.fromkeys(name for group in table.values() for name in group))
    thickness = 0.8 / len(series)
    size = (WIDTH * 0.8, 0.9 + 0.45 * len(table) * max(1, len(series) * 0.6)) if horizontal else (WIDTH * 0.8, 4.2)
    with _figure(*size, title) as (figure, axis):
        for i, name in enumerate(series):
            value, low, high = _columns([group.get(name) for group in table.values()])
            places = np.arange(len(table)) + (i - (len(series) - 1) / 2) * thickness
            error = {("xerr" if horizontal else "yerr"): np.stack([value - low, high - value])}
            draw = axis.barh if horizontal else axis.bar
            draw(
                places, value, thickness * 0.92, color=COLOURS[i % len(COLOURS)], label=name, ecolor="#333333", **error
            )
        _references(axis, reference, vertical=horizontal)
        if horizontal:
            axis.set_yticks(range(len(table)), list(table))
            axis.invert_yaxis()
            axis.set_xlabel(ylabel)
            axis.grid(False, axis="y")
        else:
            axis.set_xticks(range(len(table)), list(table))
            axis.set_ylabel(ylabel)
            axis.grid(False, axis="x")
        _legend(axis)
    return figure


def scatter(
    points: Mapping[str, tuple[Number, Number]],
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logx: bool = False,
) -> Figure:
    """A trade-off: one named point each, {"ours": (seconds, Interval), ...}, with their 95 % intervals."""
    with _figure(WIDTH * 0.8, 4.2, title) as (figure, axis):
        for i, (label, (x, y)) in enumerate(points.items()):
            (x, x_low, x_high), (y, y_low, y_high) = _columns([x]), _columns([y])
            axis.errorbar(x, y, yerr=[y - y_low, y_high - y], xerr=[x - x_low, x_high - x], linestyle="none",
                          color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=9)  # fmt: skip
            axis.annotate(
                label, (x[0], y[0]), xytext=(9, 7), textcoords="offset points", color=COLOURS[i % len(COLOURS)]
            )
        if logx:
            _plain_numbers(axis)
        axis.margins(0.15)
        axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Number]]],
    xlabel: str,
    hollow: Mapping[str, str] | None = None,
    ticks: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    xlim: tuple[float, float] | None = None,
) -> Figure:
    """Many named quantities, several series each, in panels side by side: {panel: {series: {row: Interval, ...}}}.

    Rows run down the page in the order in which they first appear. hollow: series -> the series whose colour and lane
    it shares, drawn as an outline. ticks: {panel: {label: {row: x}}}, short upright marks (a ceiling, a floor). xlim:
    what lies beyond is drawn as an arrow at the edge.
    """
    if not panels:
        raise ValueError("There is nothing to draw: give panels={title: {series: {row: value}}}.")
    rows = list(dict.fromkeys(row for series in panels.values() for values in series.values() for row in values))
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    lanes = [name for name in names if name not in (hollow or {})]
    size = (WIDTH, 1.2 + len(rows) * (0.2 + 0.1 * len(lanes)))
    with _figure(*size, None, ncols=len(panels), sharey=True, sharex=True, squeeze=False) as (figure, axes):
        for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
            for i, row in enumerate(rows):
                if i % 2:
                    axis.axhspan(i - 0.5, i + 0.5, color="#f4f4f4", zorder=0)
                for kind, (label, places) in enumerate((ticks or {}).get(title, {}).items()):
                    if row in places:
                        style = {"color": ("#000000", "#999999", "#999999")[kind % 3], "linewidth": 1.6}
                        style["linestyle"] = ("-", "-", (0, (1, 1)))[kind % 3]
                        axis.plot([places[row]] * 2, [i - 0.42, i + 0.42], label=None if i else label, **style)
            for name, values in series.items():
                lane = lanes.index((hollow or {}).get(name, name))
                colour, marker = COLOURS[lane % len(COLOURS)], MARKERS[lane % len(MARKERS)]
                shift = (lane - (len(lanes) - 1) / 2) * 0.7 / len(lanes)
                place = np.array([rows.index(row) for row in values]) + shift
                value, low, high = _columns(list(values.values()))
                face = "white" if name in (hollow or {}) else colour
                style = {"color": colour, "marker": marker, "markersize": 5, "markerfacecolor": face}
                axis.errorbar(value, place, xerr=[value - low, high - value], linestyle="none", linewidth=1.2,
                              capsize=0, label=name, **style)  # fmt: skip
                if xlim:
                    for x, y in zip(value, place, strict=True):
                        if not xlim[0] <= x <= xlim[1]:
                            edge = xlim[0] if x < xlim[0] else xlim[1]
                            axis.plot(edge, y, marker="<" if x < xlim[0] else ">", color=colour, clip_on=False)
            axis.set(title=title, xlabel=xlabel if len(panels) == 1 else "", xlim=xlim)
            axis.set_yticks(range(len(rows)), rows)
            axis.grid(False, axis="y")
            axis.tick_params(axis="y", length=0)
        axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
        if len(panels) > 1:
            figure.supxlabel(xlabel, fontsize=STYLE["font.size"])
        found = {
            label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        columns = max(1, int(85 // (max(map(len, found)) + 8)))
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=min(columns, len(found)))
    return figure


def vectors(
    images: Tensor,
    series: Mapping[str, Tensor],
    names: Sequence[str] | None = None,
    top: int = 3,
    ylabel: str = "logit",
) -> Figure:
    """What a vector looks like: a row for each image, beside it a panel for each series {"standard": (N, C), ...}.

    Every panel draws the C values of its image as bars, the `top` largest with names (default: their places).
    """
    for label, values in series.items():
        if values.ndim != 2 or len(values) != len(images):
            raise ValueError(
                f"{label!r} must hold one vector for each of {len(images)} images, not {tuple(values.shape)}."
            )
    columns = {"nrows": len(images), "ncols": 1 + len(series), "squeeze": False}
    ratios = {"width_ratios": [1, *[3.2] * len(series)]}
    with _figure(WIDTH, 1.45 * len(images) + 0.4, None, gridspec_kw=ratios, **columns) as (figure, axes):
        for row, image in enumerate(images):
            axes[row][0].imshow(
                image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest"
            )
            axes[row][0].set(xticks=[], yticks=[])
            axes[row][0].spines[:].set_visible(False)
            for column, (label, values) in enumerate(series.items()):
                axis, heights = axes[row][1 + column], values[row].detach().float().cpu().numpy()
                largest = heights.argsort()[::-1][:top]
                colours = np.where(np.isin(np.arange(len(heights)), largest), COLOURS[1], COLOURS[0])
                axis.bar(np.arange(len(heights)), heights, 0.9, color=colours, linewidth=0)
                for place in largest:
                    text = names[place] if names is not None else str(place)
                    axis.annotate(text, (place, heights[place]), ha="center", va="bottom", fontsize=9)
                axis.margins(x=0.01, y=0.22)
                axis.grid(False, axis="x")
                axis.set_xticks([])
                if not row:
                    axis.set_title(label)
                if not column:
                    axis.set_ylabel(ylabel)
    return figure


def _columns(values: Sequence[Number | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, lower and upper ends; NaN, which draws nothing, for what is missing."""
    rows = [
        (value.value, value.low, value.high)
        if isinstance(value, Interval)
        else (np.nan if value is None else float(value), np.nan, np.nan)
        for value in values
    ]
    return tuple(np.array(rows).T)


def _plain_numbers(axis: Axes) -> None:
    """0.1, 1, 10 on a logarithmic x axis instead of powers of ten."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")


def _references(axis: Axes, reference: Mapping[str, float] | None, vertical: bool = False) -> None:
    for (label, value), dash in zip((reference or {}).items(), DASHES, strict=False):
        (axis.axvline if vertical else axis.axhline)(value, color="#555555", linestyle=dash, linewidth=1.3, label=label)


def _legend(axis: Axes) -> None:
    """Above the axes, in as many columns as fit; nothing for a single unnamed series."""
    handles, labels = axis.get_legend_handles_labels()
    if any(label for label in labels):
        columns = max(1, int(75 // (max(map(len, labels)) + 8)))
        axis.figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))
