"""Leakage and split computing: on a small network of our own, so that nothing is loaded."""

import math

import pytest
import torch
from torch import nn

from invkit import data, metrics
from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.inverters import load_inverter
from invkit.network.classifiers import Classifier
from study.chapters import leakage, leakage_defences, leakage_page
from study.chapters.leakage import Cost, DefenceOutcome, DefenceTrial, Sources
from study.scores import Scores

SIZE = 16


def network(batch_norm=False):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), norm, nn.ReLU(), head)


@pytest.fixture(scope="module")
def classifier():
    return Classifier(network(), "small", size=SIZE)


@pytest.fixture(scope="module")
def sources(classifier):
    return Sources.draw(classifier, leaves=8, matched=0)


@pytest.fixture(scope="module")
def attacker(classifier, sources):
    return leakage.train_attacker(classifier, sources, width=8, divide=5, synchronise=15, batch=8)


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def outcome(name, correct, psnr, found, tuned_psnr=None, tuned_found=None):
    n = len(psnr)
    as_was = Scores({"psnr": torch.tensor(psnr), "found": torch.tensor(found).float()})
    tuned = Scores({"psnr": torch.tensor(tuned_psnr or psnr), "found": torch.tensor(tuned_found or found).float()})
    return DefenceOutcome(name, 0.5, Cost(torch.tensor(correct), torch.zeros(n)), as_was, tuned, {})


# ---- attackers -------------------------------------------------------------------------------------------------------


def test_images_are_matched_at_the_size_that_the_classifier_takes():
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3)]
    fixed = Classifier(nn.Sequential(*layers), "of one size", size=SIZE)
    assert not leakage.takes_images_of(fixed, 3 * SIZE // 2) and leakage.takes_images_of(fixed, SIZE)
    batches = Sources.draw(fixed, leaves=4, matched=2, steps=1).batches(2)
    assert batches(4, 1).shape == (2, 3, SIZE, SIZE)


def test_sources_give_the_same_images_for_the_same_step(sources):
    batches = sources.batches(3)
    assert batches(5, 1).shape == (3, 3, SIZE, SIZE)
    assert torch.equal(batches(5, 1), batches(5, 2)) and not torch.equal(batches(5, 1), batches(6, 1))


def test_every_fourth_batch_is_matched_where_the_network_has_batch_norm():
    classifier = Classifier(network(batch_norm=True), "normed", size=SIZE)
    sources = Sources.draw(classifier, leaves=4, matched=4, steps=2)
    first, second = (sources.batches(2)(step, 1) for step in (4, 5))
    assert torch.equal(first, sources.matched.batch(4, 2, SIZE))
    assert torch.equal(second, sources.leaves.batch(5, 2, SIZE))


def test_the_attacker_inverts_every_depth_and_the_logits(classifier, attacker, images):
    assert attacker.depths == [1, 2, 3]
    for depth in attacker.depths:
        found = leakage.images_of(attacker.chain, leakage.send(classifier, images, depth), depth)
        assert torch.allclose(found, attacker.reconstruct(images, depth), atol=1e-5)


def test_inverters_of_another_network_are_refused(classifier, attacker):
    leakage.check_same(classifier, attacker)
    with pytest.raises(ValueError, match="inverters of one classifier"):
        leakage.check_same(Classifier(network(), "other", size=SIZE), attacker)


def test_images_are_resized_only_where_they_must_be(images):
    assert leakage.resized(images, SIZE) is images
    assert torch.allclose(leakage.resized(images[:, :, :1, :1].expand_as(images), 8), images[:, :, :1, :1], atol=1e-6)


def test_optimisation_starts_from_what_was_sent(classifier, images):
    short, long = (leakage.optimise_from_features(classifier, images[:2], 1, steps) for steps in (1, 30))
    sent, first, last = (leakage.send(classifier, x, 1) for x in (images[:2], short.images, long.images))
    assert (last - sent).norm() < 0.5 * (first - sent).norm()
    assert long.seconds > 0


# ---- split computing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_device_and_cloud_together_are_the_classifier(classifier, images, depth):
    sent = leakage.send(classifier, images, depth, batch=4)
    assert torch.allclose(leakage.cloud_logits(classifier, sent, depth, batch=4), classifier.logits(images), atol=1e-5)


def test_divergence_is_that_of_known_distributions():
    half, quarter = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])  # (1/2, 1/2) and (1/4, 3/4)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert leakage.divergence(half, quarter).item() == pytest.approx(expected, abs=1e-6)
    assert leakage.divergence(quarter, quarter + 7).item() == pytest.approx(0, abs=1e-9)


