"""Chapter 7, to touch: a slider through the depths of some photos, and a quiz (`study.touch`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from invkit import metrics
from study.chapters.zero_shot_inversion import headline_depths, number_at, relative_size, unit_of
from study.notebook import Study, listed
from study.reconstructions import TimedImages
from study.touch import Sheet, widget

if TYPE_CHECKING:
    from IPython.display import HTML

QUIZ_SIDE = 160  # pixels of a photo in the quiz


def depth_slider(inverter, photos: Tensor, found: Mapping[int, TimedImages], n: int = 12) -> HTML:
    """The first n photos beside their reconstructions from every depth.

    photos: (N, 3, S, S).
    found: {depth: their reconstructions}, of which every one becomes a stop of the slider.
    """
    columns = {
        f"photo {i + 1}": torch.stack([photo, *(x.images[i] for x in found.values())])
        for i, photo in enumerate(photos[:n])
    }
    unit, numbers = unit_of(inverter), [number_at(inverter, depth) for depth in found]
    psnr = {name: metrics.psnr(x[1:], x[:1].expand_as(x[1:])).tolist() for name, x in columns.items()}
    alt = f"{{}}, and its reconstructions after {listed(list(map(str, numbers)))} {unit}."
    headline = list(headline_depths(inverter).values())
    return widget(
        "depths",
        {name: Sheet(x, alt.format(name)) for name, x in columns.items()},
        columns=6,
        order=f"Row by row: the photo, then its reconstruction after {listed(list(map(str, numbers)))} {unit}.",
        caption=f"Drag the slider to go deeper into the network, and the handle on the picture to compare. "
        f"{len(columns)} photos, each reconstructed in forward passes from every depth.",
        unit=unit,
        depths=[
            {"number": number, "size": f"{relative_size(inverter.classifier, depth):.2g}"}
            for number, depth in zip(numbers, found, strict=True)
        ],
        psnr={name: [round(value, 2) for value in values] for name, values in psnr.items()},
        depth=list(found).index(headline[len(headline) // 2]),
    )


def most_alike(reconstructions: Tensor, candidates: Tensor) -> list[int]:
    """Which candidate each reconstruction resembles most, as `metrics.retrieval_ranks` compares them.

    reconstructions: (N, 3, S, S).
    candidates: (M, 3, S, S).
    """
    mean = candidates.mean(0)
    sides = [normalize((images - mean).flatten(1)) for images in (reconstructions, candidates)]
    return (sides[0] @ sides[1].T).argmax(1).tolist()


def photo_quiz(study: Study, inverter, photos: Tensor, found: Mapping[int, TimedImages], n: int = 10) -> HTML:
    """Which of the first n photos was this reconstructed from? The measure *found* answers too.

    photos: (N, 3, S, S).
    found: {depth: their reconstructions}, of which three are asked about: the deepest two that the text speaks of, and
        the deepest of all.
    Records how often *found* is right, in per cent, as `quiz_found`.
    """
    photos, depths = photos[:n], sorted({*list(headline_depths(inverter).values())[-2:], max(found)})
    answers = [most_alike(found[depth].images[:n], photos) for depth in depths]
    right = [answer == i for one in answers for i, answer in enumerate(one)]
    study.record("quiz_found", 100 * sum(right) / len(right), n=len(right), unit="%", digits=2, tolerance=10)
    frames = _small([photos, *(found[depth].images[:n] for depth in depths)])
    numbers, unit = [number_at(inverter, depth) for depth in depths], unit_of(inverter)
    asked = f"reconstructions after {listed(list(map(str, numbers)))} {unit}"
    return widget(
        "quiz",
        {"quiz": Sheet(frames, f"{len(photos)} photos above their {asked}.")},
        columns=len(photos),
        order=f"First row: {len(photos)} photos. Below each: its {asked}.",
        caption="Your answers stay in this page and are gone when you leave it. Pixel similarity is the measure found "
        "of this chapter, which chooses among the same photos.",
        photos=[f"photo {i + 1}" for i in range(len(photos))],
        depths=numbers,
        unit=unit,
        found=answers,
    )


def _small(images: Sequence[Tensor]) -> Tensor:
    """Some images, each (N, 3, S, S), one after another at the size of the quiz."""
    return interpolate(torch.cat(list(images)), (QUIZ_SIDE, QUIZ_SIDE), mode="bilinear", antialias=True).clamp(0, 1)
