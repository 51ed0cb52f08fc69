"""Networks that torch.fx cannot trace are cut at their modules, into blocks that are the network."""

import copy
from dataclasses import dataclass

import pytest
import torch
from helpers import randomise
from torch import nn

from invkit.network.classifiers import Classifier
from invkit.network.cuts import cut_at_modules
from invkit.network.partition import partition

# ---- networks as others write them -----------------------------------------------------------------------------------


@dataclass
class Output:
    """As transformers' ModelOutput: what was not computed is None."""

    last_hidden_state: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    attentions: tuple | None = None


class Checked(nn.Module):
    """A patch embedding that looks at the shape of its images, as transformers' do."""

    def __init__(self, channels, width, patch):
        super().__init__()
        self.channels, self.projection = channels, nn.Conv2d(channels, width, patch, patch)

    def forward(self, pixel_values):
        if pixel_values.shape[1] != self.channels:
            raise ValueError("Make sure that the channel dimension of the pixel values match.")
        return self.projection(pixel_values)


class Embeddings(nn.Module):
    def __init__(self, width=16, tokens=17):
        super().__init__()
        self.patch_embeddings = Checked(3, width, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.randn(1, tokens, width))
        self.dropout = nn.Dropout(0.1)

    def forward(self, pixel_values):
        tokens = self.patch_embeddings(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.dropout(tokens + self.position_embeddings)


class Attention(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, hidden, head_mask=None, output_attentions=False):
        weights = (self.query(hidden) @ self.key(hidden).transpose(1, 2)).softmax(-1)
        context = self.output(weights @ self.value(hidden))
        return (context, weights) if output_attentions else (context,)


class Layer(nn.Module):
    """Pre-norm, residual; returns a tuple as transformers' layers did for years."""

    def __init__(self, width=16):
        super().__init__()
        self.attention, self.intermediate, self.output = Attention(), nn.Linear(width, 32), nn.Linear(32, width)
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, hidden, head_mask=None, output_attentions=False):
        outputs = self.attention(self.layernorm_before(hidden), head_mask, output_attentions=output_attentions)
        hidden = outputs[0] + hidden
        hidden = self.output(self.intermediate(self.layernorm_after(hidden)).relu()) + hidden
        return (hidden, *outputs[1:])


class ViT(nn.Module):
    """As ViTForImageClassification."""

    def __init__(self, layers=3):
        super().__init__()
        self.embeddings, self.layers = Embeddings(), nn.ModuleList(Layer() for _ in range(layers))
        self.layernorm, self.classifier = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, pixel_values=None, labels=None, return_dict=None):
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        hidden = self.embeddings(pixel_values)
        for layer in self.layers:
            hidden = layer(hidden, head_mask=None, output_attentions=False)[0]
        hidden = self.layernorm(hidden)
        return Output(last_hidden_state=hidden, logits=self.classifier(hidden[:, 0, :]))


class ConvLayer(nn.Module):
    def __init__(self, inside, outside, stride=1, relu=True):
        super().__init__()
        self.convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.normalization = nn.BatchNorm2d(outside)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, hidden):
        return self.activation(self.normalization(self.convolution(hidden)))


