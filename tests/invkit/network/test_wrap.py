"""What people bring: wrappers, several outputs, other precisions and channels; a sentence for what is no network."""

import collections
import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier, load_classifier


class Small(nn.Module):
    def __init__(self, channels=3, classes=7):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)

    def features(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images_for(classifier, n=3):
    return torch.rand(n, classifier.channels, classifier.size, classifier.size)


def assert_whole(classifier, tolerance=1e-5):
    """The blocks give the logits, and both are float32."""
    images = images_for(classifier)
    logits, last = classifier.logits(images), classifier.features(images, len(classifier.blocks))
    assert logits.dtype == last.dtype == torch.float32 and logits.shape == (3, classifier.classes)
    torch.testing.assert_close(last, logits, rtol=0, atol=tolerance * float(logits.abs().max()))


# ---- wrappers --------------------------------------------------------------------------------------------------------


def compiled_in_place(model):
    model.compile()
    return model


@pytest.fixture
def process_group(tmp_path):
    import torch.distributed

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrapped", [torch.compile, compiled_in_place, nn.DataParallel])
def test_wrappers_for_speed_are_taken_off(wrapped):
    model = Small()
    classifier, bare = Classifier(wrapped(model), size=16), Classifier(model, size=16)
    assert classifier.name == "Small" and classifier.fingerprint == bare.fingerprint
    assert [block.name for block in classifier.blocks] == ["conv", "fc"]
    images = images_for(bare)
    assert torch.equal(classifier.logits(images), bare.logits(images))


def test_several_wrappers_are_taken_off(process_group):
    wrapped = torch.compile(nn.parallel.DistributedDataParallel(Small()))
    classifier = load_classifier(wrapped, size=16)
    assert type(classifier.model) is Small and [block.name for block in classifier.blocks] == ["conv", "fc"]


# ---- the order of memory ---------------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """Calls view(), which takes a map in the usual order of memory only."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 6, 5), nn.Linear(6 * 12 * 12, 4)

    def forward(self, x):
        return self.fc(torch.max_pool2d(self.conv(x), 2).view(-1, 6 * 12 * 12))


class Flat(nn.Module):
    """Calls view() on the image itself."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x):
        return self.fc(x.view(-1, 192))


@pytest.mark.parametrize(("model", "channels", "size"), [(Viewing(1), 1, 28), (Viewing(3), 3, 28), (Flat(), 3, 8)])
def test_a_forward_that_calls_view(model, channels, size):
    given = images_for(Classifier(model, size=size))
    truth = copy.deepcopy(model).to(memory_format=torch.contiguous_format)(given)
    classifier = Classifier(model, size=None if size == 28 else size)
    assert (classifier.channels, classifier.size) == (channels, size)
    assert_whole(classifier)
    h = given.contiguous(memory_format=torch.channels_last)
    for block in classifier.blocks:  # as an inverse may give their inputs
        h = block(h.contiguous(memory_format=torch.channels_last) if h.dim() == 4 else h)
    torch.testing.assert_close(h, truth)


def test_other_networks_compute_in_channels_last():
    classifier = Classifier(Small(), size=16)
    assert classifier.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert classifier.preprocess(images_for(classifier)).is_contiguous(memory_format=torch.channels_last)


# ---- outputs ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


Pair = collections.namedtuple("Pair", "scores auxiliary")


class Returning(Small):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        hidden = self.features(x)
        return self.make(self.fc(hidden), hidden)


class Made(Small):
    """Some object with attributes."""

    def forward(self, x):
        found = type("Found", (), {})()
        found.logits, found.hidden = super().forward(x), self.conv(x)
        return found


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda logits, hidden: {"logits": logits, "hidden": hidden}, None),
        (lambda logits, hidden: {"out": logits, "loss": None}, None),
        (lambda logits, hidden: {"a": hidden, "b": logits}, "b"),
        (lambda logits, hidden: (logits, None), None),
        (lambda logits, hidden: (hidden, logits), 1),
        (lambda logits, hidden: [logits, logits.mean()], None),
        (lambda logits, hidden: Output(logits, hidden), None),
        (lambda logits, hidden: Output(hidden, logits), "hidden"),
        (lambda logits, hidden: Pair(logits, hidden), "scores"),
        (lambda logits, hidden: Pair(hidden, logits), 1),
    ],
)
def test_logits_are_picked_from_what_a_network_returns(make, output):
    classifier = Classifier(Returning(make), size=16, output=output)
    assert classifier.classes == 7 and [block.name for block in classifier.blocks] == ["conv", "fc"]
    assert_whole(classifier)
    images = images_for(classifier)
    network = classifier.model.network
    assert torch.equal(classifier.logits(images), network.fc(network.features(images)))
    assert torch.equal(classifier.model(images), classifier.logits(images))


def test_one_logit_an_image_need_not_be_a_column():
    class Binary(Small):
        def forward(self, x):
            return super().forward(x).squeeze(1)

    classifier = Classifier(Binary(classes=1), size=16)
    assert classifier.classes == 1
    assert_whole(classifier)


def test_attributes_of_any_object_are_picked():
    assert_whole(Classifier(Made(), size=16))


@pytest.mark.parametrize(
    ("make", "output", "sentence"),
    [
        (lambda logits, hidden: (logits, hidden), None, r"several outputs .* output=KEY; tuple has 0 \(1, 7\), 1 \(1,"),
        (lambda logits, hidden: {"a": logits, "b": hidden}, "c", r"no 'c'; it has 'a' \(1, 7\), 'b' \(1, 8\)"),
        (lambda logits, hidden: {"a": logits[0]}, None, r"returns no logits.* 'a' \(7,\)"),
        (lambda logits, hidden: (), None, "returns no logits.*nothing"),
        (lambda logits, hidden: {"a": logits[0]}, "a", r"float logits \(1, classes\), not torch.float32 \(7,\)"),
        (lambda logits, hidden: {"a": "b"}, "a", "float logits .*not str"),
        (lambda logits, hidden: logits, "logits", "one tensor, its logits: leave out output='logits'"),
    ],
)
def test_doubt_about_the_logits_is_one_sentence(make, output, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        Classifier(Returning(make), size=16, output=output)
    assert "\n" not in str(raised.value)


# ---- precisions, modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double])
@pytest.mark.parametrize("make", [None, lambda logits, hidden: {"logits": logits}], ids=["tensor", "dict"])
def test_a_network_computes_in_its_own_precision(dtype, make):
    single = Returning(make or (lambda logits, hidden: logits)).eval()
    images = torch.rand(3, 3, 16, 16)
    classifier = Classifier(single.to(dtype), size=16, mean=0.5, std=0.25)
    assert classifier.dtype == dtype and classifier.preprocess(images).dtype == torch.float32
    assert_whole(classifier)
    expected = single.fc(single.features(((images - 0.5) / 0.25).to(dtype))).float()
    torch.testing.assert_close(classifier.logits(images), expected, rtol=1e-2, atol=1e-3)
    assert classifier.features(images, 1).dtype == torch.float32
    inputs = images.requires_grad_()
    classifier.features(inputs, len(classifier.blocks)).sum().backward()
    assert inputs.grad.abs().sum() > 0


def test_a_network_in_training_computes_as_in_eval_mode_and_stays_in_training():
    model = Small()
    classifier = Classifier(model, size=16)
    images = images_for(classifier)
    before, mean = classifier.logits(images), model.norm.running_mean.clone()
    model.train()
    assert torch.equal(classifier.logits(images), before)
    assert torch.equal(classifier.features(images, 2), before)
    assert torch.equal(model.norm.running_mean, mean) and all(module.training for module in model.modules())


# ---- channels, sizes, preprocessing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_come_from_the_network(channels):
    classifier = Classifier(Small(channels), size=16)
    assert (classifier.channels, classifier.mean, classifier.std) == (channels, (0,) * channels, (1,) * channels)
    assert_whole(classifier)
    with pytest.raises(ValueError, match=rf"shape \(N, {channels}, H, W\)"):
        classifier.logits(torch.rand(1, 3, 16, 16))


def test_grey_is_made_of_colours_and_colours_of_grey():
    grey, colour = Classifier(Small(1), "grey", size=16), Classifier(Small(), size=16)
    photo = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    assert grey.convert(photo).shape == (2, 1, 16, 16)
    torch.testing.assert_close(grey.convert(photo)[0, 0, 0, 0].item(), 0.299 + 0.587 / 2)
    assert torch.equal(grey.convert(colour.convert(grey.convert(photo))), grey.convert(photo))
    assert colour.convert(photo) is photo
    with pytest.raises(ValueError, match=r"convert\(images\)"):
        grey.logits(photo)
    with pytest.raises(ValueError, match=r"takes images \(N, 2, H, W\)"):
        Classifier(Small(2), size=16).convert(photo)


def test_the_first_layer_need_not_be_a_convolution():
    mlp = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.ReLU(), nn.Linear(9, 4)))
    assert (mlp.channels, mlp.size, mlp.classes) == (1, 28, 4)
    assert not any(block.invertible for block in mlp.blocks)
    assert_whole(mlp)


def test_the_size_is_found_or_named():
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 15 * 15, 5))
    assert Classifier(fixed).size == 32
    assert Classifier(Small()).size == 224
    with pytest.raises(ValueError, match=r"images of 64 pixels to logits .*: give size=32\."):
        Classifier(fixed, size=64)
    assert Classifier(Small(), size=(16, 16)).size == 16
    for size in ((16, 24), 0, 16.5, "16"):
        with pytest.raises(ValueError, match="squares"):
            Classifier(Small(), size=size)


def test_what_the_model_states_is_taken():
    stating = Small()
    stating.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    classifier = Classifier(stating)
    assert (classifier.size, classifier.mean, classifier.std) == (48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Classifier(stating, size=16, mean=0, std=1).mean == (0, 0, 0)
    grey = Small(1)
    grey.pretrained_cfg = stating.pretrained_cfg
    assert Classifier(grey).mean == (pytest.approx(0.2),)
    transformers = Small()
    transformers.config = type("Config", (), {"image_size": 40})()
    assert Classifier(transformers).size == 40
    normalising = Small()  # by itself: its buffer is no statement
    normalising.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
    assert Classifier(normalising, size=16).mean == (0, 0, 0)


def test_means_of_0_to_255_are_divided():
    with pytest.warns(UserWarning, match="divided by 255"):
        classifier = Classifier(Small(), size=16, mean=(123, 117, 104), std=(58, 57, 57))
    assert classifier.mean == pytest.approx((123 / 255, 117 / 255, 104 / 255))
    assert classifier.std == pytest.approx((58 / 255, 57 / 255, 57 / 255))


@pytest.mark.parametrize("wrong", [{"mean": (0.5,)}, {"std": (1, 1, 0)}, {"std": -1.0}, {"mean": (0, 0, 0, 0)}])
def test_other_numbers_of_means_get_one_sentence(wrong):
    with pytest.raises(ValueError, match="3 channels: give as many means and positive std"):
        Classifier(Small(), size=16, **wrong)
    with pytest.raises(ValueError, match="1 channel: give"):
        Classifier(Small(1), size=16, mean=(0.5, 0.5, 0.5))


def test_a_softmax_at_the_end_is_warned_of():
    with pytest.warns(UserWarning, match="ends in a softmax"):
        Classifier(nn.Sequential(Small(), nn.Softmax(1)), size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier(nn.Sequential(Small(), nn.Sigmoid()), size=16)  # several labels an image
        Classifier(Small(classes=1), size=16)


class Normed(nn.Sequential):
    def __init__(self, norm, classes=4):
        super().__init__(nn.Conv2d(3, 8, 3, 2), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, classes))  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        Normed(nn.Identity()),
        Normed(nn.GroupNorm(2, 8)),
        Normed(nn.LayerNorm((8, 7, 7))),
        Normed(nn.InstanceNorm2d(8)),
        *(Normed(nn.BatchNorm2d(8), classes) for classes in (1, 2, 20_000)),
    ],
)
def test_any_norm_and_any_number_of_classes_will_do(model):
    classifier = Classifier(model, size=16)
    assert classifier.classes == model[-1].out_features
    assert [block.invertible for block in classifier.blocks] == [True, True, False]
    assert_whole(classifier)


# ---- what is no network ----------------------------------------------------------------------------------------------


def exported():
    return torch.export.export(Small().eval(), (torch.rand(1, 3, 16, 16),))


def of_another_library(module):
    return type("Model", (), {"__module__": module})()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: "resnet18", r"string 'resnet18': load_classifier\('resnet18'\)"),
        (lambda: Small().state_dict(), "a state dict.*weights=FILE"),
        (lambda: torch.jit.trace(Small().eval(), torch.rand(1, 3, 16, 16)), "TorchScript.*the module"),
        (exported, "exported program.*the module"),
        (lambda: Small, r"the class Small: call it, Small\(\)"),
        (lambda: of_another_library("keras.src.models"), "keras: export it to ONNX"),
        (lambda: of_another_library("tensorflow.python"), "tensorflow: export it to ONNX"),
        (lambda: of_another_library("onnx.onnx_ml_pb2"), "ONNX: give load_classifier"),
        (lambda: lambda x: x, "function: wrap it in a module"),
        (lambda: None, "NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_is_no_network_gets_one_sentence(make, sentence):
    for take in (Classifier, load_classifier):
        given = make()
        if take is load_classifier and isinstance(given, str):
            continue  # a name
        with pytest.raises(TypeError, match=sentence) as raised:
            take(given)
        assert "\n" not in str(raised.value)


def test_lazy_layers_get_one_sentence():
    with pytest.raises(ValueError, match="lazy layers without weights: call it"):
        Classifier(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)))


def test_a_module_is_taken_in_place_of_a_name():
    model = Small()
    classifier = load_classifier(model, size=16, mean=0.5)
    assert (classifier.model, classifier.name, classifier.size, classifier.mean) == (model, "Small", 16, (0.5,) * 3)
    assert load_classifier(classifier) is classifier and classifier.source is None


class Head(nn.Module):
    """A network that does something odd with its logits."""

    def __init__(self, odd):
        super().__init__()
        self.network, self.odd = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), odd

    def forward(self, images):
        return self.odd(self.network(images))


@pytest.mark.parametrize(
    "odd",
    [
        lambda logits: logits.to(torch.complex64),
        lambda logits: logits > 0,
        lambda logits: logits.long(),
        lambda logits: logits.argmax(1),
        lambda logits: logits.to_sparse(),
        lambda logits: logits[:, :0],
        lambda logits: logits.sum(),
    ],
)
def test_what_is_no_float_logits_is_one_sentence(odd):
    with pytest.raises(
        ValueError, match=r"^odd must map one image to float logits \(1, classes\), not [^\n]+: wrap it"
    ):
        Classifier(Head(odd), "odd", size=8)


@pytest.mark.parametrize("output", ["logits", 0, 10**30, 1.5, [0]])
def test_an_output_that_one_tensor_has_not_is_one_sentence(output):
    with pytest.raises(ValueError, match=r"^odd returns one tensor, its logits: leave out output=[^\n]+\.$"):
        Classifier(Head(lambda logits: logits), "odd", size=8, output=output)


def test_weights_without_memory_are_one_sentence():
    with pytest.raises(ValueError, match=r"^Head has weights without memory \(meta\): load them first\.$"):
        Classifier(Head(lambda logits: logits).to("meta"), "odd", size=8)


@pytest.mark.parametrize("odd", [{"mean": [float("nan")] * 3}, {"mean": ["a", "b", "c"]}, {"std": float("inf")}])
def test_a_normalisation_that_is_no_number_is_one_sentence(odd):
    with pytest.raises(ValueError, match="odd takes images of 3 channels: give as many means and positive std"):
        Classifier(Head(lambda logits: logits), "odd", size=8, **odd)


@pytest.mark.parametrize("cuts", [5, [5], "network", [None]])
def test_cuts_that_are_no_names_are_one_sentence(cuts):
    with pytest.raises(ValueError, match=r"^cuts must be a list of module names, such as \['[^\n]+'\], not "):
        Classifier(Head(lambda logits: logits), "odd", size=8, cuts=cuts).blocks  # noqa: B018 (cuts it)
