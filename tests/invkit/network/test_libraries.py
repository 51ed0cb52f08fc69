"""Classifiers by name with arguments and weights of one's own; what cannot be had is one sentence, at once."""

import importlib
import json
import sys
import time
import types

import pytest
import timm  # noqa: F401 (the time of its import is none of a hub's)
import torch
from safetensors.torch import save_file
from torch import nn

from invkit.network import reach, state_dicts
from invkit.network.classifiers import Classifier, load_classifier

FACTORIES = """
import sys
from torch import nn

class Network(nn.Module):
    def __init__(self, classes=4, width=6):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, classes)
        self.size, self.mean = 16, [0.5, 0.5, 0.5]

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))

def leaves():
    sys.exit(3)

def breaks():
    raise KeyError("no such file")

def lazily():
    from beside_the_factory import Network
    return Network()

number = 5
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with modules, which sys.path does not hold."""
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "beside_the_factory.py").write_text("from my_factories import Network")
    (tmp_path / "broken_module.py").write_text("import no_such_package")
    (tmp_path / "leaving_module.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("my_factories", "beside_the_factory", "broken_module", "leaving_module"):
        sys.modules.pop(name, None)


# ---- libraries -------------------------------------------------------------------------------------------------------


def test_arguments_are_passed_on():
    thin = load_classifier("timm:resnet10t", pretrained=False, size=32, num_classes=10, in_chans=1)
    assert (thin.classes, thin.channels, thin.size, thin.mean) == (10, 1, 32, (pytest.approx(0.449),))
    assert thin.source == {
        "name": "timm:resnet10t", "pretrained": False, "size": 32, "num_classes": 10, "in_chans": 1
    }  # fmt: skip
    again = load_classifier(**json.loads(json.dumps(thin.source)))
    again.model.load_state_dict(thin.model.state_dict())
    assert again.fingerprint == thin.fingerprint
    assert load_classifier("torchvision:resnet18", pretrained=False, size=32, num_classes=2).classes == 2


def test_a_transformer_is_built_for_the_size():
    classifier = load_classifier("timm:vit_tiny_patch16_224", pretrained=False, size=32, num_classes=3, depth=2)
    assert classifier.size == 32
    assert [(block.shape, block.invertible) for block in classifier.blocks] == [
        ((192, 2, 2), True),
        *[((5, 192), True)] * 4,
        ((3,), False),
    ]


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_arguments_that_a_library_does_not_take_get_one_sentence(name):
    with pytest.raises(ValueError, match="num_clases.*change the keyword arguments") as raised:
        load_classifier(name, pretrained=False, num_clases=10)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="lite0 takes no further arguments: leave out num_classes"):
        load_classifier("lite0", num_classes=10)


def test_a_plain_name_says_which_libraries_have_it():
    with pytest.raises(ValueError, match="'resnet18' here, but timm:resnet18 and torchvision:resnet18"):
        load_classifier("resnet18")
    with pytest.raises(ValueError, match="'resnet10t' here, but timm:resnet10t: choose"):
        load_classifier("resnet10t")


HUB = "hf-hub:timm/resnet10t.c3_in1k"


@pytest.mark.parametrize("name", [HUB, f"timm:{HUB}", "timm:resnet10t"])
def test_a_hub_out_of_reach_is_told_of_at_once(name, monkeypatch, tmp_path):
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(reach, "reachable", lambda url: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    importlib.import_module("timm")  # which takes seconds by itself the first time
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="weights of .*resnet10t.* cannot be had .*HF_HOME") as raised:
        load_classifier(name)
    assert time.monotonic() - began < 3 and "\n" not in str(raised.value)
    assert constants.HF_HUB_OFFLINE is False


# ---- factories -------------------------------------------------------------------------------------------------------


def test_a_factory_is_found_in_the_current_folder_and_takes_arguments(here):
    before = list(sys.path)
    classifier = load_classifier("my_factories:Network", classes=3, width=5)
    assert (classifier.classes, classifier.size, classifier.mean) == (3, 16, (0.5,) * 3)
    assert classifier.source == {"name": "my_factories:Network", "classes": 3, "width": 5}
    assert load_classifier("my_factories:lazily").classes == 4  # imports its neighbour when it is called
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_factory:Network", "no module 'my_factory' was found in {here}, in PYTHONPATH, or among the installed"),
        ("my_factories:Net", "{here}/my_factories.py has Network, leaves, breaks, lazily"),
        ("my_factories:number", "There is no factory"),
        ("my_factories:leaves", "ends the program by exit"),
        ("my_factories:breaks", "KeyError: 'no such file'"),
        ("broken_module:f", "broken_module needs the module 'no_such_package', which is not installed"),
        ("leaving_module:f", "cannot be imported .*exit"),
    ],
)
def test_a_factory_that_fails_gets_one_sentence(here, name, sentence):
    with pytest.raises(ValueError, match=sentence.format(here=here)) as raised:
        load_classifier(name)
    assert "\n" not in str(raised.value)


def test_arguments_that_a_factory_does_not_take_get_one_sentence(here):
    with pytest.raises(ValueError, match="cannot be called so .*unexpected keyword argument 'depth'"):
        load_classifier("my_factories:Network", depth=3)


def test_an_argument_that_is_no_json_leaves_no_source(monkeypatch):
    module = types.ModuleType("somebodys")
    module.make = lambda act: nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setitem(sys.modules, "somebodys", module)
    assert load_classifier("somebodys:make", size=8, act=nn.ReLU()).source is None


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(here):
    torch.manual_seed(0)
    return load_classifier("my_factories:Network")


def saved(tensors, path):
    if path.suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def prefixed(tensors, prefix):
    return {prefix + name: t for name, t in tensors.items()}


