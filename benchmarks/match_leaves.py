"""Search the settings of dead leaves that a classifier's batch norms find most natural; no photo is looked at.

    python benchmarks/match_leaves.py [--rounds 150] [--images 48]

A hill climb: every round changes a few settings of the best so far by random factors and keeps what lowers
`synthetic.statistics_distance`. White and 1/f noise are printed as yardsticks. `synthetic.Leaves` holds the result.
"""

import argparse
import dataclasses
import math
import random

import torch

import invkit
from invkit.dci import synthetic
from recipes import matching

LIMITS = {
    "smallest": (1.0, 6.0), "largest": (0.2, 1.2), "coverage": (0.3, 1.2), "contrast": (0.08, 0.4),
    "saturation": (0.1, 1.0),
    "brightness": (0.35, 0.6), "scene": (0.05, 0.5), "place": (0.05, 0.5), "texture": (0.01, 0.3), "light": (0.0, 0.4),
    "blur": (0.3, 2.5),
}  # fmt: skip


def mutate(leaves: synthetic.Leaves, rng: random.Random) -> synthetic.Leaves:
    names = rng.sample(sorted(LIMITS), 3)
    new = {k: min(max(getattr(leaves, k) * math.exp(rng.gauss(0, 0.3)), LIMITS[k][0]), LIMITS[k][1]) for k in names}
    shift = rng.gauss(0, 0.1)
    new["slope"] = tuple(min(max(s + shift, 0.2), 2.2) for s in leaves.slope)
    return dataclasses.replace(leaves, **new)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--images", type=int, default=48)
    args = parser.parse_args()
    classifier, rng = invkit.load_classifier("lite0"), random.Random(0)

    def distance(images: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            return float(matching.statistics_distance(classifier, images))

    def of(leaves: synthetic.Leaves, seed: int) -> float:
        return distance(synthetic.dead_leaves(args.images, 224, seed, leaves=leaves))

    print(f"white noise {distance(synthetic.white_noise(args.images, 224)):.3f}", flush=True)
    print(f"1/f noise   {distance(synthetic.pink_noise(args.images, 224)):.3f}")
    best = synthetic.Leaves()
    score = of(best, 0)
    print(f"dead leaves {score:.3f} {best}", flush=True)
    for k in range(args.rounds):
        leaves = mutate(best, rng)
        new = of(leaves, 0)
        if new < score:
            best, score = leaves, new
            print(f"{k:4d} {score:.3f} {best}", flush=True)
    print(f"on fresh seeds: before {of(synthetic.Leaves(), 1):.3f}, after {of(best, 1):.3f}")


if __name__ == "__main__":
    main()
