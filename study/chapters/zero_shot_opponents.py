"""Chapter 7: the chain against opponents that spend seconds on each photo (`study.opponents`), at equal seconds.

The chain is given its forward passes alone, each opponent as many seconds as any other. Which opponent is strongest is
decided by each measure anew, by its mean over the photos, so that the choice favours the opponent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invkit.statistics import Interval
from study.chapters.zero_shot_inversion import depths_near, unit_of
from study.opponents import RUN, Found, oppose
from study.reconstructions import TimedImages
from study.scores import MEASURES, Scores, score, word, written

DECISIVE = ("psnr", "perceptual", "perceptual_second")
SHOWN = (*DECISIVE, "found")
CHAIN = "the chain"


@dataclass(frozen=True)
class Contest:
    """What all opponents found at one depth, and the chain: {name: its images, steps and seconds}, {name: scores}."""

    found: Mapping[str, Found]
    scores: Mapping[str, Scores]

    @property
    def opponents(self) -> list[str]:
        return [name for name in self.scores if name != CHAIN]

    def strongest(self, measure: str) -> str:
        """The opponent with the best mean of a measure."""
        sign = -1 if MEASURES[measure].lower_is_better else 1
        return max(self.opponents, key=lambda name: sign * self.scores[name][measure].mean().item())

    def spread(self) -> float | None:
        """The seconds of the slowest opponent over those of the quickest; None where one took under ten steps.

        So few are a coarse measure of time, and no opponent has been given a chance.
        """
        took = [self.found[name] for name in self.opponents]
        if min(one.steps for one in took) < 10:
            return None
        return max(one.seconds for one in took) / max(min(one.seconds for one in took), 1e-9)


def contest(
    inverter,
    photos: Tensor,
    ours: TimedImages,
    depth: int,
    n: int,
    seconds: float,
    names: Sequence[str] = tuple(RUN),
    seed: int = 0,
) -> Contest:
    """Let opponents invert n of the photos, evenly spread, from one depth, and score them and the chain.

    photos: (N, 3, S, S), among all of which each original is looked for.
    ours: the chain's reconstructions of all of them.
    seconds: for each opponent, an image.
    """
    some = torch.linspace(0, len(photos) - 1, n).round().long()
    others = [place for place in range(len(photos)) if place not in set(some.tolist())]
    targets = torch.cat([photos[some], photos[others]])
    features = inverter.represent(photos[some], depth)
    found = {CHAIN: Found(ours.images[some], 0, ours.seconds)}
    found |= {name: oppose(name, inverter, features, depth, seconds, seed=seed) for name in names}
    return Contest(found, {name: score(one.images, targets, measures=SHOWN) for name, one in found.items()})


def contests_at(
    inverter,
    photos: Tensor,
    reconstructions: Mapping[int, TimedImages],
    convolutions: Sequence[int],
    n: int,
    seconds: float,
) -> dict[int, Contest]:
    """`contest` at the depths nearest to some numbers of convolutions, {number: Contest}.

    reconstructions: the chain's, {depth: …}.
    """
    return {
        number: contest(inverter, photos, reconstructions[depth], depth, n, seconds)
        for number, depth in depths_near(inverter, convolutions).items()
    }


def contest_rows(contests: Mapping[int, Contest]) -> dict[tuple[int, str], dict[str, object]]:
    """Rows of a table, one for each opponent at each depth; contests: {number of convolutions: Contest}."""
    return {
        (number, name): {"steps": contest.found[name].steps or "", "s a photo": f"{contest.found[name].seconds:.2g}"}
        | contest.scores[name].intervals()
        for number, contest in contests.items()
        for name in contest.scores
    }


def record_contests(study, inverter, contests: Mapping[int, Contest], seconds: float) -> None:
    """Record each opponent's measures, and what the chain has over the strongest one, by each measure at each depth.

    The figures are what one machine does in so many seconds, so that those of the opponents have no tolerance.
    """
    words = []
    for number, contest in contests.items():
        for name in contest.opponents:
            study.record_rows({f"{name} {number}": contest.scores[name].intervals()}, tolerance=None)
        leads = {measure: _record_lead(study, number, contest, measure) for measure in DECISIVE}
        spread, n = contest.spread(), len(contest.scores[CHAIN].psnr)
        if spread:
            study.record(f"seconds_spread_{number}", Interval(spread, spread, spread, n), digits=2, tolerance=None)
        words.append(f"After {number} {unit_of(inverter)} " + "; ".join(leads.values()) + ".")
    clock = "of the processor, all its cores together" if str(study.device) == "cpu" else "on the clock"
    study.record_text("contest_words", " ".join(words), compared=False)
    study.record("opposed", n, n=n, digits=1, tolerance=0)
    study.record("opposed_seconds", seconds, unit="s", digits=2, tolerance=0)
    study.record_text("seconds_words", clock, compared=False)


def _record_lead(study, number: int, contest: Contest, measure: str) -> str:
    """Record the strongest opponent by one measure, and ours less theirs; return that in words."""
    strongest, known = contest.strongest(measure), MEASURES[measure]
    theirs = contest.scores[strongest]
    difference = contest.scores[CHAIN].minus(theirs)[measure]
    said = word(measure, difference)
    more = {"tolerance": None, "opponent": strongest}
    study.record_interval(measure, f"strongest {number}", theirs.intervals()[measure], **more)
    id = f"gain_over_strongest_{number}" + ("" if measure == "psnr" else f"_{measure}")
    study.record(id, difference, unit=known.unit, digits=2, tolerance=None, verdict=said)
    told = f"{written(measure, difference, '+')} {known.unit}".strip().replace("-", "−")
    return f"by {known.title} the strongest is “{strongest}” (ours less theirs {told}: {said})"
