"""Every claim of Teterwak et al. (2021) and of Dong et al. (2021, both versions), judged by a fixed rule.

`claims.yaml` holds the claims. Each names the chapter that measures it, our number, the baseline's, and its *checks*. A
check turns intervals into a *margin*, an interval that is turned so that what lies above 0 speaks for the claim:

    above, below      a difference, or a share against a threshold     value - threshold, threshold - value
    differs           a difference, whichever way it goes              |value|
    higher, lower     two intervals of which no difference is known    value - baseline, low - high to high - low

A claim *holds here* if the whole 95 % margin of each of its checks lies above 0. If one does not, it *does not hold
here*: an interval that includes 0 cannot support a claim. A number that this profile does not measure makes a claim
*not testable at this scale*. There is no fourth verdict. Thresholds other than 0 are a half, and once 1 dB.

    results = claims.gather(study, ["02_logit_inversion", ...])
    judged = [claims.judge(claim, results) for claim in claims.CLAIMS]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from invkit.statistics import Interval

HOLDS, FAILS, UNTESTED = "holds here", "does not hold here", "not testable at this scale"
SIGNS = {HOLDS: "✓", FAILS: "✗", UNTESTED: "–"}
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


def higher(value: Interval, baseline: Interval) -> Interval:
    """Do the intervals lie apart, the value's above? Careful rather than sharp: nothing is known of pairs."""
    low, high = value.low - baseline.high, value.high - baseline.low
    return Interval(value.value - baseline.value, low, high, value.n)


def lower(value: Interval, baseline: Interval) -> Interval:
    """Do the intervals lie apart, the value's below?"""
    return _turned(higher(value, baseline))


def _turned(interval: Interval) -> Interval:
    return Interval(-interval.value, -interval.high, -interval.low, interval.n)


# ---- claims ----------------------------------------------------------------------------------------------------------

RULES = {rule.__name__: rule for rule in (above, below, differs, higher, lower)}


@dataclass(frozen=True)
class Check:
    """One condition of a claim.

    of: what is compared, in words.
    rule: which margin is taken.
    operands: ids in the chapter's results, or numbers.
    otherwise: the check that takes its place where its ids are missing, such as two intervals for a paired difference.
    """

    of: str
    rule: Callable[..., Interval]
    operands: tuple[str | float, ...]
    otherwise: "Check | None" = None

    @classmethod
    def of_yaml(cls, of: str, otherwise: Mapping | None = None, **rule: Sequence) -> "Check":
        """From {of: ..., RULE: [operands], otherwise: the same again}."""
        ((name, operands),) = rule.items()
        return cls(of, RULES[name], tuple(operands), otherwise and cls.of_yaml(**otherwise))

    def among(self, entries: Mapping[str, Any]) -> "Check":
        """This check, or the one in its place."""
        found = all(id in entries for id in self.operands if isinstance(id, str))
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
    without: why the claim is not testable where a number is missing.
    lite0: whether the images are training images of the classifier.
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
    without: str = "This profile does not measure it."
    lite0: bool = False


def load(path: Path) -> tuple[Claim, ...]:
    """The claims of a YAML file, in its order."""
    return tuple(
        Claim(text=facts.pop("claim"), checks=tuple(Check.of_yaml(**check) for check in facts.pop("checks")), **facts)
        for facts in yaml.safe_load(path.read_text(encoding="utf-8"))
    )


CLAIMS = load(Path(__file__).with_suffix(".yaml"))


# ---- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What one check gives: its margin, the unit of that, and the check in words, with numbers."""

    margin: Interval
    unit: str
    words: str

    @property
    def quantity(self) -> str:
        return self.words.partition(":")[0].partition(",")[0]

    @property
    def holds(self) -> bool:
        return self.margin.low > 0

    @property
    def strength(self) -> float:
        """Where the margin's lower end lies, in half widths of the interval."""
        return self.margin.low / max(half_width(self.margin), 1e-12)


def weakest(findings: Sequence[Finding]) -> Finding:
    """The one that decides: its margin lies above 0 only if all do."""
    return min(findings, key=lambda finding: finding.strength)


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the reason, our value and the baseline's; None where it was not testable."""

    claim: Claim
    verdict: str
    reason: str
    value: Interval | None = None
    unit: str = ""
    baseline: Interval | None = None
    tolerance: float | None = None
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """The keyword arguments of `Study.record`, besides the id."""
        keys = ("title", "text", "paper", "where", "chapter", "measure", "objective")
        more = {"verdict": self.verdict, "reason": self.reason} | {key: getattr(self.claim, key) for key in keys}
        known = self.value is not None
        checks = [{"check": f.words, "margin": [f.margin.low, f.margin.high], "holds": f.holds} for f in self.findings]
        return {
            "value": self.value.value if known else None,
            "ci95": (self.value.low, self.value.high) if known else None,
            "n": self.value.n if known else None,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "baseline": self.baseline.value if known else None,
            "baseline_ci95": [self.baseline.low, self.baseline.high] if known and half_width(self.baseline) else None,
            "checks": checks,
            "missing": list(self.missing),
            **more,
        }


