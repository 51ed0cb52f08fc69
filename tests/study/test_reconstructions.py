"""Reconstructions under several noise vectors and from every depth, by inverters whose answer is known."""

import math

import pytest
import torch
from torch import nn

from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter
from invkit.network.classifiers import Classifier
from study import reconstructions as study

SIDE = 32


def flat(colours):
    """(N, 3) -> images of one colour each."""
    return colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()


class FakeInverter:
    """Paints the first three logits, plus noise; as an inverter does, without a network."""

    def __init__(self, noise_dim=3):
        self.noise_dim = noise_dim

    def sample_noise(self, n, seed=0):
        return torch.randn(n, self.noise_dim, generator=torch.Generator().manual_seed(seed))

    def represent(self, images):
        return 4 * images.mean((2, 3)) - 2

    def invert(self, logits, noise=None):
        colours = (logits[:, :3] + 2) / 4
        moved = 0.1 * noise if self.noise_dim and noise is not None else 0
        return flat((colours + moved).clamp(0, 1))


# ---- from logits


def test_the_mean_over_noises_is_nearer_than_a_sample():
    inverter, images = FakeInverter(), flat(0.3 + 0.4 * torch.rand(40, 3, generator=torch.Generator().manual_seed(1)))
    logits = study.represent_all(inverter, images, batch=7)
    assert torch.equal(logits, inverter.represent(images))
    reconstruction = study.reconstruct(inverter, logits, samples=64, batch=9)
    errors = [(r - images).square().mean().item() for r in (reconstruction.sample, reconstruction.mean)]
    assert errors[0] == pytest.approx(0.01, rel=0.3) and errors[1] < errors[0] / 20
    assert torch.equal(study.reconstruct(inverter, logits, samples=2, batch=40).sample, reconstruction.sample)
    assert not torch.equal(study.reconstruct(inverter, logits, samples=2, seed=1).sample, reconstruction.sample)


def test_without_noise_all_samples_are_one():
    inverter = FakeInverter(noise_dim=0)
    reconstruction = study.reconstruct(inverter, torch.zeros(4, 6), samples=16)
    assert torch.equal(reconstruction.mean, reconstruction.sample)
    with pytest.raises(ValueError, match="at least 0"):
        study.reconstruct(inverter, torch.zeros(4, 6), samples=-1)


def test_the_best_guess_can_be_the_inversion_without_noise():
    inverter, logits = FakeInverter(), torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    reconstruction = study.reconstruct(inverter, logits, samples=0, batch=2)
    assert torch.equal(reconstruction.mean, inverter.invert(logits))
    assert torch.equal(reconstruction.sample, study.reconstruct(inverter, logits, samples=3).sample)


# ---- from every depth


@pytest.fixture(scope="module")
def inverter():
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), head)
    classifier = Classifier(model, "small", size=SIDE)
    shapes = [(3, SIDE, SIDE), *(tuple(block.shape) for block in classifier.blocks[:2])]
    chain = Chain(shapes, [(8, 1), (8, 1)])
    return ClassifierInverter(chain, classifier, {"size": SIDE})


@pytest.fixture(scope="module")
def photos():
    return torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_every_depth_is_reconstructed_as_the_inverter_does_whatever_the_batch(inverter, photos):
    found = study.reconstruct_every_depth(inverter, photos, batch=2)
    assert list(found) == [1, 2]
    for depth, timed in found.items():
        assert torch.allclose(timed.images, inverter.reconstruct(photos, depth), atol=1e-5)
        assert 0 < timed.seconds < 10


def test_only_the_depths_given_are_reconstructed(inverter, photos):
    assert list(study.reconstruct_every_depth(inverter, photos, depths=[2])) == [2]


def test_photos_of_another_size_are_refused(inverter):
    with pytest.raises(ValueError, match="32 pixels"):
        study.reconstruct_every_depth(inverter, torch.rand(2, 3, 40, 40))


def test_training_pays_for_itself_where_it_is_faster():
    assert study.break_even(1, seconds=1, rival_seconds=37) == 100
    assert study.break_even(1, seconds=2, rival_seconds=2) == math.inf


def test_inverters_without_weights_are_left_out_and_named(monkeypatch):
    monkeypatch.setattr(study.store, "exists", lambda name: name == "shipped")
    monkeypatch.setattr(study, "load_inverter", lambda name, trust: nn.Identity())
    found, sentence = study.load_available(
        {"standard": "shipped", "plain": "ffi-glyphs-independent-standard"}
    )  # a card alone
    assert list(found) == ["standard"] and sentence.endswith("not shipped: plain.")
    assert study.load_available({"standard": "shipped"})[1] == ""
    with pytest.raises(FileNotFoundError, match="no weights 'runs/mistyped': give a folder"):
        study.load_available({"standard": "shipped", "plain": "runs/mistyped"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ffi-glyphs-robust", "robust"),
        ("glyphs-independent-standard-0", "standard"),
        ("/runs/my-early-12", "early"),
        ("runs/mine", "mine"),
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("mine:factory", "mine:factory"),
    ],
)
def test_a_network_is_called_by_the_last_word_of_its_name(name, kind):
    assert study.kind_of(name) == kind


def test_two_of_one_kind_are_called_by_their_whole_names():
    names = ["runs/ffi-resnet50", "runs/ffi-robust-resnet50"]
    assert study.by_kind(names) == dict(zip(names, names, strict=True))
    assert list(study.by_kind(["ffi-glyphs-standard", "runs/mine-robust"])) == ["standard", "robust"]