@pytest.mark.parametrize(
    ("file", "nest"),
    [
        ("w.pth", lambda tensors: tensors),
        ("w.safetensors", lambda tensors: tensors),
        ("w.pt", lambda tensors: {"state_dict": tensors, "epoch": 3}),
        ("w.pth", lambda tensors: {"model": prefixed(tensors, "module."), "optimizer": {"lr": 0.1}}),
        ("w.pth", lambda tensors: {"state_dict": prefixed(tensors, "module._orig_mod.")}),
        ("w.ckpt", lambda tensors: {"state_dict": prefixed(tensors, "model.") | {"loss.weight": torch.ones(2)}}),
        ("w.pth", lambda tensors: {k: t for k, t in tensors.items() if not k.endswith("num_batches_tracked")}),
    ],
)
def test_weights_come_from_a_file(trained, here, file, nest):
    path = saved(nest(trained.model.state_dict()), here / file)
    torch.manual_seed(1)
    classifier = load_classifier("my_factories:Network", weights=path)
    assert classifier.fingerprint == trained.fingerprint
    assert classifier.source == {"name": "my_factories:Network", "weights": str(path)}
    assert load_classifier(**classifier.source).fingerprint == trained.fingerprint


def test_weights_replace_those_of_a_library(here):
    network = load_classifier("torchvision:squeezenet1_1", pretrained=False, size=32, num_classes=3)
    path = saved(network.model.state_dict(), here / "mine.safetensors")
    found = load_classifier("torchvision:squeezenet1_1", size=32, num_classes=3, weights=path)  # nothing is downloaded
    assert found.fingerprint == network.fingerprint


def test_weights_go_into_a_module_and_into_a_classifier(trained, here, monkeypatch):
    path = saved(trained.model.state_dict(), here / "w.pth")
    make = sys.modules["my_factories"].Network
    assert load_classifier(make(), weights=path).fingerprint == trained.fingerprint
    sys.modules["my_factories"].whole = lambda: Classifier(make(), "whole", size=16)
    assert load_classifier("my_factories:whole", weights=path).fingerprint == trained.fingerprint


def test_a_classifier_that_a_factory_makes_is_taken_as_it_is_or_refused(trained):
    make = sys.modules["my_factories"].Network
    sys.modules["my_factories"].whole = lambda: Classifier(make(), "whole", size=16)
    assert load_classifier("my_factories:whole", size=16).size == 16
    for wanted in ({"size": 24}, {"output": "logits"}, {"cuts": ["conv"]}):
        with pytest.raises(ValueError, match=f"whole is a Classifier already, with its own {next(iter(wanted))}: give"):
            load_classifier("my_factories:whole", **wanted)
    with pytest.raises(ValueError, match="with its own size and weights and mean"):
        load_classifier(trained, size=24, weights="w.pth", mean=0.5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: {name: t[name] for name in t if name != "fc.bias"}, r"lacks fc\.bias; build"),
        (lambda t: t | {"extra.weight": torch.ones(2)}, r"has beyond the network extra\.weight"),
        (lambda t: t | {"fc.bias": torch.ones(9)}, r"has fc\.bias of shape \(9,\) where \(4,\) .*num_classes"),
        (lambda t: {"other.weight": torch.ones(2)}, r"lacks conv\.bias, conv\.weight, fc\.bias and 5 more, and has"),
        (lambda t: {"epoch": 3}, "holds no state dict"),
        (lambda t: [1, 2], "holds no state dict"),
        (lambda t: nn.Linear(2, 2), "holds more than tensors .*state_dict"),
    ],
)
def test_weights_that_do_not_fit_get_one_sentence(trained, here, change, sentence):
    path = saved(change(trained.model.state_dict()), here / "w.pth")
    with pytest.raises(ValueError, match=sentence) as raised:
        load_classifier("my_factories:Network", weights=path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
def test_a_damaged_or_missing_file_of_weights_gets_one_sentence(here, file):
    (here / file).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read as weights|holds more than tensors") as raised:
        state_dicts.read_state_dict(file)
    assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match=f"looked for from {here}"):
        state_dicts.read_state_dict("other.pth")


def test_nothing_is_run_by_a_file_of_weights(here):
    class Hostile:
        def __reduce__(self):
            return open, (str(here / "harm"), "w")

    torch.save({"fc.weight": Hostile()}, here / "w.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        state_dicts.read_state_dict(here / "w.pth")
    assert not (here / "harm").exists()


# ---- files in place of names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("model.safetensors", 'file of weights: give the network too, "package.module:factory" with weights='),
        ("best.pth", "file of weights"),
        ("model.keras", "another kind than PyTorch's"),
        ("model.pt2", "another kind than PyTorch's"),
    ],
)
def test_a_file_that_is_no_network_gets_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_classifier(name)


def test_onnx_is_converted_where_that_is_possible(here, monkeypatch):
    with pytest.raises(FileNotFoundError, match="There is no file net.onnx"):
        load_classifier("net.onnx")
    (here / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx2torch", None)  # not installed
    with pytest.raises(ValueError, match="pip install onnx2torch"):
        load_classifier("net.onnx")

    converter = types.ModuleType("onnx2torch")
    converter.convert = lambda path: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setitem(sys.modules, "onnx2torch", converter)
    classifier = load_classifier("net.onnx", size=16)
    assert (classifier.name, classifier.size, classifier.classes) == ("net.onnx", 16, 4)

    def refuses(path):
        raise NotImplementedError("Converter is not implemented (Foo)")

    converter.convert = refuses
    with pytest.raises(ValueError, match="onnx2torch cannot convert net.onnx .*Foo"):
        load_classifier("net.onnx")
