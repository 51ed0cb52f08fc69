"""Chapter 18: is it the method, or what an attacker knows of images? One grid: method × knowledge × place × network.

A *place* is a representation of a classifier: the map after one of its blocks, the penultimate features, or the logits.
An attacker's *knowledge* is the images that he trains on: noise, synthetic images, or photos of the kind that he
attacks. The *methods* are those of the two papers and their opponents:

- *divide and conquer* (Dong et al. 2021, arXiv 2107.06304): inverses of the blocks, divided, then re-synchronised;
- *feedforward* (Teterwak et al. 2021, arXiv 2103.07470): one decoder, trained as a whole by the error of the image.
  From a vector it is the first paper's generator without its adversary; from a map, which that generator does not
  take, a chain of the same inverses as above, end to end;
- *search*: descents that start from the reconstruction by divide and conquer (`invkit.dci.search`);
- *optimisation*: pixels moved from grey (Mahendran & Vedaldi 2015, arXiv 1412.0035), which trains on nothing;
- *ridge regression* of the pixels on a vector, in closed form.

The first two spend the same floating-point operations on every place, counted on the code that trains (chapter 16).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from invkit import data, ffi, optimize
from invkit.data.images import as_bytes
from invkit.dci import synthetic
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.training import random_noise
from invkit.network.classifiers import Classifier
from invkit.seeds import generator_for
from invkit.statistics import Interval
from study.baselines import Examples, ridge_regression
from study.chapters.depth_and_compute import END_TO_END, SYNCHRONISED, WAYS, Setting, cost_of, plan_way
from study.chapters.logit_ablations import without_last_layer
from study.notebook import slug
from study.operations import operations_in
from study.reconstructions import represent_all
from study.scores import Scores, difference_over_seeds, score, size_of

PENULTIMATE, LOGITS = "penultimate features", "logits"
NOISE, SYNTHETIC, PHOTOS = KNOWLEDGE = ("no images", "synthetic images", "photos")
DIVIDED, FEEDFORWARD, SEARCH = "divide and conquer", "feedforward", "search"
OPTIMISED, RIDGE = "optimisation", "ridge regression"
TRAINED = DIVIDED, FEEDFORWARD
# What is measured, and how far another machine's value may lie: it trains everything anew.
MEASURED = {"psnr": 2.0, "perceptual": 0.25, "perceptual_second": 0.25, "found": 45}
BATCH = 16  # images a step of a chain
COARSE_BATCH = 256  # vectors a step of the regressor of a generator's coarse image, see `ffi.training`
COARSE_SHARE = 0.7  # of a generator's compute: for the regressor of its coarse image
GENERATOR = {  # training of a feedforward inverter of vectors, as in chapter 17
    "objective": "regression", "lr": 5e-4, "shrink": 0.03, "identify": 0.06, "batch": 24, "progress": False
}  # fmt: skip
CHANNELS = (96, 64, 48, 32, 24)  # of its maps from 4 to 64 pixels; of smaller images the last ones

# ---- places, and what attackers know ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A representation that is inverted: the output of block `depth` of a classifier.

    title: "depth 4", "penultimate features" or "logits". For the features, `classifier` lacks its last layer.
    """

    title: str
    classifier: Classifier
    depth: int

    @classmethod
    def of(cls, classifier: Classifier, where: int | str) -> Place:
        """where: a depth of the classifier whose output is a map, "penultimate features" or "logits".

        Raises ValueError for anything else.
        """
        if where == LOGITS:
            return cls(LOGITS, classifier, len(classifier.blocks))
        if where == PENULTIMATE:
            shorter = without_last_layer(classifier)
            return cls(PENULTIMATE, shorter, len(shorter.blocks))
        maps = [block.depth for block in classifier.blocks if block.invertible]
        if where not in maps:
            raise ValueError(f"A place is a depth from {maps[0]} to {maps[-1]}, {PENULTIMATE!r} or {LOGITS!r}.")
        return cls(f"depth {where}", classifier, int(where))

    @property
    def is_vector(self) -> bool:
        return len(self.classifier.blocks[self.depth - 1].shape) == 1

    @torch.no_grad()
    def represent(self, images: Tensor, batch: int = 100) -> Tensor:
        return torch.cat([self.classifier.features(part, self.depth) for part in images.split(batch)])


@dataclass(frozen=True)
class ChainSetting(Setting):
    """A chain of inverses as in chapter 16, which may also begin at a vector."""

    def __post_init__(self):
        pass  # any depth will do


