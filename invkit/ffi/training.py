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

import json
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from invkit import store
from invkit.data.images import Data
from invkit.dci.chain import log_error
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.losses import (
    _reading_error,
    diff_augment,
    discriminator_loss,
    energy_score,
    feature_error,
    generator_loss,
    identification,
)
from invkit.ffi.pairs import Pairs, condition, pairs
from invkit.ffi.whitening import Whitening
from invkit.network.classifiers import Classifier
from invkit.training import CHECKPOINT, Player, Trained, train

CHECK_EVERY = 50  # steps between looks at the reconstructions of an adversarial phase, on a GPU
OBJECTIVES = ("adversarial", "hybrid", "regression")


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GeneratorLossWeights:
    """Weights of the terms where there is an adversary: of the pixel term, the adversary's and the feature term.

    features also weighs where there is none, beside a pixel term of weight 1. Of `identification`, identify is the
    weight where there is no adversary, identify_late where there is one. reading: of regression beside an adversary, of
    what is drawn without noise. squares: of `energy_score`.
    """

    pixel: float = 10.0
    adversary: float = 0.1
    features: float = 1.0
    identify: float = 0.0
    identify_late: float = 0.0
    reading: float = 0.0
    squares: tuple[int, ...] = (1,)


WEIGHTS = GeneratorLossWeights()


class Collapsed(FloatingPointError):
    """The drawings of an adversarial training are of no more use."""


