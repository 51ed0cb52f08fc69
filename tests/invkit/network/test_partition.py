"""Cutting networks: the blocks compose to the model, at any size, and lie where the rules say."""

import copy

import pytest
import torch
import torchvision
from helpers import randomise
from torch import nn

from invkit.network.classifiers import Classifier, load_classifier
from invkit.network.partition import TOLERANCE, Block, compose, partition

MODELS = [
    *("torchvision:" + name for name in ("resnet18", "resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_b0")),
    *("torchvision:" + name for name in ("densenet121", "googlenet", "convnext_tiny")),
    *("timm:" + name for name in ("repvgg_a0", "tf_efficientnet_lite0", "resnetv2_50", "mobilenetv1_100")),
]
MOBILENET_V1 = [(stage, unit) for stage, units in enumerate((1, 2, 2, 6, 2)) for unit in range(units)]


def random_classifier(name, size=64):
    torch.manual_seed(0)
    classifier = load_classifier(name, pretrained=False, size=size)
    randomise(classifier.model)
    return classifier


def difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


def calls_of_convolutions(model, images):
    calls = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad():
        model(images)
    return len(calls)


def table(model, shape=(1, 3, 16, 16)):
    return [(block.name, block.convolutions) for block in partition(model.eval(), torch.rand(shape))]


@pytest.fixture(scope="module")
def classifier(request):
    """A network of the library, which the tests of the same name share."""
    return random_classifier(request.param)


@pytest.mark.parametrize("classifier", MODELS, indirect=True)
def test_blocks_compose_to_the_model(classifier):
    images = torch.rand(2, 3, 96, 64)  # neither the batch, the height nor the shape that was traced
    with torch.no_grad():
        h, seen = classifier.preprocess(images), []
        for block in classifier.blocks:
            seen.append((h, h.clone()))
            h = block(h)
        assert difference(h, classifier.logits(images)) <= TOLERANCE <= 1e-5
    assert all(torch.equal(now, before) for now, before in seen), "a block writes into its input"

    blocks = classifier.blocks
    assert [block.depth for block in blocks] == list(range(1, len(blocks) + 1))
    assert len({block.name for block in blocks}) == len(blocks)
    assert blocks[-1].shape == (1000,)
    assert [b.stride for b in blocks] == sorted(b.stride for b in blocks)
    assert blocks[-1].convolutions == calls_of_convolutions(classifier.model, images)
    weights = {id(p) for p in classifier.model.parameters()}
    assert all(id(p) in weights for block in blocks for p in block.parameters()), "the blocks share the model's weights"


def test_lite0_has_its_stem_16_units_head_and_logits():
    blocks = random_classifier("timm:tf_efficientnet_lite0", size=224).blocks
    assert [b.convolutions for b in blocks] == [1, *range(3, 49, 3), 49, 49]
    units = [f"blocks.{stage}.{unit}" for stage, units in enumerate((1, 2, 2, 3, 3, 4, 1)) for unit in range(units)]
    assert [b.name for b in blocks] == ["conv_stem", *units, "conv_head", "classifier"]
    assert blocks[0].shape == (32, 112, 112) and blocks[5].shape == (40, 28, 28) and blocks[17].shape == (1280, 7, 7)
    assert [b.stride for b in blocks] == [2, 2, 4, 4, 8, 8, *[16] * 6, *[32] * 6, 224]


@pytest.mark.parametrize(
    ("classifier", "units"),
    [
        ("torchvision:resnet18", ["conv1", *(f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)), "fc"]),
        ("torchvision:mobilenet_v2", [*(f"features.{k}" for k in range(19)), "classifier.1"]),
        (
            "torchvision:densenet121",
            ["features.conv0"]
            + [f"features.{u}" for k in "123" for u in (f"denseblock{k}", f"transition{k}.conv")]
            + ["features.denseblock4", "classifier"],
        ),
        (
            "torchvision:googlenet",
            ["conv1", "conv2", "conv3", *(f"inception{u}" for u in "3a 3b 4a 4b 4c 4d 4e 5a 5b".split()), "fc"],
        ),
        (
            "timm:resnetv2_50",
            ["stem.conv"] + [f"stages.{s}.blocks.{i}" for s, n in enumerate((3, 4, 6, 3)) for i in range(n)] + ["head"],
        ),
        ("timm:mobilenetv1_100", ["conv_stem", *(f"blocks.{s}.{i}" for s, i in MOBILENET_V1), "classifier"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
    indirect=["classifier"],
)
def test_units_stay_whole(classifier, units):
    assert [block.name for block in classifier.blocks] == units


def test_every_convolution_of_parallel_branches_counts():
    resnet = random_classifier("torchvision:resnet18").blocks
    assert [b.convolutions for b in resnet] == [1, 3, 5, 8, 10, 13, 15, 18, 20, 20]  # 8, 13, 18: with the skip's own
    assert random_classifier("torchvision:googlenet").blocks[3].convolutions == 3 + 6


def test_gradients_reach_the_input_through_the_blocks():
    classifier = random_classifier("timm:tf_efficientnet_lite0")
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    classifier.features(images, 5).sum().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in classifier.model.parameters())


# ---- small networks, one rule each -----------------------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Bottleneck(nn.Sequential):
    def __init__(self, inside, outside, width=6):
        super().__init__(
            nn.Conv2d(inside, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
            SqueezeExcite(width),
            nn.Conv2d(width, outside, 1),
            nn.BatchNorm2d(outside),
        )


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


def head(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def test_inverted_bottlenecks_without_skip_stay_whole_and_apart():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Bottleneck(4, 8), Bottleneck(8, 8), nn.Conv2d(8, 7, 1), *head(7))
    assert table(randomise(model)) == [("0", 1), ("1", 6), ("2", 11), ("3", 12), ("6", 12)]


def test_activation_joins_before_and_pooling_after():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Conv2d(4, 6, 3), nn.Tanh())
    blocks = partition(model.eval(), torch.rand(1, 3, 16, 16))
    assert [block.shape for block in blocks] == [(4, 14, 14), (6, 5, 5)]
    assert torch.equal(blocks[0](torch.zeros(1, 3, 16, 16)), model[:2](torch.zeros(1, 3, 16, 16)))


def test_norm_joins_its_convolution_but_opens_the_block_after_a_merge():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), Residual(4), nn.BatchNorm2d(4), nn.ReLU())
    model.extend([nn.Conv2d(4, 4, 3), *head(4)])
    blocks = partition(randomise(model).eval(), torch.rand(2, 3, 16, 16))
    h = torch.randn(2, 4, 14, 14)
    assert len(blocks) == 4
    assert torch.equal(blocks[1](h), model[3](h))
    assert torch.equal(blocks[2](h), model[4:7](h))


