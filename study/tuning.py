"""Choosing one positive number by trying: uphill on a geometric grid until both neighbours of the best are worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tuned:
    """tried: {value: score}, in the order of values. interior: whether the best has a worse one on both sides."""

    tried: dict[float, float]
    interior: bool

    @property
    def best(self) -> float:
        return max(self.tried, key=self.tried.get)

    @property
    def words(self) -> str:
        """A sentence that says where the best lies."""
        ends = ", ".join(f"{value:.3g}: {score:.2f}" for value, score in self.tried.items())
        where = "inside the grid" if self.interior else "at the grid's edge"
        return f"The best, {self.best:.3g}, lies {where} ({ends})."


def climb(
    score: Callable[[float], float],
    start: float,
    factor: float = 2.0,
    tries: int = 8,
    between: tuple[float, float] = (0.0, float("inf")),
) -> Tuned:
    """Try values start * factor^k, beside the best so far, until both its neighbours are worse; the higher score wins.

    tries: at most so many values.
    between: the smallest and the largest value that may be tried, both included.
    Raises ValueError for a start that is not positive, or a factor that is not above 1.
    """
    if not start > 0 or not factor > 1:
        raise ValueError(f"Climb from a positive number by a factor above 1, not from {start} by {factor}.")
    tried: dict[int, float] = {0: score(start)}
    while True:
        best = max(tried, key=tried.get)
        missing = [k for k in (best - 1, best + 1) if k not in tried and between[0] <= start * factor**k <= between[1]]
        if not missing or len(tried) >= tries:
            interior = {best - 1, best + 1} <= tried.keys()
            return Tuned({start * factor**k: tried[k] for k in sorted(tried)}, interior)
        tried[missing[0]] = score(start * factor ** missing[0])
