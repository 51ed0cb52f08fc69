"""Images without data: what a zero-shot inversion trains on (DESIGN: no photograph, no data set).

Four sources, from the least to the most like a photograph:

- `white_noise`: independent pixels.
- `pink_noise`: Gaussian fields with the 1/f amplitude spectrum of natural images (Field 1987).
- `dead_leaves`: textured, lit shapes that occlude one another (Matheron 1968; Lee, Mumford & Huang 2001). Radii follow
  the density r^-3, the only one that looks the same at every scale: each octave of radii covers the same area.
- `batch_norm_matched`: images optimised until the batch-norm layers of a classifier see the statistics they saw in
  training, and perhaps show it a class each (DeepInversion, Yin et al. 2020); they need the classifier, and no photo.

All return float images in [0, 1], (n, 3, size, size), made on `device`. Of the first three, image `first` + i depends on
its number, the seed and the size alone, not on how many are drawn with it, and is the same on every device but for
rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invkit.dci.synthetic import _check, pink_noise


class _Moments(torch.autograd.Function):
    """Mean and variance of each channel of maps (N, C, H, W), in float32 or better: one pass and one product forth, one
    pass back. What autograd makes of `var_mean` costs a CPU three times as much, more than the classifier itself."""

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


def statistics_distance(classifier, images: Tensor, skip: int = 0) -> Tensor:
    """How unnatural a classifier's batch norms find images: a scalar, 0 when they see the statistics of their training.

    Mean over layers and channels of the Kullback-Leibler divergence between two Gaussians: the channel's values over
    these images, and the running mean and variance stored in the layer. Differentiable in the images, (N, 3, H, W).
    The first `skip` layers do not count: their maps are large and cost the most.

    Raises:
        ValueError: the classifier has no batch norm that keeps running statistics.
    """
    return _distance_and_logits(classifier, images, skip)[0]


def _distance_and_logits(classifier, images: Tensor, skip: int) -> tuple[Tensor, Tensor]:
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
    classifier,
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
    """Images optimised until the classifier's batch norms see their training statistics; (n, 3, size, size) in [0, 1].

    DeepInversion (Yin et al. 2020, eqs. 3 and 4): Adam on the pixels, behind a sigmoid that keeps them in range,
    minimises `statistics_distance` (with `skip`) plus `smooth` times the total variation. The statistics are of all n
    images together, so ask for at least 16. The start is 1/f noise, or `start`, of that shape.

    classes: (n,) indices, one an image, that each is to show besides: `confidence` times the cross entropy is added,
        and every step sees the images shifted and perhaps mirrored, as in the paper, so that they show it anywhere.

    Raises:
        ValueError: a classifier without batch norms, a start or classes of another shape.
    """
    _check(n, size)
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
    """All images rolled by the same random shift of at most so many pixels, and mirrored half of the times."""
    images = torch.roll(images, torch.randint(-most, most + 1, (2,), generator=g).tolist(), (2, 3))
    return images.flip(3) if torch.rand((), generator=g) < 0.5 else images