class TwoResiduals(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.think = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = x + self.attend(x)
        return x + self.think(x)


def test_blocks_that_share_a_module_are_named_by_their_last_weights():
    separable = [nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 1)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), TwoResiduals(), *separable, *head(4))
    assert [name for name, _ in table(model)] == ["0", "1.attend.0", "1.think", "4", "7"]


class Awkward(nn.Module):
    """A size read early and used late, a shared parameter, a skip over everything, asserts, an optional argument."""

    def __init__(self, early_size):
        super().__init__()
        self.early_size = early_size
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x, return_features=False):
        torch._assert(x.shape[1] == 3, "three channels")
        scale = self.scale * 1
        n = x.size(0)
        x = self.a(x * self.scale).relu()
        x = self.b(x + self.shift) * self.scale
        if return_features:
            return x
        n, scale = (n, scale) if self.early_size else (x.size(0), self.scale)
        return self.fc(x.mean((2, 3)).view(n, -1)) * scale


def test_parameters_do_not_forbid_a_cut_and_an_early_size_does():
    assert [name for name, _ in table(Awkward(early_size=False))] == ["a", "b", "fc"]
    assert len(table(Awkward(early_size=True))) == 1


def test_cuts_that_a_size_hides_are_found_at_modules():
    classifier = Classifier(Awkward(early_size=True).eval(), "mine", size=16)
    assert [block.name for block in classifier.blocks] == ["a", "b", "fc"]
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(classifier.features(images, 3), classifier.logits(images))


