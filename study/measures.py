"""Measures of the book beside those of `invkit.metrics`.

- The equivalent thumbnail: PSNR rewards blur, so it is translated into "as good as the image shrunk to s x s pixels".
- Kernel distance between two sets of images as wholes (KID, Binkowski et al. 2018), unpaired.
- The correlation of logits with those of a reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invkit.checks import check_images
from invkit.metrics import CHUNK, psnr, thumbnail
from invkit.statistics import Interval


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 500, seed: int = 0) -> Interval:
    """Squared maximum mean discrepancy of two sets of features, with the cubic kernel (x·y / D + 1)³; 0 is the same.

    Unbiased (Binkowski et al. 2018, "Demystifying MMD GANs", eq. 4), hence below 0 at times, and of use where N < D.
    The value is that of torchmetrics' `poly_mmd`, which however needs two sets of one size and gives no interval.

    Args:
        a: features (N, D) of at least four images, from a network that neither was attacked nor stands in a loss, such
            as `perceptual_features`. Values of different features cannot be compared.
        b: features (M, D) of other images; they need not be paired with the first.
        subsets: how many random halves the interval is taken from.
        seed: of those halves.

    Returns:
        The distance. Its interval is the central 95 % over random halves of both sets, which scatter as the whole does
        about the truth (a jackknife that deletes half); n is the size of the smaller set.
    """
    for values in (a, b):
        if values.ndim != 2 or values.shape[1:] != a.shape[1:] or len(values) < 4 or not values.isfinite().all():
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"Compare finite features (N, D) and (M, D) of at least 4 images each, not {shapes}.")
    a, b = a.double(), b.double()
    aa, bb, ab = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    for pairs in (aa, bb):
        pairs.fill_diagonal_(0)  # no image is compared with itself

    def distance(rows: Tensor, columns: Tensor) -> Tensor:
        """(S,) distances between the subsets that the zeros and ones (S, N) and (S, M) choose."""
        n, m = rows.sum(1), columns.sum(1)
        within = ((rows @ aa) * rows).sum(1) / (n * (n - 1)) + ((columns @ bb) * columns).sum(1) / (m * (m - 1))
        return within - 2 * ((rows @ ab) * columns).sum(1) / (n * m)

    generator = torch.Generator().manual_seed(seed)

    def halves(n: int) -> Tensor:
        return (torch.rand(subsets, n, generator=generator).argsort(1) < n // 2).to(a)

    value = distance(a.new_ones(1, len(a)), a.new_ones(1, len(b))).item()
    scatter = distance(halves(len(a)), halves(len(b))).cpu().numpy()
    low, high = np.quantile(scatter, (0.025, 0.975))
    return Interval(value, float(min(low, value)), float(max(high, value)), min(len(a), len(b)))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of a with those of b, (N,), from (N, K) each."""
    a, b = (F.normalize(x.double() - x.double().mean(1, keepdim=True), dim=1) for x in (a, b))
    return (a * b).sum(1)


def equivalent_thumbnail(images: Tensor, psnr_db: float | Sequence[float]) -> float | list[float]:
    """The size s at which s x s thumbnails of these images reach a given mean PSNR.

    Interpolated in log s between some 24 sizes from 1 x 1 (each image's mean colour) to nearly the images' own, and
    clipped above.

    Args:
        images: the originals, floats (N, 3, H, W) in [0, 1].
        psnr_db: the mean PSNR to be matched, in dB, or several.

    Returns:
        The size in pixels, one for each PSNR given; 0 for a PSNR below that of the mean colours.
    """
    check_images(images)
    largest = min(images.shape[-2:])
    sizes = np.unique(np.geomspace(1, largest, 24).round().astype(int))[:-1]  # the full size is perfect: infinite dB
    scores = [
        torch.cat([psnr(thumbnail(part, size), part) for part in images.split(CHUNK)]).mean().item()
        for size in sizes.tolist()
    ]
    found = np.exp(np.interp(psnr_db, np.maximum.accumulate(scores), np.log(sizes)))
    return np.where(np.asarray(psnr_db) < scores[0] - 1e-6, 0.0, found).tolist()
