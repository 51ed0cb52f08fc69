"""Chapter 15 on two small networks of our own, and the rules of the claims that it decides."""

import pytest
import torch
from torch import nn

from invkit import data
from invkit.data.images import Data
from invkit.dci.chain import ChainLossWeights
from invkit.dci.invert import invert_classifier
from invkit.dci.training import Schedule
from invkit.network.classifiers import Classifier
from study import claims, confirmation, verdicts
from study.chapters import architectures, architectures_page
from study.notebook import Study, slug
from study.reconstructions import reconstruct_every_depth
from study.scores import Scores

SIZE = 32


def network(name, convolutions):
    """Convolutions and ReLUs at full resolution, a half and a quarter, then the means of the channels."""
    layers, channels = [], 3
    for k in range(convolutions):
        layers += [nn.Conv2d(channels, 6, 3, 2 if k in (0, 2) else 1, 1), nn.ReLU()]
        channels = 6
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return Classifier(nn.Sequential(*layers, *tail), name, SIZE)


def inverter_of(classifier):
    depth = sum(block.invertible for block in classifier.blocks)
    pool = (255 * torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))).byte()
    inverter = invert_classifier(
        classifier, pool, depth=depth, sizes=[(4, 1)] * depth, crops=lambda depth: (2, SIZE), seed=0,
        schedule=Schedule(1, 2, synchronise_lr=1e-3), weights=ChainLossWeights(block=1, input=0, cycle=0),
        synchronise_weights=ChainLossWeights(block=0.1, input=1, cycle=0),
    )  # fmt: skip
    inverter.card.setdefault("hours", 0.5)
    return inverter


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {"shallow": inverter_of(network("shallow", 3)), "deep": inverter_of(network("deep", 22))}


