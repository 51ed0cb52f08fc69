"""Chapter 20, what its page records, tables and draws; `study.chapters.architecture_and_logits` trains and measures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval
from study import plots
from study.chapters.architecture_and_logits import Kind
from study.chapters.dose_of_robustness import COMPARED, DoseImages, Inverted, values_of
from study.chapters.dose_of_robustness_page import group_accuracy, group_mean, group_row, record_inverter_checks
from study.notebook import Study
from study.scores import MEASURES, mean_over_trainings, verdict, written
from study.trainings import difference_of_trainings

Kinds = Mapping[str, Kind]  # {architecture: what was measured}, the one that others are compared with first
EQUAL = "at equal accuracy"
AFTER = "after equal training"


def contrasts_of(kinds: Kinds, by: str) -> dict[tuple[str, str], dict[str, Interval]]:
    """{(architecture, when): {measure: difference to the first architecture, in pairs of seeds}}.

    by: "inverter" or "ridge". when: AFTER or EQUAL; the latter is left out where fewer than two seeds have such a pair.
    """
    first, *others = kinds
    found = {}
    for name in others:
        pairs = {AFTER: (kinds[name].inverted, kinds[first].inverted), EQUAL: _equal_pairs(kinds[name])}
        for when, (some, against) in pairs.items():
            if len(some) > 1:
                found[name, when] = {
                    measure: difference_of_trainings(values_of(some, measure, by), values_of(against, measure, by))
                    for measure in COMPARED
                }
    return found


def _equal_pairs(kind: Kind) -> tuple[tuple[Inverted, ...], tuple[Inverted, ...]]:
    """The networks of this architecture and of the first one that are as accurate as each other, in order of seeds."""
    pairs = list(kind.equal.values())
    return tuple(own for own, _ in pairs), tuple(first for _, first in pairs)


def every_network(kinds: Kinds) -> list[Inverted]:
    """What was measured on all classifiers, each once, those that were stopped early among them."""
    some = [one for kind in kinds.values() for one in kind.inverted]
    some += [one for kind in kinds.values() for pair in kind.equal.values() for one in pair]
    return list({id(one): one for one in some}.values())


# ---- numbers and words -----------------------------------------------------------------------------------------------


def record_kinds(study: Study, kinds: Kinds) -> None:
    """Record every architecture's accuracy and scores, the differences to the first one, and the inverters' checks.

    Differences at equal accuracy are left out where there are too few such pairs.
    """
    first, *others = kinds
    for name, kind in kinds.items():
        study.record_interval("accuracy", name, group_accuracy(kind.inverted), tolerance=15)
        for by in ("inverter", "ridge"):
            for measure, tolerance in COMPARED.items():
                values = values_of(kind.inverted, measure, by)
                mean, by_seed = mean_over_trainings(measure, values), values.double().mean(1).tolist()
                study.record_interval(measure, f"{by} {name}", mean, tolerance=tolerance, by_seed=by_seed)
    for by in ("inverter", "ridge"):
        rows = {f"{name} {when} {by}": row for (name, when), row in contrasts_of(kinds, by).items()}
        study.record_rows(rows, digits=2, tolerance=None)
    for name in others:
        study.record_text(f"words_{name}", difference_words(kinds, name), compared=False)
        study.record_text(f"equal_{name}", equal_words(kinds, name), compared=False)
    record_inverter_checks(study, kinds[first].inverted)
    study.record_texts(n_seeds=len(kinds[first].inverted))


def difference_words(kinds: Kinds, name: str) -> str:
    """Whether an architecture's logits tell more or less than the first one's, by PSNR, when trained equally."""
    found = contrasts_of(kinds, "inverter")[name, AFTER]["psnr"]
    return verdict(found, "more", "less", "neither surely more nor surely less")


def equal_words(kinds: Kinds, name: str) -> str:
    """What an architecture changes at equal accuracy, as the end of a sentence."""
    row = contrasts_of(kinds, "inverter").get((name, EQUAL))
    if row is None:
        return "there are too few such pairs in this run to compare them"
    psnr, found = (written(measure, row[measure], "+").replace("-", "−") for measure in ("psnr", "found"))
    return f"the differences are {psnr} dB and {found} percentage points"


# ---- tables and figures ----------------------------------------------------------------------------------------------


def kind_rows(kinds: Kinds) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: every architecture after its whole training; then each pair of networks at equal accuracy."""
    first = next(iter(kinds))
    rows = {(name, "whole"): group_row(kind.inverted) for name, kind in kinds.items()}
    for name, kind in kinds.items():
        for whose, some in zip((name, first), _equal_pairs(kind), strict=True):
            if some:
                rows[whose, f"as accurate as {first if whose == name else name}"] = group_row(some)
    return rows


def contrast_rows(kinds: Kinds) -> dict[tuple[str, str, str], dict[str, Interval]]:
    """Rows of a table: every difference to the first architecture, by inverters and by ridge regression."""
    return {(by, *which): row for by in ("inverter", "ridge") for which, row in contrasts_of(kinds, by).items()}


def contrast_chart(kinds: Kinds) -> Figure:
    """PSNR of the others less that of the first architecture, by inverter and by ridge, with intervals over both."""
    first = next(iter(kinds))
    series = {
        by: {f"{name}, {when}": row["psnr"] for (name, when), row in contrasts_of(kinds, by).items()}
        for by in ("inverter", "ridge")
    }
    rows = list(series["inverter"])
    zero = {f"as {first}": dict.fromkeys(rows, 0.0)}
    return plots.dots({"": series}, f"PSNR less that of {first}, dB", ticks={"": zero})


def found_by_architecture(kinds: Kinds) -> Figure:
    """The share of reconstructions that find their image, of every architecture, by inverter and by ridge."""
    factor = MEASURES["found"].factor
    groups = {
        name: {by: group_mean(kind.inverted, "found", by).times(factor) for by in ("inverter", "ridge")}
        for name, kind in kinds.items()
    }
    return plots.bars(groups, MEASURES["found"].heading)


def kind_pictures(kinds: Kinds, images: DoseImages, n: int = 8) -> dict[str, Tensor]:
    """Rows of a grid: the first test images, reconstructed from the first classifier of every architecture."""
    rows = {"original": images.test.images[:n]}
    return rows | {name: kind.inverted[0].images[:n].cpu() for name, kind in kinds.items()}
