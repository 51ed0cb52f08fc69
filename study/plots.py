"""Image grids, and charts by seaborn (Waskom 2021) in one theme.

Every function returns a matplotlib figure and leaves none open. The colours can be distinguished with any colour
vision, and lines also differ in their markers, so that a print in grey can be understood. The background is opaque
white; on a dark page, the book inverts what is a chart alone (`study.page_pictures`). A number with its 95 % interval
is a `statistics.Interval`, which is drawn with a band or a bar; a plain number is drawn without.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from invkit.statistics import Interval

COLOURS = tuple(seaborn.color_palette("colorblind", 8).as_hex())
DASHES = ("--", ":", "-.", (0, (1, 3)))
GREY = "#555555"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 9.0  # inches: about the width of the book's text and margin at 110 dots per inch
DPI = 110
LARGE, SHOWN, MOST_DPI = 3.2, 300, 200  # of a photo: inches at most, and dots wanted, within so many an inch
PHOTO = 96  # pixels a side from which on an image is a photo, not a pattern of squares

Number = float | Interval

# ---- the theme -------------------------------------------------------------------------------------------------------


@contextmanager
def theme():
    """The look of all charts, as a context: seaborn's white grid with the book's colours and sizes."""
    style = seaborn.axes_style("whitegrid", {"grid.color": "#e4e4e4", "axes.edgecolor": GREY, "xtick.bottom": True})
    sizes = {
        "figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True, "font.size": 11,
        "axes.titlesize": 11, "axes.labelsize": 11, "legend.fontsize": 11, "legend.frameon": False,
        "lines.linewidth": 2, "lines.markersize": 6, "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
    }  # fmt: skip
    with seaborn.plotting_context("notebook"), plt.rc_context(style | sizes):
        yield


@contextmanager
def canvas(width: float, height: float, title: str | None = None, **subplots):
    """A figure in the theme, as a context that gives (figure, axes).

    It is closed afterwards, so that a notebook shows it once and memory is freed.
    width, height: inches.
    subplots: arguments of `pyplot.subplots`.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(width, height), **subplots)
        if title:
            figure.suptitle(title)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


# ---- images ----------------------------------------------------------------------------------------------------------


def image_grid(
    rows: Mapping[str, Tensor],
    columns: Sequence[str] | None = None,
    captions: Mapping[str, Sequence[str]] | None = None,
    scale: float | None = None,
    title: str | None = None,
) -> Figure:
    """Rows of images, with a column for each image.

    rows: {label: (N, 3, H, W) in [0, 1]}; each row may have its own H and W.
    columns: N titles above.
    captions: {row's label: N short texts under its images}.
    scale: inches an image; by default N images fit the page.
    Small images keep hard pixels; photos are drawn finely enough to be looked at in full size. Three photos or fewer,
    without titles, have their labels above, which leaves them the whole width.
    Raises ValueError for numbers that do not fit together.
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
    photos = max(images.shape[-1] for images in rows.values()) >= PHOTO
    above = photos and n <= 3 and not columns
    margin = 0.1 if above else 0.2 + 0.085 * max(map(len, rows))  # inches that the longest label takes
    scale = scale or min(LARGE if photos else 2.4, (WIDTH - margin) / n)
    height = sum(scale * images.shape[-2] / images.shape[-1] for images in rows.values()) + 0.23 * len(captions or {})
    height += 0.3 * len(rows) * above
    size = (margin + scale * n, height + 0.3 * bool(columns) + 0.3 * bool(title) + 0.04 * len(rows))
    dpi = min(MOST_DPI, max(1.5 * DPI, SHOWN / scale)) if photos else DPI
    with canvas(*size, title, nrows=len(rows), ncols=n, squeeze=False, dpi=dpi) as (figure, axes):
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        for row, (label, images) in zip(axes, rows.items(), strict=True):
            if above:
                row[0].set_title(label, loc="left")
            else:
                row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
            texts = (captions or {}).get(label, [""] * n)
            for axis, image, text in zip(row, images, texts, strict=True):
                _show(axis, image, hard=images.shape[-1] < scale * DPI)
                axis.set_xlabel(text, fontsize=9, labelpad=2)
        for axis, text in zip(axes[0], columns or [], strict=False):
            axis.set_title(text)
    return figure


def _show(axis: Axes, image: Tensor, hard: bool) -> None:
    """One image (3, H, W) in [0, 1], without a frame; hard: with its pixels as squares."""
    pixels = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    axis.imshow(pixels, interpolation="nearest" if hard else "antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


# ---- charts over one x -----------------------------------------------------------------------------------------------


def curve(
    x: Sequence[float],
    lines: Mapping[str, Sequence[Number | None]],
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logx: bool = False,
    logy: bool = False,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Lines over one x with 95 % bands.

    x: the places.
    lines: {label: a number or None for each place}; None leaves a gap.
    xlabel, ylabel: name the units.
    reference: {label: y} of dashed horizontal lines (a ceiling, chance, another's result).
    Raises ValueError for lines of another length than x.
    """
    for label, values in lines.items():
        if len(values) != len(x):
            raise ValueError(
                f"{label!r} has {len(values)} values for {len(x)} places on the x axis: give one for each."
            )
    with canvas(WIDTH * 0.8, 4.2, title) as (figure, axis):
        _lines(axis, x, lines)
        _references(axis.axhline, reference)
        if logx:
            _plain_numbers(axis)
        if logy:
            axis.set_yscale("log")
        if len(x) <= 12:
            axis.set_xticks(x, [f"{place:g}" for place in x])
        axis.set(xlabel=xlabel, ylabel=ylabel)
        _legend(figure)
    return figure


