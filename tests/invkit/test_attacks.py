"""Attacks stay in their ball and find the known optimum; bad input gets a sentence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invkit.attacks import (
    clean_accuracy,
    pgd,
    robust_accuracy,
)
from invkit.network.classifiers import Classifier

EPSILON = 8 / 255


class Linear(nn.Module):
    """Logits that are linear in the image, so that the worst image of a ball is known."""

    def __init__(self, classes=2, size=8):
        super().__init__()
        self.flatten, self.head = nn.Flatten(), nn.Linear(3 * size**2, classes)

    def forward(self, x):
        return self.head(self.flatten(x))


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Classifier(Linear(), "linear", size=8, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def images():
    return torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def labels_of(classifier, images):
    return classifier.logits(images).argmax(1)


# ---- the attack ------------------------------------------------------------------------------------------------------


def test_pgd_stays_in_the_ball_and_in_range_and_raises_the_loss(linear, images):
    images[0], images[1] = 0, 1  # the ball is cut off at the range
    before, labels = images.clone(), labels_of(linear, images)
    attacked = pgd(linear, images, labels, EPSILON, steps=5)
    assert torch.equal(images, before) and not attacked.requires_grad
    assert (attacked - images).abs().max() <= EPSILON + 1e-6
    assert attacked.min() >= 0 and attacked.max() <= 1
    losses = [F.cross_entropy(linear.logits(x), labels, reduction="none") for x in (images, attacked)]
    assert (losses[1] > losses[0]).all()
    assert linear.model.head.weight.grad is None


def test_pgd_in_a_euclidean_ball_follows_the_gradient_to_its_edge(linear, images):
    """With two classes the loss rises along the difference of their rows: the worst image lies there, at the radius."""
    images = 0.4 + 0.2 * images  # so that the range cuts nothing off
    labels = labels_of(linear, images)
    attacked = pgd(linear, images, labels, 0.3, steps=20, step_size=0.3, norm="L2")
    rows = linear.model.head.weight.detach()
    uphill = F.normalize(rows[1 - labels] - rows[labels]).view_as(images)
    torch.testing.assert_close(attacked, images + 0.3 * uphill, atol=2e-3, rtol=0)
    images[0], images[1] = 0, 1
    attacked = pgd(linear, images, labels, 0.3, steps=5, norm="L2")
    assert (attacked - images).flatten(1).norm(dim=1).max() <= 0.3 + 1e-6
    assert attacked.min() >= 0 and attacked.max() <= 1


def test_pgd_finds_the_worst_image_for_a_linear_classifier(linear, images):
    """With two classes the loss rises along the sign of the difference of their rows, wherever one is."""
    images = images.clamp(EPSILON, 1 - EPSILON)
    labels = labels_of(linear, images)
    rows = linear.model.head.weight.view(2, 3, 8, 8)
    worst = images + EPSILON * (rows[1 - labels] - rows[labels]).sign()
    torch.testing.assert_close(pgd(linear, images, labels, EPSILON, steps=4), worst)


def test_pgd_repeats_by_its_seed_alone_and_takes_any_function(linear, images):
    labels = labels_of(linear, images)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = pgd(linear, images, labels, EPSILON, steps=1, step_size=1e-4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, pgd(linear.logits, images, labels, EPSILON, steps=1, step_size=1e-4))
    assert not torch.equal(first, pgd(linear, images, labels, EPSILON, steps=1, step_size=1e-4, seed=1))
    with torch.no_grad():
        assert torch.equal(first, pgd(linear, images, labels, EPSILON, steps=1, step_size=1e-4))


# ---- accuracies ------------------------------------------------------------------------------------------------------


def test_robust_accuracy_of_a_linear_classifier_is_known(linear, images):
    """An image withstands the ball if its margin exceeds epsilon times the L1 norm of the difference of the rows."""
    images = 0.5 + 0.2 * (images - 0.5)
    truth = labels_of(linear, images)
    logits = linear.logits(images)
    margin = (logits[:, 0] - logits[:, 1]).abs()
    epsilon = (margin.median() / (linear.model.head.weight[0] - linear.model.head.weight[1]).abs().sum()).item() / 4
    labels = truth.clone()
    labels[:5] = 1 - labels[:5]  # wrong as they are: never counted as withstanding
    withstands = (margin > margin.median()) & (labels == truth)
    right = robust_accuracy(linear, images, labels, epsilon)
    clear = (margin / margin.median() - 1).abs() > 0.01
    assert 5 < withstands.sum() < 30
    assert torch.equal(right[clear], withstands[clear])
    assert torch.equal(clean_accuracy(linear, images, labels), labels == truth)


def test_foolbox_breaks_no_less_than_our_own_attack_of_as_many_steps():
    """Both are the same algorithm: on a small convolutional network they must agree within a few images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 5))
    classifier = Classifier(network, "small", size=16, std=(0.25,) * 3)
    images = torch.rand(100, 3, 16, 16)
    labels = labels_of(classifier, images)
    epsilon = 1.5 / 255
    ours = labels_of(classifier, pgd(classifier, images, labels, epsilon, steps=20)) == labels
    theirs = robust_accuracy(classifier, images, labels, epsilon, steps=20)
    assert 10 < theirs.sum() < 90
    assert abs(ours.sum() - theirs.sum()) <= 3


