"""The verdict on a claim: one of five, by rules that stand in `study.claims`.

The rules, the controls and the smallest effects were written when results of shorter trainings were known. That they
were not fitted to these cannot be proven, so what they say of later trainings weighs more.

- *not testable here*: a number that the rule or a control needs was not measured, or on too few images: a verdict takes
  50, and a control as many as its interval needs to lie on one side.
- *instrument failed its check*: a control failed. The positive control shows that the instrument finds what is
  certainly there, the negative one that it does not find what is certainly not there. Where either fails, a difference
  says as little as none.
- *supported*: the whole interval of each check's margin lies above the smallest effect worth the name.
- *contradicted*: the whole interval of one of them lies below it. A difference that is there, but smaller than the
  smallest effect, counts as this.
- *undecided*: neither. An interval that holds both is no refutation. Nor is one measure enough where two ask the
  same: where a perceptual distance speaks for the claim in one feature space and against it in an unrelated one, it
  decides nothing.

The intervals are those at 95 %, widened by Holm's method (1979, "A simple sequentially rejective multiple test
procedure") for all claims that are judged together, so that with a probability of 95 % none of the verdicts "supported"
and "contradicted" errs by the chance that picked the images. The values without the correction stay in the results.
An interval over a few trained networks is one of Student's t, and is widened by that distribution, which is by more.
Where a claim was judged before, on a part of the data, it is widened for each of these looks as well.

    results = verdicts.gather(study, ["02_logit_inversion", ...])
    judged = verdicts.judge(claims.CLAIMS, results)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import norm, t

from invkit.statistics import Interval
from study.claims import Check, Claim, higher, lower, within

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
FAILED, UNTESTED = "instrument failed its check", "not testable here"
SIGNS = {SUPPORTED: "✓", CONTRADICTED: "✗", UNDECIDED: "?", FAILED: "⚠", UNTESTED: "–"}
LEAST_IMAGES = 50
LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """What one check gives: its margin less the smallest effect, in the check's own unit, and the check in words."""

    margin: Interval
    unit: str
    words: str
    least: float = 0.0
    second: bool = False
    widened: float = 1.0
    freedom: float | None = None  # degrees of freedom of Student's t; None for a normal distribution

    def widened_for(self, level: float) -> "Finding":
        """The same with its interval widened from LEVEL to another level."""
        return replace(self, widened=_quantile(level, self.freedom) / _quantile(LEVEL, self.freedom))

    def probabilities(self) -> tuple[float, float]:
        """Two-sided p for the claim and against it, each side of the interval by itself."""
        margin, width = self.margin, _quantile(LEVEL, self.freedom)
        below, above = max(margin.value - margin.low, 1e-12), max(margin.high - margin.value, 1e-12)
        pro, contra = width * margin.value / below, -width * margin.value / above
        if self.freedom is None:
            return 2 * norm.sf(pro), 2 * norm.sf(contra)
        return 2 * t.sf(pro, self.freedom), 2 * t.sf(contra, self.freedom)

    @property
    def quantity(self) -> str:
        return self.words.partition(":")[0].partition(",")[0]

    @property
    def holds(self) -> bool:
        return self.margin.low > 0

    @property
    def corrected(self) -> Interval:
        """The margin with the interval that Holm's method leaves it."""
        value, factor = self.margin.value, self.widened
        low, high = value - factor * (value - self.margin.low), value + factor * (self.margin.high - value)
        return Interval(value, low, high, self.margin.n)

    @property
    def strength(self) -> float:
        """Where the margin's lower end lies, in half widths of the interval."""
        return self.margin.low / max(half_width(self.margin), 1e-12)


def _quantile(level: float, freedom: float | None) -> float:
    """Half the width of an interval at 1 - level, in standard errors."""
    return float(norm.isf(level / 2) if freedom is None else t.isf(level / 2, freedom))


def weakest(findings: Sequence[Finding]) -> Finding:
    """The one that decides: its margin lies above 0 only if all do."""
    return min(findings, key=lambda finding: finding.strength)


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the reason, our value and the baseline's; None where a number is missing.

    findings: of the checks. positive, negative: of the controls.
    missing: the ids that were not measured.
    p: the two-sided probability of so clear a result by chance, before Holm's correction; times the claim's looks.
    """

    claim: Claim
    verdict: str
    reason: str
    value: Interval | None = None
    unit: str = ""
    baseline: Interval | None = None
    tolerance: float | None = None
    findings: tuple[Finding, ...] = ()
    positive: tuple[Finding, ...] = ()
    negative: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    p: float | None = None

    @property
    def formerly(self) -> str:
        """What today's conditions would give without controls, smallest effects, correction and a least number."""
        if not self.findings:
            return "not testable at this scale"
        kept = all(finding.margin.low + finding.least > 0 for finding in self.findings)
        return "holds here" if kept else "does not hold here"

    def entry(self) -> dict[str, Any]:
        """The keyword arguments of `Study.record`, besides the id."""
        keys = ("title", "text", "paper", "where", "chapter", "measure", "objective")
        known = self.value is not None
        effect = None
        if self.findings:
            deciding = weakest(self.findings)
            effect = _margin(deciding) | {"unit": deciding.unit, "p": self.p}
        return {
            "value": self.value.value if known else None,
            "ci95": (self.value.low, self.value.high) if known else None,
            "n": self.value.n if known else None,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "baseline": self.baseline.value if known else None,
            "baseline_ci95": [self.baseline.low, self.baseline.high] if known and half_width(self.baseline) else None,
            "effect": effect,
            "ci95_holm": effect and effect["margin_holm"],
            "checks": [_margin(finding) for finding in self.findings],
            "controls": {
                "positive": [_margin(finding) for finding in self.positive],
                "negative": [_margin(finding) for finding in self.negative],
            },
            "missing": list(self.missing),
            "verdict": self.verdict,
            "formerly": self.formerly,
            "reason": self.reason,
        } | {key: getattr(self.claim, key) for key in keys}