class ResidualLayer(nn.Module):
    """Writes into its input, as many do."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.shortcut = nn.Conv2d(inside, outside, 1, stride) if stride > 1 else nn.Identity()
        self.layer = nn.Sequential(ConvLayer(inside, outside, stride), ConvLayer(outside, outside, relu=False))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, hidden):
        residual = hidden
        hidden = self.layer(hidden)
        hidden += self.shortcut(residual)
        return self.activation(hidden)


class Stage(nn.Module):
    def __init__(self, inside, outside, stride, depth=2):
        super().__init__()
        layers = [ResidualLayer(inside if i == 0 else outside, outside, stride if i == 0 else 1) for i in range(depth)]
        self.layers = nn.Sequential(*layers)

    def forward(self, hidden):
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([Stage(8, 8, 1), Stage(8, 16, 2)])

    def forward(self, hidden, output_hidden_states=False):
        states = ()
        for stage in self.stages:
            states = (*states, hidden) if output_hidden_states else states
            hidden = stage(hidden)
        return Output(last_hidden_state=hidden)


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedder, self.pooler = ConvLayer(3, 8, 2), nn.MaxPool2d(3, 2, 1)

    def forward(self, pixel_values):
        if pixel_values.shape[1] != 3:
            raise ValueError("Make sure that the channel dimension of the pixel values match.")
        return self.pooler(self.embedder(pixel_values))


class ResNet(nn.Module):
    """As ResNetForImageClassification, but a dictionary."""

    def __init__(self):
        super().__init__()
        self.embedder, self.encoder, self.pooler = Embedder(), Encoder(), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))

    def forward(self, pixel_values):
        hidden = self.encoder(self.embedder(pixel_values)).last_hidden_state
        pooled = self.pooler(hidden)
        return {"hidden": hidden, "logits": self.classifier(pooled), "pooled": pooled}


class ConvNextLayer(nn.Module):
    """Mixes places, then channels, which are last in between; its branch is scaled and added."""

    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.layernorm, self.act = nn.LayerNorm(width), nn.GELU()
        self.pwconv1, self.pwconv2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.layer_scale_parameter = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, features):
        branch = self.layernorm(self.dwconv(features).permute(0, 2, 3, 1))
        branch = self.layer_scale_parameter * self.pwconv2(self.act(self.pwconv1(branch)))
        return features + branch.permute(0, 3, 1, 2)


class ConvNextStage(nn.Module):
    def __init__(self, inside, outside, depth=2):
        super().__init__()
        self.downsampling_layer = nn.ModuleList([nn.Conv2d(inside, outside, 2, 2)] if inside != outside else [])
        self.layers = nn.ModuleList(ConvNextLayer(outside) for _ in range(depth))

    def forward(self, features):
        for layer in (*self.downsampling_layer, *self.layers):
            features = layer(features)
        return features


class ConvNext(nn.Module):
    """As ConvNextForImageClassification."""

    def __init__(self):
        super().__init__()
        self.embeddings = Checked(3, 8, 2)
        self.encoder = nn.ModuleDict({"stages": nn.ModuleList([ConvNextStage(8, 8), ConvNextStage(8, 16)])})
        self.layernorm, self.classifier = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, pixel_values=None, labels=None):
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        features = self.embeddings(pixel_values)
        for stage in self.encoder["stages"]:
            features = stage(features)
        pooled = self.layernorm(features.mean([-2, -1]))
        return Output(last_hidden_state=features, logits=self.classifier(pooled))


class Looking(nn.Module):
    """An `if` on values, a shared activation, a loop over units in a list."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.units = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.relu, self.head = nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.stem(x))
        for unit in self.units:
            x = self.relu(unit(x))
        if not torch.isfinite(x).all():
            raise ValueError("diverged")
        return self.head(x.mean((2, 3)))


def classifier_of(network, size=16, **arguments):
    torch.manual_seed(0)
    return Classifier(randomise(network()).eval(), network.__name__, size=size, mean=0.4, std=0.3, **arguments)


