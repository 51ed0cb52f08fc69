"""Training of a generator of images from logits (Teterwak, Zhang, Krishnan & Mozer, ICML 2021, arXiv 2103.07470).

A frozen classifier gives logits z of an image x. A BigGAN generator computes G(ε, z) from noise ε and z, and a
projection discriminator scores pairs of image and logits. The hinge losses are

    L_D = E[max(-1, D(G(ε, z), z)) - min(1, D(x, z))]        L_G = -E[D(G(ε, z), z)]

There are three objectives, and each inverter's card names its own:

- "adversarial": these two losses alone, as in the paper.
- "regression": no discriminator. The pixel term is `dci.log_error`, up to sign and scale the mean PSNR, which counts an
  image of low contrast as much as one of high contrast.
- "hybrid": regression for most of the schedule, then both losses together with a pixel term, as Dosovitskiy & Brox
  (2016, "DeePSiM") did. A pixel term of single samples would teach the generator to ignore its noise. Here it is the
  energy score of two samples for the same logits (`losses.energy_score`), which is least where samples are distributed
  as the images behind these logits are. Where `GeneratorLossWeights.reading` is above 0, the image generated without
  noise goes on being regressed: the generator then gives its best guess without noise, and samples with it.

`losses.consistency_error` may be added to each phase: the classifier, and others that measure nothing, should see in a
reconstruction what they saw in the image.

`losses.identification` may be added to each phase. A squared error is dominated by the directions in which images vary
most and may ignore what distinguishes two images; this term asks for it. Retrieval is then a part of the training
objective, so a retrieval accuracy has to be reported as such.

The discriminator sees augmented images, both real and generated (`losses.diff_augment`).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invkit.checkpoint import newest
from invkit.checks import checked
from invkit.dci.chain import log_error
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator
from invkit.ffi.losses import (
    consistency_error,
    diff_augment,
    discriminator_loss,
    energy_score,
    feature_error,
    generator_loss,
    identification,
    reconstruction_error,
)
from invkit.processes import process_count
from invkit.seeds import generator_for
from invkit.training import Player, Trained, train

CHECK_EVERY = 50  # steps between two checks of the samples on a GPU, which the CPU has to wait for
OBJECTIVES = ("adversarial", "hybrid", "regression")


@checked
@dataclass(frozen=True)
class GeneratorLossWeights:
    """Weights of the terms of a generator's loss; a term of weight 0 is not computed.

    Attributes:
        pixel: weight of the energy score beside an adversary. In the regression, the pixel term has a weight of 1.
        adversary: weight of the adversarial loss.
        features: weight of the feature term in both phases, if there are features.
        identify: weight of the identification in the regression.
        identify_late: weight of the identification of samples beside an adversary.
        reading: weight of the regression beside an adversary, of the images generated without noise.
        consistency: weight of `losses.consistency_error` of samples, in both phases, if there are networks for it.
        squares: sides in pixels, for the energy score.
    """

    pixel: float = 10.0
    adversary: float = 0.1
    features: float = 1.0
    identify: float = 0.0
    identify_late: float = 0.0
    reading: float = 0.0
    consistency: float = 0.0
    squares: tuple[int, ...] = (1,)


WEIGHTS = GeneratorLossWeights()  # the defaults


class Collapsed(FloatingPointError):
    """The samples of an adversarial training have become useless."""


@dataclass
class GeneratorTraining:
    """A record of the training of a generator.

    Attributes:
        phases: one record for each phase that was completed.
        failure: why the adversarial phase had to be stopped, a sentence; None if it was not.
    """

    phases: list[Trained]
    failure: str | None = None


@checked
def train_generator(
    generator: LogitGenerator,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    *,
    steps: int,
    objective: str = "hybrid",
    discriminator: ProjectionDiscriminator | None = None,
    adversarial_share: float = 0.1,
    weights: GeneratorLossWeights = WEIGHTS,
    features: Callable[[Tensor], Tensor] | None = None,
    consistent: Sequence[Callable[[Tensor], Tensor]] = (),
    lr: float = 1e-3,
    adversarial_lr: float = 2e-4,
    augment: bool = True,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> GeneratorTraining:
    """Train a generator, in place; it ends with the moving average of its weights.

    An adversarial phase that diverges or collapses is stopped with a warning. The generator then goes back to the
    moving average in the last checkpoint of that phase, at worst to the result of the regression.

    Args:
        generator: what is trained.
        batches: batches(step) returns images (N, 3, S, S) in [0, 1] and their conditions (N, condition_dim); they must
            depend on the step alone.
        steps: training steps of both phases together.
        objective: "adversarial", "hybrid" or "regression", as at the top of this module.
        discriminator: for "adversarial" and "hybrid".
        adversarial_share: share of the steps, the last ones, that "hybrid" gives to the adversarial phase; above 0 and
            below 1.
        weights: of the loss terms.
        features: images -> a tensor, of a network that is neither inverted nor used to measure; adds a feature term.
        consistent: images -> logits (N, classes), of the inverted classifier and of others that measure nothing: what
            `weights.consistency` asks to be consistent.
        lr: largest learning rate of the regression.
        adversarial_lr: largest learning rate of the generator beside an adversary; the discriminator's is twice that.
        augment: augment what the discriminator sees.
        folder: for checkpoints; the same call goes on from where a stopped one was. None keeps nothing.
        seed, precision, progress: as for `invkit.training.train`.

    Raises:
        ValueError: another objective, a share out of its range, or no discriminator where one is needed.
        Collapsed: an adversarial training from scratch that collapsed before its first checkpoint.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}.")
    if objective != "regression" and discriminator is None:
        raise ValueError(f"The objective {objective!r} needs a discriminator.")
    if not 0 < adversarial_share < 1:
        raise ValueError(f"adversarial_share lies between 0 and 1, not at {adversarial_share}.")
    late = {"adversarial": steps, "hybrid": max(1, round(adversarial_share * steps)), "regression": 0}[objective]
    early = steps - late
    if objective == "adversarial":
        weights, features = GeneratorLossWeights(pixel=0, adversary=1, features=0), None
    common: dict[str, Any] = {"seed": seed, "precision": precision, "progress": progress}
    record = GeneratorTraining([])
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        if early:
            player = regression_player(generator, weights, features, lr, consistent)
            done = train(player, batches, steps=early, folder=Path(place) / "regression", description="regression",
                         **common)  # fmt: skip
            record.phases.append(done)
        if late:
            players = adversarial_players(generator, discriminator, weights, features, adversarial_lr, augment,
                                          grace=0 if early else late // 5, consistent=consistent)  # fmt: skip
            place = Path(place) / "adversary"
            try:
                before = early * process_count()
                done = train(players, lambda step: batches(before + step), steps=late, folder=place, warmup=0.05,
                             checkpoint_every_steps=max(1, late // 20), description="adversary", **common)  # fmt: skip
                record.phases.append(done)
            except FloatingPointError as error:
                step = _restore(generator, place)
                if step == 0 and not early:
                    raise
                record.failure = f"{error} The weights kept are those of adversarial step {step} of {late}."
                warnings.warn(record.failure, stacklevel=2)
    return record


def fit_coarse_images(
    generator: LogitGenerator,
    images: Tensor,
    z: Tensor,
    steps: int = 0,
    *,
    identify: float = 0.0,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> list[Trained]:
    """Fit a generator's regressor of coarse images, in place: its linear map in closed form, its network by training.

    Args:
        generator: with a `coarse` regressor and a fitted whitening.
        images: uint8, (N, 3, S, S).
        z: their conditions, (N, condition_dim).
        steps: training steps of the network, with 256 images each and the generator's noise on the logits; 0 for none.
            Without a network there is nothing to train.
        identify: weight of `losses.identification` beside `log_error`.
        folder, seed, precision, progress: as for `train_generator`.

    Returns:
        The record of the training, if there was one.
    """
    regressor = generator.coarse
    shrunk = [F.adaptive_avg_pool2d(part.float(), regressor.side).round().byte() for part in images.split(1000)]
    shrunk = torch.cat(shrunk)
    with torch.no_grad():
        white = torch.cat([generator.whitening(part) for part in z.split(1000)])
    few = slice(0, 30_000)  # more would change a linear map little
    regressor.fit(white[few], shrunk[few].float() / 255)
    if regressor.network is None or not steps:
        return []

    def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.randint(len(white), (256,), generator=generator_for(seed + 1, step)).to(white.device)
        return white[chosen], z[chosen].softmax(1), shrunk[chosen].float() / 255

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor, Tensor], step: int):
        white, probabilities, image = batch
        noise = generator.logit_noise * torch.randn_like(white) if generator.logit_noise else 0
        return reconstruction_error(module(white + noise, probabilities), image, identify)

    done = train(
        Player("coarse", regressor.requires_grad_(True), loss, lr=1.5e-3, clip=1.0), batches, steps=steps,
        folder=Path(folder) / "coarse" if folder else None, seed=seed, precision=precision, progress=progress,
        description="coarse images",
    )  # fmt: skip
    regressor.requires_grad_(False)
    return [done]


def regression_player(
    generator: LogitGenerator,
    weights: GeneratorLossWeights,
    features: Callable[[Tensor], Tensor] | None,
    lr: float,
    consistent: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Player:
    """The generator alone: the reconstruction error of its samples, and a feature term if there are features."""

    def loss(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        samples = module(random_noise(generator, z), z)
        total, terms = reconstruction_error(samples, images, weights.identify)
        if features:
            terms["features"] = weights.features * feature_error(features, samples, images)
            total = total + terms["features"]
        if weights.consistency and consistent:
            terms["consistency"] = weights.consistency * consistency_error(consistent, samples, images)
            total = total + terms["consistency"]
        return total, terms

    return Player("generator", generator, loss, lr=lr, clip=1.0)


def adversarial_players(
    generator: LogitGenerator,
    discriminator: ProjectionDiscriminator,
    weights: GeneratorLossWeights,
    features: Callable[[Tensor], Tensor] | None,
    lr: float,
    augment: bool = True,
    grace: int = 0,
    consistent: Sequence[Callable[[Tensor], Tensor]] = (),
) -> list[Player]:
    """The generator and the discriminator, which take turns in every step.

    The discriminator is shown the samples that the generator has just been trained on.

    Args:
        generator, discriminator, weights, features, augment: as for `train_generator`.
        lr: largest learning rate of the generator; the discriminator's is twice that.
        grace: number of first steps in which the samples are not checked, since they may still be alike.
        consistent: as for `train_generator`.
    """
    changed = diff_augment if augment else nn.Identity()
    latest: dict[str, Tensor] = {}

    def generate(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        n = len(images)
        samples = 2 if weights.pixel else 1  # the energy score takes two for each image
        noise = random_noise(generator, z.repeat(samples, 1))
        if weights.reading:
            noise = F.pad(noise, (0, 0, 0, n))  # n more rows, of zeros
        generated = module(noise, z.repeat(len(noise) // n, 1))
        first = generated[:n]
        if step >= grace and (first.device.type == "cpu" or step % CHECK_EVERY == 0):
            check_samples(first.detach(), images, like=bool(weights.pixel))
        latest["samples"] = first.detach()
        terms = {"adversary": weights.adversary * generator_loss(discriminator(changed(first), z))}
        if weights.pixel:
            terms["pixel"] = weights.pixel * energy_score(first, generated[n : 2 * n], images, weights.squares)
        if weights.reading:
            terms["reading"] = weights.reading * reconstruction_error(generated[-n:], images, weights.identify)[0]
        if features:
            terms["features"] = weights.features * feature_error(features, first, images)
        if weights.consistency and consistent:
            terms["consistency"] = weights.consistency * consistency_error(consistent, first, images)
        if weights.identify_late:
            terms["identify"] = weights.identify_late * identification(first, images)
        return sum(terms.values()), terms

    def judge(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        real, fake = module(changed(images), z), module(changed(latest["samples"]), z)
        return discriminator_loss(real, fake), {"real": real.mean(), "fake": fake.mean()}

    betas = (0.0, 0.999)  # BigGAN's
    return [
        Player("generator", generator, generate, lr=lr, betas=betas),
        Player("discriminator", discriminator, judge, lr=2 * lr, betas=betas),
    ]


@torch.no_grad()
def check_samples(samples: Tensor, images: Tensor, like: bool = False) -> None:
    """Raise Collapsed for useless samples.

    These are samples that are not finite, or that vary less than a twentieth as much as the images do. Where they
    should be `like` the images, samples are useless too if their error is on average 6 dB above that of the images'
    mean; images that were picked at random, without a look at the logits, are 3 dB above it.

    Args:
        samples: (N, 3, S, S), one for the logits of each of N different images.
        images: these images, (N, 3, S, S).
        like: whether a pixel term makes the samples similar to the images.
    """
    if not samples.isfinite().all():
        raise Collapsed("The adversarial training diverged: a sample is not finite.")
    if len(samples) < 2:
        return
    share = float(samples.std(0).mean() / images.std(0).mean().clamp_min(1e-6))
    if share < 0.05:
        raise Collapsed(f"The adversarial training collapsed: samples vary {share:.1%} as much as the images.")
    excess = 10 * float(log_error(samples, images) - log_error(images.mean(0, keepdim=True).expand_as(images), images))
    if like and excess > 6:
        raise Collapsed(f"The adversarial training diverged: samples are {excess:.1f} dB worse than the mean image.")


def random_noise(generator: LogitGenerator, z: Tensor) -> Tensor:
    """Noise (N, noise_dim) for conditions (N, condition_dim), from PyTorch's global random numbers."""
    return torch.randn(len(z), generator.noise_dim, device=z.device)


def _restore(generator: LogitGenerator, folder: Path) -> int:
    """Put the moving average of a folder's checkpoint into the generator, in eval mode; returns its step."""
    prefix = "generator/ema/"
    tensors, run = newest(folder)
    generator.load_state_dict({n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)})
    generator.eval()
    return run["step"]
