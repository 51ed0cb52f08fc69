"""Chapter 16: every way spends the same compute, each chooses its rate, and the words follow their rule."""

import math

import pytest
import torch
from helpers import two_convolutions

from invkit.dci.synthetic import Pool, pink_noise
from study.chapters import depth_and_compute
from study.chapters.depth_and_compute import (
    CYCLE,
    DIVIDED,
    END_TO_END,
    LINEAR,
    SYNCHRONISED,
    WAYS,
    Setting,
    Trained,
    best_rate,
    cost_of,
    crossing,
    plan_way,
)  # fmt: skip
from study.scores import Scores

COMPUTE = 1e8


@pytest.fixture(scope="module")
def setting():
    """Two convolutions, 3 -> 4 channels and 4 -> 5 at half the resolution."""
    return Setting(two_convolutions(32), depth=2, width=2, batch=3)


@pytest.fixture(scope="module")
def pool():
    return (255 * pink_noise(16, 64, seed=1)).byte()


@pytest.mark.parametrize("name", WAYS)
def test_every_way_spends_the_compute_to_the_last_step(setting, name):
    way, cost = WAYS[name], cost_of(setting, WAYS[name])
    schedule = plan_way(setting, way, cost, COMPUTE, 1e-3)
    spent = cost.start + (schedule.divide - way.linear) * cost.divide + schedule.synchronise * cost.together
    assert COMPUTE - cost.divide - cost.together < spent <= COMPUTE
    assert (schedule.synchronise == 0) == (way.divided == 1)
    assert schedule.often == (0.0, 1.0)


def test_dividing_starts_in_closed_form_and_the_rival_does_not(setting, pool):
    """Without a step of training, the linear start beats a random chain, which gives the mean colour."""
    images = pink_noise(8, 32, seed=2)

    def psnr(name, divide):
        inverter = setting.train(WAYS[name], Pool(pool), setting.schedule(divide, 0, 1e-9), seed=0)
        return depth_and_compute.score(inverter.reconstruct(images), images, measures=["psnr"]).psnr.mean()

    assert psnr(LINEAR, 1) > psnr(END_TO_END, 0) + 1
    assert cost_of(setting, WAYS[CYCLE]).together > cost_of(setting, WAYS[SYNCHRONISED]).together


def test_too_little_compute_says_how_much_would_do(setting):
    way, cost = WAYS[SYNCHRONISED], cost_of(setting, WAYS[SYNCHRONISED])
    with pytest.raises(ValueError, match="give at least") as error:
        plan_way(setting, way, cost, 10.0, 1e-3)
    enough = float(str(error.value).split("at least ")[1].rstrip(".")) * 1.01
    assert plan_way(setting, way, cost, enough, 1e-3).synchronise >= 1
    with pytest.raises(ValueError, match="depths from 1 to 2"):
        Setting(setting.classifier, 3)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([4], [1e11, 1e12], [1], []), "a number of seeds for each compute"),
        (([4], [1e11], [0], []), "a number of seeds for each compute"),
        (([], [1e11], [1], []), "Give depths"),
        (([4], [1e11], [1], [[9, 1e12]]), "depth 9, which is not among"),
        (([4], [1e11], [1], [[4, 1e11]]), "above 1e\\+11, the largest"),
        (([4], [1e11], [1], [[4, math.inf]]), "above 1e\\+11, the largest"),
        (([4], [1e11], [1], [4]), "pairs"),
        (([4], [1e11], [1], [[4]]), "pairs"),
        (([4], [-1e11], [1], []), "operations above 0"),
        (([4], [math.nan], [1], []), "operations above 0"),
    ],
)
def test_budgets_that_do_not_fit_together_are_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        depth_and_compute.check_budgets(*given)


def test_budgets_that_fit_are_taken():
    depth_and_compute.check_budgets([4, 9], [1e11, 1e12], [2, 1], [[9, 1e13]])


def test_the_best_rate_is_looked_for_beyond_the_edge():
    asked = []

    def value(best):
        return lambda rate: asked.append(rate) or -abs(rate - best)

    assert best_rate(value(2.0), [1.0, 2.0, 4.0]) == (2.0, False)
    assert asked == [1.0, 2.0, 4.0]
    assert best_rate(value(0.5), [1.0, 2.0, 4.0]) == (0.5, False)  # 0.25 was tried too
    assert best_rate(value(100.0), [1.0, 2.0, 4.0]) == (16.0, True)
    assert best_rate(value(100.0), [3.0]) == (3.0, False)