def panels(
    x: Sequence[float],
    groups: Mapping[str, Mapping[str, Sequence[Number | None]]],
    xlabel: str,
    logx: bool = False,
    logy: bool = False,
    reference: Mapping[str, Mapping[str, float]] | None = None,
    joined: bool = False,
) -> Figure:
    """Several measures over one x, a small chart each, under a common legend.

    groups: {measure: lines as in `curve`}.
    reference: {measure: {label: y}} of dashed horizontal lines.
    joined: whether a line goes on over places where it has no value; else it is cut there.
    """
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    names = dict.fromkeys(label for lines in (reference or {}).values() for label in lines)
    dashes = {label: DASHES[i % len(DASHES)] for i, label in enumerate(names)}
    with canvas(WIDTH, 0.5 + 2.4 * down, nrows=down, ncols=across, squeeze=False) as (figure, axes):
        for axis in axes.flat[len(groups) :]:
            axis.set_axis_off()
        for place, (axis, (measure, lines)) in enumerate(zip(axes.flat, groups.items(), strict=False)):
            _lines(axis, x, lines, joined, markersize=4)
            _references(axis.axhline, (reference or {}).get(measure), dashes)
            if logx:
                _plain_numbers(axis)
            if logy:
                axis.set_yscale("log")
                _plain_ticks(axis.yaxis, axis.get_ylim())
            below = place + across < len(groups)
            axis.set(title=measure, xlabel="" if below else xlabel, ylabel="")
            axis.tick_params(labelbottom=not below)
        rows = _legend(figure, most=4)
        figure.set_figheight(figure.get_figheight() + 0.23 * max(0, rows - 2))  # a long legend takes nothing from them
    return figure


def _lines(
    axis: Axes, x: Sequence[float], lines: Mapping[str, Sequence[Number | None]], joined: bool = False, **look
) -> None:
    """Lines with bands, each cut where a value is missing, unless they are `joined`."""
    if all(place == round(place) for place in x):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for i, (label, values) in enumerate(lines.items()):
        runs = _runs(values)
        for k, places in enumerate([sum(runs, [])] if joined else runs):
            table = _table(({"x": x[place]}, values[place]) for place in places)
            seaborn.lineplot(
                table, x="x", y="value", ax=axis, color=_cycled(COLOURS, i), marker=_cycled(MARKERS, i),
                label=None if k else label, legend=False, markeredgewidth=0, err_kws={"linewidth": 0}, sort=False,
                **INTERVAL, **look,
            )  # fmt: skip