def gather(study, chapters: Sequence[str]) -> dict[str, dict[str, dict]]:
    """{chapter: its results} of those chapters that have any."""
    found = {}
    for chapter in chapters:
        try:
            found[chapter] = study.results_of(chapter)
        except FileNotFoundError:
            continue
    return found


def judge(claims: Iterable[Claim], results: Mapping[str, Mapping[str, Mapping]]) -> list[Judged]:
    """The verdicts on claims, judged together, from {chapter: {id: {value, ci95, unit, n, tolerance, ...}}}.

    Raises ValueError where a number that a check rests on has no interval: such a number decides nothing.
    """
    return corrected([judge_alone(claim, results) for claim in claims])


def judge_alone(claim: Claim, results: Mapping[str, Mapping[str, Mapping]]) -> Judged:
    """The verdict on a claim as if it were the only one."""
    entries = _entries(claim.chapter, results)
    checks = [check.among(entries) for check in claim.checks]
    named = [claim.value, claim.baseline, *(id for check in checks for id in check.ids)]
    missing = [id for id in dict.fromkeys(named) if isinstance(id, str) and id not in entries]
    if missing:
        return Judged(claim, UNTESTED, claim.without, missing=tuple(missing))
    findings = tuple(_find(check, entries) for check in checks)
    own = entries[claim.value]
    value = _interval(claim.value, own)
    baseline = _baseline(claim, entries, value)
    controls = {kind: [check.among(entries) for check in getattr(claim, kind)] for kind in ("positive", "negative")}
    absent = [id for some in controls.values() for check in some for id in check.ids if id not in entries]
    found = {
        kind: tuple(_find(check, entries) for check in some if not set(check.ids) & set(absent))
        for kind, some in controls.items()
    }
    known = Judged(claim, UNDECIDED, "", value, own["unit"], baseline, own["tolerance"], findings, **found)
    unmeasured = [kind for kind, some in controls.items() if not some or any(set(c.ids) & set(absent) for c in some)]
    open_ = [(kind, finding) for kind, some in found.items() for finding in some if not finding.holds]
    failed = [(kind, finding) for kind, finding in open_ if finding.margin.high < 0]
    if failed:
        kind, finding = failed[0]
        return replace(known, verdict=FAILED, reason=f"The {kind} control fails. {finding.words}.")
    if open_:
        kind, finding = open_[0]
        return replace(known, verdict=UNTESTED, reason=f"The {kind} control is undecided. {finding.words}.")
    if unmeasured:
        reason = f"No {' and no '.join(unmeasured)} control is measured."
        return replace(known, verdict=UNTESTED, reason=reason, missing=tuple(dict.fromkeys(absent)))
    fewest = min(finding.margin.n for finding in findings)
    if fewest < LEAST_IMAGES:
        return replace(known, verdict=UNTESTED, reason=f"n = {fewest}: a verdict takes {LEAST_IMAGES} images or more.")
    wider = tuple(finding.widened_for(LEVEL / claim.looks) for finding in findings)
    return _decided(replace(known, findings=wider, p=min(1.0, claim.looks * _probability(findings))))


def corrected(judged: Sequence[Judged]) -> list[Judged]:
    """The same with intervals and verdicts corrected by Holm's method for all that can be decided."""
    order = sorted((one for one in judged if one.p is not None), key=lambda one: one.p)
    found, stopped = {}, False
    for place, one in enumerate(order):
        level = LEVEL / (len(order) - place)
        stopped = stopped or one.p > level
        wider = tuple(finding.widened_for(level / one.claim.looks) for finding in one.findings)
        again = _decided(replace(one, findings=wider))
        if stopped and again.verdict != UNDECIDED:
            again = replace(again, verdict=UNDECIDED)
        if again.verdict != one.verdict:
            again = replace(again, reason=f"{again.reason} Decided by itself, not among {len(order)} claims.")
        found[one.claim.id] = again
    return [found.get(one.claim.id, one) for one in judged]


