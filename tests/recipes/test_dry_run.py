"""The dry run: what it counts is what training holds, and all that profiles/imagenet.yaml names is built and steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from invkit.dci.training import Schedule
from invkit.network.classifiers import load_classifier
from recipes import dry_run, imagenet
from recipes.imagenet import PLANS, BlockPlan, LogitPlan
from study import book

ROOT = Path(__file__).parents[2]
THIN = LogitPlan("torchvision:resnet18", size=32, width=4, batch=8, gpus=2)
SHALLOW = BlockPlan("torchvision:resnet18", batch=4, gpus=2, widths=((224, (8, 1)),), schedule=Schedule(1, 1))


@pytest.fixture(scope="module")
def small():
    return load_classifier("torchvision:resnet18", pretrained=False, size=64)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_saved_bytes_counts_each_storage_once():
    x, w = torch.rand(4, 10, requires_grad=True), torch.rand(10, 5, requires_grad=True)
    assert dry_run.saved_bytes(lambda: x.exp()) == 160  # its own output
    assert dry_run.saved_bytes(lambda: (x.exp(), x.exp())) == 320
    assert dry_run.saved_bytes(lambda: (x @ w, x @ w)) == 160 + 200
    assert dry_run.saved_bytes(lambda: (x @ w, x @ w), without=[w]) == 160
    with torch.no_grad():
        assert dry_run.saved_bytes(lambda: x.exp()) == 0


def test_tensors_without_content_are_counted_like_real_ones(small):
    estimated = dry_run.memory(THIN, small)
    networks = imagenet.logit_networks(THIN, 1000)
    pair = torch.rand(4, 3, 32, 32), torch.rand(4, 1000)
    counted = []
    for player in imagenet.logit_players(THIN, *networks, grace=1):
        for network in networks:
            network.train().requires_grad_(network is player.module)
        with torch.autocast("cpu", torch.bfloat16):
            fixed = [tensor for network in networks for tensor in dry_run._tensors(network)]
            counted.append(dry_run.saved_bytes(lambda player=player: player.loss(player.module, pair, 0), fixed))
    assert estimated.activations == pytest.approx(max(counted), rel=0.02)
    numbers = sum(p.numel() for network in networks for p in network.parameters())
    assert estimated.trained == 6 * 4 * numbers
    assert estimated.total == sum(vars(estimated).values())


def test_activations_grow_in_proportion_to_the_batch_and_weights_do_not(small):
    few, some, many = (dry_run.memory(replace(SHALLOW, batch=batch), small) for batch in (8, 16, 24))
    assert many.activations - some.activations == pytest.approx(some.activations - few.activations, rel=0.01)
    assert some.activations > few.activations + 4 * 3 * 4 * 64**2  # at the least, the images themselves
    assert (few.trained, few.frozen) == (many.trained, many.frozen)


# ---- the profile at the papers' scale --------------------------------------------------------------------------------


def test_the_profile_fits_the_notebooks_and_names_recipes_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    networks, names = dry_run.named("imagenet")
    runs = {word for word in dry_run._words(yaml.safe_load(Path("profiles/imagenet.yaml").read_text()))
            if word.startswith("runs/")}  # fmt: skip
    assert {f"runs/{name}" for name in names} == runs and set(names) <= set(PLANS)
    words = " ".join([*networks, *names])
    assert all(word in words for word in ("resnet152", "inception-v3", "robust", "repvgg"))


@pytest.mark.parametrize("name", sorted({plan.classifier for plan in PLANS.values()} - {"timm:inception_v3.tf_in1k"}))
def test_every_network_is_built_and_cut(name):  # the two Inceptions differ in their weights alone
    classifier = dry_run.build(name)
    assert classifier.classes == 1000 and len(classifier.blocks) > 15


def test_block_recipes_fit_a_gpu_and_step():
    plan = PLANS["dci-repvgg-a0"]
    classifier = dry_run.build(plan.classifier)
    assert 1 < dry_run.memory(plan, classifier).total / 2**30 < 40
    assert set(dry_run.step(plan, classifier)) == {"loss"}


def test_logit_recipes_fit_a_gpu_and_step(small):
    plan = PLANS["ffi-resnet152"]
    needed = dry_run.memory(plan, small)
    assert needed.trained == pytest.approx(6 * 4 * (70.43e6 + 87.98e6), rel=1e-3)  # BigGAN's numbers at 128 pixels
    assert 15 < needed.total / 2**30 < 64
    losses = dry_run.step(replace(plan, width=dry_run.THIN), small)  # at full width it takes a minute
    assert set(losses) == {"generator/loss", "discriminator/loss"}


def test_main_prints_a_line_for_all_that_it_tried(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        dry_run, "PLANS", {"thin": THIN, "shallow": replace(SHALLOW, classifier="torchvision:resnet18")}
    )
    monkeypatch.setattr(dry_run, "named", lambda profile: (["torchvision:resnet18"], ["thin", "shallow"]))
    dry_run.main("quick")
    lines = capsys.readouterr().out.splitlines()
    chapters = len(yaml.safe_load((ROOT / "profiles" / "quick.yaml").read_text()))
    assert lines[0] == f"profiles/quick.yaml: {chapters} chapters take its parameters."
    assert lines[1] == "torchvision:resnet18: 11.7 million numbers, 224 pixels, 10 blocks."
    assert lines[2].startswith("thin: ") and "GiB a GPU" in lines[2] and "2 GPUs with 4 images each" in lines[2]
    assert "one step on 2 fake images: generator/loss" in lines[3] and "loss" in lines[5] and len(lines) == 6


def test_a_profile_that_does_not_exist_is_one_sentence(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(book.StudyError, match="no profile 'imagnet'; there are imagenet"):
        dry_run.main("imagnet")