def _runs(values: Sequence[Number | None]) -> list[list[int]]:
    """The places of values without a gap between them: [1, None, 2, 3] gives [[0], [2, 3]]."""
    runs: list[list[int]] = []
    for place, value in enumerate(values):
        if value is not None:
            if place and values[place - 1] is not None:
                runs[-1].append(place)
            else:
                runs.append([place])
    return runs


# ---- charts of named quantities --------------------------------------------------------------------------------------


def bars(
    groups: Mapping[str, Number | Mapping[str, Number]],
    ylabel: str,
    title: str | None = None,
    reference: Mapping[str, float] | None = None,
    horizontal: bool = False,
) -> Figure:
    """Bars with 95 % intervals.

    groups: {label: number}, or side by side {label: {series: number}}.
    horizontal: bars to the right, for long names.
    reference: {label: value} of dashed lines across the bars.
    Raises ValueError where there are no groups.
    """
    if not groups:
        raise ValueError("There is nothing to draw: give groups={label: value}.")
    grouped = isinstance(next(iter(groups.values())), Mapping)
    entries = groups if grouped else {label: {"": value} for label, value in groups.items()}
    series = list(dict.fromkeys(name for group in entries.values() for name in group))
    table = _table(
        ({"group": label, "series": name}, value) for label, group in entries.items() for name, value in group.items()
    )
    names, numbers = ("y", "x") if horizontal else ("x", "y")
    height = 0.9 + 0.45 * len(entries) * max(1, len(series) * 0.6) if horizontal else 4.2
    with canvas(WIDTH * 0.8, height, title) as (figure, axis):
        seaborn.barplot(
            table, **{names: "group", numbers: "value"}, hue="series", order=list(entries), hue_order=series, ax=axis,
            palette=[_cycled(COLOURS, i) for i in range(len(series))], saturation=1, legend=grouped,
            err_kws={"linewidth": 1.6, "color": GREY}, **INTERVAL,
        )  # fmt: skip
        _references(axis.axvline if horizontal else axis.axhline, reference)
        axis.set(**{f"{names}label": "", f"{numbers}label": ylabel})
        axis.grid(True, axis=numbers)
        axis.grid(False, axis=names)
        _legend(figure)
    return figure


def dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Number]]],
    xlabel: str,
    hollow: Mapping[str, str] | None = None,
    ticks: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    xlim: tuple[float, float] | None = None,
) -> Figure:
    """Many named quantities of several series, in panels side by side.

    panels: {title: {series: {row: number}}}. Rows run down the page in the order in which they first appear.
    hollow: {series: the one whose colour and lane it shares}, drawn as an outline.
    ticks: {title: {label: {row: x}}}, short upright marks (a ceiling, a floor).
    xlim: values beyond are drawn as an arrow at the edge.
    Raises ValueError where there are no panels.
    """
    if not panels:
        raise ValueError("There is nothing to draw: give panels={title: {series: {row: value}}}.")
    rows = list(dict.fromkeys(row for series in panels.values() for values in series.values() for row in values))
    hollow = hollow or {}
    lanes = [
        name for name in dict.fromkeys(name for series in panels.values() for name in series) if name not in hollow
    ]
    size = (WIDTH, 1.2 + len(rows) * (0.2 + 0.1 * len(lanes)))
    with canvas(*size, ncols=len(panels), sharey=True, sharex=True, squeeze=False) as (figure, axes):
        for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
            for i in range(1, len(rows), 2):
                axis.axhspan(i - 0.5, i + 0.5, color="#f4f4f4", zorder=0)
            _upright_marks(axis, (ticks or {}).get(title, {}), rows)
            for name, values in series.items():
                _dots_of(axis, name, values, rows, lanes, hollow.get(name), xlim)
            axis.set(title=title, xlabel=xlabel if len(panels) == 1 else "", ylabel="", xlim=xlim)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.grid(False, axis="y")
            axis.tick_params(axis="y", length=0)
        if len(panels) > 1:
            figure.supxlabel(xlabel, fontsize=11)
        _legend(figure)
    return figure


