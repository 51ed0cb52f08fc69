"""Diagrams of the methods, drawn as SVG.

    python -m study.diagrams    # writes book/images/diagram_*.svg, which the pages name

A diagram is some panels. On a wide page two stand in a row, on a phone one, and their text has the same size in both
(`study.web_pages` puts the panels into the page). They take the page's colour of text, so that they can be read on a
light and on a dark page; the two colours of networks can be told apart with any colour vision, and all are labelled.
"""

from html import escape
from pathlib import Path

WIDTH = 340  # of a panel, in CSS pixels: as wide as a phone's column
GAP = 12  # between panels that are stacked in a file
FOLDER = Path("book/images")
STYLE = """
.panel { font: 13px sans-serif; }
.ink { stroke: currentColor; stroke-width: 1.5; fill: none; }
.compare { stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 3 3; fill: none; }
.tip, text { fill: currentColor; stroke: none; }
.frozen { fill: #0173b233; stroke: #0173b2; stroke-width: 1.5; }
.trained { fill: #de8f0540; stroke: #de8f05; stroke-width: 1.5; }
.data { fill: #94949433; stroke: #949494; stroke-width: 1.5; }
"""
DARK = "@media (prefers-color-scheme: dark) { svg { color: #ddd; } }"


class Panel:
    """One panel, to which shapes are added; places are in pixels from its upper left corner."""

    def __init__(self, title: str, height: int):
        self.height, self.shapes = height, []
        self.text(0, 14, title, "start", bold=True)

    def text(self, x, y, words, anchor="middle", bold=False):
        weight = ' font-weight="bold"' if bold else ""
        self.shapes.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(words)}</text>')

    def box(self, x, y, words, kind, width=64):
        """A box around (x, y) with a line of words for each line; kind: "frozen", "trained" or "data"."""
        lines = words.split("\n")
        height = 12 + 16 * len(lines)
        place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}"'
        self.shapes.append(f'<rect class="{kind}" {place} rx="{2 if kind == "data" else 8}"/>')
        for i, line in enumerate(lines):
            self.text(x, y + 5 + 16 * (i - (len(lines) - 1) / 2), line)

    def arrow(self, *points):
        """Straight lines through some points, with a tip at the last."""
        (x0, y0), (x, y) = points[-2:]
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        dx, dy = (x - x0) / length, (y - y0) / length
        tip = [(x, y), (x - 7 * dx + 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx - 4 * dy, y - 7 * dy + 4 * dx)]
        self._line("ink", [*points[:-1], (x - 5 * dx, y - 5 * dy)])
        self.shapes.append(f'<polygon class="tip" points="{_joined(tip)}"/>')

    def compared(self, *points):
        """A dashed line between two things that training makes alike."""
        self._line("compare", points)

    def _line(self, kind, points):
        self.shapes.append(f'<polyline class="{kind}" points="{_joined(points)}"/>')

    def svg(self, y=0):
        """The panel as an SVG element, so far down in a file."""
        shapes, size = "\n".join(self.shapes), f'y="{y}" width="{WIDTH}" height="{self.height}"'
        return f'<svg class="panel" {size} viewBox="-1 0 {WIDTH + 2} {self.height}">\n{shapes}\n</svg>'


def _joined(points):
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


# ---- divide and conquer ----------------------------------------------------------------------------------------------

BLOCKS = (104, 192, 280)  # where a block's middle lies
AFTER = 44  # from a block's middle to the representation that it puts out


def chain_of_inverses() -> list[Panel]:
    """How the inverses of the blocks are trained, and used."""
    return [_divide(), _resynchronise(), _cycle(), _feed_back()]


def _blocks(panel, y, first="image"):
    """Three frozen blocks from left to right, a bar for the representation that each puts out, and what goes in."""
    panel.box(31, y, first, "data", 62)
    for number, x in enumerate(BLOCKS, 1):
        panel.arrow((62 if number == 1 else x - 37, y), (x - 24, y))
        panel.box(x, y, f"block {number}", "frozen", 48)
        panel.arrow((x + 24, y), (x + AFTER - 7, y))
        panel.box(x + AFTER, y, "", "data", 14)


def _inverses(panel, y):
    """Three inverses from right to left, joined to one chain that ends in a reconstruction."""
    for number, x in enumerate(BLOCKS, 1):
        panel.box(x, y, f"inverse\n{number}", "trained", 48)
        panel.arrow((x - 24, y), (62 if number == 1 else x - 64, y))
    panel.arrow((BLOCKS[-1] + AFTER, y - 48), (BLOCKS[-1] + AFTER, y), (BLOCKS[-1] + 24, y))
    panel.box(31, y, "recon-\nstruction", "data", 62)


def _divide():
    panel = Panel("1  Divide: each inverse undoes one block", 150)
    _blocks(panel, 50)
    for number, x in enumerate(BLOCKS, 1):
        panel.box(x, 112, f"inverse\n{number}", "trained", 48)
        panel.arrow((x + AFTER - 3, 64), (x + AFTER - 3, 112), (x + 24, 112))
        left = 40 if number == 1 else x - AFTER + 4
        panel.compared((x - 24, 112), (left, 112), (left, 64))
    return panel


def _resynchronise():
    panel = Panel("2  Re-synchronise: train them as one chain", 150)
    _blocks(panel, 50)
    _inverses(panel, 112)
    panel.compared((31, 64), (31, 90))
    return panel


