"""What makes logit inversion work: the design of `invkit.ffi` changed in one place at a time, at the same budget.

The *full design* is that of the shipped inverters of glyphs (`ffi_recipes.ffi_glyphs`): objective "hybrid", read from
whitened logits, with a coarse image. An *arm* differs from it in one thing. All arms see the same images in the same
order, take as many steps of the same batch, start from the same seeds and are scored on the same unseen images; arms
are compared with the full design image by image, by the rule of `ablations.verdict`. Images that designs are chosen on
come from the split "validation": no other chapter reports on them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit import ffi, metrics, statistics
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from recipes.ffi import GLYPHS_GENERATOR, IDENTIFY
from study.chapters import logit_inversion, what_makes_it_work
from study.notebook import listed

FULL = "full design"
OBJECTIVE, CONDITION, FEATURES, DESIGN = "objective", "what is read", "before the logits", "design"
HELPS, HURTS, BOTH, SAME = "helps", "hurts", "cuts both ways", "no difference seen"

# ---- arms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One change of the full design.

    question: which of the four it belongs to. training, generator, discriminator: what it changes among the arguments
    of `ffi.train_inverter` and of the two networks. features: read what the last linear layer is given (`penultimate`).
    """

    question: str
    training: Mapping = field(default_factory=dict)
    generator: Mapping = field(default_factory=dict)
    discriminator: Mapping = field(default_factory=dict)
    features: bool = False


ARMS: dict[str, Arm] = {
    "regression alone": Arm(OBJECTIVE, {"objective": "regression"}),
    "adversary alone": Arm(OBJECTIVE, {"objective": "adversarial"}),
    "adversary alone, no coarse image": Arm(OBJECTIVE, {"objective": "adversarial"}, {"coarse": None}),
    "probabilities": Arm(CONDITION, {"kind": "probabilities"}),
    "top-10 logits": Arm(CONDITION, {"kind": "top-10"}),
    "top-3 logits": Arm(CONDITION, {"kind": "top-3"}),
    "one-hot": Arm(CONDITION, {"kind": "one-hot"}),
    "penultimate features": Arm(FEATURES, features=True),
    "not whitened": Arm(DESIGN, generator={"whiten": False}, discriminator={"whiten": False}),
    "no coarse image": Arm(DESIGN, generator={"coarse": None}),
    "coarse image read linearly": Arm(DESIGN, generator={"coarse_hidden": None}),
    "4x4 map seeded by noise alone": Arm(DESIGN, generator={"seeded": False}),
    "noise on the logits": Arm(DESIGN, generator={"logit_noise": 0.1}),
    "no spectral norm": Arm(DESIGN, generator={"spectral": False}, discriminator={"spectral": False}),
    "not asked to be told apart": Arm(DESIGN, {"identify": 0.0}),
    "no DiffAugment": Arm(DESIGN, {"augment": False}),
    "four views of each image": Arm(DESIGN, {"views": 4}),
}