@pytest.fixture(scope="module")
def photos():
    originals = torch.rand(9, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return architectures.Photos(originals[:6], originals)


@pytest.fixture(scope="module")
def depth_results(networks, photos):
    found = {}
    for name, inverter in networks.items():
        made = reconstruct_every_depth(inverter, photos.originals, architectures.measured_depths(inverter, 2))
        found[name] = architectures.score_depths(inverter, photos, made)
    return found


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr("myst_nb.glue", lambda *_, **__: None)
    return Study("15_architectures", "quick", tmp_path, tmp_path / "work")


def test_networks_are_compared_at_depths_that_all_of_them_have(networks):
    shallow, deep = (architectures.landmarks(inverter) for inverter in networks.values())
    convolutions = architectures.convolutions_by_depth(networks["deep"])
    assert list(shallow) == ["first", "deepest"]  # it has no 20 convolutions
    assert list(deep) == ["first", "past 20", "deepest"]
    assert convolutions[deep["past 20"]] == 21 and convolutions[deep["deepest"]] == 22
    assert architectures.measured_depths(networks["deep"], 2) == sorted({*deep.values()})
    assert architectures.spread_depths(networks["deep"], 0) == networks["deep"].depths
    assert len(architectures.spread_depths(networks["deep"], 5)) == 5


def test_the_figure_draws_every_depth_that_was_read(networks, depth_results, photos):
    for name, inverter in networks.items():
        by_depth = depth_results[name]
        assert list(by_depth) == architectures.measured_depths(inverter, 2)
        first = by_depth[min(by_depth)]
        assert first.numbers == pytest.approx(6 * (SIZE // 2) ** 2 / (3 * SIZE**2)) and first.convolutions == 1
        assert set(first.scores) == set(architectures.MEASURED) and len(first.scores.psnr) == len(photos.originals)
        assert first.gain.value == pytest.approx((first.scores.psnr - first.flat.psnr).mean().item(), abs=1e-4)
    figure = architectures_page.networks_chart(networks, depth_results)
    above, below = figure.axes[:3], figure.axes[3:6]
    assert [axis.get_xlabel() for axis in above] == ["convolutions"] * 3
    assert all("numbers" in axis.get_xlabel() and axis.xaxis_inverted() for axis in below)
    drawn = above[0].containers[1]  # of the deep network
    assert list(drawn.lines[0].get_xdata()) == [one.convolutions for one in depth_results["deep"].values()]
    assert list(drawn.lines[0].get_ydata()) == [one.gain.value for one in depth_results["deep"].values()]


def test_a_reconstruction_of_another_photo_is_a_control(networks, photos):
    """Perfect reconstructions find their own photo, and, taken for that of the photo before, never do."""
    perfect = {1: type("Made", (), {"images": photos.originals})}
    one = architectures.score_depths(networks["shallow"], photos, perfect)[1]
    assert one.scores.found.mean() == 1 and one.next.found.mean() == 0
    assert one.gain.low > 0 > one.gain_next.high


def test_what_was_read_is_recorded_under_the_ids_of_the_claims(study, networks, depth_results, photos):
    architectures_page.record_results(study, networks, depth_results)
    architectures_page.record_words(study, networks, depth_results, {SIZE: photos})
    kept = study.results_of("15_architectures")
    for mark in ("first", "past_20", "deepest"):
        assert {f"{what}_deep_{mark}" for what in ("psnr", "gain", "gain_next", "found", "found_next")} <= kept.keys()
    assert kept["names"]["text"] == "shallow and deep" and kept["candidates"]["value"] == 9
    rows = architectures_page.deepest_rows(networks, depth_results)
    assert [row["convolutions"] for row in rows.values()] == ["3 of 3", "22 of 22"] and list(rows) == [
        "shallow",
        "deep",
    ]
    assert architectures_page.how_far(depth_results, networks).count("\n") == 1


def reading(gain, convolutions, half=0.0):
    """A reading whose PSNR exceeds the mean colour's by so many dB, with an interval about so wide."""
    spread = torch.tensor([-half, half] * 4)
    psnr, found = Scores({"psnr": 10 + gain + spread, "found": torch.ones(8)}), Scores({"psnr": torch.full((8,), 10.0)})
    return architectures.DepthResult(convolutions, 0.5, 0.0, None, psnr, found, psnr)


def test_the_farthest_reading_is_the_deepest_that_beats_the_mean_colour():
    depth_results = {"a": {1: reading(20, 1), 2: reading(3, 24), 3: reading(0.5, 33, half=9)}, "b": {1: reading(5, 26)}}
    assert architectures_page.farthest(depth_results) == ("b", depth_results["b"][1])
    worse = {"a": {1: reading(-1, 1), 2: reading(-2, 9)}}
    assert architectures_page.farthest(worse) == ("a", worse["a"][1])


def test_how_far_a_network_is_read_is_said_of_each(networks):
    marks = architectures.landmarks(networks["deep"])
    many = {"deep": networks["deep"], "poor": networks["deep"], "part": networks["deep"]}
    gains = {"deep": (9, 8, 7), "poor": (-1, -2, -3), "part": (9, 8, -3)}
    depth_results = {
        name: {depth: reading(gain, k) for depth, gain, k in zip(marks.values(), gains[name], (1, 21, 22), strict=True)}
        for name in many
    }
    whole, none, part = architectures_page.how_far(depth_results, many).split("\n")
    assert "at the deepest map" in whole and "no better than" in none and "after up to 21 convolutions;" in part
    assert part.endswith("after 22 convolutions the PSNR less theirs is -3.0 [-3.0, -3.0] dB, and 100 % are found.")


def test_the_first_network_is_compared_with_the_others_of_its_size(study, networks, depth_results):
    assert not architectures.comparable_results(networks, depth_results)  # the shallow one has no such depth
    twice = {"deep": networks["deep"], "same": networks["deep"]}
    pairs = architectures.comparable_results(twice, {"deep": depth_results["deep"], "same": depth_results["deep"]})
    assert list(pairs) == [("deep", "same", "past 20")]
    rows = architectures_page.record_differences(study, pairs)
    row = rows["same", "more than 20"]
    assert row["convolutions of each"] == "21, 21" and row["inverted better"] == "not told apart"
    assert study.results_of("15_architectures")["psnr_deep_less_same_past_20"]["value"] == 0


def test_a_network_that_cannot_be_had_leaves_its_line_out_and_the_page_says_so(tmp_path, networks):
    classifier = {"deep": tmp_path / "deep", "gone": tmp_path / "gone"}
    networks["deep"].save(classifier["deep"])  # of a module, which no name brings back: as good as not installed
    given = {"small": "dci-tiny-standard"} | {name: str(folder) for name, folder in classifier.items()}
    found, sentence = architectures.load_networks(given)
    assert list(found) == ["small"]
    assert sentence.startswith("Left out, because") and "deep (" in sentence and "gone (" in sentence
    assert "one of the shipped names" not in sentence and sentence.endswith(").")
    assert architectures.load_networks({"small": "dci-tiny-standard"})[1] == ""
    with pytest.raises(ValueError, match="gone"):
        architectures.load_networks({"gone": str(classifier["gone"])})
    with pytest.raises(ValueError, match="nothing to compare: give inverters="):
        architectures.load_networks({})


def test_the_same_photos_are_drawn_at_every_size_and_the_others_are_rivals(monkeypatch):
    names = tuple(f"photo {k}" for k in range(12))

    def load(where, n, size):
        grey = torch.arange(12).view(12, 1, 1, 1) / 12
        return Data(grey.expand(12, 3, size, size), torch.full((12,), -1), names)

    monkeypatch.setattr(data, "load", load)
    small, large = (architectures.Photos.load("any", "development", 3, 99, 0, size) for size in (8, 16))
    assert torch.equal(small.originals[:, 0, 0, 0], large.originals[:, 0, 0, 0]) and len(small.originals) == 3
    assert len(small.candidates) == 12 and len(small.candidates[:, 0, 0, 0].unique()) == 12
    assert torch.equal(small.candidates[:3], small.originals)
    fewer = architectures.Photos.load("any", "development", 3, 7, 0, 8)
    assert torch.equal(fewer.originals, small.originals) and len(fewer.candidates[:, 0, 0, 0].unique()) == 7
    drawn = [names[round(12 * value)] for value in small.originals[:, 0, 0, 0].tolist()]
    assert all(confirmation.part_of(name) == "development" for name in drawn)


def test_pictures_of_a_network_with_few_depths_repeat_its_deepest(networks, photos):
    rows, captions = architectures.pictured_rows(networks, {SIZE: photos.originals[:1]}, 5)
    assert {len(images) for images in rows.values()} == {6} == {len(texts) for texts in captions.values()}
    assert torch.equal(rows["deep"][0], photos.originals[0]) and not torch.equal(rows["deep"][1], rows["deep"][5])


# ---- the claims ------------------------------------------------------------------------------------------------------

CLAIMS = {claim.id: claim for claim in claims.CLAIMS if claim.chapter == "15_architectures"}
# What decides, and what leaves each claim supported: (value, half width of the interval) by id.
CLEAR = {
    "gain_resnet50_thin_past_40": (3, 0.5),
    "found_resnet50_thin_past_40": (85, 5),
    "gain_resnet50_thin_past_20": (6, 0.5),
    "gain_squeezenet_past_20": (5, 0.5),
}
WORSE = {
    "layers_40": {"gain_resnet50_thin_past_40": 1.0, "found_resnet50_thin_past_40": 60},
    "architectures": {"gain_squeezenet_past_20": 0.2},
}


def results(**changed):
    """Results of chapter 15 that support all claims, but for some values."""
    ids = {id for claim in CLAIMS.values() for check in (*claim.positive, *claim.negative) for id in check.ids}
    values = {id: (99, 1) if id.endswith("first") else (0, 1) if id.startswith("found") else (-4, 1) for id in ids}
    values |= CLEAR | {claim.value: (20, 1) for claim in CLAIMS.values()}
    values |= {claim.baseline: (13, 1) for claim in CLAIMS.values()} | {
        id: (value, 0.2) for id, value in changed.items()
    }
    return {
        "15_architectures": {
            id: {"value": value, "ci95": [value - half, value + half], "n": 100, "unit": "dB", "tolerance": 0.5}
            for id, (value, half) in values.items()
        }
    }


def verdict_on(id, **changed):
    return verdicts.judge([CLAIMS[id]], results(**changed))[0].verdict


def test_two_claims_are_decided_here():
    assert set(CLAIMS) == set(WORSE)


@pytest.mark.parametrize(
    ("id", "worse"), [(id, {key: value}) for id, some in WORSE.items() for key, value in some.items()]
)
def test_a_claim_holds_by_its_rule_and_falls_by_each_of_its_numbers(id, worse):
    assert verdict_on(id) == verdicts.SUPPORTED
    assert verdict_on(id, **worse) == verdicts.CONTRADICTED


def test_a_difference_smaller_than_the_smallest_effect_is_none():
    assert verdict_on("architectures", gain_squeezenet_past_20=0.7) == verdicts.CONTRADICTED
    assert verdict_on("architectures", gain_squeezenet_past_20=1.1) == verdicts.UNDECIDED
    assert verdict_on("layers_40", gain_resnet50_thin_past_40=1.7) == verdicts.CONTRADICTED


@pytest.mark.parametrize("id", WORSE)
def test_a_control_that_fails_takes_its_claim_with_it(id):
    mark = {"layers_40": "resnet50_thin_past_40"}.get(id, "squeezenet_past_20")
    assert verdict_on(id, **{f"gain_next_{mark}": 3}) == verdicts.FAILED
    assert verdict_on(id, found_resnet50_thin_first=50) == verdicts.FAILED


def test_the_ids_of_the_claims_are_those_that_the_chapter_records():
    names, marks = ("lite0", "squeezenet", "resnet50-thin"), ("first", "past 20", "past 40", "deepest")
    places = {slug(f"{name} {mark}") for name in names for mark in marks}
    known = {f"{what}_{place}" for place in places for what in ("psnr", "gain", "gain_next", "found", "found_next")}
    known |= {slug(f"psnr mean colour {name}") for name in names}
    for claim in CLAIMS.values():
        checks = (*claim.checks, *claim.positive, *claim.negative)
        assert {claim.value, claim.baseline, *(id for check in checks for id in check.ids)} <= known
