"""The contest of chapter 7, between a chain that is known to be better by one measure and worse by another."""

import json

import pytest
import torch

from study import claims, verdicts
from study.chapters import zero_shot_opponents
from study.chapters.zero_shot_opponents import CHAIN, Contest
from study.notebook import Study
from study.opponents import Found
from study.reconstructions import TimedImages
from study.scores import Scores

PHOTOS = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def study(tmp_path):
    return Study("07_zero_shot_inversion", "quick", tmp_path, tmp_path / "work")


def scores(psnr, perceptual, second=None):
    spread = torch.tensor([0.0, 1.0, 2.0, 3.0])
    near, other = perceptual + spread / 100, (perceptual if second is None else second) + spread / 100
    measured = {"psnr": psnr + spread, "perceptual": near, "perceptual_second": other, "found": torch.ones(4)}
    return Scores(measured)


@pytest.fixture
def contest():
    """The chain stands between two opponents: one has the higher PSNR, the other the smaller distances."""
    measured = {CHAIN: scores(20.0, 0.4), "sharp": scores(18.0, 0.3), "faithful": scores(21.0, 0.5)}
    found = {name: Found(torch.zeros(4, 3, 32, 32), 17, 2.0 if name == "sharp" else 1.0) for name in measured}
    return Contest(found, measured)


class Inverter:
    """Of a network that has done nothing: the representation is the image."""

    size, depths = 32, [1]

    class classifier:
        blocks = [type("Block", (), {"convolutions": 1, "depth": 1})]

    def represent(self, images, depth):
        return images


def recorded(study, folder):
    return json.loads((folder / "07_zero_shot_inversion.results.json").read_text())


def test_each_measure_has_the_opponent_that_is_strongest_by_it(contest):
    assert contest.strongest("psnr") == "faithful" and contest.strongest("perceptual") == "sharp"
    assert contest.spread() == 2.0
    few = {name: one._replace(steps=9) for name, one in contest.found.items()}
    assert Contest(few, contest.scores).spread() is None


def test_the_chain_is_judged_against_the_strongest_by_each_measure(study, contest, tmp_path):
    zero_shot_opponents.record_contests(study, Inverter(), {24: contest}, 2.0)
    kept = recorded(study, tmp_path)
    assert kept["gain_over_strongest_24"]["value"] == pytest.approx(-1.0)
    assert kept["gain_over_strongest_24"]["verdict"] == "worse"
    assert kept["gain_over_strongest_24_perceptual"]["value"] == pytest.approx(0.1)
    assert kept["psnr_strongest_24"]["value"] == pytest.approx(22.5)
    assert kept["psnr_strongest_24"]["opponent"] == "faithful"
    assert kept["perceptual_strongest_24"]["opponent"] == "sharp"
    assert kept["psnr_sharp_24"]["value"] == pytest.approx(19.5) and kept["seconds_spread_24"]["value"] == 2.0
    words = kept["contest_words"]["text"]
    assert "strongest is “faithful” (ours less theirs −1" in words and "“sharp”" in words


def test_rows_have_the_chain_first_and_what_each_cost(contest):
    rows = zero_shot_opponents.contest_rows({24: contest})
    assert list(rows) == [(24, CHAIN), (24, "sharp"), (24, "faithful")]
    assert rows[24, "sharp"]["s a photo"] == "2" and rows[24, "sharp"]["psnr"].value == pytest.approx(19.5)


def test_opponents_get_the_photos_that_the_chain_is_scored_on(monkeypatch):
    """An opponent that returns what it is given is perfect, and finds every photo among all."""
    given = {}

    def perfect(name, inverter, features, depth, seconds, *, seed):
        given[name] = features
        return Found(features, 1, seconds)

    monkeypatch.setattr(zero_shot_opponents, "oppose", perfect)
    ours = {1: TimedImages(PHOTOS.flip(0), 0.1)}
    contests = zero_shot_opponents.contests_at(Inverter(), PHOTOS, ours, [1], 3, 0.5)
    assert torch.equal(given["from grey"], PHOTOS[[0, 2, 5]])
    measured = contests[1].scores
    assert measured["from grey"].psnr.min() == 100 and measured["from grey"].found.min() == 1
    assert measured[CHAIN].found.max() == 0 and len(measured[CHAIN].psnr) == 3


def many(psnr, perceptual):
    """Scores of 60 photos that differ a little from one to the next."""
    near = perceptual + torch.linspace(-0.01, 0.01, 60)
    measured = {"perceptual": near, "perceptual_second": 1.5 * near, "found": torch.ones(60)}
    return Scores({"psnr": psnr + torch.linspace(-0.2, 0.2, 60)} | measured)


@pytest.mark.parametrize(
    ("rivals", "seconds", "steps", "verdict"),
    [
        ({"from grey": (16.0, 0.6), "from the chain": (19.0, 0.5)}, 1.0, 20, verdicts.SUPPORTED),
        ({"from grey": (16.0, 0.6), "from the chain": (21.0, 0.5)}, 1.0, 20, verdicts.CONTRADICTED),
        ({"from grey": (16.0, 0.3), "from the chain": (19.0, 0.5)}, 1.0, 20, verdicts.CONTRADICTED),
        ({"from grey": (16.0, 0.6), "from the chain": (19.0, 0.5)}, 2.0, 20, verdicts.FAILED),
        ({"from grey": (16.0, 0.6), "from the chain": (19.0, 0.5)}, 1.0, 2, verdicts.UNTESTED),
    ],
    ids=["best by all", "one is better by PSNR", "another is nearer", "not at equal seconds", "no chance"],
)
def test_the_claim_is_lost_to_the_strongest_opponent_and_needs_equal_seconds(
    study, tmp_path, rivals, seconds, steps, verdict
):
    measured = {CHAIN: many(20.0, 0.4)} | {name: many(*levels) for name, levels in rivals.items()}
    found = {name: Found(torch.zeros(60, 3, 8, 8), steps, 1.0) for name in measured}
    found["from grey"] = found["from grey"]._replace(seconds=seconds)
    contests = dict.fromkeys((9, 24), Contest(found, measured))
    zero_shot_opponents.record_contests(study, Inverter(), contests, 1.0)
    study.record_rows({"24": measured[CHAIN].intervals()}, ["psnr"])
    study.record("psnr_mean_colour", 13.0, (12.5, 13.5), unit="dB", n=60)
    study.record("found_mean_image", 2.0, (0.0, 4.0), unit="%", n=60)
    (claim,) = (one for one in claims.CLAIMS if one.id == "no_optimisation")
    judged = verdicts.judge_alone(claim, {claim.chapter: recorded(study, tmp_path)})
    assert judged.verdict == verdict, judged.reason
