"""Chapter 5, to touch: which change of the logits, and how strong (`study.touch`).

The frames are the reconstructions that the chapter has measured, so that nothing is computed for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from study.chapters.logit_surgery import Series
from study.notebook import listed
from study.touch import Sheet, widget

if TYPE_CHECKING:
    from IPython.display import HTML

# change: (what a strength is called, the strength that changes nothing (None: the last), what is done in words)
CHANGES = {
    "shift": (
        "{:+g} natural standard deviations",
        0.0,
        "The same number is added to every logit. The probabilities stay exactly what they were.",
    ),
    "scale": (
        "times {:g}",
        1.0,
        "Every logit is multiplied by the same number: the same ranking, more or less sure of itself.",
    ),
    "noise": (
        "{:g} natural standard deviations",
        0.0,
        "A random number is added to every logit, another one to each.",
    ),
    "towards the next image": (
        "{:.0%} of the next image's logits",
        0.0,
        "The logits are mixed with those of the next image.",
    ),
    "largest logits only": (
        "the {:g} largest kept",
        None,
        "All but the largest logits are set to their common mean.",
    ),
}


def surgery_sliders(*measured: Series, k: int = 6) -> HTML:
    """The first k images, and their reconstructions by each inverter after every change at every strength.

    measured: what each of CHANGES did, in that order, all to the same images and inverters.
    """
    changes, first = dict(zip(CHANGES, measured, strict=True)), measured[0]
    images = next(iter(first.subjects.values())).images[:k]
    inverters, width = list(first.measured), max(len(series.strengths) for series in changes.values())
    rows = [torch.stack([_padded(image[None], width) for image in images])]
    for name in inverters:
        for series in changes.values():
            made = series.measured[name].images[:, : len(images)]
            rows.append(torch.stack([_padded(one, width) for one in made.transpose(0, 1)]))
    titles = [f"image {i + 1}" for i in range(len(images))]
    sheets = dict(zip(titles, torch.cat(rows, 1), strict=True))
    alt = f"Test {{}}, and its reconstructions by {listed(inverters)} from logits changed in {len(changes)} ways."
    return widget(
        "surgery",
        {title: Sheet(frames, alt.format(title)) for title, frames in sheets.items()},
        columns=width,
        order=f"First row: the image. Then, for {listed(inverters)} in turn, a row for each change "
        f"({listed(changes)}), from its smallest number to its largest.",
        caption="Choose what is done to the logits, and how much of it. Below each reconstruction: whether the class "
        "that was seen in the image is still seen, by the classifier that is inverted and by another one, and the "
        "distance from the image (root mean square, where black and white differ by 1).",
        inverters=inverters,
        directions=[_direction(name, series) for name, series in changes.items()],
        measured={
            title: {name: [_facts(series, name, i) for series in changes.values()] for name in inverters}
            for i, title in enumerate(titles)
        },
    )


def _padded(frames: torch.Tensor, width: int) -> torch.Tensor:
    """Frames (N, 3, S, S) as a whole row of a sheet, with white ones behind."""
    white = frames.new_ones(width - len(frames), *frames.shape[1:])
    return torch.cat([frames, white])


def _direction(name: str, series: Series) -> dict[str, object]:
    label, unchanged, text = CHANGES[name]
    strengths = list(series.strengths)
    place = min(
        range(len(strengths)), key=lambda i: abs(strengths[i] - (strengths[-1] if unchanged is None else unchanged))
    )
    return {"name": name, "text": text, "unchanged": place, "strengths": [label.format(one) for one in strengths]}


def _facts(series: Series, inverter: str, image: int) -> list[dict[str, object]]:
    """What was measured of one image's reconstructions by one inverter, at each strength."""
    measures = series.measured[inverter].measures
    own, *_, other = series.subjects[inverter].watchers
    return [
        {
            "own": bool(measures[own][i, image]),
            "other": bool(measures[other][i, image]),
            "distance": round(measures["distance"][i, image].item(), 3),
        }
        for i in range(len(series.strengths))
    ]
