"""Losses of a feedforward inverter of logits (Teterwak, Zhang, Krishnan & Mozer, ICML 2021, arXiv 2103.07470).

- `discriminator_loss`, `generator_loss`: the hinge losses of the paper.
- `energy_score`: for pairs of samples; least where they are distributed as the images are.
- `identification`: each reconstruction resembles its own image more than the others of the batch.
- `reconstruction_error`, `feature_error`: of single reconstructions, in pixels and in the features of a network.
- `consistency_error`: classifiers see in a reconstruction what they saw in the image.
- `diff_augment`: the augmentation of what the discriminator sees.

`invkit.ffi.training` says which objective uses which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from invkit.dci.chain import log_error

TEMPERATURE = 0.05  # of `identification`


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss E[max(-1, fake) - min(1, real)].

    Args:
        real, fake: the discriminator's scores of real and of generated images, (N,).

    Returns:
        A scalar, -2 at least, where real >= 1 and fake <= -1.
    """
    return fake.clamp_min(-1).mean() - real.clamp_max(1).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-E[fake], the scores (N,) of generated images."""
    return -fake.mean()


def energy_score(a: Tensor, b: Tensor, x: Tensor, squares: Sequence[int] = (1,)) -> Tensor:
    """The energy score of two samples for each image (Gneiting & Raftery 2007, equation 22).

    The mean over images of (|a - x| + |b - x| - |a - b|) / 2, where |·| is the root mean square over an image. In
    expectation it is least where a and b are distributed as x is, given the logits.

    Args:
        a, b: independent samples for the same logits, (N, 3, S, S).
        x: the images, (N, 3, S, S).
        squares: sides in pixels. The score is the mean of the scores of the images' averages over squares of each side:
            between single pixels, noise hides how far two images are apart in their colours and shapes.
    """

    def distance(u: Tensor, v: Tensor, square: int) -> Tensor:
        difference = F.avg_pool2d(u.float() - v.float(), square)
        return (difference.square().flatten(1).mean(1) + 1e-8).sqrt()

    scores = [distance(a, x, k) + distance(b, x, k) - distance(a, b, k) for k in squares]
    return torch.stack(scores).mean() / 2


def identification(reconstructions: Tensor, x: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The cross-entropy of finding each image by its reconstruction (van den Oord et al. 2018, equation 4).

    Similarity is that of `metrics.retrieval_ranks`: the cosine after subtracting the batch's mean image.

    Args:
        reconstructions: (N, 3, S, S).
        x: their images, (N, 3, S, S).
        temperature: unit of the similarity.

    Returns:
        A scalar: log(N) where reconstructions tell nothing of their images, near 0 where each resembles its own alone.
    """
    mean = x.float().mean(0)
    found, true = (F.normalize((images.float() - mean).flatten(1)) for images in (reconstructions, x))
    return F.cross_entropy(found @ true.T / temperature, torch.arange(len(x), device=x.device))


def diff_augment(images: Tensor) -> Tensor:
    """Images moved by up to an eighth of their side, with a random square of a quarter of it cut out; differentiable.

    DiffAugment (Zhao et al. 2020, arXiv 2006.10738) without its changes of colour: here colours are part of what the
    logits may determine.

    Args:
        images: (N, 3, S, S).
    """
    n, _, side, _ = images.shape
    margin, hole = side // 8, side // 4
    place = torch.arange(side, device=images.device)

    def moved(reach: int) -> Tensor:
        return torch.randint(-reach, reach + 1, (n, 1), device=images.device)

    padded = F.pad(images, [margin] * 4)
    rows, columns = margin + place + moved(margin), margin + place + moved(margin)
    each = torch.arange(n, device=images.device)[:, None, None]
    images = padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    rows, columns = (((place - side // 2 + moved(side // 2)).abs() <= hole // 2) for _ in range(2))
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


def reconstruction_error(
    reconstructions: Tensor, images: Tensor, identify: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """`log_error`, plus `identify` times `identification`.

    Args:
        reconstructions, images: (N, 3, S, S).
        identify: weight of the second term, 0 for none.

    Returns:
        The sum, a scalar, and its terms by name.
    """
    terms = {"pixel": log_error(reconstructions, images)}
    if identify:
        terms["identify"] = identify * identification(reconstructions, images)
    return sum(terms.values()), terms


def feature_error(features: Callable[[Tensor], Tensor], generated: Tensor, images: Tensor) -> Tensor:
    """The mean absolute difference of features, relative to their mean absolute value.

    Args:
        features: images -> features, of a network that is neither inverted nor used to measure.
        generated, images: (N, 3, S, S) in [0, 1].
    """
    with torch.no_grad():
        truth = features(images)
    return (features(generated) - truth).abs().mean() / truth.abs().mean().clamp_min(1e-6)


def consistency_error(
    networks: Sequence[Callable[[Tensor], Tensor]], generated: Tensor, images: Tensor, noise: float = 0.03
) -> Tensor:
    """How far the logits of generated images are from those of the images that they were generated for.

    This is the cycle of Dong et al. (2021, equation 5), asked at the logits: the classifier should see in G(ε, z) what
    it saw in the image. A pattern that fools one network on one grid of pixels could do for that. So both images are
    moved, covered in the same place (`diff_augment`) and get the same noise, and several networks compare them.

    Args:
        networks: images in [0, 1] -> logits (N, classes): the inverted classifier, and others that measure nothing.
        generated, images: (N, 3, S, S) in [0, 1].
        noise: standard deviation of the noise on both images.

    Returns:
        The mean squared difference of the logits relative to their variance over the batch, averaged over networks.
    """
    both = diff_augment(torch.cat([generated, images], 1))
    grain = noise * torch.randn_like(images)
    changed, truth = ((part + grain).clamp(0, 1) for part in both.split(3, 1))
    errors = []
    for network in networks:
        with torch.no_grad():
            target = network(truth).float()
        scale = target.var(0).mean().clamp_min(1e-6)
        errors.append((network(changed).float() - target).square().mean() / scale)
    return torch.stack(errors).mean()
