"""Known answers: separable losses, identical ones, variance that is all between or all within classes."""

import pytest
import torch
from torch import nn

from invkit.attacks import clean_accuracy, robust_accuracy
from invkit.data.images import Data
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import classifiers as ls

SPLITS = ("train", "inverter", "test")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_per_image_scalars_of_a_vector_done_by_hand():
    logits = torch.tensor([[3.0, 1.0, -1.0], [0.0, 2.0, 2.0]])
    values = ls.per_image(logits, torch.tensor([0, 0]))
    assert values["largest"].tolist() == [3, 2] and values["margin"].tolist() == [2, 0]
    assert values["right"].tolist() == [True, False]
    torch.testing.assert_close(
        values["spread"], torch.tensor([2.0, 4 / 3]).where(torch.tensor([1, 0]) > 0, (4 / 3) ** 0.5)
    )
    torch.testing.assert_close(values["loss"][0], -logits[0].log_softmax(0)[0])


def test_a_larger_ball_breaks_what_a_smaller_one_breaks():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    classifier = Classifier(network, "linear", size=8)
    images = torch.rand(60, 3, 8, 8)
    labels = classifier.logits(images).argmax(1)
    labels[:6] = (labels[:6] + 1) % 3  # wrong as they are
    state = torch.get_rng_state()
    curve = ls.robustness_curve(classifier, images, labels, [0, 1 / 255, 4 / 255, 16 / 255], steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(curve[0], clean_accuracy(classifier, images, labels)) and curve[0].sum() == 54
    assert torch.equal(curve[2], robust_accuracy(classifier, images, labels, 4 / 255, steps=5))
    assert (curve[1:] <= curve[:-1]).all() and curve[1].sum() > curve[3].sum()
    with pytest.raises(ValueError, match="rising order"):
        ls.robustness_curve(classifier, images, labels, [0.1, 0.0])


def test_membership_knows_the_extremes_and_covers_chance():
    low, high = torch.arange(50.0), torch.arange(50.0) + 100
    assert (ls.membership(low, high).value, ls.membership(high, low).value) == (1, 0)
    assert ls.membership(low, low).value == pytest.approx(0.5)  # ties count half
    chance = [ls.membership(drawn(200, seed=2 * s), drawn(300, seed=2 * s + 1)) for s in range(60)]
    assert sum(found.low <= 0.5 <= found.high for found in chance) >= 52
    assert all(0.08 < found.high - found.low < 0.13 for found in chance)  # 2 * 1.96 * sqrt((1/200 + 1/300) / 12)


def test_within_class_share_has_known_values():
    labels = torch.arange(20).repeat(50)
    centres = 3 * drawn(20, 8)
    assert ls.within_class_share(centres[labels], labels).value == pytest.approx(0, abs=1e-9)
    assert ls.within_class_share(drawn(1000, 8), labels).value == pytest.approx(1, abs=0.03)
    half = ls.within_class_share(centres[labels] + 3 * drawn(1000, 8, seed=1), labels)
    expected = 1 / (1 + (centres - centres.mean(0)).square().mean().item() / 9)
    assert half.low - 0.03 < expected < half.high + 0.03
    few = ls.within_class_share(drawn(40, 8), torch.arange(20).repeat(2))  # two images a class: corrected for that
    assert few.value == pytest.approx(1, abs=0.25)


def test_directions_counts_them():
    assert ls.directions(drawn(5000, 10)) == pytest.approx(10, rel=0.02)
    assert ls.directions(drawn(500, 1) * torch.arange(10.0)) == pytest.approx(1)


def test_neighbour_correlation_of_noise_stripes_and_ramps():
    noise = drawn(4, 3, 64, 64)
    assert ls.neighbour_correlation(noise).abs().max() < 0.03
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert ls.neighbour_correlation(checks).item() == pytest.approx(-1, abs=0.02)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert ls.neighbour_correlation(ramp).item() > 0.95
    blurred = torch.nn.functional.avg_pool2d(noise, 3, 1)  # two pixels beside each other share 6 of their 9
    torch.testing.assert_close(ls.neighbour_correlation(blurred), torch.full((4,), 2 / 3), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ls.per_image(torch.zeros(3), torch.zeros(3).long()), r"\(N, classes\)"),
        (lambda: ls.per_image(torch.full((2, 3), torch.nan), torch.zeros(2).long()), "not finite"),
        (lambda: ls.per_image(torch.zeros(2, 3), torch.zeros(3).long()), "for each of the 2"),
        (lambda: ls.membership(torch.zeros(1), torch.zeros(5)), "at least two losses"),
        (lambda: ls.within_class_share(drawn(3, 4), torch.arange(3)), "No class has two images"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_words_on_shares_and_seeds():
    low, high = Interval(0.3, 0.2, 0.4, 50), Interval(0.6, 0.5, 0.7, 50)
    assert ls.shares_compared(low, high) == "a larger share" and ls.shares_compared(high, low) == "a smaller share"
    assert ls.shares_compared(low, low) == "a share that cannot be told apart"
    rows = {"glyphs-robust-0": {"clean": low, "attacked": low}, "glyphs-robust-1": {"clean": low, "attacked": high}}
    assert "at most 0.0 points as they are, and 30.0 under" in ls.seeds_sentence(rows)
    assert ls.seeds_sentence(dict(list(rows.items())[:1])) == ""


def test_the_splits_of_a_classifier_are_compared():
    splits = {name: Data(torch.rand(20, 3, 4, 4), torch.arange(20) % 2, ("",) * 20) for name in SPLITS}
    logits = {name: 9 * torch.eye(2)[splits[name].labels] if name == "train" else drawn(20, 2) for name in SPLITS}
    rows = ls.split_rows(logits, splits)
    assert rows["train"]["right"].value == 1 and rows["test"]["membership"].low > 0.5
    assert ls.splits_sentence({"one": logits}, splits)[0] == "tells them for one"


def test_a_network_without_a_card_is_a_row_of_what_it_is():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    assert ls.facts(Classifier(model, "mine", 8)) == {"network": "Sequential", "parameters": "16"}
