"""Opponent and rules of chapter 2, where the right answer is known beforehand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import logit_inversion as study
from study.scores import Scores


def test_optimisation_finds_an_image_with_these_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5))
    classifier = Classifier(model, "tiny", size=8)
    images = torch.rand(3, 3, 8, 8)
    logits = classifier.logits(images)
    found = study.optimise_from_logits(classifier, logits, steps=200)
    chance = (classifier.logits(images.flip(0).contiguous()) - logits).square().sum()
    assert found.shape == images.shape and (classifier.logits(found) - logits).square().sum() < 0.05 * chance


def interval(sign):
    return Interval(sign, sign - 0.5, sign + 0.5, 100)


def test_optimisation_is_tuned_on_other_images_and_averaged_over_starts(monkeypatch):
    """Of a stand-in, whose images are the further from the true ones the further tv is from 1."""

    class Inverter:
        classifier = SimpleNamespace(blocks=[SimpleNamespace(stride=4)])

        def represent(self, images):
            return images.flatten(1)

    def optimise(classifier, logits, steps, seed, tv):
        return (logits.view(-1, 3, 4, 4) + 0.1 * (1 + abs(math.log(tv))) * (-1) ** seed).clamp(0, 1)

    monkeypatch.setattr(study, "optimise_from_logits", optimise)
    images = torch.full((2, 3, 4, 4), 0.5)
    tuned = study.tuned_smoothness(Inverter(), images)
    assert tuned.best == pytest.approx(1.6) and tuned.interior and "inside the grid" in tuned.words
    once, _ = study.optimised(None, images.flatten(1), 4, 1.0)
    twice, seconds = study.optimised(None, images.flatten(1), 2, 1.0, starts=2)
    assert torch.allclose(once.mean, images + 0.1) and torch.equal(once.mean, once.sample)
    assert twice.mean.shape == (2, 3, 2, 2) and torch.allclose(twice.mean, torch.tensor(0.5), atol=1e-6)
    assert torch.allclose(twice.sample, torch.tensor(0.6), atol=1e-6) and seconds > 0


def test_more_than_the_class_needs_every_measure():
    better = {"psnr": interval(1), "found_in_class": interval(1), "perceptual": interval(-1)}
    assert study.more_than_class(better) == "more"
    assert study.more_than_class(better | {"perceptual": interval(0)}) == "partly more"
    assert study.more_than_class(better | {"perceptual": interval(1)}) == "no more"
    assert study.more_than_class(dict.fromkeys(better, interval(0))) == "no more"
    assert "not tested" in study.more_than_class(None)


def test_more_in_robust_must_hold_against_the_control():
    up, none, down = ({"psnr": interval(s), "found": interval(s)} for s in (1, 0, -1))
    assert study.robust_verdict(up, up) == "more"
    assert study.robust_verdict(up, none) == "more, but not by both measures more than those of the early one"
    assert study.robust_verdict(up, up | {"psnr": interval(0)}) == study.robust_verdict(up, none)  # one is not enough
    assert study.robust_verdict(none, up) == study.robust_verdict(up | {"found": interval(0)}, up) == "not told apart"
    assert study.robust_verdict(down, up) == "less"


def test_words_of_claim_two_and_what_is_missing_is_not_tested():
    up = {"psnr": interval(1), "found": interval(1)}
    differences = {"robust minus standard": up, "robust minus early": up, "plain minus standard": {"psnr": interval(3)}}
    words = study.robust_words(differences)
    assert words == {"robust_words": "more", "ridge_words": "not tested", "step_words": "smaller than"}
    for psnr, said in ((-5, "larger than"), (-1.2, "not told apart from"), (0, "smaller than")):
        differences["robust minus standard"] = up | {"psnr": interval(psnr)}
        differences["plain minus standard"] = {"psnr": interval(2)}
        assert study.robust_words(differences)["step_words"] == said


def test_classifiers_are_compared_in_pairs_with_ridge_beside_them():
    scored = {name: Scores({"psnr": torch.arange(4.0) + i}) for i, name in enumerate(("lite0", "robust"))}
    scored |= {"ridge": scored["lite0"], "ridge, robust": scored["robust"]}
    differences = study.between_classifiers(scored, ["lite0", "robust"])
    assert list(differences) == ["robust minus lite0", "robust minus lite0 ridge"]
    assert differences["robust minus lite0 ridge"]["psnr"].value == 1
    scored[study.AGAIN] = Scores({"psnr": torch.arange(4.0) - 2})  # an inverter of a classifier that is there already
    again = study.between_classifiers(scored, ["lite0", "robust"])
    assert list(again) == [*differences, "seed 1 minus lite0"] and again["seed 1 minus lite0"]["psnr"].value == -2
    assert [study.whose_logits(method, ["lite0", "robust"]) for method in ("ridge, robust", "nearest")] == [
        "robust",
        "lite0",
    ]


def test_an_inverter_is_an_instrument_where_both_classifiers_see_the_class():
    def check(same, other):
        shares = {"same_class": Interval(same, same - 0.03, same + 0.03, 1000)}
        return study.check_words(shares | {"independent": Interval(other, other - 0.03, other + 0.03, 1000)})

    assert check(0.9, 0.7) == "passes it"
    assert check(0.9, 0.3) == "fails it" == check(0.3, 0.9)  # a pattern that fools one network does not pass
    assert check(0.81, 0.7) == "neither passes nor fails it"


def test_a_thumbnail_below_one_pixel_is_said_to_be_the_mean_colour():
    assert "mean colour alone" in study.thumbnail_words(0.0)
    assert "7 × 7 pixels" in study.thumbnail_words(7.02)


def test_the_standard_inverter_is_the_one_of_that_name_wherever_it_stands():
    tools = {"early": 1, "robust": 2, "standard": 3}  # as a YAML file with sorted keys has them
    assert list(study.standard_first(tools).items()) == [("standard", 3), ("early", 1), ("robust", 2)]
    with pytest.raises(ValueError, match='called "standard".*not only early'):
        study.standard_first({"early": 1})
