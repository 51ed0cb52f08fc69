"""Inversion by optimisation, one image at a time: what a feedforward inverse has to beat.

- `invert_features`: an image from its features (Mahendran & Vedaldi 2015, arXiv 1412.0035, equations 2 to 4),
      min_x  |Phi(x) - y|^2 / |y|^2  +  tv * mean_pixels (d_h^2 + d_v^2)^(beta / 2),    x in [0, 1].
- `invert_latents`: the latent of a generator, min_z |G(z) - x|^2 / pixels + prior * |z|^2 / latent_dim, by Adam, by
      L-BFGS, or by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

The images of a batch share every forward pass and nothing else: each ends where it would end alone.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from invkit.checks import check_size, check_whole_number, checked
from invkit.seeds import seeded

Residuals = Callable[[Tensor, Tensor], Tensor]  # (latents, images) -> (N, residuals)


class Inversion(NamedTuple):
    """What an optimisation found.

    Attributes:
        estimate: the images (N, 3, size, size) or latents (N, latent_dim) found.
        losses: the objective of every image before every step, and after the last one, (steps + 1, N).
        seconds: wall-clock time for the whole batch.
    """

    estimate: Tensor
    losses: Tensor
    seconds: float


@checked
def total_variation(images: Tensor, beta: float = 2.0, floor: float = 1e-8) -> Tensor:
    """Mean over pixels of (d_h^2 + d_v^2)^(beta/2), summed over channels (equation 4 of the paper).

    Args:
        images: floats (N, C, H, W).
        beta: the exponent; 2 smooths most, 1 keeps edges.
        floor: added to the squares, so that the gradient is finite where an image is flat and beta < 2.

    Returns:
        One value for each image, (N,).
    """
    right = images[..., :-1, 1:] - images[..., :-1, :-1]
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    return (right**2 + down**2 + floor).pow(beta / 2).mean((2, 3)).sum(1)


@checked
@torch.inference_mode(False)
def invert_features(
    classifier: Any,
    features: Tensor,
    depth: int,
    *,
    size: int | None = None,
    steps: int = 300,
    lr: float = 0.02,
    tv: float | None = None,
    beta: float = 2.0,
    levels: int | None = None,
    start: Tensor | None = None,
    seed: int = 0,
) -> Inversion:
    """Images in [0, 1] whose features at `depth` are `features`, by Adam with a cosine-decayed rate.

    The image is a sum of maps, each half the size of the one before, and Adam moves them all: a preconditioner that
    lets broad structure arrive as fast as detail. `levels=1` is Adam on plain pixels, 1 to 5 dB worse after 100 steps.
    `benchmarks/tune_optimisation.py` chose this and the other defaults, on synthetic images.

    Args:
        classifier: anything with `.features(images, depth)`, `.blocks` and `.size`.
        features: what `classifier.features(images, depth)` gave, (N, ...).
        depth: of the block that gave them, from 1.
        size: side of the images in pixels; None is the classifier's own.
        steps: of Adam, at least 1.
        lr: Adam's first learning rate.
        tv: weight of total variation; None is stride^2 / 40, the stride that of the depth (at most 32): the less the
            features say about a pixel, the smoother the image.
        beta: exponent of total variation.
        levels: how many maps are summed; None is down to one of two pixels a side.
        start: the first images (N, 3, size, size); None is grey with a little noise.
        seed: of that noise.

    Raises:
        ValueError: no step, or features of another shape than images of this size give at this depth.
    """
    check_whole_number(steps, 1, "steps")
    size = size or classifier.size
    check_size(len(features), size)
    check_whole_number(levels or 1, 1, "levels", 64)
    if start is None:
        noise = torch.randn(len(features), 3, size, size, generator=seeded(seed))
        start = 0.5 + 0.01 * noise.to(features.device)
    with torch.no_grad():
        expected = classifier.features(start.clamp(0, 1), depth).shape
    if expected != features.shape:
        raise ValueError(
            f"Images of {size} px give features of shape {tuple(expected)} at depth {depth}, not "
            f"{tuple(features.shape)}: pass the size and the depth these features were taken at."
        )
    tv = min(classifier.blocks[depth - 1].stride, 32) ** 2 / 40 if tv is None else tv
    pyramid = pyramid_of(start.detach(), levels or max(1, size.bit_length() - 1))
    objective = mismatch(classifier, features.detach(), depth, tv, beta)
    losses, seconds = _adam(pyramid, lambda: objective(from_pyramid(pyramid)), steps, lr)
    return Inversion(from_pyramid(pyramid).detach(), losses, seconds)


def mismatch(classifier: Any, features: Tensor, depth: int, tv: float, beta: float = 2.0) -> Callable[[Tensor], Tensor]:
    """The objective of `invert_features`: images (N, 3, S, S) -> |Phi(x) - y|^2 / |y|^2 + tv * TV(x), (N,)."""
    energy = features.flatten(1).square().sum(1).clamp_min(1e-12)

    def objective(images: Tensor) -> Tensor:
        distance = (classifier.features(images, depth) - features).flatten(1).square().sum(1) / energy
        return distance + tv * total_variation(images, beta)

    return objective


def pyramid_of(images: Tensor, levels: int) -> list[Tensor]:
    """Maps of side size, size/2, size/4, ... that sum to the images less 1/2: at first all is in the first."""
    n, channels, height, width = images.shape
    shapes = [(n, channels, max(1, height >> k), max(1, width >> k)) for k in range(levels)]
    maps = [images - 0.5, *(images.new_zeros(shape) for shape in shapes[1:])]
    return [m.clone().requires_grad_() for m in maps]


def from_pyramid(pyramid: list[Tensor]) -> Tensor:
    finest, *coarser = pyramid
    size = finest.shape[-2:]
    images = 0.5 + finest + sum(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in coarser)
    # In [0, 1], but with the gradient of the unclamped image: a pixel that left the range can come back.
    return images + (images.clamp(0, 1) - images).detach()


def descend(
    variables: Sequence[Tensor], objective: Callable[[], Tensor], lr: float, spent: Callable[[int], float]
) -> Tensor:
    """Adam on the sum of per-image objectives, until a budget is spent, but for one step at least.

    Adam's moments are per number, so the images do not see one another.

    Args:
        variables: what is moved.
        objective: their objectives, (N,), or the sum of them.
        lr: the first learning rate; it falls as half a cosine.
        spent: which share of the budget is spent after so many steps.

    Returns:
        The objectives before every step, (steps, N).
    """
    adam, losses = torch.optim.Adam(variables, lr=lr), list[Tensor]()
    while (share := spent(len(losses))) < 1 or not losses:
        adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * min(share, 1))) / 2
        adam.zero_grad()
        loss = objective()
        loss.sum().backward(inputs=list(variables))
        adam.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def _adam(variables: list[Tensor], objective: Callable[[], Tensor], steps: int, lr: float) -> tuple[Tensor, float]:
    """So many steps of `descend`; returns the losses, those after the last step too, and the seconds."""
    began = time.perf_counter()
    losses = descend(variables, objective, lr, lambda done: done / steps)
    with torch.no_grad():
        return torch.cat([losses, objective()[None]]), time.perf_counter() - began


@checked
@torch.inference_mode(False)
def invert_latents(
    generator: Any,
    images: Tensor,
    method: str = "gauss-newton",
    *,
    start: Tensor | None = None,
    seed: int = 0,
    steps: int | None = None,
    lr: float = 0.05,
    damping: float = 1e-2,
    prior: float = 0.0,
) -> Inversion:
    """Latents whose images are `images`, one optimisation for each image.

    Args:
        generator: anything with `.images(latents)` and `.latent_dim`.
        images: targets in [0, 1], (N, 3, size, size).
        method: "gauss-newton", "lbfgs" or "adam".
        start: the first latents (N, latent_dim); None is a sample of N(0, I). (Not zeros, the mode of the prior: there
            every ReLU of a DCGAN's first layer may be off, as in facegan, and no gradient flows.)
        seed: of that sample.
        steps: at least 1; None is 8 for Gauss-Newton, 100 for L-BFGS, 500 for Adam.
        lr: Adam's learning rate.
        damping: Gauss-Newton's first, relative to the mean curvature; 0 is undamped.
        prior: weight of |z|^2 / latent_dim beside the mean squared error of the pixels.

    Raises:
        ValueError: another method, no step, or a start of another shape.
    """
    steps_by_default = {"gauss-newton": 8, "lbfgs": 100, "adam": 500}
    if method not in steps_by_default:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(steps_by_default)}.")
    dim = generator.latent_dim
    if start is None:
        start = torch.randn(len(images), dim, generator=seeded(seed)).to(images)
    if start.shape != (len(images), dim):
        raise ValueError(f"Start from latents of shape ({len(images)}, {dim}), one an image, not {tuple(start.shape)}.")
    steps = steps_by_default[method] if steps is None else steps
    check_whole_number(steps, 1, "steps")

    def residuals(latents: Tensor, images: Tensor) -> Tensor:
        """What to bring to zero, (N, residuals): the sum of their squares is the objective."""
        pixels = (generator.images(latents) - images).flatten(1)
        return torch.cat([pixels / math.sqrt(pixels.shape[1]), latents * math.sqrt(prior / dim)], 1)

    start, images = start.detach().clone(), images.detach()
    if method == "gauss-newton":
        return _gauss_newton(residuals, start, images, steps, damping)
    if method == "lbfgs":
        return _lbfgs(residuals, start, images, steps)
    start.requires_grad_()
    losses, seconds = _adam([start], lambda: residuals(start, images).square().sum(1), steps, lr)
    return Inversion(start.detach(), losses, seconds)


def _at(residuals: Residuals, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The residuals as a function of the latents alone."""
    return lambda latents: residuals(latents, images)


def _gauss_newton(
    residuals: Residuals, start: Tensor, images: Tensor, steps: int, damping: float, batch: int = 8
) -> Inversion:
    """Levenberg-Marquardt, in batches whose Jacobian fits into memory."""
    began = time.perf_counter()
    parts = [
        _levenberg_marquardt(_at(residuals, targets), latents, steps, damping)
        for latents, targets in zip(start.split(batch), images.split(batch), strict=True)
    ]
    found, losses = zip(*parts, strict=True)
    return Inversion(torch.cat(found), torch.cat(losses, 1), time.perf_counter() - began)


def _levenberg_marquardt(
    residual: Callable[[Tensor], Tensor], latents: Tensor, steps: int, damping: float
) -> tuple[Tensor, Tensor]:
    """z <- z - (J'J + d I)^-1 J'r where that helps; d falls after a success and rises after a failure, row by row."""
    r = residual(latents)
    history = [r.square().sum(1)]
    damp = torch.full_like(history[0], damping)
    identity = torch.eye(latents.shape[1], device=latents.device, dtype=latents.dtype)
    for _ in range(steps):
        jacobian = _jacobian(residual, latents)
        curvature = torch.einsum("pnr,qnr->npq", jacobian, jacobian)
        slope = torch.einsum("pnr,nr->np", jacobian, r)
        mean_curvature = curvature.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        trial = latents - torch.linalg.solve(curvature + (damp * mean_curvature)[:, None, None] * identity, slope)
        r_trial = residual(trial)
        loss, trial_loss = history[-1], r_trial.square().sum(1)
        better = trial_loss < loss  # false for a NaN too
        latents, r = torch.where(better[:, None], trial, latents), torch.where(better[:, None], r_trial, r)
        history.append(torch.where(better, trial_loss, loss))
        damp = torch.where(better, damp / 5, (damp * 5).clamp_min(1e-6))
    return latents, torch.stack(history)


def _jacobian(residual: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """d residual / d latents, (latent_dim, N, residuals), in forward mode: a pass for every number of the latent."""

    def along(direction: Tensor) -> Tensor:
        return jvp(residual, (latents,), (direction.expand_as(latents),))[1]

    directions = torch.eye(latents.shape[1], device=latents.device, dtype=latents.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own forward mode still calls torch.jit.script
        return vmap(along, chunk_size=10)(directions)


def _lbfgs(residuals: Residuals, start: Tensor, images: Tensor, steps: int) -> Inversion:
    """L-BFGS, one image after the other: its curvature estimate must not mix images."""
    began = time.perf_counter()
    parts = [
        _lbfgs_one(_at(residuals, image), latent, steps)
        for latent, image in zip(start.split(1), images.split(1), strict=True)
    ]
    found, losses = zip(*parts, strict=True)
    return Inversion(torch.cat(found), torch.stack(losses, 1), time.perf_counter() - began)


def _lbfgs_one(residual: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """With a strong Wolfe line search; returns the latent and the objective before every step and after the last."""
    latent = start.clone().requires_grad_()
    lbfgs = torch.optim.LBFGS([latent], max_iter=1, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        loss = residual(latent).square().sum()
        lbfgs.zero_grad()
        loss.backward(inputs=[latent])
        return loss

    losses = [lbfgs.step(evaluate).detach() for _ in range(steps)]
    with torch.no_grad():
        losses.append(residual(latent).square().sum())
    return latent.detach(), torch.stack(losses)
