"""Train an inverter of one's own classifier in a given number of minutes.

    inverter = invkit.train_inverter(classifier, minutes=10, folder="runs/mine")  # zero-shot: no image is needed
    logit_inverter = invkit.train_inverter(classifier, "folder:photos", minutes=10)  # of the logits, from images
    inverter.save("mine")

The settings follow those of `recipes`; the number of images and of steps is fitted into the minutes (`invkit.minutes`).
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invkit import data
from invkit.arguments import check_minutes
from invkit.checks import checked
from invkit.data.images import Data
from invkit.data.sources import ARCHIVES
from invkit.dci import synthetic
from invkit.dci.chain import Chain, ChainLossWeights, classifier_blocks, map_shapes, represent
from invkit.dci.invert import add_feedback, deepest, invert_classifier, synthetic_for
from invkit.dci.inverter import ClassifierInverter
from invkit.dci.training import Schedule
from invkit.ffi.biggan import LEAN_GENERATOR
from invkit.ffi.invert import train_inverter as train_logit_inverter
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import pairs
from invkit.ffi.training import GeneratorLossWeights
from invkit.identity import found_from_anywhere
from invkit.minutes import FEEDBACK, RESERVE, Budget
from invkit.network.classifiers import Classifier, load_classifier
from invkit.store import as_path, json_object, round_in_place, whole
from invkit.training import Progress, supervised

PIXELS = 2**17  # in a step of zero-shot training, about
POOL_BYTES = 2**30  # of synthetic images, at most
BLOCK_SHARES = {"divide": 0.4, "synchronise": 0.6}  # of the minutes
LOGIT_SHARES = {"coarse": 0.15, "regression": 0.45, "adversary": 0.4}
LOGIT_WEIGHTS = GeneratorLossWeights(adversary=1.0, reading=1.0, squares=(1, 2, 4, 8))
IMAGE_BYTES = 2**29  # of a folder's images, at most
FEWEST = 4  # images that logits can be inverted from
FEW = 64  # images whose logits are computed in any case, where there are so many
GENERATED = 5000  # images of a source that generates them
WHITENED = 4000  # logits, at most: for more, the map that whitens them takes gigabytes and hours
FAINTEST = 1e-4  # standard deviation of a depth, of which half precision keeps something
PASSES_AT_LEAST = 40  # of four images, which the start of a training takes at least; mostly 80 to 150
PASSES_BEFORE = 15  # of four images, which precede the first step at least
FEW_STEPS = 10  # of an inverter, for which error feedback is not chosen
CALL = "call.json"  # what a training was begun with


@checked
def train_inverter(
    classifier: Classifier | nn.Module | str,
    images: Tensor | Data | str | None = None,
    *,
    minutes: float = 10,
    depths: int | Sequence[int] | None = None,
    size: int | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    progress: bool = True,
) -> ClassifierInverter | LogitInverter:
    """Train an inverter of a classifier: of its blocks without any image, or of its logits from images.

    Args:
        classifier: the network to invert; an nn.Module is taken for `Classifier(module)`, a string for a name.
        images: None for an inverter of the blocks, trained on synthetic images (`invkit.dci`). For one of the logits
            (`invkit.ffi`), images that the classifier was not trained on: a tensor (N, 3, S, S) or (N, 1, S, S) of
            uint8 or of floats in [0, 1], or `Data`, or the name of a data set, as "folder:PATH", whose split
            "inverter" is taken.
        minutes: for all of it, on this machine. Where a few steps of each phase would end more than a minute late, a
            sentence says how many it takes. Of a training that goes on, what was trained before counts; computing the
            images again does not.
        depths: of the blocks to invert: the first so many, or their numbers, of which the largest says how many
            inverses are trained; None for all down to the last map or the last tokens. Not for logits.
        size: side of the reconstructions from logits in pixels, a power of two from 8; None for the largest up to 64.
            Reconstructions from blocks have the classifier's own size.
        folder: for checkpoints; the same call goes on from there. None keeps none.
        seed: of everything random.
        precision: "auto", "bf16" or "no", as for `invkit.training.train`.
        progress: show how much time is left.

    Returns:
        A `ClassifierInverter` or a `LogitInverter`, with weights rounded to half precision, in which `save` keeps them.
        Its images have as many channels as the classifier's; those from logits always have three, and for a classifier
        of grey images they are trained to be grey.

    Raises:
        TypeError, ValueError: no classifier, no such depths or images, or a folder of another call.
        TooFewMinutes: too few to train this network, told of as early as its pace shows it.
    """
    check_minutes(minutes)
    classifier = load_classifier(classifier)
    if images is None and size not in (None, classifier.size):
        raise ValueError(
            f"Images from the blocks of {classifier.name} have its own {classifier.size} pixels, not {size}: "
            f"load it with load_classifier(…, size={size}), or leave size out."
        )
    if images is not None and depths is not None:
        raise ValueError("An inverter trained on images inverts the logits alone: leave out depths, or images.")
    if images is not None and classifier.channels not in (1, 3):
        raise ValueError(
            f"{classifier.name} takes images of {classifier.channels} channels, and its logits can be inverted to grey "
            "or colour images only: leave out images, to invert its blocks."
        )
    import accelerate  # noqa: F401 (seconds, which are none of the minutes)

    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept, _resumable(folder):
        place = as_path(kept) / "training"
        common = {"folder": place, "seed": seed, "precision": precision, "progress": False}
        call = {"minutes": minutes, "seed": seed, "images": images is not None, "classifier": classifier.fingerprint}
        chosen = _depths(classifier, depths) if images is None else []
        pixels = None if images is None else _as_seen(images_to_train_on(images, classifier), classifier)
        call |= {"depths": chosen, "size": size, "pixels": list(getattr(pixels, "shape", ()))}
        _check_same_call(place, call)
        budget = _Enough(minutes, BLOCK_SHARES if pixels is None else LOGIT_SHARES, place, progress=progress)
        inverter: ClassifierInverter | LogitInverter
        with supervised(budget), closing(budget.bar):
            if pixels is None:
                inverter = _invert_blocks(classifier, chosen, budget, common)
            else:
                inverter = _invert_logits(classifier, pixels, size, budget, common)
    inverter.card |= {"minutes": minutes, "classifier": found_from_anywhere(inverter.card["classifier"])}
    return inverter


def _check_same_call(place: Path, call: dict[str, Any]) -> None:
    """Keep what a training was begun with; ValueError where the folder holds one that was begun with something else."""
    file = place / CALL
    before = json_object(file) or call
    for key, value in call.items():
        if before.get(key) != value:
            raise ValueError(
                f"{place.parent} holds a training with {key} = {before.get(key)}, this call has {value}: "
                "give the same, or another folder."
            )
    with whole(file) as partial_file:
        partial_file.write_text(json.dumps(call), encoding="utf-8")


class TooFewMinutes(ValueError):
    """Minutes that are too few to train an inverter of a network on this machine; `least` will do."""

    def __init__(self, minutes: float, least: float):
        few = f"{minutes:g} minute{' is' if minutes == 1 else 's are'} too few to train an inverter of this network"
        super().__init__(f"{few} on this machine: give minutes={least:g} or more.")
        self.least = least


class _Enough(Budget):
    """Minutes that are refused where they are too few for the first steps of every phase."""

    def expect(self, seconds: float, factor: float) -> None:
        """Refuse a training that begins, where it is foreseen to take so many seconds and mostly `factor` times them
        until its first steps are done."""
        if not any((self.folder / phase).exists() for phase in self.shares):
            self._check(seconds, factor)

    def minutes(self, folder: Path | None) -> float:
        self.phase_began = time.monotonic()
        if folder and len(self.waiting) == len(self.shares) and not folder.exists():
            self._check(self.phase_began - self.began)  # as long again for the steps
        return super().minutes(folder)

    def after_step(self, progress: Progress) -> None:
        super().after_step(progress)
        if progress.step == 1 and self.waiting:  # the phases to come are twice as long
            self._check(2 * len(self.waiting) * (time.monotonic() - self.phase_began))

    def _check(self, seconds: float, factor: float = 1.0) -> None:
        """TooFewMinutes where so many more would end more than a minute late; so many times as many will do."""
        least = (time.monotonic() - self.began + seconds) / (1 - RESERVE) / 60
        if least > self.minutes_in_all + 1:
            shutil.rmtree(self.folder, ignore_errors=True)  # it holds nothing but the first steps
            raise TooFewMinutes(self.minutes_in_all, math.ceil(11 * factor * least) / 10)


class _Tried(Exception):
    """No phase is left whose first steps may be too slow."""


class _Trial(_Enough):
    """Minutes of a training that is only tried: with a few steps a phase, and the refusals of the training itself."""

    def minutes(self, folder: Path | None) -> float:
        super().minutes(folder)
        if not self.waiting:
            raise _Tried
        return 1e-3


def try_on_logits(classifier: Classifier, images: Tensor, minutes: float) -> None:
    """Refuse minutes that are too few to train an inverter of logits, as `train_inverter` would, and train none.

    It takes some seconds, or, where nothing is refused, as long as a few steps of each phase.

    Args:
        classifier: whose logits are to be inverted.
        images: as `images_to_train_on` returns them.
        minutes: of the training.

    Raises:
        TooFewMinutes: these.
    """
    import accelerate  # noqa: F401 (seconds, which are none of the minutes)

    common = {"seed": 0, "precision": "auto", "progress": False}
    with tempfile.TemporaryDirectory() as kept, suppress(_Tried):
        budget, few = _Trial(minutes, LOGIT_SHARES, Path(kept) / "training"), _as_seen(images[:FEW], classifier)
        with supervised(budget):
            _invert_logits(classifier, few, None, budget, common | {"folder": budget.folder})


@contextmanager
def _resumable(folder: str | Path | None):
    """Ctrl-C and SIGTERM say whether the training can go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        how = f"the same call goes on from {folder}" if folder is not None else "with folder= it could go on"
        raise type(error)(f"The training was stopped; {how}.") from None