def test_a_cell_is_trained_once_and_found_again(setting, pool, tmp_path, monkeypatch):
    images = pink_noise(6, 32, seed=3)
    one = setting, COMPUTE / 2, dict.fromkeys(WAYS, [1e-3, 4e-3]), [0, 1], pool, images, images, tmp_path
    first = depth_and_compute.train_cell(*one)
    costs = {way: cost_of(setting, way) for way in WAYS.values()}
    monkeypatch.setattr(depth_and_compute, "cost_of", lambda setting, way: costs[way])
    monkeypatch.setattr("invkit.dci.training.log_error", None)  # no step can be taken
    again = depth_and_compute.train_cell(*one)  # from its folder
    for name in WAYS:
        assert len(first[name].scores) == 2 and first[name].rate == again[name].rate
        assert torch.equal(first[name].over_seeds("psnr"), again[name].over_seeds("psnr"))
    taken = depth_and_compute.rates_after(first, [1.0, 2.0])
    assert taken == {name: [first[name].rate] for name in WAYS} | {END_TO_END: [1.0, 2.0]}


def cell(**psnr):
    """A cell in which every way has the same 20 dB, one way excepted, on sixty photos."""
    noise = torch.randn(60, generator=torch.Generator().manual_seed(0))

    def trained(value):
        scores = Scores({"psnr": value + 0.1 * noise.roll(int(value)), "perceptual": noise})
        return Trained(1e-3, False, (1, 1), (scores, scores), torch.zeros(60, 3, 4, 4))

    return {name: trained(psnr.get(name, 20.0)) for name in WAYS}


def test_where_the_ways_cross_is_said_as_the_intervals_allow():
    ahead, behind, level = cell(**{SYNCHRONISED: 22.0}), cell(**{SYNCHRONISED: 18.0}), cell()

    def said(cells, floor=15.0):
        return crossing(cells, torch.full((60,), floor))

    assert said({1e11: ahead, 1e12: ahead}) == "dividing is ahead up to the largest, 1 × 10¹² operations"
    assert said({1e11: behind, 1e12: behind}) == "end to end is ahead from 1 × 10¹¹ operations on"
    assert said({1e10: ahead, 1e12: behind}) == "end to end overtakes dividing at about 1 × 10¹¹ operations"
    for unclear in ({1e11: ahead, 1e12: level}, {1e11: behind, 1e12: ahead}):
        assert "not decided" in said(unclear)
    assert "nothing is decided" in said({1e11: ahead}, floor=25.0)
    assert said({1e11: behind, 1e12: ahead}, floor=21.0) == said({1e12: ahead})  # the first is below the floor
    uncertain = torch.linspace(11, 32, 60)  # ahead's mean is higher, by less than the interval is wide
    assert crossing({1e12: ahead}, uncertain).startswith("nothing is decided, since no way is certainly better")


def test_each_part_is_what_the_way_with_it_gains():
    some = cell(**{SYNCHRONISED: 22.0, DIVIDED: 21.0, LINEAR: 23.0, CYCLE: 22.0})
    found = {question: depth_and_compute.worth(some, question).value for question in depth_and_compute.QUESTIONS}
    expected = {"dividing": 2, "dividing beyond its linear start": -1, "re-synchronising": 1, "the cycle term": 0}
    assert found == pytest.approx(expected, abs=0.1)
    assert depth_and_compute.seed_difference(some).value == 0


@pytest.mark.parametrize(("compute", "words"), [(2e12, "2 × 10¹²"), (1e11, "1 × 10¹¹"), (1.25e9, "1.2 × 10⁹")])
def test_computes_are_written_as_powers_of_ten(compute, words):
    assert depth_and_compute.written_compute(compute) == words


def test_a_rate_at_which_training_diverges_is_no_choice(setting, pool, tmp_path, monkeypatch):
    train = Setting.train

    def diverge(self, way, pool, schedule, **more):
        if schedule.synchronise_lr > 0.01 or schedule.divide_lr > 0.01:
            raise FloatingPointError("loss is not finite by step 1")
        return train(self, way, pool, schedule, **more)

    monkeypatch.setattr(Setting, "train", diverge)
    monkeypatch.setattr(depth_and_compute, "MEASURED", {"psnr": 1.0})
    images = pink_noise(4, 32, seed=2)
    rates = dict.fromkeys(WAYS, [1e-3, 1e-2, 1e-1])
    cell = depth_and_compute.train_cell(setting, COMPUTE, rates, [0], pool, images, images, tmp_path)
    assert all(one.rate < 0.1 for one in cell.values())
