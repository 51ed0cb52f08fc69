"""Small classifiers learn, robust ones withstand more and resume exactly; bad input gets a sentence."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from invkit.attacks import clean_accuracy, pgd, robust_accuracy
from invkit.network.classifiers import Classifier, load_classifier
from invkit.training import CHECKPOINT
from recipes import adversarial_training
from recipes.adversarial_training import overfits, train_classifier

EPSILON = 8 / 255


def stripes(step, n=32, contrast=0.5):
    """Four classes: which quarter of the image is brighter."""
    g = torch.Generator().manual_seed(step)
    labels = torch.randint(4, (n,), generator=g)
    images = 0.3 + 0.1 * torch.rand(n, 3, 32, 32, generator=g)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8 * label : 8 * label + 8] += contrast
    return (images * 255).round().byte(), labels


TINY = {"classes": 4, "size": 32, "options": {"widths": [8, 8], "blocks": [1, 1]}, "progress": False, "ema": 0.9}


@pytest.fixture(scope="module")
def standard():
    return train_classifier("residual", stripes, steps=30, **TINY)


def test_a_standard_classifier_learns_and_is_kept(standard, tmp_path):
    images, labels = stripes(10**6)
    assert clean_accuracy(standard, images.float() / 255, labels).float().mean() >= 0.9
    standard.card["accuracy"] = {"clean": 1.0}
    card = standard.save(tmp_path / "mine")
    again = load_classifier(tmp_path / "mine")
    assert again.card == card and (card["steps"], card["epsilon"], card["alarms"]) == (30, 0, None)
    difference = again.logits(images.float() / 255) - standard.logits(images.float() / 255)
    assert difference.abs().max() < 0.02  # half precision


@pytest.mark.parametrize("attack", ["fast", "pgd"])
def test_robust_training_withstands_more(standard, attack):
    images, labels = stripes(10**6, 64)
    images = images.float() / 255
    robust = train_classifier(
        "residual", stripes, steps=30, epsilon=0.05, attack=attack, attack_steps=3, start=standard, **TINY
    )
    right = [robust_accuracy(c, images, labels, 0.05).float().mean() for c in (standard, robust)]
    assert right[1] >= right[0] + 0.2
    assert robust.card["attack"] == attack and robust.card["alarms"] >= 0


def test_robust_training_resumes_exactly(standard, tmp_path, monkeypatch):
    """Also in the steps after an alarm, which depend on a step before the interruption."""
    monkeypatch.setattr(adversarial_training, "CHECK_EVERY", 4)
    monkeypatch.setattr(adversarial_training, "overfits", lambda **_: True)
    settings = TINY | {"steps": 11, "epsilon": EPSILON, "start": standard}

    def interrupted(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return stripes(step)

    with pytest.raises(SystemExit, match="the same call goes on"):
        train_classifier("residual", interrupted, folder=tmp_path / "stopped", **settings)
    runs = [train_classifier("residual", stripes, folder=tmp_path / name, **settings) for name in ("stopped", "whole")]
    one, other = (load_file(tmp_path / name / CHECKPOINT) for name in ("stopped", "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert runs[0].card["alarms"] == runs[1].card["alarms"] == 3  # in steps 0, 4 and 8


def test_catastrophic_overfitting_is_seen_and_mended(standard, monkeypatch):
    """Whoever withstands the single step but not PGD is trained on PGD images until the next look."""
    assert overfits(0.9, 0.1) and not overfits(0.9, 0.6)
    assert not overfits(0.1, 0.0)  # nothing is withstood yet: that is no overfitting
    monkeypatch.setattr(adversarial_training, "CHECK_EVERY", 3)
    taken = []

    def counted(classifier, images, labels, epsilon, steps, *rest, **options):
        taken.append(steps)
        return pgd(classifier, images, labels, epsilon, steps, *rest, **options)

    monkeypatch.setattr(adversarial_training, "pgd", counted)
    answers = iter([True, False, False])
    monkeypatch.setattr(adversarial_training, "overfits", lambda **_: next(answers))
    robust = train_classifier("residual", stripes, steps=8, epsilon=EPSILON, start=standard, **TINY)
    look, mend = adversarial_training.CHECK_STEPS, adversarial_training.MENDING_STEPS
    assert taken == [1, look, mend, mend, 1, look, 1, 1, 1, look, 1]
    assert robust.card["alarms"] == 1


def test_a_run_stops_at_the_accuracy_asked_for(monkeypatch):
    monkeypatch.setattr(adversarial_training, "STOP_EVERY", 2)
    images, labels = stripes(10**6, 64)
    early = train_classifier("residual", stripes, steps=40, stop_at=(images, labels, 0.6), **TINY)
    assert 0 < early.card["steps"] < 40 and early.card["stopped_at"] >= 0.6
    reached = clean_accuracy(early, images.float() / 255, labels).float().mean()
    assert reached == pytest.approx(early.card["stopped_at"], abs=0.02)
    with pytest.raises(ValueError, match="2 steps ended at an accuracy of .*, not 1.000: give more steps"):
        train_classifier("residual", stripes, steps=2, stop_at=(images, labels, 1.0), **TINY)


def test_a_run_that_has_stopped_repeats_no_step(monkeypatch, tmp_path):
    monkeypatch.setattr(adversarial_training, "STOP_EVERY", 2)
    images, labels = stripes(10**6, 64)
    settings = {"steps": 40, "stop_at": (images, labels, 0.6), "folder": tmp_path} | TINY
    once = train_classifier("residual", stripes, **settings)
    kept = (tmp_path / "checkpoint.safetensors").read_bytes()
    again = train_classifier("residual", stripes, **settings)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept  # so no step was taken after it
    assert again.card == once.card and once.card["hours"] >= 0
    for name, tensor in once.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def always(images, labels):
    return lambda step: (images, labels)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"attack": "fgsm"}, ValueError, "'fast' or 'pgd'"),
        ({"epsilon": 8}, ValueError, "below 1"),
        ({"classes": 1}, ValueError, "at least 2 classes"),
        ({"classes": 3}, ValueError, "there are 3 classes"),
        ({"size": 64}, ValueError, "32x32 pixels, the network takes 64x64"),
        ({"batches": always(torch.rand(2, 1, 32, 32), torch.zeros(2).long())}, ValueError, "shape"),
        ({"batches": always(torch.rand(2, 3, 32, 32) * 9, torch.zeros(2).long())}, ValueError, r"\[0, 1\]"),
        ({"batches": always(torch.zeros(2, 3, 32, 32).long(), torch.zeros(2).long())}, TypeError, "uint8"),
        ({"batches": always(torch.rand(2, 3, 32, 32), torch.zeros(2))}, TypeError, "int64"),
        ({"steps": 0}, ValueError, "steps must be"),
    ],
)
def test_training_refuses_bad_input_before_it_begins(tmp_path, change, error, sentence):
    settings = {"batches": stripes, "steps": 2, "folder": tmp_path / "run"} | TINY | change
    with pytest.raises(error, match=sentence) as raised:
        train_classifier("residual", **settings)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def test_a_start_must_be_the_same_network():
    linear = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "linear", size=8)
    with pytest.raises(ValueError, match="linear is no residual network") as raised:
        train_classifier("residual", stripes, steps=2, start=linear, **TINY)
    assert "\n" not in str(raised.value)
