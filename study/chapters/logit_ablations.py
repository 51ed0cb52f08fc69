"""Chapter 13: what makes logit inversion work, the design of `invkit.ffi` changed in one place at a time.

The *full design* is that of the shipped inverters of glyphs (`recipes.ffi`): objective "hybrid", whitened logits, and a
coarse image. Every other design differs from it by one `DesignChange`. All see the same images in the same order, take
as many steps of the same batch, start from the same seeds and are scored on the same unseen images; they are compared
with the full design image by image, by the rule of `scores.verdict_over_seeds`. Images that designs are chosen on come
from the split "validation", on which no other chapter reports.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from invkit import ffi
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from recipes.ffi import GLYPHS_GENERATOR, IDENTIFY
from study import scores
from study.baselines import mean_colours
from study.notebook import listed, slug
from study.reconstructions import reconstruct, represent_all
from study.scores import MEASURES, mean_over_trainings

FULL = "full design"
OBJECTIVE, CONDITION, FEATURES, DESIGN = "objective", "what is inverted", "before the logits", "design"
HELPS, HURTS, BOTH, SAME = "helps", "hurts", "cuts both ways", "no difference seen"

# ---- designs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DesignChange:
    """One change of the full design.

    question: which of the four questions of the chapter it belongs to.
    training, generator, discriminator: what it changes among the arguments of `ffi.train_inverter` and of the networks.
    features: invert the input of the last linear layer (see `without_last_layer`) instead of the logits.
    """

    question: str
    training: Mapping = field(default_factory=dict)
    generator: Mapping = field(default_factory=dict)
    discriminator: Mapping = field(default_factory=dict)
    features: bool = False


CHANGES: dict[str, DesignChange] = {
    "regression alone": DesignChange(OBJECTIVE, {"objective": "regression"}),
    "adversary alone": DesignChange(OBJECTIVE, {"objective": "adversarial"}),
    "adversary alone, no coarse image": DesignChange(OBJECTIVE, {"objective": "adversarial"}, {"coarse": None}),
    "probabilities": DesignChange(CONDITION, {"kind": "probabilities"}),
    "top-10 logits": DesignChange(CONDITION, {"kind": "top-10"}),
    "top-3 logits": DesignChange(CONDITION, {"kind": "top-3"}),
    "one-hot": DesignChange(CONDITION, {"kind": "one-hot"}),
    "penultimate features": DesignChange(FEATURES, features=True),
    "not whitened": DesignChange(DESIGN, generator={"whiten": False}, discriminator={"whiten": False}),
    "no coarse image": DesignChange(DESIGN, generator={"coarse": None}),
    "coarse image read linearly": DesignChange(DESIGN, generator={"coarse_hidden": None}),
    "4x4 map seeded by noise alone": DesignChange(DESIGN, generator={"seeded": False}),
    "noise on the logits": DesignChange(DESIGN, generator={"logit_noise": 0.1}),
    "no spectral norm": DesignChange(DESIGN, generator={"spectral": False}, discriminator={"spectral": False}),
    "not asked to be told apart": DesignChange(DESIGN, {"identify": 0.0}),
    "no DiffAugment": DesignChange(DESIGN, {"augment": False}),
    "four views of each image": DesignChange(DESIGN, {"views": 4}),
}


def designs_named(names: Sequence[str]) -> dict[str, DesignChange]:
    """The full design and those with the changes of these names, in the order of `CHANGES`."""
    unknown = [name for name in names if name not in CHANGES]
    if unknown:
        raise ValueError(f"There is no change {unknown[0]!r}: choose among {'; '.join(CHANGES)}.")
    if not names:
        raise ValueError(f"Nothing is left to compare with the full design: choose among {'; '.join(CHANGES)}.")
    return {FULL: DesignChange(OBJECTIVE)} | {name: change for name, change in CHANGES.items() if name in names}


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DesignBudget:
    """What all designs share.

    images: to train on, (M, 3, S, S), uint8.
    steps, coarse_steps: of training the generator and the regressor of coarse images.
    batch: images a step.
    precision: of the training; logits are computed in full.
    generator: arguments of the full design's generator.
    seeds: every design is trained with each of them.
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
class TrainedDesign:
    """A design after its training.

    inverter: None where the training left nothing to use.
    seconds: of CPU time, with the logits of the training images.
    failure: a sentence about an adversary that had to be stopped, or None.
    """

    inverter: LogitInverter | None
    seconds: float
    failure: str | None = None

    @property
    def numbers(self) -> int:
        """How many trained numbers the generator has, the regressor of its coarse image included."""
        return sum(parameter.numel() for parameter in self.inverter.generator.parameters()) if self.inverter else 0


