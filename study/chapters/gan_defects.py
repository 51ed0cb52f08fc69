"""Which samples of a generator are defective, without hand-picking, and what to compare an improvement with.

Dong et al. (arXiv 2107.06304) invert a defective sample, generate from the latent found, and see a better image. To
test that claim here, a defect is a number: how far a sample lies from typical samples. Two scores that share nothing:

- `mahalanobis` in a classifier's pooled features: a Gaussian fitted to typical samples (Lee et al. 2018, 1807.03888);
- `neighbour_distance` in thumbnails: mean distance to the nearest typical samples (Ramaswamy et al. 2000), no network.

What is chosen for a high score has a lower one after *any* change (regression to the mean), and a latent found again is
shorter, nearer to the mode. So the controls: the latent itself scaled to that length (`with_norm`) and a random move of
the same size (`random_move`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def pooled_features(classifier, images: Tensor, depth: int, size: int | None = None, batch: int = 64) -> Tensor:
    """Mean over the map of each channel at `depth`, (N, channels), of images (N, 3, H, W) in [0, 1].

    size: side the images are resized to first; by default they go in as they are.
    """
    pooled = []
    for part in images.split(batch):
        if size is not None and part.shape[-1] != size:
            part = F.interpolate(part, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        features = classifier.features(part, depth)
        pooled.append(features.flatten(2).mean(2) if features.dim() > 2 else features)
    return torch.cat(pooled)


def thumbnails(images: Tensor, side: int = 8) -> Tensor:
    """Images averaged down to side x side pixels, as vectors (N, channels * side * side)."""
    return F.adaptive_avg_pool2d(images, side).flatten(1)


def mahalanobis(features: Tensor, typical: Tensor, shrinkage: float = 0.1) -> Tensor:
    """Distance of features (N, D) from the Gaussian of typical features (M, D), in its standard deviations, (N,).

    shrinkage: how far the correlations are drawn towards none, so that few typical samples give an invertible matrix.
    """
    _check(features, typical)
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage lies between 0 and 1, not {shrinkage}.")
    features, typical = _standardised(features, typical)
    correlation = typical.T @ typical / (len(typical) - 1)
    correlation = torch.lerp(correlation, torch.eye(len(correlation)).to(correlation), shrinkage)
    return torch.einsum("nd,dn->n", features, torch.linalg.solve(correlation, features.T)).clamp_min(0).sqrt().float()


def neighbour_distance(features: Tensor, typical: Tensor, k: int = 5) -> Tensor:
    """Mean Euclidean distance of features (N, D) to the k nearest of the typical ones (M, D), (N,).

    The samples scored must not be among the typical ones: each would be its own neighbour.
    """
    _check(features, typical)
    if not 1 <= k <= len(typical):
        raise ValueError(f"k lies between 1 and the {len(typical)} typical samples, not at {k}.")
    return torch.cdist(features, typical).topk(k, dim=1, largest=False).values.mean(1)


def worst_fraction(scores: Tensor, fraction: float = 0.05) -> Tensor:
    """Indices of the highest scores, the worst first: that share of all, rounded up."""
    if scores.dim() != 1 or not 0 < fraction <= 1:
        raise ValueError(f"Give a vector of scores and a fraction in (0, 1], not {tuple(scores.shape)} and {fraction}.")
    return scores.topk(math.ceil(fraction * len(scores) - 1e-9)).indices


def with_norm(latents: Tensor, like: Tensor) -> Tensor:
    """Latents (N, D) of their own direction and the lengths of `like` (N, D): the control for a shrunken inversion."""
    _check_pair(latents, like)
    return latents * (like.norm(dim=1, keepdim=True) / latents.norm(dim=1, keepdim=True).clamp_min(1e-12))


def random_move(latents: Tensor, like: Tensor, seed: int = 0) -> Tensor:
    """Latents (N, D), each moved as far as its row of `like` lies but in a random direction: control for any change."""
    _check_pair(latents, like)
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    distance = (like - latents).norm(dim=1, keepdim=True)
    return latents + distance * direction / direction.norm(dim=1, keepdim=True)


def _standardised(features: Tensor, typical: Tensor) -> tuple[Tensor, Tensor]:
    """Both in units of the typical samples' mean and standard deviation, in double precision."""
    features, typical = features.double(), typical.double()
    mean, std = typical.mean(0), typical.std(0)
    std = std.clamp_min(1e-6 * std.max().clamp_min(1e-12))  # a dead channel carries no distance
    return (features - mean) / std, (typical - mean) / std


def _check(features: Tensor, typical: Tensor) -> None:
    if features.dim() != 2 or typical.dim() != 2 or features.shape[1] != typical.shape[1] or len(typical) < 2:
        raise ValueError(
            f"Scores compare features (N, D) with at least two typical ones (M, D), not {tuple(features.shape)} with "
            f"{tuple(typical.shape)}."
        )


def _check_pair(latents: Tensor, like: Tensor) -> None:
    if latents.dim() != 2 or latents.shape != like.shape:
        shapes = f"{tuple(latents.shape)} with {tuple(like.shape)}"
        raise ValueError(f"Controls pair latents (N, D) row by row, not {shapes}.")
