"""Synthetic images matched to a classifier's batch norms (DeepInversion, Yin et al. 2020, arXiv 1912.08795).

Batch norm stores the mean and variance that each channel had over the training photographs. Images optimised until the
classifier's batch norms see these statistics again are the most natural synthetic images here; if wanted, each of them
also shows one of the classifier's classes. They need the classifier, but no photograph.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from invkit import store
from invkit.checks import check_size
from invkit.dci.synthetic import SMALLEST, Pool, dead_leaves, pink_noise
from invkit.network.classifiers import Classifier
from invkit.precision import autocast


class _Moments(torch.autograd.Function):
    """Mean and variance of each channel of maps (N, C, H, W), each (C,), in float32 or better.

    Forwards it takes one pass and one matrix product, backwards one pass. The gradient that autograd derives for
    `var_mean` costs a CPU three times as much, more than the classifier itself.
    """

    @staticmethod
    def forward(ctx, h: Tensor) -> tuple[Tensor, Tensor]:
        rows = h.permute(0, 2, 3, 1).reshape(-1, h.shape[1])
        mean = rows.mean(0, dtype=torch.promote_types(h.dtype, torch.float32))
        centred = rows.to(mean.dtype) - mean
        with torch.autocast(h.device.type, enabled=False):  # which would round the squares to 8 bits
            variance = (centred.new_ones(1, len(rows)) @ centred.mul_(centred))[0] / len(rows)
        ctx.save_for_backward(h, mean)
        return mean, variance

    @staticmethod
    def backward(ctx, to_mean: Tensor, to_variance: Tensor) -> Tensor:
        h, mean = ctx.saved_tensors
        n = h.numel() // h.shape[1]
        slope = 2 * to_variance / n
        level = to_mean / n - slope * mean
        level, slope = (v.to(h.dtype).view(1, -1, 1, 1) for v in (level, slope))
        return torch.addcmul(level, h, slope)


def statistics_distance(classifier: Classifier, images: Tensor, skip: int = 0) -> Tensor:
    """How far the statistics of images are from those that a classifier's batch norms saw in training.

    The mean over layers and channels of the Kullback-Leibler divergence between two Gaussians: the channel's values
    over these images, and the running mean and variance stored in the layer.

    Args:
        classifier: with batch norms that keep running statistics.
        images: (N, 3, H, W) in [0, 1].
        skip: how many of the first batch norms do not count; their maps are the largest and cost the most.

    Returns:
        A scalar, differentiable in the images: 0 where all statistics agree.

    Raises:
        ValueError: the classifier has no batch norm that keeps running statistics.
    """
    return _distance_and_logits(classifier, images, skip)[0]


def _distance_and_logits(classifier: Classifier, images: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """`statistics_distance`, and the logits (N, classes) of the same pass."""
    terms = []

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = _Moments.apply(inputs[0])
        ratio = (variance + layer.eps) / (layer.running_var + layer.eps)
        shift = (mean - layer.running_mean) ** 2 / (layer.running_var + layer.eps)
        terms.append(0.5 * (ratio + shift - 1 - ratio.log()).mean())

    norms = [m for m in classifier.model.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
    if not norms:
        raise ValueError(f"{classifier.name} has no batch norm with running statistics: use dead leaves instead.")
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms[min(skip, len(norms) - 1) :]]
    try:
        logits = classifier.model(classifier.preprocess(images))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(terms).mean(), logits


def batch_norm_matched(
    classifier: Classifier,
    n: int,
    size: int,
    seed: int = 0,
    steps: int = 200,
    lr: float = 0.05,
    smooth: float = 1e-3,
    skip: int = 0,
    start: Tensor | None = None,
    classes: Tensor | None = None,
    confidence: float = 0.1,
) -> Tensor:
    """Images optimised until the classifier's batch norms see their training statistics, (n, 3, size, size) in [0, 1].

    Equations 3 and 4 of Yin et al. (2020): Adam on the pixels, behind a sigmoid that keeps them in range, minimises
    `statistics_distance` plus `smooth` times the total variation. The statistics are those of all n images together, so
    n should be at least 16.

    Args:
        classifier: with batch norms that keep running statistics.
        n: how many images, 1 or more.
        size: their side in pixels, 8 or more.
        seed: of the 1/f noise to start from, and of the shifts.
        steps: steps of Adam.
        lr: largest learning rate.
        smooth: weight of the total variation.
        skip: as for `statistics_distance`.
        start: images to start from, (n, 3, size, size) in [0, 1]; None for 1/f noise.
        classes: one class index for each image that it should show, (n,): `confidence` times the cross entropy is
            added, and in every step the images are shifted and perhaps mirrored, as in the paper, so that they show the
            class at any place. None for no classes.
        confidence: weight of that cross entropy.

    Raises:
        ValueError: a classifier without batch norms; a start or classes of another shape.
    """
    check_size(n, size, SMALLEST)
    start = pink_noise(n, size, seed, classifier.device) if start is None else start
    if start.shape != (n, 3, size, size):
        raise ValueError(f"start must have shape {(n, 3, size, size)}, not {tuple(start.shape)}.")
    if classes is not None and classes.shape != (n,):
        raise ValueError(f"classes must hold one index for each of {n} images, not have shape {tuple(classes.shape)}.")
    g = torch.Generator().manual_seed(seed)
    pixels = torch.logit(start.detach().clamp(0.02, 0.98)).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=lr, betas=(0.5, 0.9))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        images = pixels.sigmoid()
        variation = (images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()) * size
        seen = images if classes is None else _shifted(images, size // 8, g)
        distance, logits = _distance_and_logits(classifier, seen, skip)
        loss = distance + smooth * variation
        if classes is not None:
            loss = loss + confidence * F.cross_entropy(logits.float(), classes.to(logits.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return pixels.detach().sigmoid()


def _shifted(images: Tensor, most: int, g: torch.Generator) -> Tensor:
    """Roll all images by the same random shift of at most `most` pixels, and mirror them with a probability of 1/2."""
    images = torch.roll(images, torch.randint(-most, most + 1, (2,), generator=g).tolist(), (2, 3))
    return images.flip(3) if torch.rand((), generator=g) < 0.5 else images


def matched_pool(
    classifier: Classifier, n: int, seed: int, file: Path | None, size: int = 240, steps: int = 40
) -> Pool:
    """A pool of dead leaves, made more natural by batch-norm matching below the largest maps.

    Args:
        classifier: with batch norms that keep running statistics.
        n: how many images; rounded up to a multiple of 16, since 16 are optimised together.
        seed: of the leaves and of the pool's crops.
        file: where the images are kept, since they take minutes; if it exists, they are loaded. None keeps nothing.
        size: side of the images in pixels.
        steps: steps of the optimisation.
    """

    def make() -> dict[str, Tensor]:
        images = []
        for start in tqdm(range(0, n, 16), desc="batch-norm matching", unit="batch"):
            leaves = dead_leaves(16, size, (seed + 1) * 100_003 + start, classifier.device)
            with autocast(classifier.device):
                matched = batch_norm_matched(classifier, 16, size, steps=steps, lr=0.1, skip=10, start=leaves)
            images.append(matched.cpu())
        return {"images": Pool(torch.cat(images), seed).images}

    return Pool(store.kept(file, make)["images"], seed)
