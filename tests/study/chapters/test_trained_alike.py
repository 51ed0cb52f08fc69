"""Chapter 19: networks that differ in their architecture alone, twins without training, one recipe for inverters."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from helpers import two_convolutions
from torch.utils.flop_counter import FlopCounterMode

from invkit.dci.synthetic import Pool, pink_noise
from study import notebook
from study.chapters import trained_alike as chapter
from study.chapters import trained_alike_page as page
from study.chapters.architectures import DepthResult
from study.chapters.trained_alike import AlikeTraining, EveryDepth, InverterBudget, Measured
from study.scores import Scores

SIZE = chapter.SIZE
NOTEBOOK = Path(__file__).parents[3] / "notebooks/19_trained_alike.ipynb"


@pytest.fixture(scope="module")
def images():
    """Of three classes, which differ in their colour."""
    labels = torch.arange(24) % 3
    tint = 0.5 * torch.eye(3)[labels][:, :, None, None]
    return (255 * (0.5 * pink_noise(24, SIZE, seed=1) + tint)).byte(), labels


@pytest.fixture
def training(images, tmp_path):
    return AlikeTraining(*images, steps=2, batch=8, augment=False, folder=tmp_path)


def test_architectures_are_alike_in_size_and_end_in_the_maps_that_the_page_names():
    weights, cost, last = {}, {}, {}
    for name, (build, _) in chapter.ARCHITECTURES.items():
        network = build(100)
        weights[name] = sum(parameter.numel() for parameter in network.parameters())
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 3, SIZE, SIZE))
        cost[name] = counter.get_total_flops()
        classifier = chapter.as_classifier(network, name, hours=0.0)
        last[name] = [block.shape for block in classifier.blocks if block.invertible][-1]
    assert max(weights.values()) < 2.5 * min(weights.values()) and 7e5 < min(weights.values()) < 1.5e6
    assert max(cost.values()) < 2.5 * min(cost.values())
    assert {name: shape[1:] for name, shape in last.items() if name != "ViT"} == dict.fromkeys(
        ("ResNet", "RepVGG", "ConvNeXt"), (2, 2)
    )
    assert last["ViT"] == (64, 96)  # 8 x 8 places


def test_training_starts_from_the_twin_s_weights_and_lowers_the_loss(images, tmp_path):
    training = AlikeTraining(*images, steps=40, batch=16, augment=False, folder=tmp_path)
    first = training.untrained("RepVGG").state_dict()
    again = training.untrained("RepVGG").state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    network, twin = training.trained("RepVGG"), training.twin("RepVGG")
    assert network.card["hours"] > 0 == twin.card["hours"]

    def loss(classifier):
        return torch.nn.functional.cross_entropy(classifier.logits(images[0].float() / 255), images[1]).item()

    assert loss(network) < loss(twin) - 0.1


def test_a_repvgg_is_one_row_of_convolutions_that_computes_what_its_branches_did(training):
    network = training.untrained("RepVGG")
    network(chapter.as_input(training.images[:8]))  # the norms have seen something
    x = training.images[:4]
    with torch.no_grad():
        expected = network.eval()(chapter.as_input(x))
    classifier = chapter.as_classifier(network, "RepVGG", hours=0.0)
    torch.testing.assert_close(classifier.logits(x.float() / 255), expected, rtol=1e-3, atol=1e-4)
    assert [block.convolutions for block in classifier.blocks] == [1, 2, 3, 4, 5, 6, 7, 7]


def test_the_maps_of_a_twin_do_not_grow_from_block_to_block(training):
    twin = training.twin("ResNet")
    x = training.images.float() / 255
    sizes = [twin.features(x, block.depth).std().item() for block in twin.blocks[:-1]]
    assert max(sizes) < 10


def test_an_inverter_s_training_costs_what_it_was_given(tmp_path):
    setting, compute = EveryDepth(two_convolutions(32), depth=2, width=4, batch=2), 1e9
    schedule = setting.plan(compute, rate=1e-3)
    pool = Pool(pink_noise(3, 32, seed=2))
    with FlopCounterMode(display=False) as counter:
        setting.train(chapter.WAY, pool, schedule, seed=0)
    # every step of the second phase begins at a random depth, and the plan knows their mean cost only
    assert counter.get_total_flops() == pytest.approx(compute, rel=0.15)
    assert schedule.often is None and min(schedule.divide, schedule.synchronise) > 10
    with pytest.raises(ValueError, match="train no inverter: give at least"):
        setting.plan(1e6, rate=1e-3)


def test_the_command_at_the_end_of_the_chapter_pays_for_every_inverter_that_it_trains(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (written,) = [prose for cell in cells if "    papermill " in (prose := "".join(cell["source"]))]
    names = re.search(r"architectures:\s*\[([^]]+)\]", written)[1].split(", ")
    compute = float(re.search(r"compute: (\S+),", written)[1])
    budget = InverterBudget(None, compute, rate=1e-3, width=16, batch=16, folder=tmp_path)
    for name in names:
        classifier = chapter.as_classifier(chapter.ARCHITECTURES[name][0](100), name, hours=0.0)
        assert budget.plan(classifier).synchronise >= 1


def test_every_architecture_is_measured_beside_its_twin_on_the_same_images(images, training, tmp_path, monkeypatch):
    classifier = two_convolutions(SIZE)
    classifier.card["hours"] = 0.5
    monkeypatch.setattr(AlikeTraining, "trained", lambda self, name: classifier)
    monkeypatch.setattr(AlikeTraining, "twin", lambda self, name: classifier)
    budget = InverterBudget(Pool(pink_noise(3, SIZE, seed=2)), 4e9, 1e-3, 4, 2, tmp_path)
    test = chapter.Data(images[0][:12].float() / 255, images[1][:12] % 2, tuple("abcdefghijkl"))
    pairs = chapter.measure_pairs(["ResNet"], training, budget, test, 5, [0.5, 1.0])
    trained, twin = pairs["ResNet"]
    assert list(trained.at) == [0.5, 1.0] and trained.blocks == 2 and trained.hours[0] == 0.5
    assert [one.convolutions for one in trained.at.values()] == [1, 2]
    assert len(trained.last.scores.psnr) == 5 and len(trained.right) == 12
    assert page.training_effect(pairs["ResNet"], 1.0, "psnr").value == pytest.approx(0, abs=1e-4)  # one network twice
    assert torch.equal(trained.last.images, twin.last.images)


def result(psnr, found=1.0, n=40):
    """Reconstructions whose PSNR is spread a little around a mean; the mean colour has 10 dB."""
    spread = torch.linspace(-0.2, 0.2, n)
    hits = torch.arange(n) < found * n
    scores = Scores({"psnr": psnr + spread, "perceptual": torch.full((n,), 0.5), "found": hits})
    flat = Scores({"psnr": torch.full((n,), 10.0)})
    other = Scores({"psnr": 8 + spread, "found": torch.zeros(n, dtype=torch.bool)})
    return DepthResult(3, 0.5, 0.0, torch.rand(n, 3, 8, 8), scores, flat, other)


def measured(first, last, found=1.0):
    return Measured(torch.ones(50), {0.5: result(first), 1.0: result(last, found)}, 4, (0.1, 0.2))


@pytest.fixture
def pairs():
    return {"ResNet": (measured(20, 12, 0.5), measured(20, 14)), "ViT": (measured(20, 16), measured(20, 13))}


def test_the_page_says_who_gives_back_most_and_what_training_discards(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "_glue", lambda id, text: None)
    study = notebook.Study("19_trained_alike", "quick", tmp_path / "results", tmp_path / "work")
    for record in (page.record_alike, page.record_alike_answer, page.record_alike_controls, page.record_alike_costs):
        record(study, pairs)
    kept = json.loads((tmp_path / "results" / "19_trained_alike.results.json").read_text())
    assert (kept["best_name"]["text"], kept["worst_name"]["text"]) == ("ViT", "ResNet")
    assert kept["best_gain"]["value"] == pytest.approx(6) and kept["best_less_worst"]["value"] == pytest.approx(4)
    assert kept["training_psnr"]["text"] == "lower for ResNet and higher for ViT"
    assert kept["training_found"]["text"] == "lower for ResNet and not told apart for ViT"
    assert kept["above_words"]["text"] == "ViT and ResNet, 2 of the 2 architectures"
    assert kept["found_control_positive"]["value"] == 100 and kept["found_control_negative"]["value"] == 0
    assert kept["gain_control_negative"]["value"] == pytest.approx(-2)
    assert kept["network_hours"]["value"] == pytest.approx(0.4)
    words = {row: cells["by PSNR, training"] for row, cells in page.training_rows(pairs).items()}
    assert words["ResNet", "100%"] == "discards" and words["ViT", "100%"] == "keeps more"
    assert words["ResNet", "50%"] == "not told apart"
    assert page.alike_rows(pairs)["ViT", "trained"]["over the mean colour, dB"].startswith("+6.00")


def test_trained_and_untrained_networks_are_drawn_on_one_scale(pairs):
    axes = page.alike_chart(pairs).axes
    assert len(axes) == 6 and axes[0].get_ylim() == axes[3].get_ylim()
    rows, captions = page.alike_pictures(pairs, torch.rand(8, 3, 8, 8))
    assert list(rows) == ["original", "ResNet, trained", "ResNet, untrained", "ViT, trained", "ViT, untrained"]
    assert captions["ViT, trained"][0] == "15.8"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((["ResNet"], [1.0], 10, 20), "two or more of ResNet, RepVGG, ConvNeXt, ViT"),
        ((["ResNet", "AlexNet"], [1.0], 10, 20), "not .*AlexNet"),
        ((["ResNet", "ViT"], [0.5], 10, 20), "rising from above 0 to 1"),
        ((["ResNet", "ViT"], [0.0, 1.0], 10, 20), "rising from above 0 to 1"),
        ((["ResNet", "ViT"], [math.nan, 1.0], 10, 20), "rising from above 0 to 1"),
        ((["ResNet", "ViT"], [], 10, 20), "rising from above 0 to 1"),
        ((["ResNet", "ViT"], [1.0], 1, 20), "at least 2 images"),
        ((["ResNet", "ViT"], [1.0], 30, 20), "at least 2 images"),
    ],
)
def test_parameters_that_do_not_fit_together_are_told_before_anything_is_trained(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        chapter.check_alike(*given)
