"""From a classifier to its trained inverter: every objective and kind, quality on unseen images, bad input."""

import math

import pytest
import torch

import invkit
from invkit.data.images import Data
from invkit.ffi.invert import train_inverter

SMALL = {"generator": {"channels": (16, 16, 8), "noise_dim": 12, "hidden": 16, "shared_dim": 16, "coarse": 4}}
SMALL |= {"discriminator": {"channels": (8, 16)}, "progress": False}


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ([1, 2], TypeError, "list"),
        (torch.rand(4, 1, 16, 16), TypeError, r"\(N, 3, S, S\)"),
        (torch.rand(0, 3, 16, 16), TypeError, "at least one"),
        (torch.rand(4, 3, 16, 12), ValueError, "squares"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.int64), TypeError, "uint8"),
        (torch.full((4, 3, 16, 16), 2.0), ValueError, r"\[0, 1\]"),
        (torch.full((4, 3, 16, 16), math.nan), ValueError, "NaN"),
    ],
)
def test_what_are_no_images_gets_a_sentence(classifier, wrong, error, words):
    with pytest.raises(error, match=words):
        train_inverter(classifier, wrong, steps=1)


@pytest.fixture(scope="module")
def inverter(classifier, images):
    data = Data(images[:192], torch.zeros(192, dtype=torch.int64), tuple(map(str, range(192))))
    return train_inverter(classifier, data, steps=60, batch=16, adversarial_share=0.2, seed=1, **SMALL)


def test_it_reads_unseen_images_better_than_their_mean(inverter, images):
    unseen = images[192:]
    mean = images[:192].mean(0, keepdim=True).expand_as(unseen)
    read, floor = (invkit.metrics.psnr(x, unseen).mean() for x in (inverter.reconstruct(unseen), mean))
    assert read > floor + 3
    assert inverter.card["failure"] is None and inverter.card["objective"] == "hybrid"
    assert inverter.card["steps"] == 60 and inverter.card["images"] == 192


@pytest.mark.parametrize(("objective", "kind"), [("adversarial", "probabilities"), ("regression", "one-hot")])
def test_the_other_objectives_and_kinds_train(classifier, images, objective, kind):
    made = train_inverter(classifier, images[:32], steps=3, batch=8, objective=objective, kind=kind, **SMALL)
    assert made.card["objective"] == objective and made.card["kind"] == kind
    z = made.represent(images[:3])
    torch.testing.assert_close(made.invert(z), made.invert(z + 1))  # what neither kind tells
