"""Chapter 2: what logits tell of an image besides its class (Teterwak et al. 2021).

Here are the opponent that only this chapter has, optimisation of the pixels, and the two rules that turn intervals into
the chapter's verdicts. Both rules were fixed before the numbers. Reconstructions, baselines and scores are those of
`study.reconstructions`, `study.baselines` and `study.scores`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from invkit import optimize
from invkit.statistics import Interval
from study.scores import SAME, word

SIGNS = {"better": 1, "worse": -1, SAME: 0}


def optimise(classifier, logits: Tensor, steps: int = 300, seed: int = 0) -> Tensor:
    """Images (N, 3, size, size) whose logits are these, by `optimize.invert_features` at the last block."""
    depth = len(classifier.blocks)
    return optimize.invert_features(classifier, logits, depth, steps=steps, seed=seed).estimate


def more_than_class(differences: Mapping[str, Interval]) -> str:
    """Do logits tell more than the class?

    differences: `Scores.minus` of the inverter of logits and an opponent that knows the class alone.
    Returns "more" if PSNR, retrieval among images of the same predicted class and the perceptual distance are all
    better by their whole intervals, "partly more" if some are and none is worse, else "no more". Chapter 11 has no
    images of the same predicted class to look among, and so a rule of its own, `natural_images.beyond_class`.
    """
    gains = [SIGNS[word(measure, differences[measure])] for measure in ("psnr", "found_in_class", "perceptual")]
    if all(gain > 0 for gain in gains):
        return "more"
    return "partly more" if max(gains) > 0 and min(gains) >= 0 else "no more"


def robust_verdict(over_standard: Mapping[str, Interval], over_control: Mapping[str, Interval]) -> str:
    """Do the logits of a robust classifier tell more?

    over_standard, over_control: `Scores.minus` of the robust classifier and the standard one, and of the robust one and
        the one that is as inaccurate as it.
    The rule looks at PSNR and at retrieval among all images. Returns "more" if both are better against both
    classifiers, "more, but no more than the less accurate control" if only against the standard one, "less" if both are
    worse than the standard one's, else "not told apart".
    """
    standard, control = (
        [SIGNS[word(measure, differences[measure])] for measure in ("psnr", "found")]
        for differences in (over_standard, over_control)
    )
    if all(gain > 0 for gain in standard):
        return "more" if all(gain > 0 for gain in control) else "more, but no more than the less accurate control"
    return "less" if all(gain < 0 for gain in standard) else SAME


# Old names, until the notebooks use the new ones.
from study.baselines import BASELINES, Examples, class_mean, class_means, mean_image, nearest, ridge  # noqa: E402, F401
from study.chapters.mistakes import distances, match, seen_as  # noqa: E402, F401
from study.chapters.mistakes import verdict as mistakes_verdict  # noqa: E402, F401
from study.reconstructions import Reconstruction as Reading  # noqa: E402, F401
from study.reconstructions import reconstruct as read  # noqa: E402, F401
from study.reconstructions import represent  # noqa: E402, F401
from study.scores import Scores, confidence  # noqa: E402, F401
from study.scores import score as _score  # noqa: E402

beyond_class = more_than_class


def score(reading, images, predicted, classify, independent, candidates=None, candidate_classes=None, **options):
    images, predicted = (images, predicted) if candidates is None else (candidates, candidate_classes)
    return _score(reading, images, predicted, classify, independent, **options)
