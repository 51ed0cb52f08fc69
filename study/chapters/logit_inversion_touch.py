"""Chapter 2, to touch: draw another noise vector for the same logits (`study.touch`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from invkit import metrics
from invkit.ffi.inverter import LogitInverter
from study.notebook import listed
from study.touch import Sheet, widget

if TYPE_CHECKING:
    from IPython.display import HTML


@torch.no_grad()
def sample_again(
    inverters: Mapping[str, LogitInverter], logits: Mapping[str, Tensor], images: Tensor, names: Sequence[str],
    k: int = 5, samples: int = 12, seed: int = 1,
) -> HTML:  # fmt: skip
    """The first k images, and samples of each from the same logits under other noise.

    inverters, logits: {name: inverter}, {name: logits (N, classes) of the images}.
    images: (N, 3, S, S).
    names: of the inverters shown, of which some may be missing.
    """
    names, images = [name for name in names if name in inverters], images[:k]
    drawn = {}
    for name in names:
        noise = inverters[name].sample_noise(samples, seed=seed).to(images.device)
        z = logits[name][:k].repeat_interleave(samples, 0)
        made = inverters[name].invert(z, noise=noise.repeat(len(images), 1))
        drawn[name] = made.unflatten(0, (len(images), samples))
    titles = [f"image {i + 1}" for i in range(len(images))]
    frames = torch.cat([images[:, None], *drawn.values()], 1)
    psnr = {name: [metrics.psnr(x, images[i].expand_as(x)) for i, x in enumerate(made)] for name, made in drawn.items()}
    alt = f"Test {{}}, and {samples} samples from its logits for each of: {listed(names)}."
    return widget(
        "noise",
        {title: Sheet(x, alt.format(title)) for title, x in zip(titles, frames, strict=True)},
        columns=1 + samples * len(names),
        order=f"From left to right: the image, then {samples} samples of each of {listed(names)}.",
        caption="What stays from sample to sample the logits decide; what changes they leave open. Below each sample: "
        "its PSNR, and the mean of all samples so far.",
        inverters=names,
        samples=samples,
        psnr={
            title: {name: [round(value, 2) for value in x[i].tolist()] for name, x in psnr.items()}
            for i, title in enumerate(titles)
        },
    )
