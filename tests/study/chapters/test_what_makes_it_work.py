"""Ablations: every variant gets the same compute, counted on the code that trains, and verdicts follow their rule."""

import numpy as np
import pytest
import torch
from helpers import two_convolutions
from PIL import Image

from invkit.dci.chain import ChainLossWeights
from invkit.dci.synthetic import Pool, pink_noise
from study import confirmation
from study.chapters import what_makes_it_work
from study.chapters.what_makes_it_work import ChainBudget, ChainVariant

CROP = 8


@pytest.fixture(scope="module")
def budget():
    """Two convolutions, 3 -> 4 channels and 4 -> 5 at half the resolution; inverses 6 wide, no residual blocks."""
    return ChainBudget(two_convolutions(16), depth=2, sizes=((6, 0), (6, 0)), batch=3, crop=CROP, compute=1e8)


@pytest.fixture(scope="module")
def pool():
    return Pool(pink_noise(16, 16, seed=1))


def convolution(side, taps, inputs, outputs):
    return 2 * side**2 * taps * inputs * outputs


def test_a_step_costs_what_its_convolutions_do(budget):
    """By hand: both blocks forward; every inverse forward, its weights' gradients, and the gradients passed on."""
    blocks = convolution(8, 9, 3, 4) + convolution(4, 9, 4, 5)
    second_in = convolution(4, 9, 5, 6) + convolution(4, 1, 5, 16)  # enter and skip: nothing trained lies before them
    first_in = convolution(8, 9, 4, 6) + convolution(8, 1, 4, 3)
    leave = convolution(4, 9, 6, 16) + convolution(8, 9, 6, 3)
    deepest = blocks + 2 * second_in + 3 * first_in + 3 * leave
    cost = what_makes_it_work.step_cost(budget, ChainVariant(ChainLossWeights(0, 1, 0), divided=0, deepest_only=True))
    assert cost.synchronise == deepest * budget.batch


def test_terms_and_depths_cost_what_they_should(budget):
    full = what_makes_it_work.step_cost(budget, ChainVariant())
    cheaper = what_makes_it_work.step_cost(budget, ChainVariant().without("cycle"))
    assert cheaper.divide < full.divide and cheaper.synchronise < full.synchronise
    assert what_makes_it_work.step_cost(budget, ChainVariant(deepest_only=True)).synchronise > full.synchronise


@pytest.mark.parametrize(
    "variant",
    [
        ChainVariant(),
        ChainVariant(divided=1),
        ChainVariant(ChainLossWeights(0, 1, 0), divided=0, deepest_only=True, rate=1e-3),
    ],
)
def test_every_variant_spends_the_compute_to_the_last_step(budget, pool, variant):
    cost = what_makes_it_work.step_cost(budget, variant)
    schedule = what_makes_it_work.plan(budget, variant, cost)
    spent = what_makes_it_work.operations_of_schedule(budget, schedule, cost)
    assert budget.compute - cost.divide - cost.synchronise < spent <= budget.compute
    assert (schedule.divide == 0) == (variant.divided == 0) and (schedule.synchronise == 0) == (variant.divided == 1)
    inverter = what_makes_it_work.train_variant(budget, variant, pool, schedule, seed=1)
    assert inverter.card["steps"] == 2 * schedule.divide + schedule.synchronise


def test_too_little_compute_says_how_much_would_do(budget):
    variant = ChainVariant()
    cost = what_makes_it_work.step_cost(budget, variant)
    poor = ChainBudget(**(vars(budget) | {"compute": 10.0}))
    with pytest.raises(ValueError, match="give at least") as error:
        what_makes_it_work.plan(poor, variant, cost)
    enough = float(str(error.value).split("at least ")[1].rstrip(".")) * 1.01  # printed to three digits
    assert what_makes_it_work.plan(ChainBudget(**(vars(budget) | {"compute": enough})), variant, cost).divide >= 1


def test_a_depth_without_inverses_is_refused(budget):
    with pytest.raises(ValueError, match="one size per depth"):
        ChainBudget(**(vars(budget) | {"depth": 3}))


def test_one_term_is_switched_off_and_no_more():
    variant = ChainVariant(source="white noise", divided=0.5).without("input")
    assert variant == ChainVariant(weights=ChainLossWeights(1.0, 0.0, 0.1), source="white noise", divided=0.5)
    with pytest.raises(ValueError, match="share"):
        ChainVariant(divided=1.5)


def test_training_is_reproducible_and_beats_none(budget, pool):
    variant, images = ChainVariant(rate=3e-3), pink_noise(5, 16, seed=2)  # so few steps learn more with larger ones
    schedule = what_makes_it_work.plan(budget, variant, what_makes_it_work.step_cost(budget, variant))
    trained = [
        what_makes_it_work.psnr_at(what_makes_it_work.train_variant(budget, variant, pool, schedule, seed=1), images)
        for _ in range(2)
    ]
    none = what_makes_it_work.train_variant(
        budget, variant, pool, what_makes_it_work.Schedule(divide=0, synchronise=0), seed=1
    )
    assert torch.equal(*trained)
    assert trained[0].mean() > what_makes_it_work.psnr_at(none, images).mean() + 1
    assert what_makes_it_work.psnr_at(none, images, depth=1, batch=2).shape == (5,)


def test_photos_for_training_and_for_testing_come_from_folders_without_confirmation_photos(tmp_path):
    for number in range(40):
        image = Image.fromarray(np.full((40, 40, 3), 6 * number, dtype=np.uint8))
        image.save(tmp_path / f"{number:02}.png")
    taught = what_makes_it_work.real_photos(f"folder:{tmp_path}", 4)
    assert taught.dtype == torch.uint8 and taught.shape == (4, 3, 40, 40)
    with pytest.raises(ValueError, match="set pool_images lower"):
        what_makes_it_work.real_photos(f"folder:{tmp_path}", 41)
    tested = what_makes_it_work.tested_photos(f"folder:{tmp_path}", 99, 16)
    free = sum(confirmation.part_of(f"{number:02}") == "development" for number in range(40))
    assert tested.shape == (free, 3, 16, 16) and 0 < free < 40
    assert len(what_makes_it_work.tested_photos("photos", 3, 32)) == 3
