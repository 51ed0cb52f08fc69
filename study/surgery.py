"""What the two chapters on surgery share (Teterwak et al. 2021): reconstruct many changed inputs, fit slopes, compare.

Values "per strength and image" are a tensor (K, N).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from pandas import DataFrame
from torch import Tensor

from invkit import statistics
from invkit.statistics import Interval
from study.notebook import Study, slug
from study.scores import tolerance_of, verdict


@torch.no_grad()
def reconstruct_each(
    inverter, logits: Tensor | Sequence[Tensor], batch: int = 100, noise: Tensor | None = None
) -> Tensor:
    """Images (N, 3, S, S) of logits (N, classes), or (K, N, 3, S, S) of K such.

    noise: of the generator for each image, (N, noise_dim); None is what the inverter takes without any.
    """
    if not isinstance(logits, Tensor):
        return torch.stack([reconstruct_each(inverter, z, batch, noise) for z in logits])
    parts = logits.split(batch)
    if noise is None:
        return torch.cat([inverter.invert(part) for part in parts])
    return torch.cat([inverter.invert(z, noise=e) for z, e in zip(parts, noise.split(batch), strict=True)])


@torch.no_grad()
def seen(watcher: Callable[[Tensor], Tensor], images: Tensor, batch: int = 100) -> Tensor:
    """Classes (K, N) or (N,) that a watcher, images -> logits, sees in images (K, N, 3, H, W) or (N, 3, H, W)."""
    flat = images.flatten(0, -4)
    return torch.cat([watcher(part).argmax(1) for part in flat.split(batch)]).view(images.shape[:-3])


def slopes(strengths: Sequence[float], values: Tensor) -> Tensor:
    """Least-squares slope (N,) of each image's values (K, N) on the K strengths."""
    x = torch.as_tensor(strengths, dtype=torch.float64).to(values.device)
    if x.shape != values.shape[:1] or len(x.unique()) < 2:
        raise ValueError(f"Give the {len(values)} strengths of the values, at least two of them different.")
    x = x - x.mean()
    return ((x @ values.double()) / (x @ x)).float()


def swings(strengths: Sequence[float], values: Tensor) -> Tensor:
    """How far each image's value moves towards one end of the strengths, for a unit of strength, (N,).

    strengths: K numbers in rising order, 0 among them, where nothing is changed.
    values: (K, N).
    A slope says nothing of a measure that rises to both sides. Here the value at an end is taken, less the unchanged
    one, over the strength between them. Which of the two ends counts, and whether a rise or a fall is positive, is
    chosen for each half of the images by the mean of the other half, so that chance alone leaves the mean at 0.
    """
    x = torch.as_tensor(strengths, dtype=torch.float64)
    if len(x) != len(values) or len(x) < 2 or (x.diff() <= 0).any() or x.abs().min() > 1e-9:
        raise ValueError(f"Give the {len(values)} strengths of the values, in rising order: 0, and at least one more.")
    start = int(x.abs().argmin())
    ends = [k for k in (0, len(x) - 1) if k != start]
    moved = torch.stack([(values[k] - values[start]).double() / (x[k] - x[start]).abs().item() for k in ends])
    found = torch.empty_like(moved[0])
    for half in (0, 1):
        means = moved[:, 1 - half :: 2].mean(1)
        farthest = means.abs().argmax()
        found[half::2] = means[farthest].sign() * moved[farthest, half::2]
    return found.float()


def curve_of(values: Tensor) -> list[Interval]:
    """Mean over images with its 95 % interval at each of K strengths; values (K, N)."""
    return [statistics.bootstrap(row) for row in values]


def compare(
    study: Study,
    id: str,
    rows: Mapping[str, Mapping[str, Tensor | Interval]],
    titles: Mapping[str, str] | None = None,
    pairs: Mapping[str, tuple[str, str]] | None = None,
    shares: Collection[str] = (),
    signed: bool = False,
) -> DataFrame:
    """Record and tabulate the mean of each series, and the differences between some of them, image by image.

    study: of the notebook.
    id: the first part of what is recorded: "<id>_<row>_<series>" and "<id>_<row>_<pair>".
    rows: {row: {series: (N,)}}, the values of N images; NaN for an image without a value. A series that is in no pair
        may be an Interval instead.
    titles: {row: its name in the table}; by default the row's own.
    pairs: {pair: (a, b)}, of whose differences a - b the mean is taken over the images that both have; by default
        {"difference": (last series, first series)}, and none if there is one series only.
    shares: the rows whose values are 0 or 1, so that the mean of a series has Wilson's interval.
    signed: write the sign of positive means, too.
    Returns the table: a line for each row, a column for each series and for each pair, this with its verdict.
    """
    lines = {}
    for row, series in rows.items():
        values = {name: x if isinstance(x, Interval) else x.double() for name, x in series.items()}
        names = list(values)
        cells = {}
        for name, x in values.items():
            mean = x
            if not isinstance(x, Interval):
                mean = (statistics.proportion if row in shares else statistics.bootstrap)(x[~x.isnan()])
            study.record(slug(f"{id} {row} {name}"), mean, digits=2, tolerance=tolerance_of(mean))
            cells[name] = f"{mean:{'+' if signed else ''}.3f}"
        default = {"difference": (names[-1], names[0])} if len(names) > 1 else {}
        for pair, (a, b) in (default if pairs is None else pairs).items():
            difference = values[a] - values[b]
            difference = statistics.bootstrap(difference[~difference.isnan()])
            word = verdict(difference, f"{a} higher", f"{a} lower")
            study.record(
                slug(f"{id} {row} {pair}"), difference, digits=2, tolerance=tolerance_of(difference), verdict=word
            )
            cells[f"{a} − {b}"] = f"{difference:+.3f}: {word}"
        lines[(titles or {}).get(row, row)] = cells
    return study.table(lines)


def labelled(texts: Mapping[str, str]) -> str:
    """{"standard": "12 %", "robust": "8 %"} as a phrase for a sentence: "12 % (standard) and 8 % (robust)"."""
    return " and ".join(f"{text} ({label})" for label, text in texts.items())
