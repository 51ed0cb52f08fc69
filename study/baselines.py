"""What reconstructions from logits must beat (Teterwak et al. 2021): simple regressors from logits to images.

A baseline learns from `Examples`, logits and images on which neither the classifier was trained nor a reconstruction is
scored, and returns a `Regressor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invkit.ffi.ridge import ridge as regress
from study.reconstructions import Reconstruction

Regressor = Callable[[Tensor], Tensor]  # logits (N, classes) -> images (N, 3, S, S) in [0, 1]


@dataclass(frozen=True)
class Examples:
    """What the baselines learn from: logits (M, classes) of images (M, 3, S, S)."""

    logits: Tensor
    images: Tensor

    def __post_init__(self) -> None:
        if self.logits.dim() != 2 or self.images.dim() != 4 or len(self.logits) != len(self.images):
            shapes = f"{tuple(self.logits.shape)} and {tuple(self.images.shape)}"
            raise ValueError(f"Examples are logits (M, classes) and images (M, 3, S, S), one for each, not {shapes}.")
        if len(self.images) < 2:
            raise ValueError(f"{len(self.images)} examples are too few to learn from: give more of them.")

    def split(self, share: float = 0.2) -> tuple[Examples, Examples]:
        """The first 1 - share of the examples, to fit on, and the others, to choose on."""
        k = round(len(self.images) * (1 - share))
        return Examples(self.logits[:k], self.images[:k]), Examples(self.logits[k:], self.images[k:])


def mean_image(examples: Examples) -> Regressor:
    """Predicts the mean of all images, whatever the logits."""
    mean = examples.images.mean(0)
    return lambda logits: mean.expand(len(logits), *mean.shape)


def mean_colours(images: Tensor) -> Reconstruction:
    """Images (N, 3, H, W), each replaced by its own mean colour: a reconstruction without any structure.

    It knows more than the logits tell, since it looks at the image.
    """
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    return Reconstruction(flat, flat)


def class_means(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean image of every class, (classes, 3, S, S); that of all images for a class that has none."""
    counts = torch.bincount(labels, minlength=classes)
    sums = images.new_zeros(classes, *images.shape[1:]).index_add_(0, labels, images)
    means = sums / counts.clamp_min(1).view(-1, 1, 1, 1)
    return torch.where(counts.view(-1, 1, 1, 1) > 0, means, images.mean(0))


def class_mean(examples: Examples) -> Regressor:
    """Predicts the mean image of the predicted class: all that the class alone could tell, in the sense of PSNR."""
    means = class_means(examples.images, examples.logits.argmax(1), examples.logits.shape[1])
    return lambda logits: means[logits.argmax(1)]


def nearest(examples: Examples, batch: int = 200) -> Regressor:
    """Predicts the example whose logits are nearest.

    The distance is the one of these that has the smallest pixel error on the last fifth of the examples: Euclidean, the
    angle of the centred logits, or Euclidean after whitening, shrunk by 1, 10 or 50 % of the mean variance.
    """
    mean = examples.logits.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(examples.logits.T))
    spaces: list[Callable[[Tensor], Tensor]] = [lambda z: z, lambda z: F.normalize(z - mean)]
    for shrink in (0.01, 0.1, 0.5):
        whiten = axes / (variances.clamp_min(0) + shrink * variances.mean() + 1e-12).sqrt()
        spaces.append(lambda z, whiten=whiten: (z - mean) @ whiten)

    def fit(among: Examples, space: Callable[[Tensor], Tensor]) -> Regressor:
        places = space(among.logits)
        return lambda logits: torch.cat(
            [among.images[torch.cdist(space(part), places).argmin(1)] for part in logits.split(batch)]
        )

    most, held_out = examples.split()
    errors = [F.mse_loss(fit(most, space)(held_out.logits), held_out.images).item() for space in spaces]
    return fit(examples, spaces[errors.index(min(errors))])


def ridge_regression(
    examples: Examples, penalties: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
) -> Regressor:
    """Predicts pixels as linear functions of the logits (Hoerl and Kennard 1970), clipped to [0, 1].

    penalties: in units of the mean variance of a logit. The one with the smallest pixel error on the last fifth of the
    examples, having been fitted on the others, is taken and fitted on all.
    """
    most, held_out = examples.split()
    regressors = _ridges(most, penalties)
    errors = [F.mse_loss(regressor(held_out.logits), held_out.images).item() for regressor in regressors]
    return _ridges(examples, [penalties[errors.index(min(errors))]])[0]


def _ridges(examples: Examples, penalties: Sequence[float]) -> list[Regressor]:
    shape = examples.images.shape[1:]

    def regressor(weight: Tensor, bias: Tensor) -> Regressor:
        return lambda logits: (logits @ weight + bias).clamp(0, 1).unflatten(1, shape)

    return [regressor(*fitted) for fitted in regress(examples.logits, examples.images.flatten(1), penalties)]


BASELINES: dict[str, Callable[[Examples], Regressor]] = {
    "mean image": mean_image,
    "class mean": class_mean,
    "ridge": ridge_regression,
    "nearest": nearest,
}


def predict(examples: Examples, logits: Tensor, names: Sequence[str] = tuple(BASELINES)) -> dict[str, Reconstruction]:
    """What some baselines, having learnt from the examples, make of other logits (N, classes): {name: images}."""
    images = {name: BASELINES[name](examples)(logits) for name in names}
    return {name: Reconstruction(image, image) for name, image in images.items()}