def assert_blocks_are_the_network(classifier):
    images = torch.rand(4, 3, classifier.size, classifier.size, requires_grad=True)
    h, seen = classifier.preprocess(images), []
    for block in classifier.blocks:
        seen.append((h, h.detach().clone()))
        h = block(h)
        assert tuple(h.shape) == (4, *block.shape)
    logits = classifier.logits(images)
    torch.testing.assert_close(h, logits, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(now, before) for now, before in seen), "a block writes into its input"
    gradients = [torch.autograd.grad(out[:, 1].sum(), images, retain_graph=True)[0] for out in (h, logits)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


# ---- cut by themselves -----------------------------------------------------------------------------------------------


def test_a_transformer_of_another_library_is_cut_after_every_layer():
    classifier = classifier_of(ViT)
    assert classifier.classes == 5
    assert [(b.name, b.shape, b.convolutions, b.stride) for b in classifier.blocks] == [
        ("embeddings.patch_embeddings", (16, 4, 4), 1, 4),
        *((f"layers.{i}", (17, 16), 1, 4) for i in range(3)),
        ("classifier", (5,), 1, 16),
    ]
    assert [block.invertible for block in classifier.blocks] == [True] * 4 + [False]
    assert_blocks_are_the_network(classifier)


def test_a_resnet_of_another_library_is_cut_at_its_residual_units():
    classifier = classifier_of(ResNet)
    assert [(b.name, b.shape, b.convolutions, b.stride) for b in classifier.blocks] == [
        ("embedder.embedder", (8, 8, 8), 1, 2),
        ("encoder.stages.0.layers.0", (8, 4, 4), 3, 4),
        ("encoder.stages.0.layers.1", (8, 4, 4), 5, 4),
        ("encoder.stages.1.layers.0", (16, 2, 2), 8, 8),
        ("encoder.stages.1.layers.1", (16, 2, 2), 10, 8),
        ("classifier.1", (5,), 10, 16),
    ]
    assert_blocks_are_the_network(classifier)
    with torch.no_grad():  # another size than that of the cut
        images = torch.rand(2, 3, 24, 32)
        torch.testing.assert_close(classifier.features(images, 6), classifier.logits(images))


def test_a_convnext_of_another_library_is_cut_after_every_layer():
    classifier = classifier_of(ConvNext)
    assert [(b.name, b.shape) for b in classifier.blocks] == [
        ("embeddings", (8, 8, 8)),
        *((f"encoder.stages.0.layers.{i}", (8, 8, 8)) for i in range(2)),
        ("encoder.stages.1.downsampling_layer.0", (16, 4, 4)),
        *((f"encoder.stages.1.layers.{i}", (16, 4, 4)) for i in range(2)),
        ("classifier", (5,)),
    ]
    assert_blocks_are_the_network(classifier)


def test_an_if_and_a_shared_activation_do_no_harm():
    classifier = classifier_of(Looking)
    with pytest.raises(ValueError, match="cannot be traced"):
        partition(classifier.model, torch.rand(1, 3, 16, 16))
    assert [(b.name, b.convolutions) for b in classifier.blocks] == [
        ("stem", 1), ("units.0", 2), ("units.1", 3), ("units.2", 4), ("head", 4)
    ]  # fmt: skip
    assert_blocks_are_the_network(classifier)


class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.patch, self.encoder, self.head = nn.Conv2d(3, 16, 4, 4), nn.TransformerEncoder(layer, 3), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def test_a_stack_that_is_traced_whole_is_cut_inside():
    """PyTorch computes a layer as one where no gradient is wanted, so that not every norm can end a block."""
    classifier = classifier_of(Encoded)
    assert [(b.name, b.shape) for b in classifier.blocks] == [
        ("patch", (16, 4, 4)),
        *((f"encoder.layers.{i}.{part}", (16, 16)) for i in range(2) for part in ("self_attn", "linear2")),
        ("encoder.layers.2", (16, 16)),
        ("head", (4,)),
    ]  # fmt: skip
    assert_blocks_are_the_network(classifier)


class Deciding(ViT):
    """With a probe and a head that the logits do not depend on, and logits that are changed in place."""

    def __init__(self):
        super().__init__()
        self.probe, self.auxiliary = nn.Conv1d(17, 9, 3), nn.Linear(16, 5)

    def forward(self, pixel_values):
        hidden = self.embeddings(pixel_values)
        probed = self.probe(hidden)
        for layer in self.layers:
            hidden = layer(hidden)[0]
        scores = self.classifier(hidden)  # a view, whose vertex in the graph of gradients is another one from here on
        scores *= 2
        return {"logits": scores[:, 0], "other": self.auxiliary(hidden.mean(1)), "probed": probed}


def test_a_head_that_the_logits_do_not_depend_on_names_no_block():
    classifier = classifier_of(Deciding)
    names = [block.name for block in classifier.blocks]
    assert names == ["embeddings.patch_embeddings", "layers.0", "layers.1", "layers.2", "classifier"]
    assert_blocks_are_the_network(classifier)
    other = classifier_of(Deciding, output="other")
    assert [block.name for block in other.blocks] == [*names[:-1], "auxiliary"]


class Starred(Looking):
    def forward(self, *images, **options):
        return super().forward(images[0])


def test_arguments_by_a_star_do_no_harm():
    assert len(classifier_of(Starred).blocks) == 5


def test_a_network_is_cut_in_inference_mode():
    classifier = classifier_of(Looking)
    with torch.inference_mode():
        assert len(classifier.blocks) == 5
    assert_blocks_are_the_network(classifier)


def test_blocks_leave_the_network_as_it_was():
    classifier = classifier_of(ResNet)
    network, images = classifier.model, torch.rand(2, 3, 16, 16)
    before, depth = classifier.logits(images), len(classifier.blocks)
    h = classifier.features(images, 2)
    with pytest.raises(RuntimeError):
        classifier.blocks[2](h[:, :5])  # fails in the middle
    for module in network.modules():
        assert "forward" not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks
    assert torch.equal(classifier.logits(images), before)
    copied = copy.deepcopy(classifier)
    assert torch.equal(copied.features(images, depth), classifier.features(images, depth))
    assert copied.blocks[1].body.whole[0] is copied.model is not classifier.model


def test_a_block_of_a_network_in_training_is_in_eval_mode():
    classifier = classifier_of(ResNet)
    images = torch.rand(2, 3, 16, 16)
    before, running = classifier.features(images, 4), copy.deepcopy(classifier.model.state_dict())
    classifier.model.train()
    assert torch.equal(classifier.features(images, 4), before)
    assert all(torch.equal(t, running[name]) for name, t in classifier.model.state_dict().items())
    assert all(module.training for module in classifier.model.modules())


class Around(nn.Module):
    """A mean of the image comes round every cut: by a gradient, or hidden by detach() or item()."""

    def __init__(self, way="gradient"):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.head, self.way = nn.Linear(3, 4), way

    def forward(self, x):
        mean = x.mean((1, 2, 3), keepdim=True)
        mean = mean.detach() if self.way == "detach" else mean.mean().item() if self.way == "item" else mean
        x = self.b(self.a(x))
        return self.head(self.c(x * mean).mean((2, 3))) if x.shape[1] == 3 else x


@pytest.mark.parametrize("way", ["gradient", "detach", "item"])
def test_what_comes_round_a_cut_forbids_it(way):
    classifier = Classifier(Around(way).eval(), "around", size=16)
    assert [block.name for block in classifier.blocks] == ["c", "head"]
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(classifier.features(images, 2), classifier.logits(images))
    with pytest.raises(ValueError, match="b is no place to cut"):
        _ = Classifier(Around(way).eval(), "around", size=16, cuts=["b", "c"]).blocks


# ---- by name ---------------------------------------------------------------------------------------------------------


def test_cuts_by_name_are_the_blocks():
    classifier = classifier_of(ResNet, cuts=["encoder.stages.0", "embedder"])
    assert [(b.name, b.shape, b.convolutions) for b in classifier.blocks] == [
        ("embedder", (8, 4, 4), 1),
        ("encoder.stages.0", (8, 4, 4), 5),
        ("classifier.1", (5,), 10),
    ]
    assert_blocks_are_the_network(classifier)


def test_cuts_by_name_take_precedence_where_a_network_can_be_traced():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(6, 3))  # fmt: skip
    classifier = Classifier(model, "mine", size=12, cuts=["0", "2"])
    assert [block.name for block in classifier.blocks] == ["0", "2", "5"]
    assert_blocks_are_the_network(classifier)
    assert classifier.features(torch.zeros(1, 3, 12, 12), 1).min() < 0  # before the ReLU


