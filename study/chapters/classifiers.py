"""What logit vectors hold besides the class, and whether those of images seen in training differ from those of others.

An inverter learns from the logits of one set of images and reads those of another: if the classifier was trained on
either, its confidence may give that away (membership inference; Shokri et al. 2017, arXiv 1610.05820). Logits are float
(N, classes), labels int64 (N,).
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from invkit.statistics import Interval, bootstrap


def per_image(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Scalars (N,) of each logit vector: "largest" logit, its "margin" to the second, "spread" (standard deviation over
    the classes), "loss" (cross-entropy in nats) and whether the largest is "right"."""
    _check(logits, labels)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return {
        "largest": first,
        "margin": first - second,
        "spread": logits.std(1),
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "right": logits.argmax(1) == labels,
    }


def membership(seen: Tensor, unseen: Tensor) -> Interval:
    """How well the loss tells an image seen in training (N,) from one unseen (M,): the area under the ROC curve.

    0.5 for not at all, 1 where every seen image has the smaller loss; 95 % interval by DeLong et al. (1988).
    """
    a, b = (np.asarray(values.detach().cpu(), dtype=np.float64) for values in (seen, unseen))
    if a.ndim != 1 or b.ndim != 1 or min(len(a), len(b)) < 2:
        raise ValueError(f"Give at least two losses of each kind, not {a.shape} and {b.shape}.")
    ranks = rankdata(np.concatenate([a, b]))
    # for each image, the share of the other kind that lies on its far side; ties count half
    beaten = 1 - (ranks[: len(a)] - rankdata(a)) / len(b)
    beating = (ranks[len(a) :] - rankdata(b)) / len(a)
    area = beaten.mean()
    error = 1.96 * np.sqrt(beaten.var(ddof=1) / len(a) + beating.var(ddof=1) / len(b))
    return Interval(float(area), float(max(0, area - error)), float(min(1, area + error)), len(a) + len(b))


def within_class_share(logits: Tensor, labels: Tensor, seed: int = 0) -> Interval:
    """The share of the logits' variance that lies among images of one class, which no class label could tell.

    Squared distances from the class's mean, corrected for its few images, over those from the mean of all; classes of
    one image are left out. 95 % bootstrap interval over images, the means held.
    """
    _check(logits, labels)
    counts = torch.bincount(labels)[labels]
    logits, labels, counts = (values[counts > 1] for values in (logits.double(), labels, counts))
    if not len(labels):
        raise ValueError("No class has two images: give more images.")
    sums = torch.zeros(int(labels.max()) + 1, logits.shape[1], dtype=logits.dtype).index_add(0, labels, logits)
    within = (logits - (sums[labels] / counts[:, None])).square().sum(1) * counts / (counts - 1)
    total = (logits - logits.mean(0)).square().sum(1)
    rows = torch.randint(len(labels), (2000, len(labels)), generator=torch.Generator().manual_seed(seed))
    ratios = within[rows].mean(1) / total[rows].mean(1)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    return Interval((within.mean() / total.mean()).item(), low, high, len(labels))


def directions(logits: Tensor) -> float:
    """How many directions the logits spread in; 1 for a line, the number of classes for a ball.

    The participation ratio (sum l)^2 / sum l^2 of the eigenvalues l of their covariance.
    """
    _check(logits)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(logits.double().T)).clamp_min(0)
    return (eigenvalues.sum().square() / eigenvalues.square().sum()).item()


def neighbour_correlation(images: Tensor) -> Tensor:
    """How coarse images (N, 3, H, W) or their differences are: the correlation of pixels beside or below each other.

    (N,): 0 for white noise, near 1 for smooth images.
    """
    centred = images - images.mean((1, 2, 3), keepdim=True)
    beside = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3))
    below = (centred[..., 1:, :] * centred[..., :-1, :]).mean((1, 2, 3))
    return (beside + below) / 2 / centred.square().mean((1, 2, 3)).clamp_min(1e-12)


def means(logits: Tensor, labels: Tensor) -> dict[str, Interval]:
    """The mean of every scalar of `per_image`, with its 95 % bootstrap interval over images."""
    return {name: bootstrap(values.double()) for name, values in per_image(logits, labels).items()}


def _check(logits: Tensor, labels: Tensor | None = None) -> None:
    if not logits.is_floating_point() or logits.ndim != 2 or len(logits) < 2 or logits.shape[1] < 2:
        what = f"{logits.dtype} {tuple(logits.shape)}"
        raise ValueError(f"Logits must be floats (N, classes), at least two of each, not {what}.")
    if not logits.isfinite().all():
        raise ValueError("Some logits are not finite: look at the images and at the classifier.")
    if labels is not None and (labels.shape != logits.shape[:1] or labels.dtype != torch.int64):
        what = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"Give one int64 label for each of the {len(logits)} logit vectors, not {what}.")
