"""The recipes at the papers' scale, on a folder laid out like ImageNet with a handful of images."""

from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from invkit import store
from invkit.data import cache
from invkit.data import imagenet as data_imagenet
from invkit.data.photos import write_png
from invkit.dci import synthetic
from invkit.dci.training import Schedule
from invkit.ffi.pairs import condition, logits_of
from invkit.inverters import load_inverter
from invkit.network.classifiers import load_classifier
from recipes import imagenet
from recipes.imagenet import BlockPlan, LogitPlan
from recipes.table import RECIPES

SMALL = LogitPlan("glyphs-standard-0", size=32, width=2, batch=4, steps=3)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes of eight training images and two validation images each, none of them square."""
    g = torch.Generator().manual_seed(0)
    for part, count in (("train", 8), ("val", 2)):
        for name in ("n01", "n02"):
            (tmp_path / "imagenet" / part / name).mkdir(parents=True)
            for i in range(count):
                write_png(tmp_path / "imagenet" / part / name / f"{part}{i}.png", torch.rand(3, 40, 48, generator=g))
    monkeypatch.setenv("INVKIT_IMAGENET", str(tmp_path / "imagenet"))
    monkeypatch.setenv("INVKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "imagenet"


# ---- images ----------------------------------------------------------------------------------------------------------


def test_the_splits_share_no_image(photos):
    parts = {
        split: data_imagenet.imagenet("", split, 32) for split in data_imagenet.SPLITS[:1] + data_imagenet.SPLITS[2:]
    }
    images, labels, names = parts["inverter"]
    assert images.shape == (16, 3, 32, 32) and images.dtype == torch.uint8 and labels.tolist() == [0] * 8 + [1] * 8
    assert all(name.startswith("val") for name in parts["test"][2]) and len(parts["test"][0]) == 4
    for i in range(12):
        for name in ("n01", "n02"):
            (photos / f"train/{name}/more{i}.png").write_bytes((photos / "train/n01/train0.png").read_bytes())
    train, chosen = (data_imagenet.imagenet(str(photos), split, 32)[2] for split in ("inverter", "validation"))
    assert len(train) == 38 and len(chosen) == 2


def test_squares_are_made_once_and_again_where_a_file_changes(photos, monkeypatch):
    first = data_imagenet.imagenet("", "test", 16)[0].clone()
    monkeypatch.setattr(cache, "_decode", lambda *_: pytest.fail("made again"))
    assert torch.equal(data_imagenet.imagenet("", "test", 16)[0], first)
    monkeypatch.undo()
    monkeypatch.setenv("INVKIT_CACHE", str(photos.parent / "cache"))
    write_png(photos / "val/n01/val0.png", torch.zeros(3, 90, 90))
    again = data_imagenet.imagenet(str(photos), "test", 16)[0]
    assert again[0].max() == 0 and torch.equal(again[1:], first[1:])


@pytest.mark.parametrize("name", ["ffi-resnet152", "ffi-onehot-resnet152"])
def test_without_imagenet_there_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.delenv("INVKIT_IMAGENET", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder with ImageNet's train/ and val/.* INVKIT_IMAGENET"):
        RECIPES[name].train(tmp_path / "run")


# ---- logits ----------------------------------------------------------------------------------------------------------


def test_processes_share_every_image_once_before_any_comes_again():
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32)
    classifier = load_classifier("glyphs-standard-0")
    batches = imagenet.logit_batches(SMALL, images, classifier, 2, seed=0)
    seen = [round(v * 255) for step in range(6) for v in batches(step)[0][:, 0, 0, 0].tolist()]
    assert sorted(seen) == list(range(12))
    again = [round(v * 255) for step in range(6, 12) for v in batches(step)[0][:, 0, 0, 0].tolist()]
    assert sorted(again) == list(range(12)) and again != seen


def test_conditions_are_those_of_the_images_as_shown():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 32, 32), generator=g, dtype=torch.uint8)
    classifier = load_classifier("glyphs-standard-0")
    batches = imagenet.logit_batches(replace(SMALL, kind="top-3"), images, classifier, 8, seed=1)
    shown, z = batches(0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(z, condition(logits_of(classifier, shown).float(), "top-3"))
    bytes_ = {tuple(image.flatten().tolist()) for image in (shown * 255).round().byte()}
    plain = {tuple(image.flatten().tolist()) for image in images}
    mirrored = {tuple(image.flip(-1).flatten().tolist()) for image in images}
    assert bytes_ <= plain | mirrored and bytes_ - plain and bytes_ & plain


def test_an_inverter_of_logits_is_trained_kept_and_read(photos, tmp_path):
    inverter = imagenet.invert_logits(tmp_path / "run", plan=SMALL)
    card = inverter.card
    assert (card["objective"], card["images"], card["batch"], card["steps"]) == ("adversarial", 16, 4, 3)
    store.save(tmp_path / "kept", inverter.generator.state_dict(), card)
    kept = load_inverter(tmp_path / "kept")
    z = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(kept.invert(z), inverter.invert(z), atol=1e-4) and kept.invert(z).shape == (2, 3, 32, 32)


def test_the_objective_and_the_rates_are_the_published_ones():
    networks = imagenet.logit_networks(SMALL, 100)
    players = imagenet.logit_players(SMALL, *networks, grace=1)
    assert [(p.lr, p.betas) for p in players] == [(5e-5, (0.0, 0.999)), (2e-4, (0.0, 0.999))]
    batch = torch.rand(4, 3, 32, 32), torch.randn(4, 100)
    assert [set(player.loss(player.module, batch, 0)[1]) for player in players] == [{"adversary"}, {"real", "fake"}]


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_a_zero_shot_inverter_sees_no_photo(tmp_path, monkeypatch):
    monkeypatch.delenv("INVKIT_IMAGENET", raising=False)
    noise = synthetic.Pool(synthetic.pink_noise(16, 40))
    monkeypatch.setattr(synthetic, "draw_pool", lambda *_: noise)
    monkeypatch.setattr(imagenet, "matched_pool", lambda *_: noise)
    plan = BlockPlan("glyphs-standard-0", batch=2, widths=((224, (8, 1)),), schedule=Schedule(2, 2))
    inverter = imagenet.invert_blocks(tmp_path, plan=plan)
    maps = [block for block in inverter.classifier.blocks if len(block.shape) == 3]
    assert inverter.depths == [block.depth for block in maps]
    assert inverter.card["steps"] == 2 * len(maps) + 2 and inverter.card["batch"] == 2
    assert inverter.reconstruct(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_batch_that_cannot_be_shared_is_one_sentence():
    with pytest.raises(ValueError, match="A batch of 256 cannot be shared among 3 GPUs"):
        imagenet._share(256, 3)


# ---- robust weights --------------------------------------------------------------------------------------------------


def test_the_robust_network_is_read_from_the_file_that_is_named(tmp_path, monkeypatch):
    file = tmp_path / "robust.safetensors"
    monkeypatch.setenv("INVKIT_ROBUST_RESNET50", str(file))
    with pytest.raises(FileNotFoundError, match="convert resnet50_linf_eps4.0.ckpt .* name it by INVKIT_ROBUST_RES"):
        load_classifier(imagenet.ROBUST)
    tensors = torchvision.models.resnet50(weights=None).state_dict()
    save_file({f"module.model.{name}": tensor for name, tensor in tensors.items()}, file)
    classifier = load_classifier(imagenet.ROBUST)
    assert (classifier.classes, classifier.size, classifier.name) == (1000, 224, imagenet.ROBUST)
    assert torch.equal(classifier.model.fc.weight, tensors["fc.weight"])
    save_file({"module.model.fc.weight": tensors["fc.weight"]}, file)
    with pytest.raises(ValueError, match="lacks .*: it must hold torchvision's resnet50"):
        load_classifier(imagenet.ROBUST)
