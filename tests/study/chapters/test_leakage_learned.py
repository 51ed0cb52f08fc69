"""The learned defence: distance correlation is what it should be, and its term makes features tell less."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import two_convolutions
from scipy.spatial.distance import cdist

from study.chapters import leakage, leakage_defences
from study.chapters.leakage import DefenceOutcome, DefenceTrial, Sources
from study.chapters.leakage_learned import Hiding, distance_correlation, run_learned, train_anew, train_hiding
from study.scores import Scores

SIZE = 16


@pytest.fixture(scope="module")
def classifier():
    return two_convolutions(SIZE)


@pytest.fixture(scope="module")
def known(classifier):
    g = torch.Generator().manual_seed(0)
    images = (255 * torch.rand(96, 3, SIZE, SIZE, generator=g) ** torch.rand(96, 1, 1, 1, generator=g).mul(4)).byte()
    return images, classifier.logits(images.float() / 255).argmax(1)


def test_distance_correlation_is_the_definition_and_knows_dependence():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 3, 2, generator=g), torch.randn(50, 4, generator=g)

    def centred(rows):
        d = cdist(*[rows.flatten(1).numpy()] * 2)
        return d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()

    x, y = centred(a), centred(b)
    definition = (x * y).mean() / np.sqrt((x * x).mean() * (y * y).mean())
    assert distance_correlation(a, b).item() == pytest.approx(definition, abs=1e-4)
    assert distance_correlation(a, 3 - 2 * a).item() == pytest.approx(1, abs=1e-5)
    line = torch.linspace(-1, 1, 200)[:, None]  # of which the square has no linear correlation with it
    assert distance_correlation(line, line**2) > 2 * distance_correlation(line, line[torch.randperm(200, generator=g)])
    constant = torch.ones(50, 4, requires_grad=True)
    distance_correlation(a, constant).backward()
    assert constant.grad.isfinite().all()


def test_the_term_lowers_the_correlation_and_leaves_the_classifier_alone(classifier, known):
    images, labels = known
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    seen = images.float() / 255
    told = {}
    for weight in (0, 30):
        hiding = train_hiding(classifier, images, labels, 1, weight, steps=60)
        assert not any(parameter.requires_grad for parameter in hiding.model.parameters())
        told[weight] = distance_correlation(seen, hiding.features(seen, 1)).item()
    assert told[30] < told[0] - 0.02
    assert all(torch.equal(before[name], value) for name, value in classifier.model.state_dict().items())
    with pytest.raises(ValueError, match="0 or more"):
        train_hiding(classifier, images, labels, 1, -1, steps=1)


def test_the_attacker_is_tuned_to_the_new_network_and_keeps_its_own(classifier, known):
    images, labels = known
    sources = Sources.draw(classifier, leaves=8, matched=0)
    attacker = leakage.train_attacker(classifier, sources, width=4, divide=2, synchronise=3, batch=4)
    test = images[:8].float() / 255
    sent = leakage.send(classifier, test, 1)
    trial = DefenceTrial(attacker, sources, 1, sent, labels[:8], test, 4, {"steps": 1, "batch": 2}, shown=3)
    hiding = Hiding(images, labels, False, 3, {"steps": 2, "batch": 2}, anew=(2, 4))
    result = run_learned(trial, hiding, 10.0)
    assert result.label == "NoPeek, w = 10" == leakage_defences.setting_label("NoPeek", 10)
    assert len(result.cost.correct) == 8 and len(result.tuned.psnr) == 4 and len(result.reconstructions["tuned"]) == 3
    assert not torch.equal(result.as_was.psnr, result.tuned.psnr)
    assert attacker.classifier is classifier
    again = run_learned(trial, hiding, 10.0)
    assert torch.equal(result.tuned.psnr, again.tuned.psnr) and torch.equal(result.anew.psnr, again.anew.psnr)
    assert not torch.equal(result.anew.psnr, result.tuned.psnr) and len(result.reconstructions["anew"]) == 3


def test_an_attacker_trained_anew_knows_the_new_network_alone(classifier):
    sources = Sources.draw(classifier, leaves=8, matched=0)
    images = sources.leaves.batch(999, 8, SIZE)
    sent = leakage.send(classifier, images, 1)

    def error(steps):
        chain = train_anew(classifier, 1, sources, [(4, 1), (4, 1)], steps)
        return (leakage.images_of(chain, sent, 1) - images).square().mean().item()

    assert error((20, 60)) < 0.8 * error((1, 1))


def test_the_best_attacker_counts():
    def scores(psnr):
        return Scores({"psnr": torch.full((4,), psnr), "found": torch.zeros(4)})

    outcome = partial(DefenceOutcome, "NoPeek", 1.0, None, scores(10.0), scores(12.0), {})
    assert outcome().leaked("psnr").mean() == 12
    assert outcome(anew=scores(14.0)).leaked("psnr").mean() == 14 and outcome(anew=scores(5.0)).leaked("psnr")[0] == 12


def test_it_is_trained_on_images_of_the_split_for_training():
    learned = {"images": 12, "steps": 3, "tune_steps": 2, "anew": [1, 4]}
    hiding = Hiding.of("glyphs", SIZE, learned, "no", seed=1)
    assert hiding.images.shape == (12, 3, SIZE, SIZE) and hiding.images.dtype == torch.uint8
    assert hiding.labels.shape == (12,) and not hiding.augment and hiding.tuning == {"steps": 2, "precision": "no"}
    assert hiding.steps == 3 and hiding.anew == (1, 4) and hiding.precision == "no"
    with pytest.raises(ValueError, match="it lacks anew, tune_steps"):
        Hiding.of("glyphs", SIZE, {"images": 12, "steps": 3}, "no", seed=1)
