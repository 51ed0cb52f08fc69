"""Every claim of Teterwak et al. (2021) and of Dong et al. (2021, both versions), judged by a rule that is fixed here.

A claim names the chapter that measures it, our number, the baseline's, and its *checks*. A check turns intervals into a
*margin*, an interval that is turned so that what lies above 0 speaks for the claim:

    above, below      a difference, or a share against a threshold     value - threshold, threshold - value
    differs           a difference, whichever way it goes              |value|
    higher, lower     two intervals of which no difference is known    value - baseline, low - high to high - low

A claim *holds here* if the whole 95 % margin of each of its checks lies above 0. If one does not, it *does not hold
here*: an interval that includes 0 cannot support a claim. A number that this profile does not measure makes a claim
*not testable at this scale*. There is no fourth verdict. Thresholds other than 0 are a half, and once 1 dB.

    results = claims.gather(study, ["02_logit_inversion", ...])
    judged = [claims.judge(claim, results) for claim in claims.CLAIMS]
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invkit.statistics import Interval
from study import plots

HOLDS, FAILS, UNTESTED = "holds here", "does not hold here", "not testable at this scale"
SIGNS = {HOLDS: "✓", FAILS: "✗", UNTESTED: "–"}

FFI, DCI1, DCI2 = "Teterwak et al. 2021", "Dong et al. 2021, v1", "Dong et al. 2021, v2"
PAPERS = (FFI, "Dong et al. 2021")
UNPLACED = "section not confirmed"


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


@dataclass(frozen=True)
class Check:
    """One condition of a claim: a rule, the ids or numbers it is given, and what they are, in words.

    otherwise: the check that takes its place where its ids are missing, say, two intervals for a paired difference.
    """

    of: str
    rule: Callable[..., Interval]
    operands: tuple[str | float, ...]
    otherwise: "Check | None" = None

    def among(self, entries: Mapping[str, Any]) -> "Check":
        """This check, or the one in its place."""
        found = all(id in entries for id in self.operands if isinstance(id, str))
        return self if found or self.otherwise is None else self.otherwise


def check(of: str, rule, *operands: str | float, otherwise: Check | None = None) -> Check:
    return Check(of, rule, operands, otherwise)


@dataclass(frozen=True)
class Claim:
    """What a paper claims, in its terms, and how this study judges it.

    value, baseline: ids in the chapter's results; a baseline may be a number, or None for the value less the difference
    that the first check names. objective: what the inverters concerned were trained on. lite0: whether the images are
    training images of the classifier. without: why the claim is not testable where a number is missing.
    """

    id: str
    title: str
    text: str
    paper: str
    where: str
    chapter: str
    measure: str
    value: str
    baseline: str | float | None
    checks: tuple[Check, ...]
    objective: str
    without: str = "This profile does not measure it."
    lite0: bool = False


def _logits(
    id: str, title: str, text: str, where: str, chapter: str, *more, objective: str = "hybrid", **rest
) -> Claim:
    return Claim(id, title, text, FFI, where, chapter, *more, objective=objective, **rest)


def _depths(id: str, title: str, text: str, paper: str, where: str, chapter: str, *more, **rest) -> Claim:
    return Claim(id, title, text, paper, where, chapter, *more, objective="divide-and-conquer", **rest)


CLAIMS = (
    # ---- what the logits still know: Teterwak et al. 2021
    _logits(
        "beyond_class", "Logits tell more than the class",
        "Visual detail beyond the class remains in the logit vector of a classifier that need not keep it.",
        "abstract", "02_logit_inversion",
        "Readings that find their own image among those of the same predicted class; PSNR and perceptual distance as "
        "well. Baseline: a generator that is given the predicted class alone.",
        "found_in_class_standard", "found_in_class_onehot",
        (
            check("Found in its class, over the class alone", above, "found_in_class_over_onehot"),
            check("PSNR, over the class alone", above, "psnr_over_onehot"),
            check("Perceptual distance, over the class alone", below, "perceptual_over_onehot"),
        ),
    ),
    _logits(
        "past_efforts", "Better than optimising the pixels",
        "Feedforward inversion gives reconstructions of remarkably high fidelity, better than those of past efforts.",
        "abstract", "02_logit_inversion",
        "PSNR on the same images, and perceptual distance. Baseline: one of the past efforts, pixels optimised until "
        "the classifier gives the same logits.",
        "psnr_standard", "psnr_optimisation",
        (
            check("PSNR, over optimisation", above, "psnr_over_optimisation"),
            check("Perceptual distance, over optimisation", below, "perceptual_over_optimisation"),
        ),
    ),
    _logits(
        "robust_more", "Robust logits tell more than standard ones",
        "From an adversarially robust classifier the reconstructions hold more local detail and global structure: "
        "enough to be taken for the original in a quick glance.",
        "abstract", "02_logit_inversion",
        "Readings that find their own image among all test images; PSNR as well. Baseline: the standard classifier.",
        "found_robust", "found_standard",
        (
            check("Found, robust − standard", above, "found_robust_minus_standard"),
            check("PSNR, robust − standard", above, "psnr_robust_minus_standard"),
        ),
    ),
    _logits(
        "robust_training", "… and more than equally accurate ones",
        "It is the training objective, a robust loss, that changes what the logits hold.",
        "abstract", "02_logit_inversion",
        "The same two measures. Baseline: a standard classifier stopped at the robust one's accuracy.",
        "found_robust", "found_early",
        (
            check("Found, robust − early", above, "found_robust_minus_early"),
            check("PSNR, robust − early", above, "psnr_robust_minus_early"),
        ),
    ),
    _logits(
        "photos", "Logits of photos tell more than the class",
        "Visual detail beyond the class remains in the logit vector: the same, of natural images as in the paper.",
        "abstract", "11_natural_images",
        "Readings of photos that find their own photo; PSNR and perceptual distance as well. Baseline: a generator "
        "that is given the predicted class alone.",
        "found_standard", "found_onehot",
        (
            check("Found, over the class alone", above, "found_standard_over_onehot"),
            check("PSNR, over the class alone", above, "psnr_standard_over_onehot"),
            check("Perceptual distance, over the class alone", below, "perceptual_standard_over_onehot"),
        ),
        without="It needs inverters of networks of photos, which this profile does not have.",
    ),
    _logits(
        "photos_robust", "Robust logits of photos tell more",
        "From an adversarially robust classifier of natural images the reconstructions hold more local detail and "
        "global structure.",
        "abstract", "11_natural_images",
        "Readings of photos that find their own photo; PSNR as well. Baseline: the standard classifier.",
        "found_robust", "found_standard",
        (
            check("Found, robust − standard", above, "found_robust_minus_standard"),
            check("PSNR, robust − standard", above, "psnr_robust_minus_standard"),
        ),
        without="It needs inverters of networks of photos, which this profile does not have.",
    ),
    _logits(
        "category", "The category can be seen",
        "The category of the object can clearly be gleaned from a robust classifier's reconstruction.",
        "abstract", "02_logit_inversion",
        "Readings in which an independent classifier sees the class that was predicted: at least half. Baseline: the "
        "mean image.",
        "independent_robust", "independent_mean_image",
        (
            check("Class seen", above, "independent_robust", 50.0),
            check("Class seen, against the mean image", higher, "independent_robust", "independent_mean_image"),
        ),
    ),
    _logits(
        "noise_invariance", "Noise moves only what logits leave open",
        "Noise drawn again under the same logits shows what the classifier is invariant to: what changes is not in the "
        "logits.",
        f"topic in the abstract; {UNPLACED}", "03_invariances",
        "Share of the pixels' variance that the noise moves, standard and robust. Baseline: the share that the mean "
        "over noises misses, which the logits leave open.",
        "pixels_moved_informative_standard", "pixels_missed_informative_standard",
        (
            check("Variance, moved against missed, standard", lower,
                  "pixels_moved_informative_standard", "pixels_missed_informative_standard"),
            check("Variance, moved against missed, robust", lower,
                  "pixels_moved_informative_robust", "pixels_missed_informative_robust"),
        ),
    ),
    _logits(
        "noise_robust", "Noise moves less when the classifier is robust",
        "Noise changes the reconstructions of a robust classifier less than those of a standard one.",
        UNPLACED, "02_logit_inversion",
        "Root mean square difference of two drawings of the same logits. Baseline: the standard classifier.",
        "spread_robust", "spread_standard",
        (check("Spread, robust against standard", lower, "spread_robust", "spread_standard"),),
    ),
    _logits(
        "mistakes", "Mistakes still look like the input",
        "Read from the logits of an image that was classified wrongly, the reconstruction resembles the image and not "
        "the class that was predicted.",
        f"topic in the abstract; {UNPLACED}", "04_mistakes",
        "Perceptual distance to the input; and the class that an independent classifier sees. Baseline: the distance "
        "to the input's twin, drawn again as the wrong class.",
        "perceptual_input_standard", "perceptual_twin_standard",
        (
            check("Distance, to the input − to its twin", below, "look_mistakes_standard"),
            check("Class seen, the true − the predicted one", above, "read_mistakes_standard"),
        ),
    ),
    _logits(
        "logit_shift", "A shift of the logits changes the look",
        "A constant added to a robust classifier's logits changes contrast, sharpness and brightness.",
        f"topic in the abstract; {UNPLACED}", "05_logit_surgery",
        "Change of each for one natural standard deviation added to all logits (shown: contrast). Baseline: 0, as for "
        "the probabilities, which do not notice.",
        "shift_contrast_robust", 0.0,
        tuple(check(f"{what.capitalize()}, slope", differs, f"shift_{what}_robust")
              for what in ("contrast", "sharpness", "brightness")),
    ),
    _logits(
        "logit_scale", "A scaling of the logits changes the look",
        "A robust classifier's logits multiplied by a constant change contrast, sharpness and brightness.",
        f"topic in the abstract; {UNPLACED}", "05_logit_surgery",
        "Change of each for one doubling of all logits (shown: contrast). Baseline: 0.",
        "scale_contrast_robust", 0.0,
        tuple(check(f"{what.capitalize()}, slope", differs, f"scale_{what}_robust")
              for what in ("contrast", "sharpness", "brightness")),
    ),
    _logits(
        "logit_noise", "Noise in the logits hurts robust ones less",
        "Gaussian noise in the logits changes what a standard classifier's reconstructions show more than what a "
        "robust one's show.",
        f"topic in the abstract; {UNPLACED}", "05_logit_surgery",
        "Increase of the distance from the original for one natural standard deviation of noise. Baseline: the "
        "standard classifier.",
        "noise_distance_robust", "noise_distance_standard",
        (check("Distance, slope, robust − standard", below, "noise_distance_difference"),),
    ),
    _logits(
        "interpolation", "Between two images lie images",
        "Half-way between the logits of two images there is an image of its own with a meaning, no double exposure.",
        UNPLACED, "05_logit_surgery",
        "Likeness to a double exposure, less than half; and neither class seen by another classifier in less than "
        "half. Baseline: 1, the two images on top of each other. Robust classifier.",
        "ghost_robust", 1.0,
        (
            check("Double exposure", below, "ghost_robust", 0.5),
            check("Neither class seen", below, "neither_robust", 0.5),
        ),
    ),
    _logits(
        "transformations", "Reconstructions turn and move with the image",
        "Turn or move an image, and the reconstruction from a robust classifier's logits turns and moves with it.",
        f"topic in the abstract; {UNPLACED}", "06_image_surgery",
        "Slope of the reconstruction's rotation on the image's, and the same of its shift: 1 follows, 0 ignores. "
        "Baseline: a generator that is given the predicted class alone.",
        "slope_rotate_robust", "slope_rotate_onehot",
        (
            check("Rotation, over the class alone", above, "slope_rotate_robust_over_class"),
            check("Shift, over the class alone", above, "slope_translate_robust_over_class"),
        ),
    ),
    _logits(
        "outsiders", "Strangers are reconstructed, too",
        "Images of kinds that the classifier was not trained on are reconstructed as well.",
        UNPLACED, "06_image_surgery",
        "How much nearer a reading is to its own image than to another of the same kind: symbols, faces, photos "
        "(shown). Baseline: 0, no nearer. Robust classifier.",
        "gain_photos_robust", 0.0,
        tuple(check(f"{what.capitalize()}, gain", above, f"gain_{what.replace(' ', '_')}_robust")
              for what in ("unseen symbols", "faces", "photos")),
    ),
    _logits(
        "loop", "In a loop robust ones drift less",
        "Inverted, classified and inverted again, the reconstructions of a robust classifier are more stable than "
        "those of a standard one.",
        UNPLACED, "05_logit_surgery",
        "How far the distance from the original grows from the first to the last round. Baseline: the standard "
        "classifier.",
        "loop_distance_robust", "loop_distance_standard",
        (check("Distance, growth, robust − standard", below, "loop_distance_difference"),),
    ),
    _logits(
        "architecture", "Architectures differ",
        "The architecture of a classifier influences what its logits hold (Inception-v3 and ResNet-152 there).",
        f"topic in the abstract; {UNPLACED}", "02_logit_inversion",
        "PSNR of the readings. Baseline: the residual network; against it one without skip connections.",
        "psnr_plain", "psnr_standard",
        (check("PSNR, plain − residual", differs, "psnr_plain_minus_standard"),),
        without="It needs an inverter of the network without skip connections, which this profile does not have.",
    ),
    _logits(
        "objective", "The adversarial loss alone suffices",
        "BigGAN's adversarial loss, with logits in the place of the class, is all that the inversion needs.",
        "abstract", "11_natural_images",
        "Readings that find their own photo among all; perceptual distance as well. Baseline: a generator that is told "
        "the class alone.",
        "found_adversarial", "found_onehot",
        (
            check("Found", higher, "found_adversarial", "found_onehot"),
            check("Perceptual distance", lower, "perceptual_adversarial", "perceptual_onehot"),
        ),
        objective="adversarial",
        without="No inverter was trained by the paper's own loss in this profile: all inverters here are hybrids.",
    ),
    # ---- what every depth still knows: Dong et al. 2021
    _depths(
        "layers_20", "Recovered after more than 20 layers",
        "Without one real image, 224 × 224 pixel photos are approximately recovered after more than 20 layers of an "
        "ImageNet classifier.",
        DCI1, "abstract", "07_zero_shot_inversion",
        "PSNR after 24 convolutions; and more than half of the readings find their own photo. Baseline: each photo's "
        "mean colour.",
        "psnr_24", "psnr_mean_colour",
        (
            check("PSNR, over the mean colour", above, "gain_over_mean_colour_24"),
            check("Found", above, "found_24", 50.0),
        ),
        lite0=True,
    ),
    _depths(
        "layers_40", "Recovered after more than 40 layers",
        "The original input is recovered from features more than 40 layers deep.",
        DCI2, "abstract", "07_zero_shot_inversion",
        "The same after 42 convolutions.",
        "psnr_42", "psnr_mean_colour",
        (
            check("PSNR, over the mean colour", above, "gain_over_mean_colour_42",
                  otherwise=check("PSNR, against the mean colour", higher, "psnr_42", "psnr_mean_colour")),
            check("Found", above, "found_42", 50.0),
        ),
        lite0=True,
    ),
    _depths(
        "divide", "Divide and conquer beats end to end",
        "The crux is to divide and conquer: to invert block by block rather than the network as a whole.",
        DCI1, "abstract", "08_what_makes_it_work",
        "PSNR on photos at equal compute. Baseline: the same inverses, trained end to end as one decoder.",
        "psnr_full_photos", None,
        (check("PSNR, dividing − end to end", above, "gain_rival_photos"),),
        lite0=True,
    ),
    _depths(
        "resync", "Re-synchronising helps",
        "The inverses of the blocks have to be re-synchronised with each other.",
        DCI1, "abstract", "08_what_makes_it_work",
        "PSNR on photos at equal compute. Baseline: never re-synchronised.",
        "psnr_full_photos", "psnr_never_re_synchronised_photos",
        (check("PSNR, with − without", above, "gain_never_re_synchronised_photos"),),
        lite0=True,
    ),
    _depths(
        "cycle", "Cycle consistency helps",
        "Sending the result through the attacked model again supervises the inverses better.",
        DCI2, "abstract", "08_what_makes_it_work",
        "PSNR on photos at equal compute. Baseline: no cycle term.",
        "psnr_full_photos", "psnr_no_cycle_term_photos",
        (check("PSNR, with − without", above, "gain_no_cycle_term_photos"),),
        lite0=True,
    ),
    _depths(
        "no_optimisation", "No costly optimisation is needed",
        "Unlike methods that optimise every image at length, a quick forward pass through the inverses completes the "
        "inversion.",
        DCI2, "abstract", "07_zero_shot_inversion",
        "PSNR after 24 convolutions, on the same photos. Baseline: pixels optimised for each photo.",
        "psnr_24", "psnr_optimised_24",
        (check("PSNR, over optimisation", above, "gain_over_optimisation_24"),),
        lite0=True,
    ),
    _depths(
        "synthetic", "Synthesised images are enough",
        "No real data are needed: synthesised images do in their place.",
        DCI2, "abstract", "08_what_makes_it_work",
        "PSNR on photos, at most 1 dB worse. Baseline: the same inverses trained on real photos.",
        "psnr_full_photos", "psnr_real_photos_photos",
        (check("PSNR, synthetic − real", above, "gain_real_photos_photos", -1.0),),
        without="No inverse of this profile is trained on real photos, so there is nothing to set beside it.",
        lite0=True,
    ),
    _depths(
        "architectures", "It works for ResNet and RepVGG",
        "The attack works on ResNet and on RepVGG models of ImageNet.",
        DCI2, "abstract", "07_zero_shot_inversion",
        "PSNR on photos after more than 20 layers. Baseline: each photo's mean colour.",
        "psnr_resnet", "psnr_mean_colour",
        (
            check("PSNR, over the mean colour, ResNet", above, "gain_over_mean_colour_resnet"),
            check("PSNR, over the mean colour, RepVGG", above, "gain_over_mean_colour_repvgg"),
        ),
        without="Their ImageNet weights come in no wheel; only first blocks of a residual network are inverted here, "
        "with random weights.",
    ),
    _depths(
        "relu", "ReLUs stand in the way",
        "How well a network can be inverted depends on its architecture: a ReLU, 0 for every negative number, prevents "
        "an accurate recovery.",
        DCI1, "section 1", "07_zero_shot_inversion",
        "PSNR of linear bottlenecks less that of blocks that end in a ReLU, at two resolutions and equal budget "
        "(shown: linear, 1/4). Baseline: a ReLU network, of random weights unless it could be downloaded.",
        "live_linear_bottlenecks_4", "live_after_ReLU_4",
        (
            check("PSNR, linear − ReLU, at 1/2", above, "live_gain_2"),
            check("PSNR, linear − ReLU, at 1/4", above, "live_gain_4"),
        ),
        lite0=True,
    ),
    _depths(
        "gan", "A GAN is inverted block by block",
        "Inverting a generator unveils the latent code of a synthesised face.",
        DCI1, "abstract", "09_gan_inversion",
        "Median PSNR of the face that is generated again; cosine of the latent found and the true one. Baseline: "
        "another face.",
        "psnr", "psnr_chance",
        (
            check("PSNR, against another face", higher, "psnr", "psnr_chance"),
            check("Cosine of the latents", above, "cosine"),
        ),
    ),
    _depths(
        "gan_start", "It is a good start for refinement",
        "A latent that was read feedforward is a better start for optimisation than a random one.",
        DCI1, UNPLACED, "09_gan_inversion",
        "Median PSNR after a few steps from there, by three optimisers (shown: Gauss–Newton). Baseline: many steps "
        "from a random start.",
        "psnr_gauss_newton_started", "psnr_gauss_newton_alone",
        tuple(check(f"PSNR, started − alone, {title}", above, f"gain_{method}")
              for method, title in (("adam", "Adam"), ("lbfgs", "L-BFGS"), ("gauss_newton", "Gauss–Newton"))),
    ),
    _depths(
        "defects", "Inversion improves defective samples",
        "Inverting a defective sample of a generator and generating it again improves it.",
        DCI1, "abstract", "09_gan_inversion",
        "Change of two scores of how untypical a face is (shown: features; lower is better). Baseline: the true "
        "latent, only shrunk; a random move as well.",
        "regenerated_features", "shrunk_features",
        tuple(check(f"{score.capitalize()}, {title}", below, f"{prefix}_{score}")
              for prefix, title in (("regenerated", "change"), ("against_shrunk", "against shrinking"),
                                    ("against_moved", "against a random move"))
              for score in ("features", "thumbnail")),
    ),
    _depths(
        "split", "Split computing leaks private images",
        "The features that a device shares with a cloud in split computing leak its private data with high fidelity; "
        "prior work presumed them safe.",
        DCI2, "abstract", "10_leakage",
        "Readings from an early block, by an attacker that has seen no such image, that find their original: more than "
        "half; PSNR above the mean image's. Baseline: chance.",
        "found_zero_first", "chance",
        (
            check("Found", above, "found_zero_first", 50.0),
            check("PSNR, against the mean image", higher, "psnr_zero_first", "psnr_mean"),
        ),
    ),
    _depths(
        "defences", "The usual defences do not stop it",
        "Disturbing the shared features does not protect them from an attacker that adapts to it.",
        DCI2, UNPLACED, "10_leakage",
        "Originals found in spite of noise (shown), 4-bit quantisation, dropout and pruning of middle strength, by an "
        "attacker tuned against each: more than half. Baseline: no defence.",
        "found_tuned_noise_05_depth_2", "found_tuned_none_0_depth_2",
        tuple(check(f"Found, {what}", above, f"found_tuned_{setting}_depth_2", 50.0)
              for what, setting in (("noise", "noise_05"), ("quantisation", "quantisation_4"),
                                    ("dropout", "dropout_05"), ("pruning", "pruning_025"))),
    ),
)  # fmt: skip


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
        against = written(other) if half_width(other) else _number(other.value)
        return Finding(margin, unit, f"{check.of}: {told}, against {against}; {where}")
    margin = check.rule(first) if check.rule is differs else check.rule(first, second)
    if margin.low > 0 or margin.high < 0:
        where = f"all of it is {'above' if first.low > second else 'below'} {_number(second)}"
    else:
        where = f"the interval includes {_number(second)}"
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


# ---- the page --------------------------------------------------------------------------------------------------------


def written(interval: Interval, unit: str = "") -> str:
    """As in "34.3 [31, 37.5] %", with a true minus sign."""
    ends = [_number(end) for end in (interval.value, interval.low, interval.high)]
    return "{} [{}, {}]".format(*ends) + (f" {unit}" if unit else "")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    return {verdict: sum(one.verdict == verdict for one in judged) for verdict in SIGNS}


def in_words(judged: Sequence[Judged]) -> str:
    """As in "9 hold here, 12 do not hold here and 5 are not testable at this scale"."""
    n = counts(judged)
    words = {HOLDS: ("holds here", "hold here"), FAILS: ("does not hold here", "do not hold here")}
    words[UNTESTED] = ("is not testable at this scale", "are not testable at this scale")
    parts = [f"{n[verdict] or 'none'} {words[verdict][n[verdict] != 1]}" for verdict in SIGNS]
    return f"{parts[0]}, {parts[1]} and {parts[2]}"


def untested(judged: Sequence[Judged]) -> str:
    """A Markdown list of the claims that were not testable, with reasons."""
    lines = [f"- **{one.claim.title}**: {one.reason}" for one in judged if one.verdict == UNTESTED]
    return "\n".join(lines) or "Every claim was testable."


STYLE = """<style>
table.claims {--holds: #0072B2; --fails: #B34700; --untested: #646464; table-layout: fixed; width: 100%;
  border-collapse: collapse; font-size: 0.82rem; line-height: 1.4; margin: 0 0 1rem}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(table.claims) {background: none; color: inherit;
  padding: 0}