def _decided(judged: Judged) -> Judged:
    """With the verdict that the corrected margins allow, and its reason."""
    findings = judged.findings
    lost = [finding for finding in findings if finding.corrected.high < 0 and not _disputed(finding, findings)]
    if all(finding.corrected.low > 0 for finding in findings):
        verdict = SUPPORTED
    else:
        verdict = CONTRADICTED if lost else UNDECIDED
    return replace(judged, verdict=verdict, reason=_reason(findings))


def _disputed(finding: Finding, findings: Sequence[Finding]) -> bool:
    """Whether the same question, asked by the other measure, has the opposite answer."""
    place = next(k for k, one in enumerate(findings) if one is finding)
    other = place - 1 if finding.second else place + 1
    paired = finding.second or (other < len(findings) and findings[other].second)
    return paired and findings[other].corrected.low > 0


def _probability(findings: Sequence[Finding]) -> float:
    """Two-sided p of a claim, from intervals: of all checks holding, or of one of them lying wholly on the other side.

    Intervals are taken for those of a normal distribution, or of Student's t where they are over a few networks. For a
    claim to hold all checks have to, so the weakest speaks (Berger 1982); against it any one can, which costs
    Bonferroni's factor.
    """
    pro, contra = zip(*(finding.probabilities() for finding in findings), strict=True)
    return float(min(1.0, max(pro), len(findings) * min(contra)))


def _reason(findings: Sequence[Finding]) -> str:
    words, passed = weakest(findings).words, sum(finding.holds for finding in findings)
    if len(findings) == 1:
        return f"{words}."
    hold = "all hold" if passed == len(findings) else "1 holds" if passed == 1 else f"{passed or 'none'} hold"
    return f"{words}. The weakest of {len(findings)} checks, of which {hold}."


def _find(check: Check, entries: Mapping[str, Mapping]) -> Finding:
    first = _interval(check.operands[0], entries[check.operands[0]])
    unit = entries[check.operands[0]]["unit"]
    difference = check.rule is within or (check.least and check.rule not in (higher, lower))
    told = f"{written(first, unit_of_difference(unit) if difference else unit)}, n = {first.n:,}"
    if check.rule in (higher, lower):
        margin = check.rule(first, _operand(check.operands[1], entries), *check.operands[2:])
        words = f"{check.of}: {told}, against {_against(check, entries)}"
    else:
        margin = check.rule(first, *check.operands[1:])
        wanted = {"above": "above", "below": "below", "within": "within ±"}.get(check.rule.__name__, "other than")
        edge = check.operands[1] if len(check.operands) > 1 else 0.0
        words = f"{check.of}: {told}, wanted {wanted} {number(edge)}".replace("± ", "±")
    if check.least:
        words += f" by at least {number(check.least)}"
    less = Interval(*(end - check.least for end in (margin.value, margin.low, margin.high)), margin.n)
    where = "the interval lies on the claim's side" if less.low > 0 else "the interval holds both sides"
    where = "the interval lies on the other side" if less.high < 0 else where
    networks = None if check.trainings is None else int(entries[check.trainings]["text"].replace(",", ""))
    if networks is not None:
        words += f", over {networks} networks of each kind"
    freedom = None if networks is None else networks - 1
    return Finding(less, unit, f"{words}; {where}", check.least, check.second, freedom=freedom)


def _against(check: Check, entries: Mapping[str, Mapping]) -> str:
    other = _operand(check.operands[1], entries)
    words = written(other) if half_width(other) else number(other.value)
    return f"{check.operands[2]:.0%} of {words}".replace("%", " %") if len(check.operands) > 2 else words


def _entries(chapter: str, results: Mapping[str, Mapping[str, Mapping]]) -> dict[str, Mapping]:
    """The chapter's results by id, and those of all chapters by "chapter:id", but for what was not measured."""
    measured = {
        name: {id: entry for id, entry in entries.items() if entry.get("value", "a text") is not None}
        for name, entries in results.items()
    }
    others = {f"{name}:{id}": entry for name, entries in measured.items() for id, entry in entries.items()}
    return {**others, **measured.get(chapter, {})}


def _baseline(claim: Claim, entries: Mapping[str, Mapping], value: Interval) -> Interval:
    if claim.baseline is None:
        return _exact(value.value - entries[claim.checks[0].operands[0]]["value"])
    return _operand(claim.baseline, entries)


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


def _margin(finding: Finding) -> dict[str, Any]:
    """A finding for the results file."""
    margin, wider = finding.margin, finding.corrected
    return {
        "check": finding.words,
        "value": margin.value,
        "margin": [margin.low, margin.high],
        "margin_holm": [wider.low, wider.high],
        "n": margin.n,
        "holds": finding.holds,
    }


def unit_of_difference(unit: str) -> str:
    """The unit of a difference of two values of some unit: percentage points where that is per cent."""
    return "points" if unit == "%" else unit


def half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def written(interval: Interval, unit: str = "") -> str:
    """As in "34.3 [31, 37.5] %", with a true minus sign."""
    ends = [number(end) for end in (interval.value, interval.low, interval.high)]
    return "{} [{}, {}]".format(*ends) + (f" {unit}" if unit else "")


def number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3g}".replace("-", "−")