def test_no_defence_costs_nothing_and_noise_costs(classifier, images, sources):
    sent, labels = leakage.send(classifier, images, 2), classifier.logits(images).argmax(1)
    statistics = leakage.channel_statistics(classifier, sources, 2)
    free = leakage.cost(classifier, sent, labels, 2, leakage_defences.none())
    paid = leakage.cost(classifier, sent, labels, 2, leakage_defences.noise(3.0, statistics))
    assert free.correct.all() and (free.divergence == 0).all()
    assert (paid.divergence > 0).all()
    with pytest.raises(ValueError, match="labelled data"):
        leakage.cost(classifier, sent, labels - 9, 2, leakage_defences.none())


def test_statistics_of_a_depth_are_of_its_channels(classifier, sources):
    assert [len(leakage.channel_statistics(classifier, sources, depth, 2, 4).mean) for depth in (1, 2, 3)] == [6, 8, 4]


def test_tuning_adapts_a_copy_to_the_defence(attacker, sources):
    before = {name: value.clone() for name, value in attacker.chain.state_dict().items()}
    statistics = leakage.channel_statistics(attacker.classifier, sources, 2)
    defend = leakage_defences.prune(0.5, statistics)
    tuned = leakage.tune(attacker, 2, defend, sources, steps=30, rate=5e-3)
    assert all(torch.equal(value, before[name]) for name, value in attacker.chain.state_dict().items())
    assert len(tuned.inverses) == 2
    unseen = sources.batches(32)(3 * leakage.TUNING + 1, 2)
    sent = leakage.defended(defend, leakage.send(attacker.classifier, unseen, 2))
    as_was, adapted = (leakage.images_of(chain, sent, 2) for chain in (attacker.chain, tuned))
    assert metrics.psnr(adapted, unseen).mean() > metrics.psnr(as_was, unseen).mean()