def _dots_of(
    axis: Axes,
    name: str,
    values: Mapping[str, Number],
    rows: Sequence[str],
    lanes: Sequence[str],
    shared: str | None,
    xlim: tuple[float, float] | None,
) -> None:
    """One series of `dots`, in its lane or, as an outline, in the one that it shares."""
    lane = lanes.index(shared or name)
    colour, marker = _cycled(COLOURS, lane), _cycled(MARKERS, lane)
    shift = (lane - (len(lanes) - 1) / 2) * 0.7 / len(lanes)
    table = _table(({"row": rows.index(row) + shift}, value) for row, value in values.items())
    seaborn.pointplot(
        table, x="value", y="row", orient="h", native_scale=True, ax=axis, color=colour, markers=marker, label=name,
        linestyle="none", markersize=5, markerfacecolor="white" if shared else colour, markeredgewidth=1.2,
        legend=False, err_kws={"linewidth": 1.2}, **INTERVAL,
    )  # fmt: skip
    for x, y in zip(table["value"][~table["row"].duplicated()], table["row"].drop_duplicates(), strict=True):
        if xlim and not xlim[0] <= x <= xlim[1]:
            edge, arrow = (xlim[0], "<") if x < xlim[0] else (xlim[1], ">")
            axis.plot(edge, y, marker=arrow, color=colour, clip_on=False)


def _upright_marks(axis: Axes, marks: Mapping[str, Mapping[str, float]], rows: Sequence[str]) -> None:
    """Short upright lines at {label: {row: x}}, as high as their row."""
    axis.set_yticks(range(len(rows)), rows)
    looks = (("#000000", "-"), ("#999999", "-"), ("#999999", (0, (1, 1))))
    for (label, places), (colour, dash) in zip(marks.items(), looks, strict=False):
        y = np.array([rows.index(row) for row in places])
        axis.vlines(list(places.values()), y - 0.42, y + 0.42, colour, dash, label=label, linewidth=1.6)


def scatter(
    points: Mapping[str, tuple[Number, Number]],
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logx: bool = False,
) -> Figure:
    """A trade-off: one named point each with its 95 % intervals, {label: (x, y)}."""
    with canvas(WIDTH * 0.8, 4.2, title) as (figure, axis):
        for i, (label, (x, y)) in enumerate(points.items()):
            colour = _cycled(COLOURS, i)
            at = [number.value if isinstance(number, Interval) else number for number in (x, y)]
            look = {"color": colour, "marker": _cycled(MARKERS, i), "s": 90, "zorder": 3, "label": label}
            seaborn.scatterplot(x=at[:1], y=at[1:], ax=axis, **look)
            reach = {"xerr": _reach(x), "yerr": _reach(y)}
            axis.errorbar(*at, **reach, linestyle="none", color=colour, capsize=3, linewidth=1.6)
        if logx:
            _plain_numbers(axis)
        axis.margins(0.15)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        _legend(figure)
    return figure


def vectors(
    images: Tensor,
    series: Mapping[str, Tensor],
    names: Sequence[str] | None = None,
    top: int = 3,
    ylabel: str = "logit",
) -> Figure:
    """What vectors look like: a row for each image, and beside it a panel for each series.

    images: (N, 3, H, W).
    series: {label: (N, C)}, drawn as bars.
    names: of the C entries (default: their places), written on the `top` largest.
    Raises ValueError for a series without one vector for each image.
    """
    for label, values in series.items():
        if values.ndim != 2 or len(values) != len(images):
            raise ValueError(
                f"{label!r} must hold one vector for each of {len(images)} images, not {tuple(values.shape)}."
            )
    grid = {"nrows": len(images), "ncols": 1 + len(series), "squeeze": False}
    ratios = {"width_ratios": [1, *[3.2] * len(series)]}
    with canvas(WIDTH, 1.45 * len(images) + 0.4, gridspec_kw=ratios, **grid) as (figure, axes):
        for row, (line, image) in enumerate(zip(axes, images, strict=True)):
            _show(line[0], image, hard=True)
            for axis, (label, values) in zip(line[1:], series.items(), strict=True):
                _entries(axis, values[row].detach().float().cpu().numpy(), names, top)
                axis.set_title("" if row else label)
            line[1].set_ylabel(ylabel)
    return figure


