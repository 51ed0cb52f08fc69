"""Chapter 12: how the page shows the claims of both papers and their verdicts, which `study.claims` judges."""

import html
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from study import plots
from study.claims import FAILS, FFI, HOLDS, SIGNS, UNTESTED, Judged, half_width, number, weakest, written

PAPERS = (FFI, "Dong et al. 2021")
LOOKS = {HOLDS: (plots.COLOURS[0], "o"), FAILS: (plots.COLOURS[1], "s"), UNTESTED: (plots.GREY, "")}


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    return {verdict: sum(one.verdict == verdict for one in judged) for verdict in SIGNS}


def in_words(judged: Sequence[Judged]) -> str:
    """As in "9 hold here, 12 do not hold here and 5 are not testable at this scale"."""
    n = counts(judged)
    words = {HOLDS: ("holds here", "hold here"), FAILS: ("does not hold here", "do not hold here")}
    words[UNTESTED] = ("is not testable at this scale", "are not testable at this scale")
    parts = [f"{n[verdict] or 'none'} {words[verdict][n[verdict] != 1]}" for verdict in SIGNS]
    return f"{parts[0]}, {parts[1]} and {parts[2]}"


def untested(judged: Sequence[Judged]) -> str:
    """A Markdown list of the claims that were not testable, with reasons."""
    lines = [f"- **{one.claim.title}**: {one.reason}" for one in judged if one.verdict == UNTESTED]
    return "\n".join(lines) or "Every claim was testable."


def table(judged: Sequence[Judged], caption: str) -> Styler:
    """A row for each claim; the verdict is in words and, beside its row, in a colour."""
    frame = pandas.DataFrame([_row(one) for one in judged])
    edges = [f"border-left: 0.3rem solid {LOOKS[one.verdict][0]}" for one in judged]
    cell = "text-align: left; vertical-align: top; white-space: normal; padding: 0.5rem 0.6rem"
    return (
        frame.style.hide(axis="index")
        .apply(lambda column: edges, subset=["Claim"])
        .set_table_styles([{"selector": "th, td", "props": cell}])
        .set_table_attributes(f'class="dataframe" aria-label="{html.escape(caption)}"')
    )


def _row(one: Judged) -> dict[str, str]:
    """The cells of one claim, {heading: HTML}."""
    claim, said = one.claim, html.escape
    marks = "†" * (claim.objective == "hybrid") + "‡" * claim.lite0
    chapter = f'<a href="{claim.chapter}.html">chapter {claim.chapter[:2]}</a>'
    return {
        "Claim": f"<b>{said(claim.title)}</b>{marks}<br>{said(claim.text)}<br><i>{claim.paper}, {claim.where}</i>",
        "Measured here by": f"{said(claim.measure)} {chapter}",
        "Ours, 95 %": f"{written(one.value, one.unit)}<br>n = {one.value.n:,}" if one.value else "–",
        "Baseline": f"{number(one.baseline.value)} {one.unit}".strip() if one.baseline else "–",
        "Verdict": f"<b>{SIGNS[one.verdict]} {one.verdict}</b><br>{said(one.reason)}",
    }


def chart(judged: Sequence[Judged], edge: float = 12.0) -> Figure:
    """The weakest margin of each claim that was tested, in half widths of its interval: right of 0 it holds.

    To its right the margin's value in its own unit. What lies beyond the edge is drawn as an arrow there.
    """
    tested = {paper: [one for one in judged if one.findings and one.claim.paper.startswith(paper)] for paper in PAPERS}
    tested = {paper: some for paper, some in tested.items() if some}
    if not tested:
        raise ValueError("No claim was tested, so there is nothing to draw: run the chapters first.")
    ratios = [len(some) + 0.6 for some in tested.values()]
    grid = {"nrows": len(tested), "sharex": True, "squeeze": False, "height_ratios": ratios}
    with plots.canvas(plots.WIDTH, 1.3 + 0.3 * sum(ratios), **grid) as (figure, axes):
        for axis, (paper, some) in zip(axes[:, 0], tested.items(), strict=True):
            axis.set(title=paper, xlim=(-edge, edge), ylim=(len(some) - 0.5, -0.5))
            _draw_margins(axis, some, edge)
        axes[-1, 0].set_xlabel("← against the claim    margin, in half widths of its 95 % interval    for the claim →")
        marks = [
            plt.Line2D([], [], color=colour, marker=marker, linestyle="none", label=verdict)
            for verdict, (colour, marker) in LOOKS.items()
            if marker
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=2)
    return figure


def _draw_margins(axis: Axes, some: Sequence[Judged], edge: float) -> None:
    texts = []
    for place, one in enumerate(some):
        finding, (colour, marker) = weakest(one.findings), LOOKS[one.verdict]
        margin, scale = finding.margin, max(half_width(finding.margin), 1e-12)
        value = margin.value / scale
        if abs(value) > edge:
            side, arrow = (edge, ">") if value > 0 else (-edge, "<")
            axis.plot(side, place, marker=arrow, color=colour, clip_on=False)
        else:
            error = [[max(0, margin.value - margin.low) / scale], [max(0, margin.high - margin.value) / scale]]
            axis.errorbar(value, place, xerr=error, color=colour, marker=marker, linestyle="none", capsize=0)
        if place % 2:
            axis.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
        texts.append(f"{number(margin.value, '+')} {finding.unit}".strip() + f", {finding.quantity}")
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(some)), [one.claim.title for one in some])
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(some)), texts, fontsize=9)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