def _cycle():
    panel = Panel("3  Cycle: both are represented alike", 214)
    _blocks(panel, 50)
    _inverses(panel, 112)
    panel.arrow((31, 134), (31, 158))
    _blocks(panel, 180, "recon-\nstruction")
    panel.compared((331, 180), (337, 180), (337, 50), (331, 50))
    return panel


def _feed_back():
    panel = Panel("In use: one pass back, without a photo", 214)
    panel.box(BLOCKS[-1] + AFTER, 50, "", "data", 14)
    panel.text(BLOCKS[-1] + AFTER - 14, 55, "the representation that is given", "end")
    _inverses(panel, 112)
    panel.text(0, 168, "At some depths the reconstruction is represented", "start")
    panel.text(0, 186, "and inverted too; what that loses is added to it", "start")
    panel.text(0, 204, "(error feedback).", "start")
    return panel


# ---- inversion of logits ---------------------------------------------------------------------------------------------


def conditional_generator() -> list[Panel]:
    """How a generator learns to invert logits, and what judges it."""
    return [_generate(), _discriminate(), _consistent()]


def _generate():
    panel = Panel("1  Generate: an image for the logits", 190)
    panel.box(28, 50, "image", "data", 54)
    panel.arrow((55, 50), (86, 50))
    panel.box(124, 50, "classifier", "frozen", 74)
    panel.arrow((161, 50), (196, 50))
    panel.box(224, 50, "logits", "data", 54)
    panel.arrow((224, 64), (224, 98))
    panel.box(224, 112, "generator", "trained", 78)
    panel.arrow((320, 64), (320, 112), (263, 112))
    panel.box(312, 50, "noise", "data", 54)
    panel.arrow((185, 112), (127, 112))
    panel.box(72, 112, "reconstruction", "data", 110)
    panel.compared((28, 64), (28, 98))
    panel.text(36, 86, "alike in pixels", "start")
    panel.text(0, 160, "A coarse image, predicted from the logits, comes", "start")
    panel.text(0, 178, "first. Other noise gives another sample.", "start")
    return panel


def _discriminate():
    panel = Panel("2  Judge: which image belongs to the logits?", 190)
    panel.box(55, 50, "image", "data", 110)
    panel.box(55, 98, "reconstruction", "data", 110)
    panel.box(55, 146, "logits", "data", 110)
    panel.box(204, 98, "discriminator", "trained", 100)
    panel.arrow((110, 50), (130, 50), (130, 90), (154, 90))
    panel.arrow((110, 98), (154, 98))
    panel.arrow((110, 146), (130, 146), (130, 106), (154, 106))
    panel.text(55, 79, "or")
    panel.text(55, 127, "with")
    panel.arrow((254, 98), (276, 98))
    panel.text(280, 94, "real or", "start")
    panel.text(280, 110, "made?", "start")
    return panel


def _consistent():
    panel = Panel("3  Consistency: classifiers see the same in both", 190)
    panel.box(55, 50, "image", "data", 110)
    panel.box(55, 112, "reconstruction", "data", 110)
    for y in (50, 112):
        panel.arrow((110, y), (154, y))
        panel.box(204, y, "classifiers", "frozen", 100)
        panel.arrow((254, y), (280, y))
        panel.box(309, y, "logits", "data", 54)
    panel.compared((309, 64), (309, 98))
    panel.text(0, 156, "Both are shifted, partly covered and made", "start")
    panel.text(0, 174, "noisy alike before they are looked at.", "start")
    return panel


# ---- optimisation, the opponent --------------------------------------------------------------------------------------


def feature_optimisation() -> list[Panel]:
    """How the pixels of one image are changed until the classifier gives what is given."""
    panel = Panel("Optimise: change the pixels, step by step", 172)
    panel.box(40, 60, "pixels,\nfirst grey", "trained", 78)
    panel.arrow((79, 60), (110, 60))
    panel.box(148, 60, "classifier", "frozen", 74)
    panel.arrow((185, 60), (214, 60))
    panel.box(276, 60, "their\nrepresentation", "data", 118)
    panel.compared((276, 82), (276, 116))
    panel.box(276, 138, "given\nrepresentation", "data", 118)
    panel.arrow((217, 100), (40, 100), (40, 83))
    panel.text(0, 124, "smaller difference, smoother", "start")
    panel.text(0, 142, "image: hundreds of times", "start")
    panel.shapes.append('<polyline class="ink" points="217,100 276,100"/>')
    return [panel]


DIAGRAMS = {
    "chain_of_inverses": chain_of_inverses,
    "conditional_generator": conditional_generator,
    "feature_optimisation": feature_optimisation,
}


def write_diagrams(folder):
    """Write every diagram to ``folder/diagram_<name>.svg``, its panels one below the other. folder: a Path.

    Such a file is light on dark where the reader's system is dark, as on GitHub.
    """
    for name, draw in DIAGRAMS.items():
        panels, y, parts = draw(), 0, []
        for panel in panels:
            parts.append(panel.svg(y))
            y += panel.height + GAP
        size = f'width="{WIDTH}" height="{y - GAP}" viewBox="0 0 {WIDTH} {y - GAP}"'
        text = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{DARK}{STYLE}</style>\n' + "\n".join(parts)
        (folder / f"diagram_{name}.svg").write_text(f"{text}\n</svg>\n", encoding="utf-8")


def inline(name: str) -> str:
    """The panels of a diagram as SVG elements of an HTML page, which sets them side by side where there is room."""
    return "".join(panel.svg() for panel in DIAGRAMS[name]())


if __name__ == "__main__":
    write_diagrams(FOLDER)
