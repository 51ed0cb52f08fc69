"""Baselines and depths of chapter 7, on a small network of our own, so that nothing is loaded."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from invkit.dci.invert import invert_classifier
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import zero_shot_inversion

SIZE = 32


@pytest.fixture(scope="module")
def classifier():
    """Two convolutions, 3 -> 6 channels and 6 -> 8, each at half the resolution of its input."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return Classifier(model.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(8, 4)), "small", SIZE)


class Inverter:
    """Inverts the first blocks of a network with so many convolutions behind each."""

    def __init__(self, *convolutions):
        self.depths = list(range(1, len(convolutions) + 1))
        blocks = [SimpleNamespace(convolutions=count, depth=depth) for depth, count in enumerate(convolutions, 1)]
        self.classifier = SimpleNamespace(blocks=blocks, name="small")


LITE0 = Inverter(*(1, *range(3, 49, 3), 49))


def test_the_text_speaks_of_the_depths_that_it_names_where_the_network_has_them():
    assert list(zero_shot_inversion.headline_depths(LITE0).items())[:2] == [(3, 2), (9, 4)]
    assert tuple(zero_shot_inversion.headline_depths(LITE0)) == zero_shot_inversion.HEADLINE


@pytest.mark.parametrize(
    ("convolutions", "depths"),
    [
        ((1, 2, 3, 4), {1: 1, 2: 2, 3: 3, 4: 4}),
        ((2,), {2: 1}),
        ((1, 3, 3, 5), {1: 1, 3: 3, 5: 4}),  # a block without convolutions is no other place
        ((2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22), {2: 1, 6: 3, 10: 5, 14: 7, 18: 9, 22: 11}),
        ((1, 1, 1, 1), {1: 1, 2: 2, 3: 3, 4: 4}),  # of a transformer, blocks are counted
    ],
)
def test_other_networks_are_spoken_of_at_depths_that_they_have(convolutions, depths):
    assert zero_shot_inversion.headline_depths(Inverter(*convolutions)) == depths


def test_convolutions_that_a_network_does_not_have_are_replaced_by_the_nearest_once():
    assert zero_shot_inversion.depths_near(LITE0, [9, 24]) == {9: 4, 24: 9}
    assert zero_shot_inversion.depths_near(Inverter(2, 4), [9, 24]) == {4: 2}
    assert zero_shot_inversion.depths_near(Inverter(12, 20), [9, 24]) == {12: 1, 20: 2}
    assert zero_shot_inversion.unit_of(Inverter(1, 1, 1)) == "blocks"


def test_photos_of_the_first_figure_are_the_free_ones_or_those_measured():
    photos = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    shown, words = zero_shot_inversion.pictured_photos("photos", photos)
    assert list(shown) == ["photo 1", "photo 2", "photo 3", "photo 4"] and torch.equal(shown["photo 2"], photos[1])
    assert "that this page measures" in words
    shown, words = zero_shot_inversion.pictured_photos("free", photos)
    assert list(shown) == list(zero_shot_inversion.FREE) and shown["cat"].shape == (3, SIZE, SIZE)
    assert "free pictures" in words
    with pytest.raises(ValueError, match="'free' or 'photos', not 'folder:mine'"):
        zero_shot_inversion.pictured_photos("folder:mine", photos)


@pytest.mark.parametrize(
    ("network", "pretrained", "words"),
    [
        ("torchvision:resnet18", False, "torchvision:resnet18 with random weights"),
        ("tiny-standard", True, "tiny-standard with pretrained weights"),
        ("mine:factory", False, "mine:factory with the weights that its factory gives it"),
    ],
)
def test_weights_are_called_random_only_where_they_are(network, pretrained, words):
    assert zero_shot_inversion.weights_words(network, pretrained) == words


def test_what_a_search_changes_is_said_of_every_depth():
    gains = {4: Interval(0.5, -0.25, 1.0, 9), 8: Interval(-2.0, -3.0, -1.0, 9)}
    first, second = zero_shot_inversion.search_words(gains, "blocks").split(" After ")
    assert first == "After 4 blocks the search changes the mean PSNR by +0.5 dB (95 % interval -0.25 to 1 dB)."
    assert second.startswith("8 blocks the search changes the mean PSNR by -2 dB")


def test_numbers_per_number_counts_both_sides(classifier):
    assert zero_shot_inversion.relative_size(classifier, 1) == pytest.approx(6 * 16 * 16 / (3 * 32 * 32))


def test_another_seed_is_compared_with_the_first_at_each_resolution(classifier):
    """The control of the live training: what a second training of the same network changes."""
    recorded, images, plan = {}, torch.rand(6, 3, SIZE, SIZE), (4, 6, 2)
    study = SimpleNamespace(record=lambda id, value, **_: recorded.update({id: value}))
    pool = (255 * torch.rand(4, 3, 2 * SIZE, 2 * SIZE)).byte()
    live = {"first": invert_classifier(classifier, pool, seed=0, **zero_shot_inversion.live_plan(classifier, *plan))}
    zero_shot_inversion.record_live_control(study, live, images, pool, 0, *plan)
    assert [gain.value for gain in recorded.values()] == [0, 0]  # the same seed changes nothing
    recorded.clear()
    zero_shot_inversion.record_live_control(study, live, images, pool, 1, *plan)
    assert set(recorded) == {"live_gain_seed_2", "live_gain_seed_4"} and all(gain.value for gain in recorded.values())