def train_design(
    budget: DesignBudget, change: DesignChange, seed: int = 0, folder: str | Path | None = None
) -> TrainedDesign:
    """Train one design; seed and folder as for `ffi.train_inverter`. Training that diverges is reported, not raised."""
    options = {"objective": "hybrid", "lr": 5e-4, "shrink": 1e-3, "identify": IDENTIFY} | dict(change.training)
    classifier = without_last_layer(budget.classifier) if change.features else budget.classifier
    began = time.process_time()
    try:
        inverter = ffi.train_inverter(
            classifier, budget.images, steps=budget.steps, coarse_steps=budget.coarse_steps, batch=budget.batch,
            generator={**budget.generator, **change.generator}, discriminator=dict(change.discriminator), seed=seed,
            precision=budget.precision, folder=folder, progress=False, **options,
        )  # fmt: skip
    except FloatingPointError as error:  # from its first steps on, so that there is nothing to go back to
        return TrainedDesign(None, time.process_time() - began, f"{error} It left nothing to score.")
    return TrainedDesign(inverter, time.process_time() - began, inverter.card["failure"])


def without_last_layer(classifier: Classifier) -> Classifier:
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
    raise ValueError(f"{classifier.name} does not end in a linear layer, so it has no penultimate features.")


# ---- scores ----------------------------------------------------------------------------------------------------------


def score_design(
    inverter: LogitInverter, images: Tensor, samples: int, n_perceptual: int, seed: int = 0
) -> scores.Scores:
    """Reconstruct images (N, 3, S, S) from their logits and score them: psnr, found and perceptual.

    samples: noise vectors over which the best guess is the mean.
    n_perceptual: the perceptual distance of a single sample is measured on the first so many; 0 leaves it out.
    """
    found = reconstruct(inverter, represent_all(inverter, images), samples, seed)
    return scores.score(found, images, n_perceptual=n_perceptual, measures=("psnr", "found", "perceptual"))


def over_seeds(each: Sequence[scores.Scores]) -> dict[str, Tensor]:
    """{measure: (seeds, N)} of the scores of each seed, over the images on which the measure was taken."""
    stacked = {measure: torch.stack([one[measure] for one in each]) for measure in each[0]}
    return {measure: values[:, ~values.isnan().any(0)] for measure, values in stacked.items()}


def effect(measure: str, changed: Tensor, full: Tensor) -> tuple[Interval, str]:
    """Changed minus full design with its paired interval, and what the change does, by a fixed rule.

    changed, full: scores (seeds, N). The change "helps", "hurts" or shows "no difference" (`verdict_over_seeds`).
    """
    better, worse = (full, changed) if MEASURES[measure].lower_is_better else (changed, full)
    return scores.difference_over_seeds(changed, full), scores.verdict_over_seeds(better, worse)


def one_verdict(words: Sequence[str]) -> str:
    """One verdict from those of several measures: "cuts both ways" where one is better and another worse."""
    if HELPS in words and HURTS in words:
        return BOTH
    return next((word for word in (HELPS, HURTS) if word in words), SAME)


def verdicts_in_words(verdicts: Mapping[str, str]) -> str:
    """{change: verdict of `one_verdict`} as one clause: "what helps is …; what hurts is …"."""
    phrases = {HELPS: "what helps is", HURTS: "what hurts is", BOTH: "what cuts both ways is",
               SAME: "no difference is seen for"}  # fmt: skip
    clauses = []
    for word, phrase in phrases.items():
        if names := [name for name, verdict in verdicts.items() if verdict == word]:
            clauses.append(f"{phrase} {listed(names)}")
    return "; ".join(clauses) if clauses else "no design could be scored"


# ---- what the chapter records and shows ------------------------------------------------------------------------------


def effects_of(measured: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, tuple[Interval, str]]]:
    """What every change does to each measure; see `effect`.

    measured: {design: its scores}, the full design among them.
    Returns {design: {measure: (design minus full design, "helps", "hurts" or "no difference seen")}}.
    Raises ValueError where the full design left nothing to score.
    """
    if FULL not in measured:
        raise ValueError("The full design left nothing to score, so nothing can be compared with it: take more steps.")
    return {
        name: {measure: effect(measure, values, measured[FULL][measure]) for measure, values in some.items()}
        for name, some in measured.items()
        if name != FULL
    }


def verdicts_of(effects: Mapping[str, Mapping[str, tuple[Interval, str]]]) -> dict[str, str]:
    """{design: one verdict for all its measures}; see `one_verdict`."""
    return {name: one_verdict([word for _, word in by_measure.values()]) for name, by_measure in effects.items()}


def score_seeds(
    inverters: Sequence[LogitInverter], images: Tensor, samples: int, n_perceptual: int
) -> dict[str, Tensor]:
    """{measure: (seeds, N)} of a design's inverters, one for each seed; see `score_design`."""
    return over_seeds([score_design(inverter, images, samples, n_perceptual) for inverter in inverters])


def record(
    study, trained: Mapping[str, Sequence], measured: Mapping[str, Mapping[str, Tensor]], effects: Mapping
) -> None:
    """Record of each design the CPU seconds, the scores, and their differences to the full design's.

    trained: {design: its trained copy of every seed}.
    measured: {design: its scores}.
    effects: what `effects_of` makes of them.
    """
    for name, copies in trained.items():
        title = name.replace("-", " ")
        study.record(f"seconds_{slug(title)}", _mean_seconds(copies), unit="s", digits=2, tolerance=None)
        for measure, values in measured.get(name, {}).items():
            study.record_interval(measure, title, mean_over_trainings(measure, values), seeds=len(copies))
        for measure, (difference, word) in effects.get(name, {}).items():
            by_seed = (measured[name][measure] - measured[FULL][measure]).mean(1).tolist()
            study.record_interval(measure, f"gain {title}", difference, digits=2, verdict=word, by_seed=by_seed)


