"""The report as one HTML page: pictures inside, no script, nothing fetched, for light and dark, screen and phone.

Here stand its sentences, and the values that its template, `report_page.html`, shows (Jinja2).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from torch import Tensor

from invkit.data.images import Data, fit_square
from invkit.data.photos import as_pillow
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
    cut = cut_sentence(results)
    parts = {
        "numbers": numbers, "answer": f"{leak_sentence(results)} {cut}", "cut": cut, "rule": rule_sentence(len(photos)),
        "names": photos.names[:SHOWN], "originals": photos.images[:SHOWN], "results": results,
        "charts": _charts(numbers, results, reference),
        "logits": _of_logits(photos, inverter, logits) if inverter and logits else None,
    }  # fmt: skip
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"bytes": _bytes, "better": better, "per_cent": per_cent, "signed": signed}
    page.tests["small"] = is_small
    return page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(parts)


# ---- sentences -------------------------------------------------------------------------------------------------------


def leak_sentence(results: Sequence[AtDepth]) -> str:
    """What the first and the deepest of some depths give away."""
    phrases = [
        f"from the output of block {one.depth} ({one.block}), reconstructions are {better(one.gain.value)} each "
        f"photo's own mean colour, and {per_cent(one.found.value)} of them find their photo among {one.found.n}"
        for one in dict.fromkeys((results[0], results[-1]))
    ]
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


# ---- pictures and charts ---------------------------------------------------------------------------------------------


def _of_logits(photos: Data, inverter: LogitInverter, logits: FromLogits) -> dict[str, Any]:
    """What the section on an inverter of the logits shows."""
    by_factor, same = scaled(inverter, photos.images)
    return {
        "card": inverter.card, "classes": inverter.classifier.classes, "measured": logits,
        "originals": fit_square(photos.images[:SHOWN], inverter.size).clamp(0, 1),
        "factors": list(zip(FACTORS, by_factor, same.float().mean(1).tolist(), strict=True)),
        "way": between(inverter, photos.images),
    }  # fmt: skip


def is_small(image: Tensor) -> bool:
    """Whether an image (3, H, W) is shown with hard pixels."""
    return image.shape[-1] <= SMALL


def _bytes(image: Tensor) -> str:
    """An image (3, H, W) in [0, 1] as the source of an element, its bytes inside."""
    image = image if image.shape[-1] <= SIDE else fit_square(image[None], SIDE)[0]
    file, form = io.BytesIO(), "PNG" if is_small(image) else "JPEG"
    as_pillow(image).save(file, form, **({} if form == "PNG" else {"quality": 88}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def signed(value: float) -> str:
    """A number of dB with its sign, a minus as long as the plus: "−1.7", "+0.3"."""
    return f"{value:+.1f}".replace("-", "−")


def _charts(
    numbers: Mapping[str, Any], results: Sequence[AtDepth], reference: Sequence[AtDepth]
) -> list[dict[str, Any]]:
    networks = {"other": (reference, numbers["reference"]["blocks"]), "own": (results, len(numbers["cuts"]))}
    places = {name: [one.depth / blocks for one in some] for name, (some, blocks) in networks.items()}
    gains = {name: [one.gain.value for one in some] for name, (some, _) in networks.items()}
    found = {name: [100 * one.found.value for one in some] for name, (some, _) in networks.items()}
    low, high = min(0.0, *gains["own"], *gains["other"]), max(1.0, *gains["own"], *gains["other"])
    step = next(one for one in (0.5, 1, 2, 5, 10, 20, 50) if (high - low) / one <= 6)
    titles = "PSNR over the mean colour, dB", "own photo found, %"
    return [_chart(places, gains, titles[0], low, high, step), _chart(places, found, titles[1], 0, 100, 25)]


def _chart(
    x: Mapping[str, Sequence[float]], y: Mapping[str, Sequence[float]], title: str, low: float, high: float, step: float
) -> dict[str, Any]:
    """Lines over the share of a network's blocks, from 0 at its input to 1 at its logits, in pixels of the template.

    x, y: of each line; the last one is drawn on top.
    low, high: the range of y, which is widened to whole steps.
    """
    first, last = math.floor(low / step), math.ceil(high / step)

    def up(value: float) -> float:
        return 182 - 172 * (value / step - first) / (last - first)

    def points(name: str) -> list[tuple[float, float]]:
        return [(34 + 294 * across, up(value)) for across, value in zip(x[name], y[name], strict=True)]

    ticks = [(up(step * k), f"{step * k:g}".replace("-", "−")) for k in range(first, last + 1)]
    words = f"{title}: {', '.join(f'{value:.1f}' for value in y['own'])}"
    return {"title": title, "words": words, "ticks": ticks, "lines": {name: points(name) for name in x}}