html[data-theme=dark] table.claims {--holds: #56B4E9; --fails: #FF9D5C; --untested: #B0B0B0}
table.claims :is(th, td) {text-align: left; vertical-align: top; padding: 0.5rem 0.6rem; white-space: normal;
  border-bottom: 1px solid var(--pst-color-border, #ccc); overflow-wrap: break-word; background: none}
table.claims th[scope=col] {border-bottom-width: 2px}
table.claims th[scope=row] {font-weight: normal}
table.claims th:nth-child(3) {width: 14%}
table.claims th:nth-child(4) {width: 10%}
table.claims small {display: block; opacity: 0.85; margin-top: 0.25rem; font-size: 0.95em}
table.claims .verdict {font-weight: 700; color: var(--colour)}
table.claims .holds {--colour: var(--holds)}
table.claims .fails {--colour: var(--fails)}
table.claims .untested {--colour: var(--untested)}
table.claims th[scope=row] {border-left: 0.3rem solid var(--colour)}
@media (max-width: 720px) {
  table.claims thead {position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden}
  table.claims :is(tbody, tr, th, td) {display: block; border-bottom: 0; padding: 0.2rem 0.6rem}
  table.claims tr {border-bottom: 1px solid var(--pst-color-border, #ccc); padding: 0.6rem 0}
  table.claims td[data-label]::before {content: attr(data-label) ": "; opacity: 0.85}
  table.claims td[data-label] small {display: inline; margin-left: 0.5em}
}
</style>"""
CLASSES = {HOLDS: "holds", FAILS: "fails", UNTESTED: "untested"}
LOOKS = {HOLDS: (plots.COLOURS[0], "o"), FAILS: (plots.COLOURS[1], "s")}


def table(judged: Sequence[Judged], caption: str) -> str:
    """HTML: a row for each claim; on a phone each row becomes a block."""
    heads = ("Claim", "Measured here by", "Ours, 95 %", "Baseline", "Verdict")
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    rows = "".join(_row(one, heads) for one in judged)
    body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'{STYLE}<table class="claims" aria-label="{html.escape(caption)}">{body}</table>'


def _row(one: Judged, heads: Sequence[str]) -> str:
    claim, said = one.claim, html.escape
    marks = "†" * (claim.objective == "hybrid") + "‡" * claim.lite0
    place = f"{claim.paper}, {claim.where}"
    chapter = f'<a href="{claim.chapter}.html">chapter {claim.chapter[:2]}</a>'
    ours = f"{written(one.value, one.unit)}<small>n = {one.value.n:,}</small>" if one.value else "–"
    baseline = f"{_number(one.baseline.value)} {one.unit}".strip() if one.baseline else "–"
    verdict = f'<span class="verdict">{SIGNS[one.verdict]} {one.verdict}</span><small>{said(one.reason)}</small>'
    cells = [f"{said(claim.measure)} <small>{chapter}</small>", ours, baseline]
    cells = [f'<td data-label="{title}">{cell}</td>' for title, cell in zip(heads[1:4], cells, strict=True)]
    cells += [f"<td>{verdict}</td>"]
    first = f"<b>{said(claim.title)}</b>{marks}<small>{said(claim.text)}</small><small><i>{said(place)}</i></small>"
    return f'<tr class="{CLASSES[one.verdict]}"><th scope="row">{first}</th>{"".join(cells)}</tr>'


def chart(judged: Sequence[Judged], edge: float = 12.0) -> Figure:
    """The weakest margin of each claim that was tested, in half widths of its interval: right of 0 it holds.

    To its right the margin's value in its own unit. What lies beyond the edge is drawn as an arrow there.
    """
    tested = {paper: [one for one in judged if one.findings and one.claim.paper.startswith(paper)] for paper in PAPERS}
    tested = {paper: some for paper, some in tested.items() if some}
    if not tested:
        raise ValueError("No claim was tested, so there is nothing to draw: run the chapters first.")
    ratios = [len(some) + 0.6 for some in tested.values()]
    size = (plots.WIDTH, 1.3 + 0.3 * sum(ratios))
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(len(tested), sharex=True, squeeze=False, figsize=size, height_ratios=ratios)
        for axis, (paper, some) in zip(axes[:, 0], tested.items(), strict=True):
            axis.set(title=paper, xlim=(-edge, edge), ylim=(len(some) - 0.5, -0.5))
            _draw_margins(axis, some, edge)
        axes[-1, 0].set_xlabel("← against the claim    margin, in half widths of its 95 % interval    for the claim →")
        marks = [plt.Line2D([], [], color=c, marker=m, linestyle="none", label=v) for v, (c, m) in LOOKS.items()]
        figure.legend(handles=marks, loc="outside upper center", ncols=2)
        plt.close(figure)
    return figure


def _draw_margins(axis: Axes, some: Sequence[Judged], edge: float) -> None:
    texts = []
    for place, one in enumerate(some):
        finding, (colour, marker) = weakest(one.findings), LOOKS[one.verdict]
        margin, scale = finding.margin, max(half_width(finding.margin), 1e-12)
        value = margin.value / scale
        if abs(value) > edge:
            side, arrow = (edge, ">") if value > 0 else (-edge, "<")
            axis.plot(side, place, marker=arrow, color=colour, clip_on=False)
        else:
            error = [[max(0, margin.value - margin.low) / scale], [max(0, margin.high - margin.value) / scale]]
            axis.errorbar(value, place, xerr=error, color=colour, marker=marker, linestyle="none", capsize=0)
        if place % 2:
            axis.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
        texts.append(f"{signed(margin.value)} {finding.unit}".strip() + f", {finding.quantity}")
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(some)), [one.claim.title for one in some])
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(some)), texts, fontsize=9)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