# ---- of the blocks ---------------------------------------------------------------------------------------------------


def _depths(classifier: Classifier, depths: int | Sequence[int] | None) -> list[int]:
    """The depths to invert, in order; ValueError for those that cannot be."""
    shapes = map_shapes(classifier)
    most = len(shapes) - 1
    if most == 0:
        raise ValueError(f"The first block of {classifier.name} returns no map, tokens or vector: cuts= finds others.")
    if depths is None:
        depths = deepest(shapes)
    chosen = range(1, depths + 1) if isinstance(depths, int) else sorted(set(depths))
    if not chosen or not all(isinstance(depth, int) and 1 <= depth <= most for depth in chosen):
        raise ValueError(f"{classifier.name} can be inverted at depths 1 to {most}, not at {depths}: give these.")
    return list(chosen)


def _invert_blocks(
    classifier: Classifier, depths: list[int], budget: _Enough, common: dict[str, Any]
) -> ClassifierInverter:
    seed, depth, side = common["seed"], depths[-1], min(2 * classifier.size, classifier.size + 96)
    shapes = map_shapes(classifier)[: depth + 1]
    sizes, sides = _lean_sizes(classifier, shapes), [_crop_side(classifier, k, shape) for k, shape in enumerate(shapes)]

    def crops(depth: int) -> tuple[int, int]:
        return max(4, min(24, PIXELS // sides[depth] ** 2)), sides[depth]

    seconds, four = _check_faint(classifier, depth, seed)
    budget.expect(PASSES_AT_LEAST * seconds, factor=2)
    n, crop = crops(depth)
    step = (seconds + _seconds_back(shapes, sizes, four)) * n * crop**2 / (4 * classifier.size**2)
    budget.expect(PASSES_BEFORE * seconds + 7 * step, factor=1.25)  # four of each phase, most from shallower
    make = partial(synthetic.draw_pool, size=side, seed=seed, device=classifier.device)
    pool = make(budget.amount("leaves", min(4096, POOL_BYTES // (3 * side**2)), make, few=2, least=8))
    schedule = Schedule(
        divide=200, synchronise=500, divide_lr=2e-3, synchronise_lr=1e-3,
        often=tuple(float(k in depths) for k in range(1, depth + 1)),
    )  # fmt: skip
    inverter = invert_classifier(
        classifier, pool, depth=depth, sizes=sizes, at_once=True,
        crops=crops, schedule=schedule,
        synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0), **common,
    )  # fmt: skip
    inverter = ClassifierInverter(inverter.chain, classifier, inverter.card | {"depths": depths})
    round_in_place(inverter.chain.state_dict())
    held_out = synthetic.dead_leaves(8, classifier.size, (seed + 2) * 100_003, device=classifier.device)
    held_out = synthetic_for(classifier, held_out)
    n = inverter.card["steps"] >= FEW_STEPS and budget.amount(
        "held-out", len(held_out), lambda n: add_feedback(inverter, held_out[:n], [depth], progress=False), few=1,
        share=FEEDBACK / len(depths), least=0,
    )  # fmt: skip
    inverter.card.pop("feedback", None)
    if n:
        add_feedback(inverter, held_out[:n], progress=False)
    return inverter


@torch.no_grad()
def _check_faint(classifier: Classifier, depth: int, seed: int) -> tuple[float, Tensor]:
    """ValueError where what reaches a depth is next to nothing, as in deep networks whose weights are random.

    Returns the seconds in which the network represented four images there, and what they are there.
    """
    images = synthetic_for(classifier, synthetic.dead_leaves(4, classifier.size, seed, device=classifier.device))
    blocks = classifier_blocks(classifier)
    represent(blocks, images[:1], depth)  # the first pass on a device takes seconds more
    began, hidden = time.monotonic(), represent(blocks, images, depth)
    seconds = time.monotonic() - began
    for k, h in enumerate(hidden[1:], start=1):
        if (spread := h.float().transpose(0, 1).flatten(1).std(1).max().item()) < FAINTEST:
            fix = f", or give depths={k - 1}" if k > 1 else ""
            raise ValueError(
                f"What {classifier.name} puts out at depth {k} is the same for all images, up to {spread:.1g}: "
                f"is it trained? Load it with trained weights{fix}."
            )
    return seconds, hidden[-1]


def _seconds_back(shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple], hidden: Tensor) -> float:
    """The seconds in which untrained inverses of such shapes and sizes take a few representations of the last depth
    back to images, and gradients reach all of their weights."""
    with torch.random.fork_rng():
        chain = Chain(shapes, sizes).to(hidden.device, memory_format=torch.channels_last)
    for few in (hidden[:1], hidden):  # the first pass on a device takes seconds more
        began = time.monotonic()
        chain(few, len(sizes))[-1].sum().backward()
    return time.monotonic() - began


@torch.no_grad()
def _crop_side(classifier: Classifier, depth: int, shape: tuple[int, ...]) -> int:
    """The side of the images that train a depth: 16 places of its map, and 64 pixels, or more; the classifier's size
    where that is less, or where the network does not take images of other sizes."""
    if not depth or len(shape) != 3 or classifier.size % shape[2]:
        return classifier.size
    stride = classifier.size // shape[2]
    side = -(-max(64, 16 * stride) // 32) * 32
    if side >= classifier.size or side % stride:
        return classifier.size
    grey = torch.full((1, classifier.channels, side, side), 0.5, device=classifier.device)
    try:
        found = represent(classifier_blocks(classifier), grey, depth)[-1]
    except Exception:  # whatever a network does with images that it was not made for
        return classifier.size
    return side if found.shape[2:] == (side // stride,) * 2 else classifier.size


def _lean_sizes(classifier: Classifier, shapes: Sequence[tuple[int, ...]]) -> list[tuple]:
    """(width, residual blocks, places) of every inverse: narrower than `default_sizes`, since where minutes are few,
    more steps are worth more than wider maps. Places differ in tokens."""
    tokens = [False, *(len(block.shape) == 2 for block in classifier.blocks)]
    large = [len(shape) == 3 and shape[2] > 56 for shape in shapes]
    return [(32 if large[k] else 64, 1, (tokens[k], tokens[k - 1])) for k in range(1, len(shapes))]


# ---- of the logits ---------------------------------------------------------------------------------------------------


def images_to_train_on(images: Tensor | Data | str, classifier: Classifier) -> Tensor:
    """The images that an inverter of logits is trained on, (N, 3, S, S), bytes or floats.

    Args:
        images: as for `train_inverter`; of a named data set its split "inverter", as far as memory allows.
        classifier: whose size those of a data set have.

    Raises:
        TypeError, ValueError: no images, or too few.
    """
    found: Any = images.images if isinstance(images, Data) else images
    if isinstance(images, str):
        source = images.partition(":")[0]
        if source in (*ARCHIVES, "folder"):
            found = data.load_bytes(images, "inverter", IMAGE_BYTES // (3 * classifier.size**2), classifier.size)[0]
        else:
            n = GENERATED if source in ("glyphs", "faces") else None
            found = data.load(images, split="inverter", n=n, size=classifier.size).images
    if not isinstance(found, Tensor) or len(found) < FEWEST:
        what = f"{len(found)}" if isinstance(found, Tensor | list | tuple) else type(found).__name__
        what += f" of {images}, which parts them between training and testing: add some" * isinstance(images, str)
        raise TypeError(f"Images to train on are a tensor of {FEWEST} or more, Data, or a name, not {what}.")
    return found.expand(-1, 3, -1, -1) if found.dim() == 4 and found.shape[1] == 1 else found


def _as_seen(images: Tensor, classifier: Classifier) -> Tensor:
    """Images (N, 3, H, W), bytes or floats, without their colours for a classifier that takes none."""
    if classifier.channels != 1:
        return images
    grey = torch.cat([classifier.convert(part.float()) for part in images.split(256)])
    return (grey if images.is_floating_point() else grey.round().to(images.dtype)).expand(-1, 3, -1, -1)


def _invert_logits(
    classifier: Classifier, images: Tensor, size: int | None, budget: Budget, common: dict[str, Any]
) -> LogitInverter:
    size = size or 2 ** min(6, images.shape[-1].bit_length() - 1)
    n = budget.amount("logits", len(images), lambda n: pairs(classifier, images[:n]), few=min(16, len(images)),
                      least=min(FEW, len(images)))  # fmt: skip
    many = classifier.classes > 200
    channels = tuple(max(16, c // 2) for c in LEAN_GENERATOR.get(size, ()))  # at half the width, thrice the pace
    generator = {"channels": channels or None, "hidden": 96 if many else 192, "coarse": min(16, size),
                 "coarse_hidden": 192, "coarse_linear": not many, "logit_noise": 0.3}  # fmt: skip
    discriminator = {}
    if classifier.classes > WHITENED:
        generator, discriminator = generator | {"whiten": False}, {"whiten": False}
    inverter = train_logit_inverter(
        classifier, images[:n], size=size, steps=1000, batch=min(48, n), lr=5e-4, shrink=1.0 if many else 0.03,
        coarse_steps=1000, adversarial_share=0.5, adversarial_lr=5e-4, identify=0.06, generator=generator,
        discriminator=discriminator, weights=LOGIT_WEIGHTS, **common,
    )  # fmt: skip
    round_in_place(inverter.generator.state_dict())
    return inverter
