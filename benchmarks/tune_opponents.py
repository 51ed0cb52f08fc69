"""Tunes the opponents of chapter 7 (`study.opponents`) on synthetic images that no training has seen.

    python benchmarks/tune_opponents.py --inverter dci-tiny-standard --convolutions 9 --images 4 --steps 60 --tries 6

Each number of each opponent is climbed in turn, the others held, until both neighbours of the best are worse, or the
line says that the best lies at the grid's edge. The score is the mean PSNR in dB; no photograph is looked at. A step
costs a small network of 64 pixels a tenth of what it costs EfficientNet-Lite0, so the settings are its. By this command
(the chain's own reconstructions: 20.90):

    batch-norm prior, prior     0.0025: 18.12   0.005: 18.15   0.01: 18.15   0.02: 18.15   0.04: 18.09
    deep image prior, rate      0.01: 14.07   0.02: 15.99   0.04: 12.61
    from grey, rate             0.02: 16.52   0.04: 18.06   0.08: 18.54   0.16: 17.63
    from grey, tv               0.05: 16.60   0.1: 18.54   0.2: 18.33
    from the chain, rate        0.004: 21.97   0.008: 22.10   0.016: 21.76
    from the chain, tv          0.00313: 22.01   0.00625: 22.11   0.0125: 22.10

At the edge lie the steps (all of 60 are better than 30, by 0.7 dB from the chain, else by 3 or 6) and the restarts,
which share the steps: 1: 19.07, 2: 17.07.

An inverter of logits gives the settings of chapter 2 (`study.chapters.logit_opponents`), on images of its own kind that
are for training inverters:

    python benchmarks/tune_opponents.py --inverter ffi-glyphs-standard --images 24 --steps 300

By this command (the inverter's own reconstructions: 14.21):

    batch-norm prior, tv        0.05: 11.92   0.1: 12.42   0.2: 11.73
    batch-norm prior, prior     0.00125: 12.01   0.0025: 12.67   0.005: 12.42
    from the chain, tv          0.000195: 13.45   0.000391: 13.57   0.000781: 13.51
    from the chain, rate        0.0005: 14.44   0.001: 14.48   0.002: 14.46
    deep image prior, rate      0.000156: 9.69   0.0025: 9.35   0.005: 9.10   0.01: 8.73   0.02: 7.91

By PSNR the deep image prior is the better the less it moves from its first grey images, which is no inversion, so its
rate, 0.005, is not the best by this command.
"""

import argparse
from dataclasses import replace

import invkit
from invkit import data
from invkit.dci.synthetic import draw_pool
from invkit.ffi.inverter import LogitInverter
from invkit.metrics import psnr
from study.chapters.logit_opponents import LogitsAsFeatures
from study.chapters.zero_shot_inversion import depths_near
from study.opponents import SETTINGS, oppose
from study.reconstructions import represent_all
from study.tuning import climb

TUNED = {
    "batch-norm prior": ("prior",),
    "deep image prior": ("rate", "steps"),
    "from grey": ("rate", "tv", "steps"),
    "restarts, averaged": ("starts",),
    "from the chain": ("rate", "tv", "steps"),
}
TUNED_FOR_LOGITS = {
    "batch-norm prior": ("tv", "prior"),
    "deep image prior": ("rate",),
    "from the chain": ("tv", "rate"),
}


def of_features(inverter, convolutions: int, n: int):
    """The inverter, n dead leaves, their features at the depth nearest to so many convolutions, and that depth."""
    (depth,) = depths_near(inverter, [convolutions]).values()
    images = draw_pool(64, 10 * inverter.size // 7, seed=777, pink=0).batch(0, n, inverter.size)
    return inverter, images, inverter.represent(images, depth), depth


def of_logits(inverter: LogitInverter, n: int):
    """The same of an inverter of logits, of n images on which inverters of its kind are trained."""
    images = data.load(inverter.card["data"], "inverter", n=n, seed=777, size=inverter.size).images
    given = LogitsAsFeatures(inverter)
    return given, images, represent_all(inverter, images), given.depth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opponents", nargs="+", choices=list(TUNED))
    parser.add_argument("--inverter", default="dci-lite0")
    parser.add_argument("--convolutions", type=int, default=24, help="or the most that are not more")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--steps", type=int, default=75, help="that the seconds buy from grey")
    parser.add_argument("--tries", type=int, default=8, help="values at most of each number")
    options = parser.parse_args()
    inverter = invkit.load_inverter(options.inverter)
    if isinstance(inverter, LogitInverter):
        known, (inverter, images, features, depth) = TUNED_FOR_LOGITS, of_logits(inverter, options.images)
    else:
        known, (inverter, images, features, depth) = TUNED, of_features(inverter, options.convolutions, options.images)
    print(f"the inverter's own: {psnr(inverter.invert(features, depth), images).mean():.2f} dB", flush=True)
    for name in options.opponents or list(known):
        settings = replace(SETTINGS[name], steps=options.steps)
        for what in known[name]:

            def score(value, name=name, settings=settings, what=what) -> float:
                tried = replace(settings, **{what: type(getattr(settings, what))(value)})
                tried = replace(tried, steps=max(1, tried.steps // tried.starts))
                found = oppose(name, inverter, features, depth, settings=tried)
                return psnr(found.images, images).mean().item()

            bounds = {"steps": (1, options.steps), "starts": (1, 16)}.get(what, (0, float("inf")))
            tuned = climb(score, getattr(settings, what), tries=options.tries, between=bounds)
            settings = replace(settings, **{what: type(getattr(settings, what))(tuned.best)})
            print(f"{name}, {what}: {tuned.words}", flush=True)


if __name__ == "__main__":
    main()
