"""The classifiers' recipes: batches that depend on the step alone, no image of the tests, and one that runs through."""

import pytest
import torch

from invkit import data
from invkit.network.classifiers import load_classifier
from recipes import classifiers, table
from recipes.classifiers import glyph_pool, shuffled_batches


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Accuracies are measured on a few images."""
    monkeypatch.setattr(classifiers, "HELD_OUT", 20)
    monkeypatch.setattr(classifiers, "VALIDATION", 30)


def numbered(n=50, side=16):
    """Images whose every pixel is the image's number."""
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, side, side)
    return images, torch.arange(n)


def test_batches_depend_on_the_step_alone_and_keep_labels_with_images():
    batches = shuffled_batches(*numbered(), batch=20, seed=3, augment=True)
    state = torch.get_rng_state()
    images, labels = batches(7)
    assert torch.equal(torch.get_rng_state(), state)
    assert images.shape == (20, 3, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(images[:, 0, 0, 0].long(), labels)
    again = batches(7)
    assert torch.equal(again[0], images) and not torch.equal(batches(8)[1], labels)
    assert not torch.equal(shuffled_batches(*numbered(), batch=20, seed=4)(7)[1], labels)


def test_augmenting_flips_and_shifts_whole_images():
    ramp = torch.arange(16, dtype=torch.uint8).expand(3, 16, 16)  # brighter to the right
    images, _ = shuffled_batches(ramp[None], torch.zeros(1).long(), batch=200, seed=0, augment=True)(0)
    rows = {tuple(row) for row in images[:, 0, 5].tolist()}
    expected = set()
    for shift in range(-2, 3):
        row = (torch.arange(16) + shift).clamp(0, 15).tolist()
        expected |= {tuple(row), tuple(row[::-1])}
    assert rows == expected
    down, _ = shuffled_batches(ramp.transpose(1, 2)[None], torch.zeros(1).long(), batch=200, seed=0, augment=True)(0)
    assert all(column == sorted(column) for column in down[:, 0, :, 5].tolist())  # never upside down
    assert {column[0] for column in down[:, 0, :, 5].tolist()} == {0, 1, 2}


def test_the_pool_holds_the_training_split():
    images, labels = glyph_pool("glyphs", 20, chunk=8)
    parts = [data.load("glyphs", split="train", n=n, seed=seed) for seed, n in ((0, 8), (1, 8), (2, 4))]
    assert torch.equal(labels, torch.cat([part.labels for part in parts]))
    assert (images.float() / 255 - torch.cat([part.images for part in parts])).abs().max() < 0.5 / 255 + 1e-6


def test_a_recipe_runs_through_and_what_it_keeps_can_be_loaded(tmp_path):
    card = table.train_recipe("glyphs-plain-1", tmp_path / "plain", scale=0.002)
    assert (card["steps"], card["seed"], card["architecture"], card["data"]) == (3, 1, "plain", "glyphs")
    assert set(card["accuracy"]) == {"clean", "pgd20", "validation", "epsilon", "n"} and card["accuracy"]["n"] == 20
    assert load_classifier(tmp_path / "plain").classes == 100


@pytest.mark.parametrize(
    ("name", "needs"), [("robust", "standard"), ("early", "robust"), ("independent-robust", "standard")]
)
def test_what_builds_on_another_classifier_says_which(tmp_path, monkeypatch, name, needs):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=f"no classifier 'glyphs-(independent-)?{needs}-0'"):
        table.train_recipe(f"glyphs-{name}-0", tmp_path / "run", scale=0.002)


def test_every_shipped_classifier_has_its_recipe():
    names = {f"glyphs-{kind}-{seed}" for kind in ("standard", "robust", "early", "plain") for seed in range(3)}
    names |= {"glyphs-independent-standard-0", "glyphs-independent-robust-0", "tiny-standard", "tiny-robust"}
    assert names < set(table.names())
