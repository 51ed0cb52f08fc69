"""Ablations of logit inversion: designs differ in what they name, see the same, and are judged by their rule."""

import pytest
import torch
from torch import nn

from invkit import ffi
from invkit.ffi import training
from invkit.network.classifiers import Classifier
from study.chapters import logit_ablations
from study.chapters.logit_ablations import BOTH, CHANGES, FULL, HELPS, HURTS, SAME, DesignBudget, DesignChange
from study.scores import Scores

SMALL = {"channels": (8, 8, 8, 8), "noise_dim": 16, "hidden": 16, "shared_dim": 8, "coarse": 4, "coarse_hidden": 8}


@pytest.fixture(scope="module")
def classifier():
    """Twelve features of a 2x2 thumbnail, and ten logits that are linear in them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.ReLU(), nn.Linear(12, 10))
    return Classifier(model, "thumbnails", size=32)


@pytest.fixture(scope="module")
def images():
    g = torch.Generator().manual_seed(1)
    colour = torch.rand(64, 3, 2, 2, generator=g)
    return (nn.functional.interpolate(colour, size=32, mode="nearest") * 255).round().byte()


@pytest.fixture
def budget(classifier, images):
    return DesignBudget(classifier, images, steps=2, coarse_steps=1, batch=8, generator=SMALL)


@pytest.fixture
def asked(monkeypatch):
    """{change: what it asked of `ffi.train_inverter`}; nothing is trained."""
    calls = []

    def train(classifier, images, **options):
        calls.append(options | {"classifier": classifier, "images": images})
        raise FloatingPointError("The adversarial training diverged: not this time.")

    monkeypatch.setattr(ffi, "train_inverter", train)
    return calls


# ---- designs ---------------------------------------------------------------------------------------------------------


def test_every_design_differs_from_the_full_design_and_from_every_other_in_what_it_names_alone(budget, asked):
    for change in logit_ablations.designs_named(list(CHANGES)).values():
        logit_ablations.train_design(budget, change, seed=3)
    seen = [(options.pop("classifier"), options.pop("images")) for options in asked]
    full, *others = asked
    for change, options in zip(CHANGES.values(), others, strict=True):
        differing = {key for key in full if options.get(key) != full[key]}
        differing |= options.keys() - full.keys()
        named = {key for key in ("generator", "discriminator") if getattr(change, key)} | set(change.training)
        assert differing == named
        assert options["seed"] == 3
    assert [classifier is not budget.classifier for classifier, _ in seen[1:]] == [a.features for a in CHANGES.values()]
    assert all(images is budget.images for _, images in seen)
    assert len({repr(options) for options in asked}) == len(asked) - 1  # reading features changes the classifier alone
    assert full["objective"] == "hybrid" and full["generator"] == SMALL and not full["discriminator"]


def test_the_full_design_comes_first_and_the_others_in_their_order():
    assert list(logit_ablations.designs_named(["one-hot", "regression alone"])) == [FULL, "regression alone", "one-hot"]


@pytest.mark.parametrize(("names", "message"), [(["two-hot"], "no change 'two-hot'.*one-hot"), ([], "Nothing is left")])
def test_unknown_or_no_changes_are_refused_in_a_sentence(names, message):
    with pytest.raises(ValueError, match=message):
        logit_ablations.designs_named(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1}, "at least 2 steps"),
        ({"coarse_steps": -1}, "0 coarse steps"),
        ({"batch": 65}, "64 images do not fill a batch of 65"),
        ({"seeds": ()}, "one seed or several"),
        ({"seeds": (1, 1)}, "several different"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(budget, change, message):
    with pytest.raises(ValueError, match=message):
        DesignBudget(**vars(budget) | change)


# ---- training and scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FULL, "adversary alone, no coarse image", "penultimate features", "one-hot"])
def test_a_design_trains_into_an_inverter_that_can_be_scored(budget, images, tmp_path, name):
    run = logit_ablations.train_design(budget, logit_ablations.designs_named(list(CHANGES))[name], folder=tmp_path)
    assert run.inverter.card["steps"] == 2 and run.failure is None and run.seconds > 0 and run.numbers > 1000
    unseen = images[:10].float() / 255
    scores = logit_ablations.score_design(run.inverter, unseen, samples=2, n_perceptual=0)
    assert {measure: values.shape for measure, values in scores.items()} == {"psnr": (10,), "found": (10,)}


def test_features_make_the_generator_larger_and_one_hot_does_not(budget):
    alone = {"objective": "regression"}
    designs = (
        DesignChange("", alone),
        DesignChange("", alone | {"kind": "one-hot"}),
        DesignChange("", alone, features=True),
    )
    full, onehot, features = (logit_ablations.train_design(budget, change).numbers for change in designs)
    inputs = SMALL["hidden"] + 3 * SMALL["coarse"] ** 2 + 2 * SMALL["coarse_hidden"]  # the layers that read them
    assert onehot == full and features - full == 2 * inputs  # 12 features instead of 10 logits


def test_an_adversary_that_diverges_is_reported_and_not_raised(budget, asked):
    run = logit_ablations.train_design(budget, CHANGES["adversary alone"])
    assert run.inverter is None and run.numbers == 0
    assert run.failure.startswith("The adversarial training diverged") and run.failure.endswith(".")


def test_an_adversary_that_had_to_be_stopped_is_reported_with_what_is_left(budget, monkeypatch):
    def collapse(*_, **__):
        raise training.Collapsed("The adversarial training collapsed: on purpose.")

    monkeypatch.setattr(training, "check_samples", collapse)
    with pytest.warns(UserWarning, match="on purpose"):
        run = logit_ablations.train_design(budget, DesignChange("objective"))
    assert run.inverter is not None and "on purpose" in run.failure


def test_penultimate_features_are_what_the_last_layer_is_given(classifier, images):
    features = logit_ablations.without_last_layer(classifier)
    some = images[:5].float() / 255
    assert features.classes == 12 and isinstance(classifier.model[-1], nn.Linear)
    torch.testing.assert_close(classifier.model[-1](features.logits(some)), classifier.logits(some))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.ReLU()),
    ],
    ids=["no linear layer", "more behind it"],
)
def test_a_model_that_does_not_end_in_a_linear_layer_has_no_features_to_read(model):
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        logit_ablations.without_last_layer(Classifier(model, "odd", size=32))


class Perfect:
    """Reads an image from a representation that is the image; a share of them at random."""

    noise_dim = 0

    def represent(self, images):
        return images.flatten(1)

    def invert(self, z, noise=None):
        return z.view(-1, 3, 32, 32)

    def sample_noise(self, n, seed=0):
        return torch.zeros(n, 0)


def test_perfect_reconstructions_are_all_found_and_wrong_ones_are_not(images):
    unseen = images[:20].float() / 255
    scores = logit_ablations.score_design(Perfect(), unseen, samples=1, n_perceptual=4)
    assert scores["found"].mean() == 1 and scores["psnr"].min() > 99 and int((~scores["perceptual"].isnan()).sum()) == 4
    assert scores["perceptual"][:4].abs().max() < 1e-4
    wrong = Perfect()
    wrong.represent = lambda images: images.flip(0).flatten(1)
    assert logit_ablations.score_design(wrong, unseen, samples=1, n_perceptual=0)["found"].mean() == 0


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_effect_is_changed_minus_full_design_and_knows_which_scores_are_better_low():
    full = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    for measure, word in (("psnr", HELPS), ("found", HELPS), ("perceptual", HURTS)):
        gain, verdict = logit_ablations.effect(measure, full + torch.tensor([[0.4, 0.5, 0.5, 0.6]]), full)
        assert gain.value == pytest.approx(0.5) and verdict == word
    assert logit_ablations.effect("psnr", full + torch.tensor([[2.0, -2.0, 1.0, -1.0]]), full)[1] == SAME


def test_no_difference_is_seen_where_seeds_disagree():
    full = torch.zeros(2, 4)
    change = torch.tensor([[3.0, 3.1, 3.2, 3.3], [-0.1, -0.2, -0.1, -0.2]])
    assert logit_ablations.effect("psnr", change, full)[1] == SAME


def test_seeds_are_put_side_by_side_where_a_score_was_measured():
    one = Scores({"psnr": torch.tensor([1.0, 2.0]), "perceptual": torch.tensor([0.5, torch.nan])})
    both = logit_ablations.over_seeds([one, one])
    assert both["psnr"].shape == (2, 2) and both["perceptual"].tolist() == [[0.5], [0.5]]


@pytest.mark.parametrize(
    ("words", "together"),
    [([HELPS, SAME], HELPS), ([HURTS, SAME], HURTS), ([HELPS, HURTS], BOTH), ([SAME, SAME], SAME)],
)
def test_verdicts_of_several_scores_become_one(words, together):
    assert logit_ablations.one_verdict(words) == together


def test_the_answer_names_every_change_once():
    verdicts = {"a": HELPS, "b": HURTS, "c": SAME, "d": HURTS, "e": HURTS}
    assert (
        logit_ablations.verdicts_in_words(verdicts)
        == "what helps is a; what hurts is b, d and e; no difference is seen for c"
    )
    assert "no design" in logit_ablations.verdicts_in_words({})
