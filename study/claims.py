"""Every claim of Teterwak et al. (2021) and of Dong et al. (2021, both versions), with the rule that judges it.

`claims.yaml` holds the claims. Each names the chapter that measures it, our number, the baseline's, its *checks*, and
its *controls*. A check turns intervals into a *margin*, an interval that is turned so that what lies above 0 speaks for
the claim:

    above, below      a difference, or a share against a threshold     value - threshold, threshold - value
    differs           a difference, whichever way it goes              |value|
    within            a difference that should be none                 threshold - |value|
    higher, lower     two intervals of which no difference is known    value - baseline, low - high to high - low

A check also has a smallest effect worth the name, `least`: the margin has to exceed it. A check that is `second` asks
what the check before it asks, by a second measure, such as a perceptual distance in an unrelated feature space: no
claim is supported by one of the two alone, and none contradicted by one where the other supports it.
`study.verdicts` judges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from invkit.statistics import Interval

FFI = "Teterwak et al. 2021"


# ---- rules: intervals -> a margin ------------------------------------------------------------------------------------


def above(difference: Interval, threshold: float = 0.0) -> Interval:
    """Is it larger than the threshold?"""
    return Interval(*(end - threshold for end in (difference.value, difference.low, difference.high)), difference.n)


def below(difference: Interval, threshold: float = 0.0) -> Interval:
    """Is it smaller than the threshold?"""
    return _turned(above(difference, threshold))


def differs(difference: Interval) -> Interval:
    """Is it on either side of 0?"""
    return difference if difference.value >= 0 else _turned(difference)


def within(difference: Interval, threshold: float) -> Interval:
    """Is it nearer to 0 than the threshold, whichever way it goes?"""
    value, far = abs(difference.value), max(abs(difference.low), abs(difference.high))
    near = 0.0 if difference.low <= 0 <= difference.high else min(abs(difference.low), abs(difference.high))
    return Interval(threshold - value, threshold - far, threshold - near, difference.n)


def higher(value: Interval, baseline: Interval, share: float = 1.0) -> Interval:
    """Do the intervals lie apart, the value's above the baseline's, or above a share of it?

    Careful rather than sharp: nothing is known of pairs.
    """
    baseline = Interval(*(share * end for end in (baseline.value, baseline.low, baseline.high)), baseline.n)
    low, high = value.low - baseline.high, value.high - baseline.low
    return Interval(value.value - baseline.value, low, high, value.n)


def lower(value: Interval, baseline: Interval) -> Interval:
    """Do the intervals lie apart, the value's below?"""
    return _turned(higher(value, baseline))


def _turned(interval: Interval) -> Interval:
    return Interval(-interval.value, -interval.high, -interval.low, interval.n)


# ---- claims ----------------------------------------------------------------------------------------------------------

RULES = {rule.__name__: rule for rule in (above, below, differs, within, higher, lower)}


@dataclass(frozen=True)
class Check:
    """One condition of a claim, or of the instrument that measures it.

    of: what is compared, in words.
    rule: which margin is taken.
    operands: ids in the chapter's results, "chapter:id" in those of another, or numbers.
    least: the smallest margin worth the name, in the unit of the first operand.
    second: whether it asks what the check before it asks, by a second measure.
    otherwise: the check that takes its place where its ids are missing, such as two intervals for a paired difference.
    trainings: the id of the number of trained networks over which the interval is one of Student's t, with one fewer
        degrees of freedom; None for an interval over images alone.
    """

    of: str
    rule: Callable[..., Interval]
    operands: tuple[str | float, ...]
    least: float = 0.0
    second: bool = False
    otherwise: "Check | None" = None
    trainings: str | None = None

    @classmethod
    def of_yaml(
        cls,
        of: str,
        least: float = 0.0,
        second: bool = False,
        otherwise: Mapping | None = None,
        trainings: str | None = None,
        **rule: Sequence,
    ) -> "Check":
        """From {of: ..., RULE: [operands], least: ..., second: ..., otherwise: the same again, trainings: ...}."""
        ((name, operands),) = rule.items()
        instead = otherwise and cls.of_yaml(**otherwise)
        return cls(of, RULES[name], tuple(operands), least, second, instead, trainings)

    @property
    def ids(self) -> list[str]:
        """Its operands that are measured, and the number of its trainings."""
        return [operand for operand in (*self.operands, self.trainings) if isinstance(operand, str)]

    def among(self, entries: Mapping[str, Any]) -> "Check":
        """This check, or the one in its place."""
        found = all(id in entries for id in self.ids)
        return self if found or self.otherwise is None else self.otherwise


@dataclass(frozen=True)
class Claim:
    """What a paper claims, and how this study judges it.

    title, text: the claim in few words, and in those of the paper.
    paper, where: which paper, and which of its sections.
    chapter: the notebook whose results decide.
    objective: what the inverters concerned were trained on.
    measure: what is compared with which baseline, in words.
    value, baseline: ids in the chapter's results; a baseline may be a number, or None for the value less the difference
        that the first check names.
    checks: all of which have to hold.
    positive: controls of the instrument: it finds what is certainly there.
    negative: controls of the instrument: it does not find what is certainly not there.
    without: why the claim is not testable where a number is missing.
    lite0: whether the images are training images of the classifier.
    looks: how often its measure was judged on data that grew, this time included. Who adds data until the verdict
        pleases errs more often, so each look has only its share of the level (Bonferroni).
    """

    id: str
    title: str
    text: str
    paper: str
    where: str
    chapter: str
    objective: str
    measure: str
    value: str
    baseline: str | float | None
    checks: tuple[Check, ...]
    positive: tuple[Check, ...] = ()
    negative: tuple[Check, ...] = ()
    without: str = "This profile does not measure it."
    lite0: bool = False
    looks: int = 1


def load(path: Path) -> tuple[Claim, ...]:
    """The claims of a YAML file, in its order."""
    return tuple(_claim(**facts) for facts in yaml.safe_load(path.read_text(encoding="utf-8")))


def _claim(claim: str, **facts: Any) -> Claim:
    for kind in ("checks", "positive", "negative"):
        facts[kind] = tuple(Check.of_yaml(**check) for check in facts.get(kind, ()))
    return Claim(text=claim, **facts)


CLAIMS = load(Path(__file__).with_suffix(".yaml"))
