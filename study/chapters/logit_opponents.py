"""Chapter 2: the inverter of logits against methods that spend seconds on each logit vector anew (`study.opponents`).

To them, logits are the features of the classifier's last block. Optimisation from grey, with restarts and a smoothness
that is tuned on the spot, is in `study.chapters.logit_inversion`; the other past efforts are here, and one opponent
that knows more than any of them, since it starts from the inverter's own reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from invkit.ffi.inverter import LogitInverter
from invkit.statistics import Interval
from study.opponents import SETTINGS, oppose
from study.reconstructions import Reconstruction, reconstruct, resized
from study.scores import MEASURES, judged

STEPS = 300  # as many as optimisation from grey takes
AS_FEATURES = {  # what `study.opponents` calls them, and settings for logits: benchmarks/tune_opponents.py
    "batch-norm prior": ("batch-norm prior", {"tv": 0.1, "prior": 0.0025}),
    "deep image prior": ("deep image prior", {"rate": 0.005}),
    "from the reconstruction": ("from the chain", {"tv": 4e-4, "rate": 1e-3}),
}
FURTHER = "from the reconstruction"  # no past effort, for it needs the inverter
DECISIVE_FOR_LOGITS = ("psnr", "perceptual", "perceptual_second")


class LogitsAsFeatures:
    """An inverter of logits as `study.opponents` takes an inverter of features, those of the classifier's last block.

    samples, seed: of the noise, over which `invert` takes the mean; see `reconstruct`.
    """

    def __init__(self, inverter: LogitInverter, samples: int = 16, seed: int = 0):
        self.inverter, self.samples, self.seed = inverter, samples, seed
        self.classifier, self.size = inverter.classifier, inverter.classifier.size
        self.depth = len(self.classifier.blocks)

    def invert(self, features: Tensor, depth: int) -> Tensor:
        """The inverter's reconstructions of logits (N, classes), as large as the classifier takes images."""
        return resized(reconstruct(self.inverter, features, self.samples, self.seed).mean, self.size)


def opposed_by(inverter: LogitInverter, logits: Tensor, samples: int, seed: int = 0) -> dict[str, Reconstruction]:
    """What each of `AS_FEATURES` reconstructs of logits (N, classes): {name: images of the inverter's size}.

    samples: noise vectors of the reconstruction that one of them starts from.
    seed: of all random starts.
    """
    given, made = LogitsAsFeatures(inverter, samples, seed), {}
    for title, (name, changes) in AS_FEATURES.items():
        settings = replace(SETTINGS[name], steps=STEPS, **changes)
        found = oppose(name, given, logits, given.depth, settings=settings, seed=seed, batch=50)
        images = resized(found.images, inverter.size)
        made[title] = Reconstruction(images, images)
    return made


def record_strongest(
    study, rows: Mapping[str, Mapping[str, Interval]], gains: Mapping[str, Mapping[str, Interval]]
) -> dict[str, dict[str, object]]:
    """Record, by each measure, what the inverter has over the strongest past effort; return rows of a table.

    rows, gains: {opponent: {measure: mean}}, {opponent: {measure: the inverter's less the opponent's, paired}}.
    Which opponent is strongest is decided by its mean on the same images, which favours it.
    """
    table, past = {}, [name for name in gains if name != FURTHER]
    for measure in DECISIVE_FOR_LOGITS:
        sign = -1 if MEASURES[measure].lower_is_better else 1
        strongest = max(past, key=lambda name: sign * rows[name][measure].value)
        difference = gains[strongest][measure]
        study.record_interval(measure, "over strongest", difference, digits=2, tolerance=None, opponent=strongest)
        table[MEASURES[measure].heading] = {
            "strongest past effort": strongest,
            "the inverter less it": judged(measure, difference),
        }
    return table
