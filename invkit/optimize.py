"""Inversion by optimisation, one image at a time: what a feedforward inverse has to beat.

- `invert_features`: pixels by Adam (Mahendran & Vedaldi 2015, arXiv 1412.0035, eqs. 2-4),
      min_x  |Phi(x) - y|^2 / |y|^2  +  tv * mean_pixels (d_h^2 + d_v^2)^(beta / 2),    x in [0, 1].
- `invert_latents`: the latent of a generator, min_z |G(z) - x|^2 / pixels + prior * |z|^2 / latent_dim, by Adam, by
      L-BFGS, or by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

The images of a batch share every forward pass and nothing else: each ends where it would end alone.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vmap


Residuals = Callable[[Tensor, Tensor], Tensor]  # (latents, images) -> (N, residuals)


class Inversion(NamedTuple):
    """Attributes:
    estimate: the images (N, 3, size, size) or latents (N, latent_dim) found.
    losses: the objective of every image before every step, and after the last one, (steps + 1, N).
    seconds: wall-clock time for the whole batch.
    """

    estimate: Tensor
    losses: Tensor
    seconds: float


def total_variation(images: Tensor, beta: float = 2.0, floor: float = 1e-8) -> Tensor:
    """Mean over pixels of (d_h^2 + d_v^2)^(beta/2), summed over channels; (N, C, H, W) -> (N,) (eq. 4 of the paper).

    `floor` keeps the gradient finite where an image is flat and beta < 2.
    """
    right = images[..., :-1, 1:] - images[..., :-1, :-1]
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    return (right**2 + down**2 + floor).pow(beta / 2).mean((2, 3)).sum(1)


def invert_features(
    classifier,
    features: Tensor,
    depth: int,
    *,
    size: int | None = None,
    steps: int = 300,
    lr: float = 0.05,
    tv: float = 0.01,
    beta: float = 1.5,
    start: Tensor | None = None,
    seed: int = 0,
) -> Inversion:
    """Images in [0, 1] whose features at `depth` are `features`, by Adam on pixels with a cosine-decayed rate.

    Args:
        classifier: anything with `.features(images, depth)` and `.size`; see `invkit.classifiers`.
        features: (N, ...), what `classifier.features(images, depth)` gave.
        size: side of the images; by default the classifier's own.
        steps, lr, tv, beta: found on synthetic images by `benchmarks/tune_optimisation.py`.
        start: first images (N, 3, size, size); by default grey with a little noise drawn from `seed`.
    """
    _check_steps(steps)
    size = size or classifier.size
    if start is None:
        noise = torch.randn(len(features), 3, size, size, generator=torch.Generator().manual_seed(seed))
        start = 0.5 + 0.05 * noise.to(features.device)
    images = start.detach().clone().requires_grad_()
    with torch.no_grad():
        expected = classifier.features(images, depth).shape
    if expected != features.shape:
        raise ValueError(
            f"Images of {size} px give features of shape {tuple(expected)} at depth {depth}, not {tuple(features.shape)}; "
            "pass the size and the depth these features were taken at."
        )
    features = features.detach()
    energy = features.flatten(1).square().sum(1).clamp_min(1e-12)

    def objective() -> Tensor:
        distance = (classifier.features(images, depth) - features).flatten(1).square().sum(1) / energy
        return distance + tv * total_variation(images, beta)

    return _adam(images, objective, steps, lr, project=lambda: images.clamp_(0, 1))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"Take at least one step, not steps={steps}.")


def _adam(
    variable: Tensor, objective: Callable[[], Tensor], steps: int, lr: float, project: Callable[[], object] = lambda: None
) -> Inversion:
    """Adam on the sum of per-image objectives. Its moments are per number, so the images do not see one another."""
    began = time.perf_counter()
    adam = torch.optim.Adam([variable], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    losses = []
    for _ in range(steps):
        loss = objective()
        adam.zero_grad()
        loss.sum().backward(inputs=[variable])
        adam.step()
        schedule.step()
        losses.append(loss.detach())
        with torch.no_grad():
            project()
    with torch.no_grad():
        losses.append(objective())
    return Inversion(variable.detach(), torch.stack(losses), time.perf_counter() - began)


def invert_latents(
    generator,
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
    """Latents whose images are `images`, one optimisation an image.

    Args:
        generator: anything with `.images(latents)` and `.latent_dim`; see `invkit.generators`.
        images: targets in [0, 1], (N, 3, size, size).
        method: "gauss-newton" (8 steps by default), "lbfgs" (100) or "adam" (500).
        start: first latents (N, latent_dim); by default drawn from N(0, I) by `seed`. (Not zeros, the mode of the
            prior: there every ReLU of a DCGAN's first layer may be off, as in facegan, and no gradient flows.)
        lr: Adam's. damping: Gauss-Newton's first, relative to the mean curvature; 0 is undamped.
        prior: weight of |z|^2 / latent_dim beside the mean squared error of the pixels.
    """
    steps_by_default = {"gauss-newton": 8, "lbfgs": 100, "adam": 500}
    if method not in steps_by_default:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(steps_by_default)}.")
    dim = generator.latent_dim
    if start is None:
        start = torch.randn(len(images), dim, generator=torch.Generator().manual_seed(seed)).to(images)
    if start.shape != (len(images), dim):
        raise ValueError(f"Start from latents of shape ({len(images)}, {dim}), one an image, not {tuple(start.shape)}.")
    steps = steps_by_default[method] if steps is None else steps
    _check_steps(steps)

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
    return _adam(start, lambda: residuals(start, images).square().sum(1), steps, lr)


def _gauss_newton(residuals: Residuals, start: Tensor, images: Tensor, steps: int, damping: float, batch: int = 8) -> Inversion:
    """Levenberg-Marquardt: z <- z - (J'J + d I)^-1 J'r, kept where it helps; d falls after a success, rises after a failure."""
    began = time.perf_counter()
    found, losses = [], []
    for latents, targets in zip(start.split(batch), images.split(batch)):  # the Jacobian of a batch has to fit in memory
        def residual(z: Tensor, targets: Tensor = targets) -> Tensor:
            return residuals(z, targets)

        r = residual(latents)
        history = [r.square().sum(1)]
        damp = torch.full_like(history[0], damping)
        for _ in range(steps):
            jacobian = _jacobian(residual, latents)
            curvature = torch.einsum("pnr,qnr->npq", jacobian, jacobian)
            slope = torch.einsum("pnr,nr->np", jacobian, r)
            scale = curvature.diagonal(dim1=1, dim2=2).mean(1)
            trial = latents - _solve_damped(curvature, slope, damp * scale)
            r_trial = residual(trial)
            loss, trial_loss = history[-1], r_trial.square().sum(1)
            better = trial_loss < loss  # false for a NaN too
            latents, r = torch.where(better[:, None], trial, latents), torch.where(better[:, None], r_trial, r)
            history.append(torch.where(better, trial_loss, loss))
            damp = torch.where(better, damp / 5, (damp * 5).clamp_min(1e-6))
        found.append(latents)
        losses.append(torch.stack(history))
    return Inversion(torch.cat(found), torch.cat(losses, 1), time.perf_counter() - began)


def _solve_damped(curvature: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    identity = torch.eye(curvature.shape[1], device=curvature.device, dtype=curvature.dtype)
    return torch.linalg.solve(curvature + damping[:, None, None] * identity, slope)


def _jacobian(residual: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """d residual / d latents of every row, (latent_dim, N, residuals), by forward mode: one pass per number of the latent."""
    def along(direction: Tensor) -> Tensor:
        return jvp(residual, (latents,), (direction.expand_as(latents),))[1]

    directions = torch.eye(latents.shape[1], device=latents.device, dtype=latents.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own forward mode still calls torch.jit.script
        return vmap(along, chunk_size=10)(directions)


def _lbfgs(residuals: Residuals, start: Tensor, images: Tensor, steps: int) -> Inversion:
    """L-BFGS with a strong Wolfe line search, one image after the other: its curvature estimate must not mix images."""
    began = time.perf_counter()
    found, losses = [], []
    for latent, image in zip(start.split(1), images.split(1)):
        latent = latent.clone().requires_grad_()
        lbfgs = torch.optim.LBFGS([latent], max_iter=1, line_search_fn="strong_wolfe")
        history = []

        def objective() -> Tensor:
            loss = residuals(latent, image).square().sum()
            lbfgs.zero_grad()
            loss.backward(inputs=[latent])
            return loss

        for _ in range(steps):
            history.append(lbfgs.step(objective).detach())
        found.append(latent.detach())
        with torch.no_grad():
            losses.append(torch.stack([*history, residuals(latent, image).square().sum()]))
    return Inversion(torch.cat(found), torch.stack(losses, 1), time.perf_counter() - began)