def _entries(axis: Axes, heights: np.ndarray, names: Sequence[str] | None, top: int) -> None:
    """The entries of one vector as bars, with the names of the largest; those of neighbours make way for each other."""
    largest = heights.argsort()[::-1][:top]
    colours = [COLOURS[1] if place in largest else COLOURS[0] for place in range(len(heights))]
    axis.bar(range(len(heights)), heights, 0.9, color=colours, linewidth=0)
    for place in largest:
        text = names[place] if names is not None else str(place)
        gaps = [other - place for other in largest if 0 < abs(other - place) < 0.06 * len(heights)]
        aside = "right" if gaps and min(gaps) > 0 else "left" if gaps and max(gaps) < 0 else "center"
        axis.annotate(text, (place, heights[place]), ha=aside, va="bottom", fontsize=9)
    axis.margins(x=0.01, y=0.22)
    axis.grid(False, axis="x")
    axis.set_xticks([])


# ---- what they share -------------------------------------------------------------------------------------------------

INTERVAL = {  # for seaborn, of the three numbers that `_table` gives it for an interval
    "estimator": lambda numbers: numbers.iloc[0],
    "errorbar": lambda numbers: (numbers.min(), numbers.max()),
}


def _table(entries: Iterable[tuple[Mapping[str, object], Number | None]]) -> pandas.DataFrame:
    """Numbers as seaborn takes them: the value in the first row, the ends of its interval in two more."""
    rows = []
    for columns, number in entries:
        numbers = (number.value, number.low, number.high) if isinstance(number, Interval) else (number,)
        rows += [{**columns, "value": np.nan if one is None else float(one)} for one in numbers]
    return pandas.DataFrame(rows)


def _reach(number: Number) -> list[list[float]] | None:
    """How far an interval reaches down and up, as `Axes.errorbar` takes it; None for a plain number."""
    if not isinstance(number, Interval):
        return None
    return [[number.value - number.low], [number.high - number.value]]


def _cycled(looks: Sequence, i: int):
    return looks[i % len(looks)]


def _plain_numbers(axis: Axes) -> None:
    """A logarithmic x axis with plain numbers."""
    axis.set_xscale("log")
    _plain_ticks(axis.xaxis, axis.get_xlim())


def _plain_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """0.1, 1, 10 on a logarithmic axis instead of powers of ten, and 2 and 5 between them on a short one."""
    low, high = limits
    if high < 50 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _references(
    line: Callable, reference: Mapping[str, float] | None, dashes: Mapping[str, object] | None = None
) -> None:
    """Dashed lines at {label: value}, drawn by `line`, a method of axes; dashes: {label: the line's style}."""
    for i, (label, value) in enumerate((reference or {}).items()):
        dash = dashes[label] if dashes else _cycled(DASHES, i)
        line(value, color=GREY, linestyle=dash, linewidth=1.3, label=label)


def _legend(figure: Figure, most: int = 99) -> int:
    """One legend for all axes of a figure, above them, in as many columns as fit; none for a single unnamed series.

    Returns how many rows it has.
    """
    found = {}
    for axis in figure.axes:
        if axis.get_legend():
            axis.get_legend().remove()
        found |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True) if label}
    if not found:
        return 0
    columns = min(max(1, int(80 // (max(map(len, found)) + 8))), len(found), most)
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=columns)
    return -(-len(found) // columns)