@dataclass
class GeneratorTraining:
    """What `train_generator` leaves: the phases, and a sentence about the adversarial one if it had to be stopped."""

    phases: list[Trained]
    failure: str | None = None


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
    lr: float = 1e-3,
    adversarial_lr: float = 2e-4,
    augment: bool = True,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> GeneratorTraining:
    """Trains the generator in place on batches(step) = (images in [0, 1], conditions); it ends as its moving average.

    Args:
        discriminator: for "adversarial" and "hybrid".
        adversarial_share: share of the steps that "hybrid" gives to the adversary, the last ones.
        features: images -> a tensor, of a network that is neither inverted nor measured with; adds a feature term.
        lr, adversarial_lr: largest learning rates of regression and of the generator beside the adversary, whose own is
            twice that.
        folder: for checkpoints; the same call goes on where a stopped one was. None keeps nothing.

    An adversarial phase that diverges or collapses stops with a warning, and the generator goes back to the moving
    average of the phase's last checkpoint, at worst to what regression had made of it.
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
    common = {"seed": seed, "precision": precision, "progress": progress}
    outcome = GeneratorTraining([])
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        if early:
            player = regression_player(generator, weights, features, lr)
            done = train(player, batches, steps=early, folder=Path(place) / "regression", description="regression",
                         **common)  # fmt: skip
            outcome.phases.append(done)
        if late:
            players = adversarial_players(
                generator, discriminator, weights, features, adversarial_lr, augment, grace=0 if early else late // 5
            )
            place = Path(place) / "adversary"
            try:
                done = train(players, lambda step: batches(early + step), steps=late, folder=place, warmup=0.05,
                             checkpoint_every_steps=max(1, late // 20), description="adversary", **common)  # fmt: skip
                outcome.phases.append(done)
            except FloatingPointError as error:
                step = _restore(generator, place / CHECKPOINT)
                if step == 0 and not early:
                    raise
                outcome.failure = f"{error} The weights kept are those of adversarial step {step} of {late}."
                warnings.warn(outcome.failure, stacklevel=2)
    return outcome


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
) -> list[Trained]:
    """Fits the generator's reader of coarse images to uint8 images (N, 3, S, S) and their conditions (N, dim).

    steps: of training its network, with 256 of them each and the generator's noise on the logits; without a network
        there is nothing to train.
    identify: weight of `identification` beside `log_error`.
    """
    reader = generator.coarse
    shrunk = torch.cat([F.adaptive_avg_pool2d(part.float(), reader.side).round().byte() for part in images.split(1000)])
    with torch.no_grad():
        white = torch.cat([generator.whitening(part) for part in z.split(1000)])
    few = slice(0, 30_000)  # more would change a linear map little
    reader.fit(white[few], shrunk[few].float() / 255)
    if reader.network is None or not steps:
        return []

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        chosen = torch.randint(len(white), (256,), generator=g)
        return white[chosen], z[chosen].softmax(1), shrunk[chosen].float() / 255

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor, Tensor], step: int):
        white, probabilities, image = batch
        noise = generator.logit_noise * torch.randn_like(white) if generator.logit_noise else 0
        return _reading_error(module(white + noise, probabilities), image, identify)

    done = train(
        Player("coarse", reader.requires_grad_(True), loss, lr=1.5e-3, clip=1.0), batches, steps=steps,
        folder=Path(folder) / "coarse" if folder else None, seed=seed, precision=precision, description="coarse images",
    )  # fmt: skip
    reader.requires_grad_(False)
    return [done]


def regression_player(
    generator: LogitGenerator, weights: GeneratorLossWeights, features: Callable | None, lr: float
) -> Player:
    """The generator alone: `log_error` of its drawings, and a feature term where there are features."""

    def regress(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        drawn = module(_noise(generator, z), z)
        loss, terms = _reading_error(drawn, images, weights.identify)
        if features:
            terms["features"] = weights.features * feature_error(features, drawn, images)
            loss = loss + terms["features"]
        return loss, terms

    return Player("generator", generator, regress, lr=lr, clip=1.0)


def adversarial_players(
    generator: LogitGenerator,
    discriminator: ProjectionDiscriminator,
    weights: GeneratorLossWeights,
    features: Callable | None,
    lr: float,
    augment: bool = True,
    grace: int = 0,
) -> list[Player]:
    """The two players of a step: the generator first, whose drawings the discriminator is then shown as they were.

    grace: how many steps the drawings may be alike at first.
    """
    changed = diff_augment if augment else nn.Identity()
    shown: dict[str, Tensor] = {}

    def draw(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        n = len(images)
        drawings = 2 if weights.pixel else 1  # the energy score takes two
        noise = _noise(generator, z.repeat(drawings, 1))
        if weights.reading:
            noise = F.pad(noise, (0, 0, 0, n))  # the last n rows are the centre
        drawn = module(noise, z.repeat(len(noise) // n, 1))
        first = drawn[:n]
        if step >= grace and (first.device.type == "cpu" or step % CHECK_EVERY == 0):  # looking waits for a GPU
            check_drawings(first.detach(), images, like=bool(weights.pixel))
        shown["drawn"] = first.detach()
        terms = {"adversary": weights.adversary * generator_loss(discriminator(changed(first), z))}
        if weights.pixel:
            terms["pixel"] = weights.pixel * energy_score(first, drawn[n : 2 * n], images, weights.squares)
        if weights.reading:
            terms["reading"] = weights.reading * _reading_error(drawn[-n:], images, weights.identify)[0]
        if features:
            terms["features"] = weights.features * feature_error(features, first, images)
        if weights.identify_late:
            terms["identify"] = weights.identify_late * identification(first, images)
        return sum(terms.values()), terms

    def judge(module: nn.Module, pair: tuple[Tensor, Tensor], step: int):
        images, z = pair
        real, fake = module(changed(images), z), module(changed(shown["drawn"]), z)
        return discriminator_loss(real, fake), {"real": real.mean(), "fake": fake.mean()}

    betas = (0.0, 0.999)  # of BigGAN
    return [
        Player("generator", generator, draw, lr=lr, betas=betas),
        Player("discriminator", discriminator, judge, lr=2 * lr, betas=betas),
    ]


@torch.no_grad()
def check_drawings(drawn: Tensor, images: Tensor, like: bool = False) -> None:
    """Raises Collapsed for useless drawings (N, 3, S, S) of the logits of N different images.

    Those are: not finite; alike, varying less than a twentieth as much as the images; and, where they should be `like`
    the images, on average 6 dB further from them than the images' mean is. A draw from the images that does not look
    at the logits is 3 dB further.
    """
    if not drawn.isfinite().all():
        raise Collapsed("The adversarial training diverged: a drawing is not finite.")
    if len(drawn) < 2:
        return
    share = float(drawn.std(0).mean() / images.std(0).mean().clamp_min(1e-6))
    if share < 0.05:
        raise Collapsed(f"The adversarial training collapsed: drawings vary {share:.1%} as much as the images.")
    excess = 10 * float(log_error(drawn, images) - log_error(images.mean(0, keepdim=True).expand_as(images), images))
    if like and excess > 6:
        raise Collapsed(f"The adversarial training diverged: drawings are {excess:.1f} dB worse than the mean image.")


def _noise(generator: LogitGenerator, z: Tensor) -> Tensor:
    return torch.randn(len(z), generator.noise_dim, device=z.device)


def _restore(generator: LogitGenerator, checkpoint: Path) -> int:
    """Puts the moving average of a checkpoint into the generator, in eval mode; returns the checkpoint's step."""
    prefix = "generator/ema/"
    with safe_open(checkpoint, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
        generator.load_state_dict({name.removeprefix(prefix): file.get_tensor(name) for name in names})
        step = json.loads(file.metadata()["run"])["step"]
    generator.eval()
    return step


# ---- the whole way from images to an inverter ------------------------------------------------------------------------


def finish_generator(
    generator: LogitGenerator, batches: Callable[[int], tuple[Tensor, Tensor]], seed: int, weights: GeneratorLossWeights
) -> dict:
    """Make a trained generator ready for use, in place: batch statistics that no longer change, constant maps folded.

    Args:
        generator: as training left it.
        batches: batches(step) = (images, conditions); the conditions of the first 32 steps are looked at.
        seed: of the noise beside them.
        weights: those it was trained with; they say how often it had no noise.

    Returns:
        The arguments of `LogitGenerator` that folding changed, for the card.
    """

    def noise(z: Tensor) -> Tensor:
        values = _noise(generator, z)
        if weights.reading:  # a third of what it was trained on had none
            values[::3] = 0
        return values

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator.set_standing_statistics((noise(z), z) for _, z in map(batches, range(32)))
    return generator.fold()


def train_inverter(
    classifier: Classifier,
    images: Tensor | Data,
    *,
    steps: int,
    batch: int = 64,
    objective: str = "hybrid",
    kind: str = "logits",
    size: int | None = None,
    views: int = 1,
    generator: dict | None = None,
    discriminator: dict | None = None,
    shrink: float = 1e-3,
    coarse_steps: int = 0,
    identify: float = 0.0,
    identify_late: float = 0.0,
    weights: GeneratorLossWeights = WEIGHTS,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    **training,
) -> LogitInverter:
    """Train an inverter of a classifier's logits on images that the classifier was not trained on.

    Args:
        images: (N, 3, S, S), uint8 or float in [0, 1], or Data.
        steps, batch: training steps, and images in each.
        objective: "hybrid", "regression" or "adversarial": see the module.
        kind: what of the logits the inverter reads: see `pairs.condition`.
        size: pixels of the reconstructions, by default the images' own; 8, 16, 32, …
        views: how many views of every image: see `pairs.pairs`.
        generator, discriminator: arguments of the networks beyond sizes (channels, noise_dim, whiten, …).
        shrink: of the whitening of the logits.
        coarse_steps: of training the network that reads coarse images, where `generator` has a coarse_hidden.
        identify: weight of `identification` in the coarse reader's training and in the regression.
        identify_late: its weight beside an adversary.
        weights: of all other terms.
        folder: for cached logits and checkpoints; a stopped run goes on from there.
        precision: "bf16" trains under bfloat16 autocast.
        training: further arguments of `train_generator`.

    Raises TypeError or ValueError for what are no images or a setting that makes no sense.
    """
    made = pairs(classifier, images, views=views, size=size, seed=seed, folder=folder)
    made = Pairs(made.images, condition(made.logits.flatten(0, 1), kind).reshape(made.logits.shape))
    made = made.to(classifier.device)
    size = made.images.shape[-1]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g = LogitGenerator(size, classifier.classes, **(generator or {}))
        alone = objective == "regression"
        d = None if alone else ProjectionDiscriminator(size, classifier.classes, **(discriminator or {}))
    for network in filter(None, (g, d)):
        network.to(classifier.device)
        if isinstance(network.whitening, Whitening):
            network.whitening.fit(made.logits.flatten(0, 1), shrink)
    weights = replace(weights, identify=identify, identify_late=identify_late)
    before = []
    if g.coarse:
        common = {"identify": identify, "folder": folder, "seed": seed, "precision": precision}
        before = fit_coarse_images(g, made.images.flatten(0, 1), made.logits.flatten(0, 1), coarse_steps, **common)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        pixels, z = made.batch(step, batch, seed)
        return pixels.contiguous(memory_format=torch.channels_last), z

    outcome = train_generator(
        g, batches, steps=steps, objective=objective, discriminator=d, folder=folder, seed=seed, precision=precision,
        weights=weights, **training,
    )  # fmt: skip

    folded = finish_generator(g, batches, seed, weights)
    card = {
        "method": "ffi",
        "network": classifier.name,
        "classifier_size": classifier.size,
        "classes": classifier.classes,
        "size": size,
        "source_size": (images.images if isinstance(images, Data) else images).shape[-1],
        "objective": objective,
        "kind": kind,
        "generator": (generator or {}) | folded,
        "training": {"generator": generator or {}, "discriminator": discriminator or {}}
        | {key: value for key, value in training.items() if isinstance(value, int | float | str)}
        | {"coarse_steps": coarse_steps, "shrink": shrink}
        | {key: value for key, value in asdict(weights).items() if value != getattr(WEIGHTS, key)},
        "images": made.images.shape[1],
        "views": views,
        "batch": batch,
        "steps": sum(phase.steps for phase in outcome.phases) if not outcome.failure else steps,
        "seed": seed,
        "failure": outcome.failure,
        "hours": round(sum(phase.seconds for phase in [*before, *outcome.phases]) / 3600, 2),
        "machine": store.machine_class(),
        "code": store.code_version(),
    }
    return LogitInverter(g, classifier, card)
