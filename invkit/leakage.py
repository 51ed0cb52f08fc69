"""What a classifier gives away about its images: measured at each depth, and of its logits.

Photos are reconstructed by a trained inverter, and each depth is judged by two questions: how much better is a
reconstruction than the photo's own mean colour (PSNR), and how often is the photo that a reconstruction came from the
most similar one of all (found)?

A reconstruction shows that something leaks. None that fails shows that nothing does: an inverter that is trained for
longer, or another method, may recover more. `invkit.report` and the last chapter of the study make these measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invkit import metrics, statistics
from invkit.checks import check_images, check_whole_number
from invkit.data.folders import labelled_images
from invkit.data.images import Data, fit_square
from invkit.data.sources import load
from invkit.dci.inverter import ClassifierInverter
from invkit.ffi.inverter import LogitInverter
from invkit.inverters import load_inverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval

PHOTOS = 25  # at most, that are reconstructed
MOST_DEPTHS = 8  # that are measured, unless others are wanted
FOUND, GAIN = 0.2, 1.0  # a share of photos and dB: a depth where no more is recovered is called quiet
REFERENCE = "dci-lite0"  # the shipped inverter beside which every network is put
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of logits
CEILING = 100.0  # dB: equal images have no finite PSNR


# ---- what a depth gives away -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AtDepth:
    """N photos reconstructed from the output of one block.

    Attributes:
        depth: of the block, from 1.
        block: its name.
        numbers: how many its output has for each number of the image.
        images: the reconstructions, (N, 3, side, side).
        psnr: of each, in dB, (N,).
        gain: by how many dB this is more than the PSNR of the photo's own mean colour, mean over photos.
        found: the share of reconstructions that resemble their own photo more than any other of the N.
        trained: whether they are closer to the photos than a single colour for all photos is. Where they are not, the
            inverter was trained too little to be judged.
    """

    depth: int
    block: str
    numbers: float
    images: Tensor
    psnr: Tensor
    gain: Interval
    found: Interval
    trained: bool

    @property
    def quiet(self) -> bool:
        """Whether a trained inverter recovers little here, by `FOUND` and `GAIN`; of few photos two may be found."""
        return self.trained and self.found.value <= max(FOUND, 2 / self.found.n) and self.gain.value < GAIN


def cuts(classifier: Classifier) -> list[dict[str, Any]]:
    """The blocks of a classifier, a row each, from its input to its logits.

    Example:
        >>> import invkit
        >>> first = cuts(invkit.load_classifier("glyphs-standard-0"))[0]
        >>> first["block"], first["output"], f"{first['numbers']:.2f}"
        ('stem.0', '32 × 16 × 16', '2.67')
    """
    return [
        {
            "depth": block.depth,
            "block": block.name,
            "output": " × ".join(map(str, block.shape)),
            "convolutions": block.convolutions,
            "numbers": _numbers_per_number(classifier, block.depth),
        }
        for block in classifier.blocks
    ]


def _numbers_per_number(classifier: Classifier, depth: int) -> float:
    """How many numbers the output of a block has for each number of the image."""
    return math.prod(classifier.blocks[depth - 1].shape) / (classifier.channels * classifier.size**2)


def photos_of(images: str | None, classifier: Classifier, n: int = PHOTOS, seed: int = 0) -> tuple[Data, str]:
    """Photos (N, 3, size, size) to reconstruct, as a classifier takes them, and a sentence that says which they are.

    Args:
        images: a data set's name, of whose split "test" they are; None for the photos in installed packages.
        classifier: says which size; for one with a single channel the photos are grey, in three equal channels.
        n: how many at most; chosen at random from the data set.
        seed: of the choice.

    Raises:
        ValueError: fewer than two photos, which cannot be told apart; a classifier of other images than photos.
    """
    if images is None:
        photos = _as_seen(classifier, load("photos", n=min(n, 25), seed=seed, size=classifier.size))
        return photos, f"{len(photos)} bundled photos: of ImageNet, and everyday ones."
    source, _, path = images.partition(":")
    many = len(labelled_images(Path(path), "test")) if source == "folder" else n
    if many < 2:
        raise ValueError(f"{images} has {many} image for testing: give more, so that one can be told from another.")
    photos = _as_seen(classifier, load(images, "test", n=min(n, many), seed=seed, size=classifier.size))
    return photos, f"{len(photos)} images of {images}, of the split for testing, which the inverter has not seen."


def _as_seen(classifier: Classifier, photos: Data) -> Data:
    """The photos, without their colours for a classifier that takes none."""
    if classifier.channels not in (1, 3):
        raise ValueError(
            f"{classifier.name} takes images of {classifier.channels} channels, which photos do not have: call "
            "invkit.train_inverter(classifier), whose reconstruct(images) takes images of its own kind."
        )
    grey = classifier.channels == 1
    return replace(photos, images=_in_three_channels(classifier.convert(photos.images))) if grey else photos


def _in_three_channels(images: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) as (N, 3, H, W); others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def some_depths(inverter: ClassifierInverter, depths: int | Sequence[int] | None = None) -> list[int]:
    """Those depths of an inverter that are measured.

    Args:
        inverter: of a classifier's blocks.
        depths: several, taken as they are; a number for those up to it, None for all: of many, `MOST_DEPTHS` of them.

    Raises:
        ValueError: a depth that the inverter does not invert.
    """
    if depths is not None and not isinstance(depths, int):
        if unknown := sorted(set(depths) - set(inverter.depths)):
            raise ValueError(f"{inverter.classifier.name} is inverted at depths {inverter.depths}, not {unknown}.")
        return sorted(set(depths))
    every = [depth for depth in inverter.depths if depths is None or depth <= depths]
    places = torch.linspace(0, len(every) - 1, min(MOST_DEPTHS, len(every))).round().int().tolist()
    return [every[place] for place in places]


@torch.no_grad()
def measure_depths(
    inverter: ClassifierInverter, photos: Tensor, depths: Sequence[int], side: int | None = None, batch: int = 5
) -> list[AtDepth]:
    """Reconstruct photos (N, 3, size, size) from several depths, and compare with the photos.

    Args:
        inverter: of a classifier's blocks.
        photos: of the inverter's size.
        depths: those of the blocks.
        side: pixels a side at which photos and reconstructions are compared; None for the inverter's size.
        batch: photos reconstructed at a time.
    """
    device, classifier = inverter.classifier.device, inverter.classifier
    originals = fit_square(photos, side or inverter.size).clamp(0, 1)
    flat = mean_colour_psnr(originals)
    one_colour = metrics.psnr(originals.mean((0, 2, 3), keepdim=True).expand_as(originals), originals).mean()
    results = []
    for depth in depths:
        made = torch.cat([inverter.reconstruct(part.to(device), depth).cpu() for part in photos.split(batch)])
        made = _in_three_channels(fit_square(made, side or inverter.size).clamp(0, 1))
        psnr = metrics.psnr(made, originals).clamp_max(CEILING)
        found = statistics.proportion(metrics.retrieval_ranks(made, originals) == 1)
        block, numbers = classifier.blocks[depth - 1].name, _numbers_per_number(classifier, depth)
        gain = statistics.paired_bootstrap(psnr, flat)
        trained = bool(psnr.mean() >= one_colour)
        results.append(AtDepth(depth, block, numbers, made, psnr, gain, found, trained))
    return results


def mean_colour_psnr(photos: Tensor) -> Tensor:
    """PSNR (N,) of each photo's own mean colour, which any reconstruction with structure must beat."""
    check_images(photos)
    return metrics.psnr(photos.mean((2, 3), keepdim=True).expand_as(photos), photos).clamp_max(CEILING)