@pytest.mark.parametrize(
    ("cuts", "sentence"),
    [
        (["encoder.stage.0"], "no module 'encoder.stage.0'.*encoder.stages.0"),
        (["encoder.stages.0.layers.0.layer.0"], "no place to cut .*round it.*choose of embedder"),
        (["classifier.1"], "no place to cut"),
        ("embedder", "list of module names"),
    ],
)
def test_names_that_are_no_cuts_get_one_sentence(cuts, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        _ = classifier_of(ResNet, cuts=cuts).blocks
    assert "\n" not in str(raised.value)


def test_a_module_that_is_called_twice_or_never_is_no_cut():
    for name, sentence in (("relu", "called 4 times"), ("units", "never called")):
        with pytest.raises(ValueError, match=sentence):
            _ = classifier_of(Looking, cuts=[name]).blocks


# ---- what cannot be cut ----------------------------------------------------------------------------------------------


class WithoutGradients(Looking):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Noisy(Looking):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


class Counting(Looking):
    def forward(self, x):
        if len(x) > 1:
            x = self.relu(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [(WithoutGradients, "No gradient"), (Counting, "other modules"), (Noisy, "other logits every time, also in eval")],
)
def test_what_cannot_be_cut_gets_one_sentence(network, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        _ = classifier_of(network).blocks
    assert "\n" not in str(raised.value)


def test_a_traceable_network_has_the_same_blocks_at_its_modules():
    import torchvision

    torch.manual_seed(0)
    model = randomise(torchvision.models.resnet18(num_classes=10)).eval()

    def examples(n, seed):
        return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))

    found = cut_at_modules(model.requires_grad_(False), model, examples)
    traced = partition(model, examples(1, 0))
    facts = [[(b.depth, b.name, b.shape, b.convolutions, b.stride) for b in blocks] for blocks in (found, traced)]
    assert facts[0] == facts[1]
