"""The report as one HTML page: pictures inside, no script, nothing fetched, for light and dark, screen and phone."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from invkit.data.images import Data, fit_square
from invkit.ffi.inverter import LogitInverter
from invkit.leakage import FACTORS, FOUND, GAIN, AtDepth, FromLogits, between, scaled, where_to_cut

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = 6  # photos that are shown
SMALL = 96  # pixels: images up to here are shown with hard pixels, larger ones as JPEG
SIDE = 224  # pixels: larger images are shrunk to this


def page_of(
    numbers: Mapping[str, Any], photos: Data, results: Sequence[AtDepth], reference: Sequence[AtDepth],
    inverter: LogitInverter | None = None, logits: FromLogits | None = None,
) -> str:  # fmt: skip
    """The page.

    Args:
        numbers: as `invkit.report.summary` returns them, with "minutes".
        photos: those that were reconstructed.
        results: what was measured at each depth.
        reference: the same of the network beside which this one is put.
        inverter: of the logits, if there is one.
        logits: what was measured of it.
    """
    made, minutes = numbers["made"], numbers["minutes"]
    parts = {
        "network": escape(numbers["network"]),
        "facts": f"{numbers['size']} × {numbers['size']} pixels, {numbers['classes']:,} classes, "
        f"{len(numbers['cuts'])} blocks.",
        "answer": escape(f"{leak_sentence(results)} {cut_sentence(results)}"),
        "pictures": _of_depths(photos, results),
        "photos": f"{escape(numbers['photos'])} The first {min(SHOWN, len(photos))} are shown; all are measured.",
        "charts": _charts(numbers, results, reference),
        "hours": f"{numbers['reference']['hours']:.0f}",
        "depths": _depth_table(numbers["depths"]),
        "cut": escape(cut_sentence(results)),
        "rule": escape(rule_sentence(len(photos))),
        "logits": _of_logits(photos, inverter, logits) if inverter and logits else "",
        "minutes": f"{minutes['of training']:g} minutes",
        "cuts": _table([row | {"numbers": f"{row['numbers']:.3g}"} for row in numbers["cuts"]], left=("block",)),
        "made": f"Made on {made['date']} on {escape(made['machine'])} by invkit {escape(made['code'])}, "
        f"in {minutes['in all']:.1f} minutes.",
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


# ---- sentences -------------------------------------------------------------------------------------------------------


def leak_sentence(results: Sequence[AtDepth]) -> str:
    """What the first and the deepest of some depths give away."""
    phrases = []
    for one in dict.fromkeys((results[0], results[-1])):
        phrases.append(
            f"from the output of block {one.depth} ({one.block}), reconstructions are {better(one.gain.value)} each "
            f"photo's own mean colour, and {per_cent(one.found.value)} of them find their photo among {one.found.n}"
        )
    sentence = "; ".join(phrases)
    return f"{sentence[0].upper()}{sentence[1:]}."


def better(gain: float) -> str:
    """ "1.2 dB better than", "0.3 dB worse than"."""
    return f"{abs(gain):.1f} dB {'better' if gain >= 0 else 'worse'} than"


def cut_sentence(results: Sequence[AtDepth]) -> str:
    """Where to cut the network for split inference, by the rule of `rule_sentence`."""
    cut, poor = where_to_cut(results), [f"{result.depth}" for result in results if not result.trained]
    if poor:
        return (
            f"From block{'s' * (len(poor) > 1)} {', '.join(poor)} the inverter does worse than a single colour for all "
            "photos: it was trained too little to say where to split the network; give it more minutes."
        )
    if cut is None:
        return "To split the network where photos are safe from this inverter, none of these depths will do."
    return (
        f"Split after block {cut.depth} ({cut.block}): from there on this inverter recovers little. The "
        f"output there has {cut.numbers:.2g} numbers for each number of the image."
    )


def per_cent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def rule_sentence(n: int) -> str:
    """The rule of `invkit.leakage.where_to_cut`, for n photos."""
    few, chance = per_cent(max(FOUND, 2 / n)), per_cent(1 / n)
    return (
        f"The rule: the first depth at which, as at every deeper one measured, at most {few} of the reconstructions "
        f"find their own photo among {n} (by chance it would be {chance}) and the PSNR is less than {GAIN:g} dB above "
        "that of the photo's own mean colour."
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def _of_depths(photos: Data, results: Sequence[AtDepth]) -> str:
    titles = ["photo", *(f"block {result.depth}" for result in results)]
    rows = []
    for i, name in enumerate(photos.names[:SHOWN]):
        cells = [(photos.images[i], ""), *((one.images[i], f"{one.psnr[i]:.1f}") for one in results)]
        rows.append((name, cells))
    return _pictures(titles, rows)


def _of_logits(photos: Data, inverter: LogitInverter, logits: FromLogits) -> str:
    """The section on an inverter of the logits."""
    few = photos.images[:SHOWN]
    originals, (by_factor, same) = fit_square(few, inverter.size).clamp(0, 1), scaled(inverter, photos.images)
    samples = [f"sample {k + 1}" for k in range(len(logits.samples))]
    rows = []
    for i, name in enumerate(photos.names[:SHOWN]):
        cells = [(originals[i], ""), (logits.guess[i], f"{logits.psnr[i]:.1f}")]
        rows.append((name, cells + [(drawn[i], "") for drawn in logits.samples]))
    shares = [per_cent(share) for share in same.float().mean(1).tolist()]
    titles = [f"× {factor:g}<br>{share}" for factor, share in zip(FACTORS, shares, strict=True)]
    changed = [(name, [(images[i], "") for images in by_factor]) for i, name in enumerate(photos.names[:3])]
    way = between(inverter, photos.images)
    return f"""<h2>What the logits give away</h2>