def measure_reference(photos: Tensor) -> list[AtDepth]:
    """Photos reconstructed from EfficientNet-Lite0 by the shipped inverter, at the end of each of its resolutions.

    Args:
        photos: (N, 3, S, S), the same that one's own network was given. They are enlarged to what EfficientNet-Lite0
            takes, so that it is given no detail that the other was not, and compared at S pixels.
    """
    inverter = load_inverter(REFERENCE)
    assert isinstance(inverter, ClassifierInverter)
    last = {block.stride: block.depth for block in inverter.classifier.blocks if block.depth in inverter.depths}
    enlarged = fit_square(photos, inverter.size).clamp(0, 1)
    return measure_depths(inverter, enlarged, sorted(last.values()), min(photos.shape[-1], inverter.size))


def where_to_cut(results: Sequence[AtDepth]) -> AtDepth | None:
    """The first depth that is quiet, as is every deeper one that was measured; None where there is none."""
    quiet = None
    for result in reversed(results):
        if not result.quiet:
            break
        quiet = result
    return quiet


# ---- what the logits give away ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FromLogits:
    """N images reconstructed from their logits.

    Attributes:
        guess: the best guesses, (N, 3, S, S).
        samples: K samples of each, under K noise vectors, (K, N, 3, S, S).
        psnr: of the best guesses, (N,).
        gain: by how many dB this is more than the PSNR of the image's own mean colour.
        found: the share of best guesses that resemble their own image more than any other of the N.
        spread: the standard deviation of pixels over the samples of one image, as a share of that over images: what
            the logits leave open, in the inverter's view.
    """

    guess: Tensor
    samples: Tensor
    psnr: Tensor
    gain: Interval
    found: Interval
    spread: float


