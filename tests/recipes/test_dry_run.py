"""The dry run: all that profiles/imagenet.yaml names is built, and every recipe takes a step."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from invkit.dci.training import Schedule
from invkit.network.classifiers import load_classifier
from recipes import dry_run, imagenet
from recipes.imagenet import PLANS, BlockPlan, LogitPlan

ROOT = Path(__file__).parents[2]
THIN = LogitPlan("torchvision:resnet18", size=32, width=4, batch=8, gpus=2)
SHALLOW = BlockPlan("torchvision:resnet18", batch=4, gpus=2, widths=((224, (8, 1)),), schedule=Schedule(1, 1))


@pytest.fixture(scope="module")
def small():
    return load_classifier("torchvision:resnet18", pretrained=False, size=64)


def test_the_profile_names_recipes_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    networks, names = dry_run.named("imagenet")
    assert set(names) <= set(PLANS)
    for chapter in yaml.safe_load(Path("profiles/imagenet.yaml").read_text()).values():
        inverters = chapter.get("inverters", [])
        folders = inverters.values() if isinstance(inverters, dict) else inverters
        assert {folder.removeprefix("runs/") for folder in folders} <= set(names)
    words = " ".join([*networks, *names])
    assert all(word in words for word in ("resnet152", "inception-v3", "robust", "repvgg"))


@pytest.mark.parametrize("name", sorted({plan.classifier for plan in PLANS.values()} - {"timm:inception_v3.tf_in1k"}))
def test_every_network_is_built_and_cut(name):  # the two Inceptions differ in their weights alone
    classifier = dry_run.build_random(name)
    assert classifier.classes == 1000 and len(classifier.blocks) > 15


def test_block_recipes_step():
    plan = PLANS["dci-repvgg-a0"]
    dry_run.step(plan, dry_run.build_random(plan.classifier))


def test_logit_recipes_step(small):
    dry_run.step(PLANS["ffi-resnet152"], small)


def test_a_loss_that_is_not_finite_is_an_error(small, monkeypatch):
    monkeypatch.setattr(small, "logits", lambda images: torch.full((len(images), 1000), torch.nan))
    with pytest.raises(FloatingPointError):
        dry_run.step(THIN, small)


def test_main_prints_a_line_for_all_that_it_tried(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        dry_run, "PLANS", {"thin": THIN, "shallow": replace(SHALLOW, classifier="torchvision:resnet18")}
    )
    monkeypatch.setattr(dry_run, "named", lambda profile: (["torchvision:resnet18"], ["thin", "shallow"]))
    dry_run.main("quick")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "torchvision:resnet18: 11.7 million numbers, 224 pixels, 10 blocks."
    networks = imagenet.logit_networks(THIN, 1000)
    g, d = (sum(parameter.numel() for parameter in network.parameters()) / 1e6 for network in networks)
    assert lines[1] == f"thin: generator {g:.1f} million numbers, discriminator {d:.1f} million."
    assert lines[2].startswith("thin: one step on cpu, ") and lines[3].startswith("shallow: one step on cpu, ")
    assert len(lines) == 4


@pytest.mark.parametrize("text", ["a: [1", "\x00", "[" * 3000, "a: &b [*b, *c]", "a: 2026-13-45"])
def test_a_profile_that_is_none_is_one_sentence_or_names_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/odd.yaml").write_text(text)
    try:
        assert dry_run.named("odd") == ([], [])
    except ValueError as error:
        assert re.match(r"profiles/odd.yaml is no valid YAML \([^\n]+\): mend it\.$", str(error))


def test_a_profile_that_does_not_exist_is_one_sentence(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match="no profile 'imagnet'; there are imagenet"):
        dry_run.main("imagnet")