<p>A second inverter, trained on {inverter.card["images"]:,} other images of the same kind, is given
{inverter.classifier.classes:,} logits alone.
Its best guesses are {better(logits.gain.value)} the images' own mean colour, and
{per_cent(logits.found.value)} of them find their image among {logits.found.n}.
Samples under different noise differ by {per_cent(logits.spread)} of what different images do:
that much the logits leave open, in this inverter's view.</p>
<div class="scroll">{_pictures(["image", "best guess", *samples], rows)}</div>
<p>The same logits, multiplied: below each factor, how often the classifier sees in the reconstruction the class that it
sees in the image.</p>
<div class="scroll">{_pictures(titles, changed)}</div>
<p>On the straight way from the logits of one image to those of another:</p>
<div class="scroll">{_pictures([""] * len(way), [("", [(image, "") for image in way])])}</div>
"""


def _pictures(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[Tensor, str]]]]) -> str:
    """A table of images: rows of (name, (image, caption) each), with a title above each column."""
    head = "".join(f"<th>{title}</th>" for title in ["", *titles])
    body = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{_image(image, f'{name} {title}')}{caption}</td>" for (image, caption), title in
                  zip(cells, titles, strict=True))
        + "</tr>"
        for name, cells in rows
    )  # fmt: skip
    return f'<table class="pictures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _image(image: Tensor, name: str) -> str:
    """An image (3, H, W) in [0, 1] as an element with its bytes inside."""
    hard = image.shape[-1] <= SMALL
    image = image if image.shape[-1] <= SIDE else fit_square(image[None], SIDE)[0]
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file, form = io.BytesIO(), "PNG" if hard else "JPEG"
    Image.fromarray(levels).save(file, form, **({} if hard else {"quality": 88}))
    content = base64.b64encode(file.getvalue()).decode()
    look = ' class="hard"' if hard else ""
    return f'<img{look} src="data:image/{form.lower()};base64,{content}" alt="{escape(name)}">'


# ---- tables and charts -----------------------------------------------------------------------------------------------


def signed(value: float) -> str:
    """A number of dB with its sign, a minus as long as the plus: "−1.7", "+0.3"."""
    return f"{value:+.1f}".replace("-", "−")


def _depth_table(depths: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in depths:
        gain, found = one["gain"], one["found"]
        row = {"depth": one["depth"], "block": one["block"], "numbers": f"{one['numbers']:.3g}"}
        row |= {"PSNR, dB": f"{one['psnr']:.1f}"}
        row |= {"over mean colour, dB": f"{signed(gain['value'])} [{signed(gain['low'])}, {signed(gain['high'])}]"}
        row |= {"found": f"{per_cent(found['value'])} [{per_cent(found['low'])}, {per_cent(found['high'])}]"}
        rows.append(row)
    return _table(rows, left=("block",), looks=["quiet" if one["quiet"] else "" for one in depths])


def _table(rows: Sequence[Mapping[str, Any]], left: Sequence[str] = (), looks: Sequence[str] | None = None) -> str:
    """Rows of a table; `left`: columns of words; `looks`: a class of each row."""

    def cells(kind: str, row: Mapping[str, Any]) -> str:
        side = {key: ' class="left"' if key in left else "" for key in row}
        return "".join(f"<{kind}{side[key]}>{escape(str(value))}</{kind}>" for key, value in row.items())

    body = "".join(
        f'<tr class="{look}">{cells("td", row)}</tr>' for row, look in zip(rows, looks or [""] * len(rows), strict=True)
    )
    return f"<table><thead><tr>{cells('th', {key: key for key in rows[0]})}</tr></thead><tbody>{body}</tbody></table>"


def _charts(numbers: Mapping[str, Any], results: Sequence[AtDepth], reference: Sequence[AtDepth]) -> str:
    series = {"own": (results, len(numbers["cuts"])), "other": (reference, numbers["reference"]["blocks"])}
    x = {name: [one.depth / blocks for one in some] for name, (some, blocks) in series.items()}
    gains = {name: [one.gain.value for one in some] for name, (some, _) in series.items()}
    found = {name: [100 * one.found.value for one in some] for name, (some, _) in series.items()}
    return _chart(x, gains, "PSNR over the mean colour, dB") + _chart(x, found, "own photo found, %", (0, 100))


def _chart(
    x: Mapping[str, Sequence[float]],
    y: Mapping[str, Sequence[float]],
    title: str,
    within: tuple[float, float] | None = None,
) -> str:
    """Lines {class: values} over the share of a network's blocks, from 0 at its input to 1 at its logits."""
    width, height, left, right, top, bottom = 340, 220, 34, 12, 10, 38
    every = [value for values in y.values() for value in values]
    low, high = within or (min(0.0, *every), max(1.0, *every))
    step = 25.0 if within else next(one for one in (0.5, 1, 2, 5, 10, 20, 50) if (high - low) / one <= 6)
    low, high = step * math.floor(low / step), step * math.ceil(high / step)

    def place(across: float, value: float) -> tuple[float, float]:
        up = (value - low) / (high - low)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts = []
    for k in range(round((high - low) / step) + 1):
        tick = low + k * step
        level = place(0, tick)[1]
        parts.append(f'<path class="axis" d="M{left} {level:.1f}H{width - right}"/>')
        parts.append(f'<text x="{left - 5}" y="{level + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for across, word in ((0.0, "input"), (0.5, "half of the blocks"), (1.0, "logits")):
        side = "start" if across == 0 else "end" if across == 1 else "middle"
        x_place = place(across, low)[0]
        parts.append(f'<text x="{x_place:.1f}" y="{height - bottom + 18}" text-anchor="{side}">{word}</text>')
    for name in reversed(list(x)):  # the reader's own is drawn last, on top
        points = [place(*pair) for pair in zip(x[name], y[name], strict=True)]
        line = "L".join(f"{across:.1f} {up:.1f}" for across, up in points)
        parts.append(f'<path class="{name}" d="M{line}"/>')
        parts += [f'<circle class="{name}" cx="{across:.1f}" cy="{up:.1f}" r="3.5"/>' for across, up in points]
    words = f"{title}: {', '.join(f'{value:.1f}' for value in y['own'])}"
    drawn = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(words)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"