def overview(designs: Mapping, trained: Mapping[str, Sequence], measured: Mapping[str, Mapping[str, Tensor]]) -> dict:
    """Rows of a table, {(question, design): {column: value}}: what each design costs and what it scores."""
    rows = {}
    for name, design in designs.items():
        numbers = max(run.numbers for run in trained[name])
        row = {
            "CPU, s": f"{_mean_seconds(trained[name]):.0f}",
            "numbers, 10⁶": f"{numbers / 1e6:.2f}" if numbers else None,
        }
        row |= {measure: mean_over_trainings(measure, values) for measure, values in measured.get(name, {}).items()}
        rows["" if name == FULL else design.question, name] = row
    return rows


def floor_rows(study, known: Tensor, unseen: Tensor) -> dict:
    """Rows of the table of `overview`: what images score that no logits were needed for; recorded as "psnr_<floor>".

    known: images (M, 3, S, S) that the designs learn from, whose mean is one floor.
    unseen: images (N, 3, S, S) to score on; the mean colour of each is the other floor.
    """
    mean = known.mean(0).expand_as(unseen)
    floors = {"mean image": mean, "own mean colour": mean_colours(unseen).mean}
    rows = {}
    for name, images in floors.items():
        psnr = scores.score(images, unseen, measures=["psnr"]).intervals()["psnr"]
        study.record_interval("psnr", name, psnr)
        rows["no logits", name] = {"psnr": psnr}
    return rows


def comparison(designs: Mapping, effects: Mapping, verdicts: Mapping[str, str]) -> dict:
    """Rows of a table, {(question, design): {measure: difference and word}}, the verdict last."""
    return {
        (designs[name].question, name): {
            **{
                MEASURES[m].heading: f"{scores.written(m, gain, '+')}: {word}" for m, (gain, word) in by_measure.items()
            },
            "the change …": verdicts[name],
        }
        for name, by_measure in effects.items()
    }


def failures(trained: Mapping[str, Sequence]) -> str:
    """A sentence in Markdown for each adversary that had to be stopped, or one that says that there was none."""
    stopped = [
        f"The adversary of *{name}* had to be stopped. {run.failure}"
        for name, copies in trained.items()
        for run in copies
        if run.failure
    ]
    return "\n\n".join(stopped) or "No adversary diverged or collapsed."


def findings(effects: Mapping, verdicts: Mapping[str, str]) -> str:
    """A Markdown list: what the intervals allow one to say of each design, question by question."""
    lines = []
    for question in dict.fromkeys(change.question for change in CHANGES.values()):
        said = [_finding(name, effects[name], verdicts[name]) for name in effects if CHANGES[name].question == question]
        text = "; ".join(said) or "not run here: the parameter `arms` names no design that tells"
        lines.append(f"- **{question[0].upper()}{question[1:]}.** {text}.")
    return "\n".join(lines)


def _finding(name: str, by_measure: Mapping[str, tuple[Interval, str]], verdict: str) -> str:
    if verdict == SAME:
        return f"*{name}*: {SAME}"
    gains = [
        f"{MEASURES[m].title} {scores.written(m, gain, '+')} {MEASURES[m].unit}".strip() + f" ({word})" * (word == SAME)
        for m, (gain, word) in by_measure.items()
    ]
    return f"*{name}* {verdict}: {', '.join(gains)}"


def record_ridge(study, ridges: Mapping, differences: Mapping[str, Interval]) -> None:
    """Record how well ridge regression does, and what features gain over logits.

    ridges: {"logits", "features": `study.scores.Scores`}.
    differences: features minus logits, {measure: difference}.
    """
    for name, some in ridges.items():
        for measure, interval in some.intervals().items():
            study.record_interval(measure, f"ridge {name}", interval)
    for measure, difference in differences.items():
        study.record_interval(measure, "gain ridge features", difference, digits=2)
    words = {scores.word(measure, difference) for measure, difference in differences.items()}
    text = "finds less in the features" if "worse" in words else "does not tell the two apart"
    if "better" in words:
        mixed = "finds more in the features by one score and less by the other"
        text = mixed if "worse" in words else "also finds more in the features"
    study.record_text("ridge_words", text, compared=False)


def trained_numbers(trained: Mapping[str, Sequence], names: Sequence[str]) -> str:
    """How many numbers the generators of these designs hold, in words."""
    sizes = {name: max(run.numbers for run in trained[name]) for name in names if name in trained}
    return (
        " and ".join(f"{size / 1e6:.2f} million ({name})" for name, size in sizes.items() if size) or "not trained here"
    )


def _mean_seconds(copies: Sequence) -> float:
    return sum(run.seconds for run in copies) / len(copies)
