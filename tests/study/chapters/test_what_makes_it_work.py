"""Ablations: every arm gets the same compute, counted on the code that trains, and verdicts follow their rule."""

import pytest
import torch
from torch import nn

from invkit.dci.chain import ChainLossWeights
from invkit.dci.synthetic import Pool, pink_noise
from invkit.network.classifiers import Classifier
from study.chapters import what_makes_it_work
from study.chapters.what_makes_it_work import Arm, Setting

CROP = 8


@pytest.fixture(scope="module")
def setting():
    """Two convolutions, 3 -> 4 channels and 4 -> 5 at half the resolution; inverses 6 wide, no residual blocks."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 5, 3, 2, padding=1, bias=False)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    blocks = [("first", first), ("second", second), ("head", head)]
    classifier = Classifier(nn.Sequential(first, second, head), "tiny", size=16, blocks=blocks)
    return Setting(classifier, depth=2, sizes=((6, 0), (6, 0)), batch=3, crop=CROP, compute=1e8)


@pytest.fixture(scope="module")
def pool():
    return Pool(pink_noise(16, 16, seed=1))


def convolution(side, taps, inputs, outputs):
    return 2 * side**2 * taps * inputs * outputs


def test_a_step_costs_what_its_convolutions_do(setting):
    """By hand: both blocks forward; every inverse forward, its weights' gradients, and the gradients passed on."""
    blocks = convolution(8, 9, 3, 4) + convolution(4, 9, 4, 5)
    second_in = convolution(4, 9, 5, 6) + convolution(4, 1, 5, 16)  # enter and skip: nothing trained lies before them
    first_in = convolution(8, 9, 4, 6) + convolution(8, 1, 4, 3)
    leave = convolution(4, 9, 6, 16) + convolution(8, 9, 6, 3)
    deepest = blocks + 2 * second_in + 3 * first_in + 3 * leave
    cost = what_makes_it_work.step_cost(setting, Arm(ChainLossWeights(0, 1, 0), divided=0, deepest_only=True))
    assert cost.synchronise == deepest * setting.batch


def test_terms_and_depths_cost_what_they_should(setting):
    full = what_makes_it_work.step_cost(setting, Arm())
    cheaper = what_makes_it_work.step_cost(setting, Arm().without("cycle"))
    assert cheaper.divide < full.divide and cheaper.synchronise < full.synchronise
    assert what_makes_it_work.step_cost(setting, Arm(deepest_only=True)).synchronise > full.synchronise


@pytest.mark.parametrize(
    "arm", [Arm(), Arm(divided=1), Arm(ChainLossWeights(0, 1, 0), divided=0, deepest_only=True, rate=1e-3)]
)
def test_every_arm_spends_the_compute_to_the_last_step(setting, pool, arm):
    cost = what_makes_it_work.step_cost(setting, arm)
    schedule = what_makes_it_work.plan(setting, arm, cost)
    spent = what_makes_it_work.operations(setting, schedule, cost)
    assert setting.compute - cost.divide - cost.synchronise < spent <= setting.compute
    assert (schedule.divide == 0) == (arm.divided == 0) and (schedule.synchronise == 0) == (arm.divided == 1)
    inverter = what_makes_it_work.train_arm(setting, arm, pool, schedule, seed=1)
    assert inverter.card["steps"] == 2 * schedule.divide + schedule.synchronise


def test_too_little_compute_says_how_much_would_do(setting):
    arm = Arm()
    cost = what_makes_it_work.step_cost(setting, arm)
    poor = Setting(**(vars(setting) | {"compute": 10.0}))
    with pytest.raises(ValueError, match="give at least") as error:
        what_makes_it_work.plan(poor, arm, cost)
    enough = float(str(error.value).split("at least ")[1].rstrip(".")) * 1.01  # printed to three digits
    assert what_makes_it_work.plan(Setting(**(vars(setting) | {"compute": enough})), arm, cost).divide >= 1


def test_a_depth_without_inverses_is_refused(setting):
    with pytest.raises(ValueError, match="one size per depth"):
        Setting(**(vars(setting) | {"depth": 3}))


def test_one_term_is_switched_off_and_no_more():
    arm = Arm(source="white noise", divided=0.5).without("input")
    assert arm == Arm(weights=ChainLossWeights(1.0, 0.0, 0.1), source="white noise", divided=0.5)
    with pytest.raises(ValueError, match="share"):
        Arm(divided=1.5)


def test_training_is_reproducible_and_beats_none(setting, pool):
    arm, images = Arm(), pink_noise(5, 16, seed=2)
    schedule = what_makes_it_work.plan(setting, arm, what_makes_it_work.step_cost(setting, arm))
    trained = [
        what_makes_it_work.psnr_at(what_makes_it_work.train_arm(setting, arm, pool, schedule, seed=1), images)
        for _ in range(2)
    ]
    none = what_makes_it_work.train_arm(
        setting, arm, pool, what_makes_it_work.Schedule(divide=0, synchronise=0), seed=1
    )
    assert torch.equal(*trained)
    assert trained[0].mean() > what_makes_it_work.psnr_at(none, images).mean() + 1
    assert what_makes_it_work.psnr_at(none, images, depth=1, batch=2).shape == (5,)


@pytest.mark.parametrize(
    ("gain", "word"),
    [
        ([0.9, 1.0, 1.1, 1.2], "helps"),
        ([-0.9, -1.0, -1.1, -1.2], "hurts"),
        ([-1.0, 1.0, -2.0, 2.0], "no difference seen"),
    ],
)
def test_verdict_follows_the_interval(gain, word):
    arm = torch.tensor([[20.0, 25.0, 30.0, 35.0]])
    assert what_makes_it_work.verdict(arm + torch.tensor(gain), arm) == word
    interval = what_makes_it_work.difference(arm + torch.tensor(gain), arm)
    assert interval.value == pytest.approx(sum(gain) / 4, abs=1e-5) and interval.n == 4


def test_verdict_needs_every_seed():
    arm = torch.tensor([[20.0, 25.0, 30.0], [20.0, 25.0, 30.0]])
    gain = torch.tensor([[3.0, 3.1, 3.2], [-0.1, -0.2, -0.1]])  # clear on average, but one seed disagrees
    assert what_makes_it_work.verdict(arm + gain, arm) == "no difference seen"