def known_images(knowledge: str, where: str, n: int, size: int, seed: int = 0) -> Tensor:
    """What an attacker trains on, uint8 (n, 3, size, size): white noise, dead leaves, or photos of a data set.

    where: name of that data set. Photos come from its split "inverter", on which no classifier was trained and nothing
        is measured. Of each kind there are equally many.
    """
    if knowledge == NOISE:
        return as_bytes(synthetic.white_noise(n, size, seed))
    if knowledge == SYNTHETIC:
        pool = synthetic.draw_pool(-(-n // 16), 2 * size, seed)  # every image of the pool gives some sixteen crops
        return torch.cat([as_bytes(pool.batch(step, 16, size)) for step in range(-(-n // 16))])[:n]
    return as_bytes(data.load(where, "inverter", n=n, seed=seed, size=size).images)


def batches_of(images: Tensor, device: torch.device) -> Callable[[int, int], Tensor]:
    """batches(step, depth) of uint8 images, drawn anew in every step: floats (BATCH, 3, S, S)."""

    def batch(step: int, depth: int) -> Tensor:
        rows = torch.randint(len(images), (BATCH,), generator=generator_for(0, step))
        return (images[rows].to(device).float() / 255).contiguous(memory_format=torch.channels_last)

    return batch


# ---- methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """What every cell of the grid may spend.

    compute: floating-point operations of one training.
    rate: the largest learning rate of a chain's training.
    width: channels of a chain's first inverses.
    search_steps, optimisation_steps: gradient steps on an image.
    searched: how many of the photos these two methods are given, at most, since they take seconds on each.
    folder: for checkpoints, from which a stopped run goes on.
    """

    compute: float
    rate: float
    width: int
    search_steps: int
    optimisation_steps: int
    searched: int
    folder: Path
    precision: str = "auto"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Cell:
    """One method with one knowledge at one place.

    images: the first reconstructions, for the page.
    scores: of all of them.
    seconds: that one image took.
    hours: of training, 0 for a method without.
    """

    images: Tensor
    scores: Scores
    seconds: float
    hours: float = 0.0


def train_chain_at(place: Place, method: str, images: Tensor, name: str, budget: Budget):
    """An inverter of all blocks down to the place, by divide and conquer or end to end, trained on uint8 images."""
    setting = ChainSetting(place.classifier, place.depth, budget.width, BATCH, budget.precision)
    way = WAYS[SYNCHRONISED if method == DIVIDED else END_TO_END]
    schedule = plan_way(setting, way, cost_of(setting, way), budget.compute, budget.rate)
    batches = batches_of(images, place.classifier.device)
    return setting.train(way, batches, schedule, seed=budget.seed, folder=budget.folder / slug(name))


def train_generator_at(place: Place, images: Tensor, name: str, budget: Budget):
    """A generator of images from a vector (`ffi.train_inverter`), trained on uint8 images."""
    size = place.classifier.size
    coarse, step = generator_cost(size, place.classifier.classes)
    counts = (share * budget.compute / cost for share, cost in ((COARSE_SHARE, coarse), (1 - COARSE_SHARE, step)))
    coarse_steps, steps = (int(count) for count in counts)
    if min(coarse_steps, steps - 1) < 1:
        least = max(coarse / COARSE_SHARE, 2 * step / (1 - COARSE_SHARE))
        raise ValueError(f"{budget.compute:.3g} operations train no generator: give at least {least:.3g}.")
    return ffi.train_inverter(
        place.classifier, images, generator=_options(size), steps=steps, coarse_steps=coarse_steps, seed=budget.seed,
        precision=budget.precision, folder=budget.folder / slug(name), **GENERATOR,
    )  # fmt: skip


def _options(size: int) -> dict:
    """Arguments of the generator of images of so many pixels."""
    channels = list(CHANNELS[-(size.bit_length() - 2) :])
    return {"channels": channels, "hidden": 128, "coarse": 16, "coarse_hidden": 256, "logit_noise": 0.3}


@cache
def generator_cost(size: int, numbers: int) -> tuple[float, float]:
    """Floating-point operations of a step of the coarse image's regressor, and of one of the generator.

    They are counted on a pass forwards and back of the networks that train; losses and the optimiser are free.
    size: of the images, in pixels.
    numbers: that the vector has.
    """
    network, z = LogitGenerator(size, numbers, **_options(size)), torch.randn(COARSE_BATCH, numbers)

    few = z[: GENERATOR["batch"]]
    of_step = operations_in(lambda: network(random_noise(network, few), few).sum().backward())
    network.coarse.requires_grad_(True)  # it is frozen while the rest trains
    return operations_in(lambda: network.coarse(z, z.softmax(1)).sum().backward()), of_step


@dataclass(frozen=True, eq=False)
class Attack:
    """What is attacked: representations of the first images of a test set, and how reconstructions are scored.

    candidates: all test images, (M, 3, S, S); the first n are attacked, and each is looked for among all.
    """

    place: Place
    candidates: Tensor
    n: int
    budget: Budget

    @property
    def originals(self) -> Tensor:
        return self.candidates[: self.n]

    def cell(self, invert: Callable[[Tensor], Tensor], hours: float = 0.0, n: int | None = None, batch: int = 50):
        """The `Cell` of the first n representations (all for None), inverted `batch` at a time."""
        given = self.place.represent(self.originals[:n])
        began = time.perf_counter()
        made = torch.cat([invert(part) for part in given.split(batch)])
        seconds = (time.perf_counter() - began) / len(given)
        return Cell(made[:8], score(made, self.candidates, measures=list(MEASURED)), seconds, hours)

    def with_images(self, known: Tensor, name: str) -> dict[str, Cell]:
        """Every method that trains on images: {method: what it reached}."""
        place, budget = self.place, self.budget
        chain = train_chain_at(place, DIVIDED, known, f"{DIVIDED} {name}", budget)
        hours = chain.card["hours"]
        cells = {DIVIDED: self.cell(lambda y: chain.invert(y, place.depth), hours)}
        steps, few = budget.search_steps, budget.searched
        cells[SEARCH] = self.cell(lambda y: chain.invert(y, place.depth, search=steps), hours, few)
        if not place.is_vector:
            whole = train_chain_at(place, FEEDFORWARD, known, f"{FEEDFORWARD} {name}", budget)
            cells[FEEDFORWARD] = self.cell(lambda y: whole.invert(y, place.depth), whole.card["hours"])
            return cells
        generator = train_generator_at(place, known, f"{FEEDFORWARD} {name}", budget)
        cells[FEEDFORWARD] = self.cell(generator.invert, generator.card["hours"])
        images = known.to(self.candidates.device).float() / 255
        ridge = ridge_regression(Examples(represent_all(generator, images), images))
        cells[RIDGE] = self.cell(ridge)
        return cells

    def without_images(self) -> Cell:
        """Optimisation of the pixels, which trains on nothing."""
        place, steps = self.place, self.budget.optimisation_steps

        def invert(given: Tensor) -> Tensor:
            return optimize.invert_features(place.classifier, given, place.depth, steps=steps, seed=0).estimate

        return self.cell(invert, n=self.budget.searched)


Cells = Mapping[tuple[str, str], Cell]  # {(method, knowledge): what it reached}
Grid = Mapping[tuple[str, str], Cells]  # {(network, place): cells}


def fill_grid(
    networks: Mapping[str, Classifier],
    places: Mapping[str, Sequence[int | str]],
    known: Mapping[str, Tensor],
    candidates: Tensor,
    n: int,
    budget: Budget,
) -> dict[tuple[str, str], dict[tuple[str, str], Cell]]:
    """Train and measure every cell.

    places: of each network, see `Place.of`.
    known: {knowledge: uint8 images (K, 3, S, S)}.
    candidates: test images (M, 3, S, S), of which the first n are attacked.
    """
    grid = {}
    for name, classifier in networks.items():
        for place in [Place.of(classifier, where) for where in places[name]]:
            attack = Attack(place, candidates, n, budget)
            cells = {(OPTIMISED, NOISE): attack.without_images()}
            for knowledge, images in known.items():
                made = attack.with_images(images, f"{name} {place.title} {knowledge}")
                cells |= {(method, knowledge): cell for method, cell in made.items()}
            grid[name, place.title] = cells
    return grid


# ---- is it the method, or the knowledge? -----------------------------------------------------------------------------


def worth_of_photos(cells: Cells, measure: str) -> Interval:
    """Photos less synthetic images to train on, mean over both trained methods and the images, 95 % paired interval."""
    with_photos, without = (
        torch.stack([cells[method, knowledge].scores[measure].float() for method in TRAINED])
        for knowledge in (PHOTOS, SYNTHETIC)
    )
    return difference_over_seeds(with_photos, without)


def worth_of_dividing(cells: Cells, measure: str) -> Interval:
    """Divide and conquer less feedforward, mean over synthetic images and photos to train on, and the images."""
    divided, whole = (
        torch.stack([cells[method, knowledge].scores[measure].float() for knowledge in (SYNTHETIC, PHOTOS)])
        for method in TRAINED
    )
    return difference_over_seeds(divided, whole)


def which_matters(knowledge: Interval, method: Interval) -> str:
    """ "knowledge", "method", or "not told apart": which of two effects is surely the larger one in size."""
    (low_k, high_k), (low_m, high_m) = size_of(knowledge), size_of(method)
    return "knowledge" if low_k > high_m else "method" if low_m > high_k else "not told apart"


def best_cell(cells: Cells, measure: str) -> tuple[str, str]:
    """The (method, knowledge) with the largest mean of a measure."""
    return max(cells, key=lambda key: cells[key].scores[measure].float().mean().item())


def check_grid(
    networks: Sequence[str], places: Mapping[str, Sequence[int | str]], knowledge: Sequence[str], size: int, n: int,
    known: int,
) -> None:  # fmt: skip
    """Raise ValueError, before anything is trained, for parameters that do not fit together."""
    missing = [name for name in networks if not places.get(name)]
    if missing or not networks:
        raise ValueError(f"Give places for every network, such as {{{(missing or ['lite0'])[0]}: [4, {LOGITS}]}}.")
    if not {SYNTHETIC, PHOTOS} <= set(knowledge) <= set(KNOWLEDGE):
        raise ValueError(
            f"Knowledge is {SYNTHETIC!r} and {PHOTOS!r}, with or without {NOISE!r}: not {list(knowledge)}."
        )
    if size not in (32, 64):  # what the generator makes, and the perceptual distances take
        raise ValueError(f"Give size=32 or size=64, not {size}.")
    if n < 2 or known < GENERATOR["batch"]:
        raise ValueError(f"Give at least 2 photos and {GENERATOR['batch']} images to train on, not {n} and {known}.")
