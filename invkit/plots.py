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

from invkit.metrics import Interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
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
    for (label, value), dash in zip((reference or {}).items(), ("--", ":", "-.", (0, (1, 3))), strict=False):
        (axis.axvline if vertical else axis.axhline)(value, color="#555555", linestyle=dash, linewidth=1.3, label=label)


def _legend(axis: Axes) -> None:
    """Above the axes, in as many columns as fit; nothing for a single unnamed series."""
    handles, labels = axis.get_legend_handles_labels()
    if any(label for label in labels):
        columns = max(1, int(75 // (max(map(len, labels)) + 8)))
        axis.figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))
