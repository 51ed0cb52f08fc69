"""How alike two sets of images (or latents) are, and how sure the figures are.

- PSNR in dB; SSIM (Wang et al. 2004, by torchmetrics); a learned perceptual distance (see `perceptual`).
- Retrieval: does a reconstruction resemble its own original more than the other originals do?
- The equivalent thumbnail: PSNR rewards blur, so it is translated into "as good as the image shrunk to s x s pixels".
- Kernel distance between two sets of images as wholes (KID, Binkowski et al. 2018), unpaired.
- R² and cosine for latents.
- Intervals: 95 % bootstrap percentile intervals over images (Efron 1979, by scipy), paired where the data are paired,
  and Wilson's interval (1927) for proportions.

Images are float tensors (N, 3, H, W) in [0, 1]; measures "per image" are tensors (N,) on the images' device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

# ---- intervals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval, from n independent values (images, seeds)."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, form: str) -> str:
        """f"{interval:.2f}" is "0.51 [0.48, 0.54]", f"{interval:.0%}" is "51 % [48 %, 54 %]"; else three digits."""
        form = form or ".3g"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]".replace("%", " %")

    def __str__(self) -> str:
        return format(self)

    def times(self, factor: float) -> "Interval":
        """In another unit: share.times(100) is in per cent. The factor is positive."""
        return Interval(factor * self.value, factor * self.low, factor * self.high, self.n)


def bootstrap(values: Tensor | Sequence[float], n_boot: int = 2000, seed: int = 0, statistic: str = "mean") -> Interval:
    """The mean or median of per-image values (N,) with its 95 % bootstrap percentile interval over the images."""
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', not {statistic!r}.")
    values = _vector(values, "values")
    function: Callable = getattr(np, statistic)
    result = stats.bootstrap(
        (values,),
        function,
        n_resamples=n_boot,
        batch=max(1, 10**7 // len(values)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(function(values)), float(low), float(high), len(values))


def paired_bootstrap(
    a: Tensor | Sequence[float], b: Tensor | Sequence[float], n_boot: int = 2000, seed: int = 0, statistic: str = "mean"
) -> Interval:
    """The mean or median of a - b over the same N images with its 95 % bootstrap interval: do they differ?"""
    a, b = _vector(a, "a"), _vector(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"Paired values come from the same images: a has {len(a)} values, b has {len(b)}.")
    return bootstrap(a - b, n_boot, seed, statistic)


def proportion(hits: Tensor | Sequence[bool]) -> Interval:
    """The share of true values (N,) with Wilson's 95 % interval; the bootstrap's has no width if all or none are."""
    hits = _vector(hits, "hits")
    if not np.isin(hits, (0, 1)).all():
        raise ValueError("A proportion is taken of true/false values: compare first, as in ranks <= 1.")
    result = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Interval(float(hits.mean()), float(result.low), float(result.high), len(hits))


def _vector(values: Tensor | Sequence[float], name: str) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    values = values.astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name} must be a list of at least two numbers, one per image, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite; equal images have infinite PSNR: leave those out.")
    return values