def choose(names: Sequence[str]) -> dict[str, Arm]:
    """The full design and the arms of these names, in the order of `ARMS`."""
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ValueError(f"There is no arm {unknown[0]!r}: choose among {'; '.join(ARMS)}.")
    if not names:
        raise ValueError(f"Nothing is left to compare with the full design: choose among {'; '.join(ARMS)}.")
    return {FULL: Arm(OBJECTIVE)} | {name: arm for name, arm in ARMS.items() if name in names}


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all arms share.

    images: (M, 3, S, S), uint8. steps, coarse_steps: of the generator and of the reader of coarse images. generator: of
    the full design. precision: of the training; logits are computed in full. seeds: every arm is trained with each.
    """

    classifier: Classifier
    images: Tensor
    steps: int
    coarse_steps: int
    batch: int = 48
    precision: str = "auto"
    generator: Mapping = field(default_factory=lambda: GLYPHS_GENERATOR)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self):
        if self.steps < 2 or self.coarse_steps < 0 or self.batch < 2:
            given = f"steps={self.steps}, coarse_steps={self.coarse_steps}, batch={self.batch}"
            raise ValueError(f"Give at least 2 steps, 0 coarse steps and 2 images a step, not {given}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"Give one seed or several different ones, not {list(self.seeds)}.")
        if len(self.images) < self.batch:
            raise ValueError(f"{len(self.images)} images do not fill a batch of {self.batch}: give more images.")


@dataclass(frozen=True)
class Run:
    """A trained arm: its inverter, None where it left nothing to use; the seconds of CPU that it took, with the logits
    of its images; and a sentence about an adversary that had to be stopped, or None."""

    inverter: LogitInverter | None
    seconds: float
    failure: str | None = None

    @property
    def numbers(self) -> int:
        """How many trained numbers the generator holds, the reader of its coarse image included."""
        return sum(parameter.numel() for parameter in self.inverter.generator.parameters()) if self.inverter else 0


def train_arm(setting: Setting, arm: Arm, seed: int = 0, folder: str | Path | None = None) -> Run:
    """Train one arm; seed and folder as for `ffi.train_inverter`. Training that diverges is reported, not raised."""
    options = {"objective": "hybrid", "lr": 5e-4, "shrink": 1e-3, "identify": IDENTIFY} | dict(arm.training)
    classifier = penultimate(setting.classifier) if arm.features else setting.classifier
    began = time.process_time()
    try:
        inverter = ffi.train_inverter(
            classifier, setting.images, steps=setting.steps, coarse_steps=setting.coarse_steps, batch=setting.batch,
            generator={**setting.generator, **arm.generator}, discriminator=dict(arm.discriminator), seed=seed,
            precision=setting.precision, folder=folder, progress=False, **options,
        )  # fmt: skip
    except FloatingPointError as error:  # from its first steps on, so that there is nothing to go back to
        return Run(None, time.process_time() - began, f"{error} It left nothing to score.")
    return Run(inverter, time.process_time() - began, inverter.card["failure"])


def penultimate(classifier: Classifier) -> Classifier:
    """The classifier without its last linear layer: its "logits" (N, features) are what that layer was given.

    Raises ValueError for a model whose last operation is no linear layer.
    """
    layers = [(name, layer) for name, layer in classifier.model.named_modules() if isinstance(layer, nn.Linear)]
    example = classifier._example()
    if layers:
        name, last = layers[-1]
        model = copy.deepcopy(classifier.model)
        parent, _, child = name.rpartition(".")
        if name:  # a model that is nothing but a linear layer has no features
            setattr(model.get_submodule(parent), child, nn.Identity())
            with torch.no_grad():
                features = model(example)
                if features.ndim == 2 and features.shape[1] == last.in_features:
                    if torch.allclose(last(features), classifier.model(example), atol=1e-4):
                        title = f"{classifier.name}, penultimate features"
                        return Classifier(model, title, classifier.size, classifier.mean, classifier.std)
    raise ValueError(f"{classifier.name} does not end in a linear layer, so it has no penultimate features to read.")


# ---- scores ----------------------------------------------------------------------------------------------------------

Scores = dict[str, Tensor]  # measure -> (seeds, images)


@torch.no_grad()
def score(inverter: LogitInverter, images: Tensor, samples: int, n_perceptual: int, seed: int = 0) -> Scores:
    """How well images (N, 3, S, S) are read: {measure: (1, N)}.

    psnr (dB) and found (its own original is the most similar of all N) are those of the mean over `samples` noises;
    perceptual is the distance of single drawings, of the first n_perceptual images, and is left out if that is 0.
    """
    reading = logit_inversion.read(inverter, logit_inversion.represent(inverter, images), samples, seed)
    found = {
        "psnr": metrics.psnr(reading.mean, images).clamp_max(logit_inversion.CEILING),
        "found": (metrics.retrieval_ranks(reading.mean, images) == 1).float(),
    }
    if n_perceptual:
        found["perceptual"] = metrics.perceptual(reading.sample[:n_perceptual], images[:n_perceptual])
    return {measure: values.unsqueeze(0) for measure, values in found.items()}


def over_seeds(scores: Sequence[Scores]) -> Scores:
    """{measure: (seeds, N)} of the scores of each seed."""
    return {measure: torch.cat([one[measure] for one in scores]) for measure in scores[0]}


def mean(measure: str, values: Tensor) -> Interval:
    """Mean of scores (seeds, N) with its 95 % interval over images: Wilson's for a share of one seed, else bootstrap.

    Where all images or none are found, a bootstrap interval would have no width.
    """
    return (
        statistics.proportion(values[0])
        if measure == "found" and len(values) == 1
        else statistics.bootstrap(values.mean(0))
    )


def effect(measure: str, arm: Tensor, full: Tensor) -> tuple[Interval, str]:
    """Arm minus full design, scores (seeds, N), with its paired interval; and what the change does, by a fixed rule.

    It "helps" if the whole 95 % interval lies on the better side of 0 and the mean does with every seed, "hurts" if on
    the worse (`ablations.verdict`); else "no difference seen".
    """
    better, worse = (full, arm) if measure in logit_inversion.LOWER_IS_BETTER else (arm, full)
    return what_makes_it_work.difference(arm, full), what_makes_it_work.verdict(better, worse)


def together(words: Sequence[str]) -> str:
    """One verdict from those of several measures: "cuts both ways" where one is better and another worse."""
    if HELPS in words and HURTS in words:
        return BOTH
    return next((word for word in (HELPS, HURTS) if word in words), SAME)


def answer(verdicts: Mapping[str, str]) -> str:
    """{arm: verdict of `together`} as one clause: "what helps is …; what hurts is …"."""
    phrases = {HELPS: "what helps is", HURTS: "what hurts is", BOTH: "what cuts both ways is",
               SAME: "no difference is seen for"}  # fmt: skip
    clauses = []
    for word, phrase in phrases.items():
        if names := [name for name, verdict in verdicts.items() if verdict == word]:
            clauses.append(f"{phrase} {listed(names)}")
    return "; ".join(clauses) if clauses else "no arm could be scored"