@torch.no_grad()
def measure_logits(inverter: LogitInverter, photos: Tensor, samples: int = 4, seed: int = 0) -> FromLogits:
    """Reconstruct photos (N, 3, H, W) from their logits, once as a best guess and several times under noise."""
    originals = fit_square(photos, inverter.size).clamp(0, 1)
    check_whole_number(samples, 2, "samples", most=1000)
    logits = inverter.represent(photos.to(inverter.classifier.device))
    noise = [inverter.sample_noise(len(photos), seed + k).to(logits.device) for k in range(samples)]
    guess = inverter.invert(logits).cpu()
    drawn = torch.stack([inverter.invert(logits, noise=one).cpu() for one in noise])
    psnr = metrics.psnr(guess, originals).clamp_max(CEILING)
    gain = statistics.paired_bootstrap(psnr, mean_colour_psnr(originals))
    found = statistics.proportion(metrics.retrieval_ranks(guess, originals) == 1)
    spread = drawn.var(0).mean().sqrt() / originals.var(0).mean().sqrt()
    return FromLogits(guess, drawn, psnr, gain, found, spread.item())


@torch.no_grad()
def scaled(inverter: LogitInverter, photos: Tensor, factors: Sequence[float] = FACTORS) -> tuple[Tensor, Tensor]:
    """Best guesses from the logits of photos (N, 3, H, W), multiplied by some factors.

    Returns:
        The images, (factors, N, 3, S, S), and whether the classifier sees in each the class that it sees in the photo,
        (factors, N).
    """
    logits = inverter.represent(photos.to(inverter.classifier.device))
    images = torch.stack([inverter.invert(factor * logits) for factor in factors])
    seen = torch.stack([inverter.represent(part).argmax(1) for part in images])
    return images.cpu(), (seen == logits.argmax(1)).cpu()


@torch.no_grad()
def between(inverter: LogitInverter, photos: Tensor, steps: int = 5) -> Tensor:
    """Best guesses (steps, 3, S, S) on the straight way from the logits of one photo to those of another.

    The other one is the first of the photos (N, 3, H, W) in which the classifier sees another class than in the first,
    or the last one.
    """
    logits = inverter.represent(photos.to(inverter.classifier.device))
    others = (logits.argmax(1) != logits[0].argmax()).nonzero().flatten().tolist()
    other = logits[others[0] if others else -1]
    return inverter.invert(torch.stack([torch.lerp(logits[0], other, t) for t in torch.linspace(0, 1, steps)])).cpu()
