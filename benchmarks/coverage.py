"""How often 95 % intervals of a mean hold the true one, by the number of values: four methods on two distributions.

    python benchmarks/coverage.py [--samples 2000]

`invkit.statistics.bootstrap` takes the first, the bootstrap-t. The others are the percentile bootstrap and BCa, as
SciPy computes them, and Student's t. Values are normal, or exponential, which are skewed.
"""

import argparse

import numpy as np
from scipy import stats

from invkit import statistics

SIZES = (5, 10, 15, 25, 50, 100, 199)
RESAMPLES = 1000


def bootstrap_t(values: np.ndarray, seed: int) -> tuple[float, float]:
    interval = statistics.bootstrap(values, n_boot=RESAMPLES, seed=seed)
    return interval.low, interval.high


def by_scipy(method: str):
    def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        found = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method=method, rng=rng).confidence_interval
        return found.low, found.high

    return interval


def students_t(values: np.ndarray, seed: int) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


METHODS = {
    "bootstrap-t": bootstrap_t,
    "percentile": by_scipy("percentile"),
    "BCa": by_scipy("BCa"),
    "Student's t": students_t,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=2000)
    samples = parser.parse_args().samples
    print("covered, %: normal / exponential")
    print("values  " + "  ".join(f"{name:>13}" for name in METHODS))
    for n in SIZES:
        rng = np.random.default_rng(n)
        drawn = {0.0: rng.normal(size=(samples, n)), 1.0: rng.exponential(size=(samples, n))}
        cells = []
        for interval in METHODS.values():
            shares = []
            for truth, rows in drawn.items():
                ends = [interval(row, number % 50) for number, row in enumerate(rows)]
                shares.append(100 * np.mean([low <= truth <= high for low, high in ends]))
            cells.append("{:5.1f} / {:5.1f}".format(*shares))
        print(f"{n:6}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