def gather(study, chapters: Sequence[str]) -> dict[str, dict[str, dict]]:
    """{chapter: its results} of those chapters that have any."""
    found = {}
    for chapter in chapters:
        try:
            found[chapter] = study.results_of(chapter)
        except FileNotFoundError:
            continue
    return found


def judge(claim: Claim, results: Mapping[str, Mapping[str, Mapping]]) -> Judged:
    """The verdict on one claim from {chapter: {id: {value, ci95, unit, n, tolerance, ...}}}.

    Raises ValueError where a number that a check rests on has no interval: such a number decides nothing.
    """
    entries = results.get(claim.chapter, {})
    checks = [check.among(entries) for check in claim.checks]
    named = [claim.value, claim.baseline, *(operand for check in checks for operand in check.operands)]
    missing = [id for id in dict.fromkeys(named) if isinstance(id, str) and id not in entries]
    if missing:
        return Judged(claim, UNTESTED, claim.without, missing=tuple(missing))
    findings = tuple(_find(check, entries) for check in checks)
    own = entries[claim.value]
    value = _interval(claim.value, own)
    if claim.baseline is None:
        difference = entries[checks[0].operands[0]]["value"]
        baseline = _exact(value.value - difference)
    elif isinstance(claim.baseline, str):
        baseline = _operand(claim.baseline, entries)
    else:
        baseline = _exact(claim.baseline)
    verdict = HOLDS if all(finding.holds for finding in findings) else FAILS
    return Judged(claim, verdict, _reason(findings), value, own["unit"], baseline, own["tolerance"], findings)


def _reason(findings: Sequence[Finding]) -> str:
    words, passed = weakest(findings).words, sum(finding.holds for finding in findings)
    if len(findings) == 1:
        return f"{words}."
    hold = "all hold" if passed == len(findings) else "1 holds" if passed == 1 else f"{passed or 'none'} hold"
    return f"{words}. The weakest of {len(findings)} checks, of which {hold}."


def _find(check: Check, entries: Mapping[str, Mapping]) -> Finding:
    first = _interval(check.operands[0], entries[check.operands[0]])
    second = check.operands[1] if len(check.operands) > 1 else 0.0
    unit = entries[check.operands[0]]["unit"]
    told = f"{written(first, unit)}, n = {first.n:,}"
    if check.rule in (higher, lower):
        other = _operand(second, entries)
        margin = check.rule(first, other)
        where = "the intervals overlap"
        if margin.low > 0 or margin.high < 0:
            where = f"the first is {'larger' if first.low > other.high else 'smaller'}"
        against = written(other) if half_width(other) else number(other.value)
        return Finding(margin, unit, f"{check.of}: {told}, against {against}; {where}")
    margin = check.rule(first) if check.rule is differs else check.rule(first, second)
    if margin.low > 0 or margin.high < 0:
        where = f"all of it is {'above' if first.low > second else 'below'} {number(second)}"
    else:
        where = f"the interval includes {number(second)}"
    return Finding(margin, unit, f"{check.of}: {told}; {where}")


def _interval(id: str, entry: Mapping) -> Interval:
    if entry["ci95"] is None:
        raise ValueError(f"{id!r} has no interval, so it decides nothing: record it with one.")
    return Interval(entry["value"], *entry["ci95"], entry["n"])


def _operand(operand: str | float, entries: Mapping[str, Mapping]) -> Interval:
    """A baseline: one without an interval, or a number, counts as exact."""
    if not isinstance(operand, str):
        return _exact(operand)
    entry = entries[operand]
    return _interval(operand, entry) if entry["ci95"] else _exact(entry["value"])


def _exact(value: float) -> Interval:
    return Interval(value, value, value, 0)


def half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def written(interval: Interval, unit: str = "") -> str:
    """As in "34.3 [31, 37.5] %", with a true minus sign."""
    ends = [number(end) for end in (interval.value, interval.low, interval.high)]
    return "{} [{}, {}]".format(*ends) + (f" {unit}" if unit else "")


def number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3g}".replace("-", "−")