def test_tuning_again_gives_the_same_chain(attacker, sources):
    statistics = leakage.channel_statistics(attacker.classifier, sources, 1)
    noise = leakage_defences.noise(1.0, statistics)
    one, two = (leakage.tune(attacker, 1, noise, sources, steps=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_trial_measures_cost_and_both_attackers(classifier, attacker, sources, images):
    labels = classifier.logits(images).argmax(1)
    sent = leakage.send(classifier, images, 2)
    trial = DefenceTrial(attacker, sources, 2, sent, labels, images, 4, {"steps": 2, "batch": 4}, shown=3)
    result = trial.run("noise", 0.5)
    assert result.label == "noise, 0.5 s.d." and len(result.cost.correct) == 6
    assert len(result.as_was.psnr) == len(result.tuned.psnr) == 4
    assert {name: len(shown) for name, shown in result.reconstructions.items()} == {"as was": 3, "tuned": 3}
    assert torch.equal(result.as_was.psnr, trial.run("noise", 0.5).as_was.psnr)


class Tokens(nn.Module):
    """Patches, each with its place; class first, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.patch, self.first = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first + 0 * tokens[:, :1], tokens], 1)
        return self.head((tokens + self.mix(self.norm(tokens)).tanh()).mean(1))


def test_tokens_are_sent_and_defended_channel_by_channel(images):
    torch.manual_seed(0)
    classifier = Classifier(Tokens(), "tokens", size=SIZE)
    assert [block.shape for block in classifier.blocks[:2]] == [(8, 4, 4), (17, 8)]
    sources = Sources.draw(classifier, leaves=8, matched=0)
    attacker = leakage.train_attacker(classifier, sources, width=8, divide=2, synchronise=3, batch=8)
    sent, labels = leakage.send(classifier, images, 2), classifier.logits(images).argmax(1)
    assert sent.shape == (6, 8, 5, 4)
    torch.testing.assert_close(leakage.cloud_logits(classifier, sent, 2), classifier.logits(images))
    assert len(leakage.channel_statistics(classifier, sources, 2, 2, 4).mean) == 8
    again = leakage.images_of(attacker.chain, sent, 2)
    torch.testing.assert_close(again, attacker.reconstruct(images, 2), atol=1e-5, rtol=0)
    assert leakage.optimise_from_features(classifier, images[:2], 2, steps=2).images.shape == (2, 3, SIZE, SIZE)
    trial = DefenceTrial(attacker, sources, 2, sent, labels, images, 4, {"steps": 2, "batch": 4})
    for name, strength in {"none": 0.0, "noise": 0.5, "quantisation": 2, "dropout": 0.1, "pruning": 0.25}.items():
        assert len(trial.run(name, strength).tuned.psnr) == 4


# ---- judging ---------------------------------------------------------------------------------------------------------


def test_what_leaks_is_what_the_better_of_both_attackers_reconstructs():
    result = outcome("noise", [1.0] * 2, [10.0, 10.0], [True, True], [11.0, 12.0], [False, True])
    assert result.leaked("psnr").tolist() == [11.0, 12.0]  # tuned
    assert result.leaked("found").tolist() == [1.0, 1.0]  # as it was


def test_the_strongest_setting_within_the_price_is_chosen_by_its_price_alone():
    plain = outcome("none", [1.0] * 100, [20.0, 21.0] * 50, [True] * 100)
    mild = outcome("noise", [1.0] * 100, [20.0, 21.0] * 50, [True] * 100)
    middle = outcome("noise", [1.0] * 99 + [0.0], [12.0, 13.0] * 50, [True] * 80 + [False] * 20)
    strong = outcome("noise", [0.0] * 60 + [1.0] * 40, [9.0, 9.0] * 50, [False] * 100)
    choice = leakage.strongest_tolerated([mild, middle, strong], plain, tolerated=0.05)
    assert choice.outcome is middle and choice.verdict == "fewer found"
    assert choice.lost.value == pytest.approx(0.01) and choice.psnr.value == -8 and choice.found.value < 0
    assert leakage.strongest_tolerated([strong, mild], plain, tolerated=0.05) is None
    assert leakage.strongest_tolerated([mild], plain, tolerated=0.05).verdict == "no protection seen"


def test_a_blurred_image_that_is_found_is_not_hidden():
    plain = outcome("none", [1.0] * 4, [20.0, 21.0] * 2, [True] * 4)
    blurred = outcome("noise", [1.0] * 4, [15.0, 16.0] * 2, [True] * 4)
    assert leakage.strongest_tolerated([blurred], plain, 0.5).verdict == "only blurred"


def test_what_tuning_wins_back_leaves_out_what_longer_training_gains():
    plain = outcome("none", [1.0] * 3, [10.0] * 3, [True] * 3, [11.0] * 3)
    noise = outcome("noise", [1.0] * 3, [5.0] * 3, [True] * 3, [9.0] * 3)
    assert leakage.won_back([noise, noise], plain).value == 3


def test_words_gather_the_depths():
    words = {"depth 1": "better", "depth 2": "worse", "the logits": "better"}
    assert leakage.places_by_word(words) == "better at depth 1 and the logits; worse at depth 2"
    many = [f"depth {depth}" for depth in (1, 2, 3, 5, 7, 8)]
    assert leakage.places_in_words(many) == "depths 1 to 3, 5, 7 and 8"
    assert leakage.places_in_words(["the logits"]) == "the logits"
    assert leakage.listed(["a", "b", "c"]) == "a, b and c"


def test_the_chart_has_a_panel_for_each_depth_and_measure(classifier, attacker, sources, images):
    labels = classifier.logits(images).argmax(1)
    trial = DefenceTrial(
        attacker, sources, 1, leakage.send(classifier, images, 1), labels, images, 6, {"steps": 1, "batch": 2}
    )
    results = [trial.run("none", 0), trial.run("noise", 0.5), trial.run("quantisation", 2)]
    figure = leakage_page.trade_off(
        {"depth 1": results, "again": results}, {"psnr": {"mean image": 11.0}, "found": {"chance": 0.1}}
    )
    axes = figure.axes
    assert len(axes) == 4 and axes[0].get_title() == "depth 1" and "wrong classes" in axes[-1].get_xlabel()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["noise", "quantisation", "no defence", "mean image", "chance"]


def test_an_inverter_that_knows_only_maps_inverts_what_it_knows(classifier, images):
    shapes = [(3, SIZE, SIZE), *(tuple(block.shape) for block in classifier.blocks[:2])]
    maps = ClassifierInverter(Chain(shapes, [(8, 1), (8, 1)]), classifier, {"size": SIZE})
    assert maps.depths == [1, 2]
    assert leakage.images_of(maps.chain, leakage.send(classifier, images, 2), 2).shape == images.shape


def test_the_floors_are_made_without_inverting():
    fed, known = load_inverter("ffi-glyphs-standard"), data.load("glyphs", "inverter", n=200).images
    images = data.load("glyphs", "test", n=5).images
    found = leakage.floors(fed, known, images)
    assert set(found) == {"mean image", "class mean", "ridge", "nearest", "own mean colour"}
    assert all(made.shape == images.shape for made in found.values())
    assert torch.allclose(found["mean image"][0], known.mean(0), atol=1e-5)
    assert torch.allclose(found["own mean colour"].mean((2, 3)), images.mean((2, 3)), atol=1e-5)
