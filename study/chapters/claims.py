"""Chapter 12: how the page shows the claims of both papers and their verdicts, which `study.verdicts` gives."""

import html
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from study import plots
from study.claims import FFI
from study.verdicts import (
    CONTRADICTED,
    FAILED,
    SIGNS,
    SUPPORTED,
    UNDECIDED,
    UNTESTED,
    Judged,
    half_width,
    number,
    unit_of_difference,
    weakest,
    written,
)

PAPERS = (FFI, "Dong et al. 2021")
LOOKS = {
    SUPPORTED: (plots.COLOURS[0], "o"),
    CONTRADICTED: (plots.COLOURS[1], "s"),
    UNDECIDED: (plots.COLOURS[2], "D"),
    FAILED: (plots.GREY, "x"),
    UNTESTED: (plots.GREY, "."),
}
WORDS = {
    SUPPORTED: ("is supported", "are supported"),
    CONTRADICTED: ("is contradicted", "are contradicted"),
    UNDECIDED: ("is undecided", "are undecided"),
    FAILED: ("has an instrument that failed its check", "have an instrument that failed its check"),
    UNTESTED: ("is not testable here", "are not testable here"),
}


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    return {verdict: sum(one.verdict == verdict for one in judged) for verdict in SIGNS}


def in_words(judged: Sequence[Judged]) -> str:
    """As in "23 are supported, 7 are contradicted and 5 are undecided"; a verdict that no claim has is left out."""
    parts = [f"{n} {WORDS[verdict][n != 1]}" for verdict, n in counts(judged).items() if n]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def reasons(judged: Sequence[Judged], verdict: str, none: str) -> str:
    """A Markdown list of the claims with a verdict, each with its reason; `none` where there is no such claim."""
    lines = [f"- **{one.claim.title}**: {one.reason}" for one in judged if one.verdict == verdict]
    return "\n".join(lines) or none


def unconfirmed(judged: Sequence[Judged]) -> str:
    """The titles of the claims whose section could not be looked up, by paper, as a Markdown list."""
    found = {}
    for one in judged:
        if "section not confirmed" in one.claim.where:
            found.setdefault(one.claim.paper, []).append(one.claim.title)
    return "\n".join(f"- {paper}: {'; '.join(titles)}." for paper, titles in found.items())


def table(judged: Sequence[Judged], caption: str) -> Styler:
    """A row for each claim; the verdict is in words and, beside its row, in a colour."""
    return _styled([_row(one) for one in judged], judged, caption)


def changes(judged: Sequence[Judged], caption: str) -> Styler:
    """A row for each claim: the verdict by the rules before, the verdict by these, and why they differ."""
    rows = [
        {
            "Claim": html.escape(one.claim.title),
            "Before": one.formerly,
            "Now": f"<b>{SIGNS[one.verdict]} {one.verdict}</b>",
            "Why": html.escape(one.reason),
        }
        for one in judged
    ]
    return _styled(rows, judged, caption)


def controls(judged: Sequence[Judged], caption: str) -> Styler:
    """A row for each control that was measured: of which claims, which kind, what it gave, and whether it passed."""
    measured: dict[tuple[str, str], list[str]] = {}
    passed = {}
    for one in judged:
        for kind in ("positive", "negative"):
            for finding in getattr(one, kind):
                measured.setdefault((kind, finding.words), []).append(one.claim.title)
                passed[finding.words] = finding.holds
    rows = [
        {
            "Control": kind,
            "Measured": html.escape(words),
            "Passed": "yes" if passed[words] else "no",
            "Of the claims": html.escape("; ".join(titles)),
        }
        for (kind, words), titles in measured.items()
    ]
    return _styled(rows, None, caption)


def _styled(rows: Sequence[dict[str, str]], judged: Sequence[Judged] | None, caption: str) -> Styler:
    """A table of rows {heading: HTML}, with the colour of each verdict at its left edge."""
    frame = pandas.DataFrame(rows)
    style = frame.style.hide(axis="index")
    if judged is not None and len(frame):
        edges = [f"border-left: 0.3rem solid {LOOKS[one.verdict][0]}" for one in judged]
        style = style.apply(lambda column: edges, subset=[frame.columns[0]])
    cell = "text-align: left; vertical-align: top; white-space: normal; padding: 0.5rem 0.6rem"
    return style.set_table_styles([{"selector": "th, td", "props": cell}]).set_table_attributes(
        f'class="dataframe" aria-label="{html.escape(caption)}"'
    )


def _row(one: Judged) -> dict[str, str]:
    """The cells of one claim, {heading: HTML}."""
    claim, said = one.claim, html.escape
    marks = "†" * (claim.objective == "hybrid") + "‡" * claim.lite0
    chapter = f'<a href="{claim.chapter}.html">chapter {int(claim.chapter[:2])}</a>'
    ours = f"{written(one.value, one.unit)}<br>n = {one.value.n:,}" if one.value else "–"
    return {
        "Claim": f"<b>{said(claim.title)}</b>{marks}<br>{said(claim.text)}<br><i>{claim.paper}, {claim.where}</i>",
        "Measured here by": f"{said(claim.measure)} {chapter}",
        "Ours, 95 %": f'<span style="white-space: nowrap">{ours}</span>',
        "Baseline": f"{number(one.baseline.value)} {one.unit}".strip() if one.baseline else "–",
        "Verdict": f"<b>{SIGNS[one.verdict]} {one.verdict}</b><br>{said(one.reason)}",
    }


def chart(judged: Sequence[Judged], edge: float = 12.0) -> Figure:
    """The weakest margin of each claim that was measured, in half widths of its 95 % interval.

    The margin is what exceeds the smallest effect; the bar is the interval corrected for all claims: wholly right of 0
    speaks for the claim. To its right stands the margin's value in its own unit. What lies beyond the edge is an arrow
    there.
    """
    tested = {paper: [one for one in judged if one.findings and one.claim.paper.startswith(paper)] for paper in PAPERS}
    tested = {paper: some for paper, some in tested.items() if some}
    if not tested:
        raise ValueError("No claim was measured, so there is nothing to draw: run the chapters first.")
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
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=3)
    return figure


def _draw_margins(axis: Axes, some: Sequence[Judged], edge: float) -> None:
    texts = []
    for place, one in enumerate(some):
        finding, (colour, marker) = weakest(one.findings), LOOKS[one.verdict]
        margin, scale = finding.corrected, max(half_width(finding.margin), 1e-12)
        value = margin.value / scale
        if abs(value) > edge:
            side, arrow = (edge, ">") if value > 0 else (-edge, "<")
            axis.plot(side, place, marker=arrow, color=colour, clip_on=False)
        else:
            error = [[max(0, margin.value - margin.low) / scale], [max(0, margin.high - margin.value) / scale]]
            axis.errorbar(value, place, xerr=error, color=colour, marker=marker, linestyle="none", capsize=0)
        if place % 2:
            axis.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
        texts.append(
            f"{number(margin.value, '+')} {unit_of_difference(finding.unit)}".strip() + f", {finding.quantity}"
        )
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(some)), [one.claim.title for one in some])
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0, pad=9)  # beside the arrows
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(some)), texts, fontsize=9)
    right.tick_params(length=0, pad=9)
    right.spines[:].set_visible(False)
