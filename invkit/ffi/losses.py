"""Feedforward inversion of logits (Teterwak, Zhang, Krishnan & Mozer, ICML 2021, arXiv 2103.07470).

A frozen classifier gives logits z of an image x. A BigGAN generator draws G(ε, z), and a projection discriminator
judges pairs of image and logits, with the hinge losses

    L_D = E[max(-1, D(G(ε, z), z)) - min(1, D(x, z))]        L_G = -E[D(G(ε, z), z)]

Three objectives, each named on the card of what it trained:

- "adversarial": these two losses alone, as in the paper.
- "regression": no discriminator. The pixel term is `dci.log_error`: up to sign and scale it is the mean PSNR, and it
  counts a pale image as much as a contrasty one.
- "hybrid": regression for most of the schedule, then both losses beside a pixel term, as Dosovitskiy & Brox (2016,
  "DeePSiM") did. A pixel term of single drawings teaches the generator to ignore its noise; here it is the energy score
  of two drawings a, b of the same logits, (|a - x| + |b - x| - |a - b|) / 2, which is least where the drawings are
  distributed as the images behind those logits are (Gneiting & Raftery 2007, equation 22). Where `reading` is above 0,
  a third image of the same logits, drawn with the noise at its centre, goes on being regressed: the generator then
  answers with its best guess where it is given no noise, and with drawings where it is.

Where `identify` is above 0, the coarse reader and the regression are also asked that a reading resembles its own image
more than the others of the batch (`identification`); where `identify_late` is, what is drawn beside an adversary too. A
squared error spends all it has on what varies most among images and forgoes what tells two of them apart. Retrieval is
then among the things trained for: say so beside it.

The discriminator sees augmented images, real and drawn (DiffAugment, Zhao et al. 2020, arXiv 2006.10738).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from invkit.dci.chain import log_error

TEMPERATURE = 0.05  # of `identification`


# ---- losses ----------------------------------------------------------------------------------------------------------


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of scores (N,): E[max(-1, fake) - min(1, real)], least (-2) where real >= 1 and fake <= -1."""
    return fake.clamp_min(-1).mean() - real.clamp_max(1).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-E[fake], scores (N,) of drawn images."""
    return -fake.mean()


def energy_score(a: Tensor, b: Tensor, x: Tensor, squares: Sequence[int] = (1,)) -> Tensor:
    """Mean over images of (|a - x| + |b - x| - |a - b|) / 2, where |·| is the root mean square over an image.

    squares: sides in pixels. The score is the mean of those of the images' averages over squares of each side: between
    single pixels, noise hides how far apart two images are in their colours and masses.
    """

    def distance(u: Tensor, v: Tensor, square: int) -> Tensor:
        difference = F.avg_pool2d(u.float() - v.float(), square)
        return (difference.square().flatten(1).mean(1) + 1e-8).sqrt()

    scores = [distance(a, x, k) + distance(b, x, k) - distance(a, b, k) for k in squares]
    return torch.stack(scores).mean() / 2


def identification(reading: Tensor, x: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross-entropy of finding every image of a batch x (N, 3, S, S) by its reading (van den Oord et al. 2018, eq. 4).

    Likeness is that of `metrics.retrieval_ranks`, the cosine after subtracting the batch's mean image, in units of
    `temperature`. log(N) where readings tell nothing; 0 where each is like its own image alone.
    """
    mean = x.float().mean(0)
    read, true = (F.normalize((images.float() - mean).flatten(1)) for images in (reading, x))
    return F.cross_entropy(read @ true.T / temperature, torch.arange(len(x), device=x.device))


def diff_augment(images: Tensor) -> Tensor:
    """Every image moved by up to an eighth of its side and with a random square of a quarter of it cut out.

    Differentiable. The published policy also changes colours; here they are part of what the logits may tell.
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


def _reading_error(reading: Tensor, images: Tensor, identify: float) -> tuple[Tensor, dict[str, Tensor]]:
    """(`log_error` and, with that weight, `identification`; the two terms by name)."""
    terms = {"pixel": log_error(reading, images)}
    if identify:
        terms["identify"] = identify * identification(reading, images)
    return sum(terms.values()), terms


def feature_error(features: Callable[[Tensor], Tensor], drawn: Tensor, images: Tensor) -> Tensor:
    """Mean absolute difference of features, in units of their mean absolute value."""
    with torch.no_grad():
        truth = features(images)
    return (features(drawn) - truth).abs().mean() / truth.abs().mean().clamp_min(1e-6)