def test_images_a_rounding_beyond_the_range_are_those_that_were_clipped(linear, images):
    """foolbox alone would end in an assertion without words."""
    images[0], images[1] = 1, 0
    beyond, labels = images * 1.001 - 0.0005, labels_of(linear, images)
    for measure in (robust_accuracy, pgd):
        found = [measure(linear, given, labels, EPSILON, steps=2) for given in (beyond, beyond.clamp(0, 1))]
        assert torch.equal(*found)
    assert pgd(linear, beyond, labels, EPSILON, steps=2).max() <= 1
    assert torch.equal(*(clean_accuracy(linear, given, labels) for given in (beyond, beyond.clamp(0, 1))))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"epsilon": 0}, ValueError, "above 0 and below 1, such as 8 / 255, not 0"),
        ({"epsilon": 8}, ValueError, "not 8"),
        ({"steps": 0}, ValueError, "steps must be a whole number"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, TypeError, r"\(40,\), not torch.int64 \(3,\)"),
        ({"labels": torch.zeros(40)}, TypeError, "int64"),
        ({"labels": torch.full((40,), 2)}, ValueError, "there are 2 classes"),
        ({"labels": [0] * 40}, TypeError, "list"),
        ({"images": torch.full((40, 3, 8, 8), torch.nan)}, ValueError, "NaN"),
        ({"images": torch.full((40, 3, 8, 8), 255.0)}, ValueError, r"\[0, 1\]"),
    ],
)
def test_an_attack_refuses_bad_input_in_one_sentence(linear, images, change, error, sentence):
    arguments = {"images": images, "labels": torch.zeros(40, dtype=torch.int64), "epsilon": EPSILON, "steps": 2}
    for attack in (pgd, robust_accuracy):
        with pytest.raises(error, match=sentence) as raised:
            attack(linear, **arguments | change)
        assert "\n" not in str(raised.value)


def test_a_classifier_that_is_never_right_withstands_nothing(linear, images):
    labels = 1 - labels_of(linear, images)
    for norm in ("Linf", "L2"):
        assert not robust_accuracy(linear, images, labels, 0.1, steps=2, norm=norm).any()


def test_fewer_images_withstand_a_wider_euclidean_ball(linear, images):
    labels = labels_of(linear, images)
    shares = [robust_accuracy(linear, images, labels, radius, norm="L2").float().mean() for radius in (0.01, 0.5, 2.0)]
    assert shares[0] > shares[1] >= shares[2] and shares[0] > 0.5
    with pytest.raises(ValueError, match="norm is 'Linf' or 'L2', not 'L1'"):
        pgd(linear, images, labels, norm="L1")
    with pytest.raises(ValueError, match="above 0, such as 0.5, not 0.0"):
        pgd(linear, images, labels, 0.0, norm="L2")