class Windows(nn.Module):
    """Convolutions inside windows of a map: between them a batch is one of windows, not of images."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        h = self.stem(x)
        h = h.reshape(-1, 4, 2, 8, 2, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, 8, 8)
        h = self.b(self.a(h))
        h = h.reshape(-1, 2, 2, 4, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, 16, 16)
        return self.head(h.mean((2, 3)))


def test_no_block_ends_inside_windows():
    blocks = partition(Windows().eval(), torch.rand(1, 3, 16, 16))
    assert [(block.name, block.shape) for block in blocks] == [
        ("stem", (4, 16, 16)),
        ("b", (4, 16, 16)),
        ("head", (5,)),
    ]


class Flattened(nn.Module):
    """A patch embedding whose map is flattened at once, and tokens last."""

    def __init__(self):
        super().__init__()
        self.patch, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        side = x.shape[2] // 4
        h = self.patch(x).reshape(-1, 8, side * side)
        return self.head(self.mix(h.transpose(1, 2)).mean(1))


def test_a_block_ends_in_tokens_with_their_channels_last():
    blocks = partition(Flattened().eval(), torch.rand(1, 3, 16, 16))
    assert [(block.name, block.shape, block.stride) for block in blocks] == [
        ("patch", (16, 8), 4), ("mix", (16, 8), 4), ("head", (5,), 16)
    ]  # fmt: skip


def test_the_stride_of_channels_last_is_that_of_the_map():
    last = nn.Sequential(nn.Conv2d(3, 6, 2, 2), Last(), nn.Linear(6, 6), nn.Flatten(), nn.Linear(384, 4))
    blocks = partition(last.eval(), torch.rand(1, 3, 16, 16))
    assert [(block.shape, block.stride) for block in blocks] == [((6, 8, 8), 2), ((8, 8, 6), 2), ((4,), 16)]


class Last(nn.Module):
    def forward(self, h):
        return h.permute(0, 2, 3, 1)


class UnusedBranches(nn.Module):
    """A residual network with an auxiliary head whose logits nobody uses, and results that are thrown away."""

    def __init__(self):
        super().__init__()
        self.stem, self.unit, self.relu = nn.Conv2d(3, 8, 3, padding=1), Residual(8), nn.ReLU(inplace=True)
        self.auxiliary = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(5))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        h = self.stem(x)
        self.relu(h)  # in place: what follows sees the change although the result is not used
        h[:, :1].mul_(2)  # so is this, through a view
        self.auxiliary(h)
        h = self.unit(h)
        self.auxiliary(h)
        h.mean() + 1
        return self.head(h.mean((2, 3)))


@torch.no_grad()
def test_unused_branches_are_left_out():
    model = UnusedBranches().eval()
    images = torch.rand(2, 3, 16, 16)
    expected = model(images)
    blocks = partition(model, images)
    assert [block.convolutions for block in blocks] == [1, 2, 2]
    h = images
    for block in blocks:
        h = block(h)
    torch.testing.assert_close(h, expected)
    assert difference(model.head(model.unit(model.stem(images)).mean((2, 3))), expected) > 1e-3  # in place matters


class ResNetWithUnusedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=10)
        self.auxiliary = nn.Linear(512, 3)

    def forward(self, x):
        net = self.net
        h = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        h = net.layer4(net.layer3(net.layer2(net.layer1(h)))).mean((2, 3))
        self.auxiliary(h)
        return net.fc(h)


def test_a_resnet_with_an_unused_head_has_the_blocks_of_one_without():
    with_head = Classifier(randomise(ResNetWithUnusedHead().eval()), "mine", size=64)
    plain = random_classifier("torchvision:resnet18")
    for blocks in zip(with_head.blocks[:-1], plain.blocks[:-1], strict=True):
        assert blocks[0].shape == blocks[1].shape and blocks[0].convolutions == blocks[1].convolutions


@pytest.mark.parametrize(
    ("shape", "invertible"),
    [((8, 4, 4), True), ((4, 4, 8), True), ((17, 8), True), ((8,), False), ((8, 4, 6), False), ((2, 4, 4, 8), False)],
)
def test_a_block_says_whether_its_output_can_be_inverted(shape, invertible):
    assert Block(nn.Identity(), 1, "one", shape, 0, 1).invertible is invertible


def test_a_generator_is_cut_too():
    model = nn.Sequential(nn.ConvTranspose2d(10, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    blocks = partition(model.eval(), torch.randn(2, 10, 1, 1))
    assert [(b.shape, b.convolutions, b.stride) for b in blocks] == [((8, 4, 4), 1, 1 / 4), ((3, 8, 8), 2, 1 / 8)]


# ---- what cannot be traced -------------------------------------------------------------------------------------------


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        h = self.conv(x)
        return self.fc(h.mean((2, 3)) if h.sum() > 1e9 else h.amax((2, 3)))


class Largest(nn.Module):
    def forward(self, h):
        return h.amax((2, 3))


def test_blocks_by_hand_are_taken():
    model = DataDependent()
    with pytest.raises(ValueError, match=r"cannot be traced .*blocks=\[\("):
        partition(model.eval(), torch.rand(1, 3, 16, 16))
    by_hand = [("conv", model.conv), ("pool and map", nn.Sequential(Largest(), model.fc))]
    classifier = Classifier(model, "mine", size=16, blocks=by_hand)
    assert [(b.depth, b.name, b.shape, b.convolutions) for b in classifier.blocks] == [
        (1, "conv", (4, 14, 14), 1),
        (2, "pool and map", (5,), 1),
    ]
    images = torch.rand(3, 3, 16, 16)
    assert difference(classifier.features(images, 2), classifier.logits(images)) <= 1e-5


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        (lambda m: [("conv", m.conv), ("rest", nn.Sequential(nn.Tanh(), Largest(), m.fc))], "do not give the model's"),
        (lambda m: [("conv", m.conv)], "do not give the model's"),
        (lambda m: [("conv", m.conv), ("fc", m.fc)], r"Block 2 \(fc\)"),
        (lambda m: [], "do not give the model's"),
    ],
)
def test_wrong_blocks_by_hand_are_refused(blocks, sentence):
    torch.manual_seed(0)
    model = DataDependent().eval()
    with pytest.raises(ValueError, match=sentence):
        compose(blocks(model), model, torch.rand(2, 3, 16, 16))


def test_a_model_in_training_mode_or_with_two_outputs_is_refused():
    with pytest.raises(ValueError, match="eval"):
        partition(nn.Conv2d(3, 4, 3).train(), torch.rand(1, 3, 8, 8))

    class Two(Residual):
        def forward(self, x):
            return x, self.conv(x)

    with pytest.raises(ValueError, match="one tensor"):
        partition(Two(3).eval(), torch.rand(1, 3, 8, 8))


def test_blocks_stay_in_eval_mode_and_can_be_copied():
    block = random_classifier("torchvision:resnet18").blocks[1]
    nn.Sequential(block).train()
    assert not any(module.training for module in block.modules())
    h = torch.rand(2, 64, 32, 32)
    assert torch.equal(copy.deepcopy(block)(h), block(h))
