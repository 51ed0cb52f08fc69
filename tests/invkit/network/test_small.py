"""The small classifiers: shapes, sizes, what each family has and has not, one sentence for what cannot be built."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from invkit.network.classifiers import Classifier
from invkit.network.small import ARCHITECTURES, build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [32, 64])
def test_they_map_images_to_logits_and_all_of_them_learns(architecture, size):
    torch.manual_seed(0)
    network = build(architecture, 7, size)
    logits = network(torch.randn(4, 3, size, size))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_they_are_small_enough_for_a_cpu(architecture):
    network = build(architecture, 100)
    assert sum(p.numel() for p in network.parameters()) <= 215_000  # fourteen of them in half precision: 6 MB
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2 <= 15e6


def test_a_larger_image_costs_only_a_deeper_stem():
    small, large = build("residual", 10, 32), build("residual", 10, 64)
    stages = [dict(network.blocks.named_parameters()) for network in (small, large)]
    assert {name: p.shape for name, p in stages[0].items()} == {name: p.shape for name, p in stages[1].items()}
    for network, size in ((small, 32), (large, 64)):
        assert network.stem(torch.zeros(1, 3, size, size)).shape[-2:] == (16, 16)


def test_a_residual_block_adds_to_its_input_and_the_plain_family_adds_nothing():
    block = build("residual", 10).blocks[0].eval()
    for parameter in (block.conv1.weight, block.conv2.weight):
        nn.init.zeros_(parameter)
    x = torch.randn(1, 32, 16, 16)
    assert torch.equal(block(x), x)
    graph = torch.fx.symbolic_trace(build("plain", 10)).graph
    assert all(node.op in ("placeholder", "call_module", "output") for node in graph.nodes)  # modules in a row
    assert all(len(node.all_input_nodes) <= 1 for node in graph.nodes)


def test_options_choose_widths_and_blocks():
    network = build("residual", 10, 32, widths=(16, 24), blocks=(2, 1))
    assert network.head.in_features == 4 * 24
    assert sum(type(block).__name__ == "PreActivationBlock" for block in network.blocks) == 3
    assert build("plain", 10, widths=(8, 8, 8, 8, 16)).head.in_features == 2 * 2 * 16


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_classifier_cuts_them_into_blocks(architecture):
    torch.manual_seed(0)
    classifier = Classifier(build(architecture, 10), "small", size=32)
    images = torch.rand(2, 3, 32, 32)
    assert len(classifier.blocks) >= 5 and classifier.blocks[-1].shape == (10,)
    torch.testing.assert_close(classifier.features(images, len(classifier.blocks)), classifier.logits(images))


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("resnet", 10), {}, "no architecture 'resnet'.*residual, plain"),
        (("residual", 1), {}, "at least 2 classes"),
        (("residual", 10, 48), {}, "32, 64, 128"),
        (("plain", 10, 16), {}, "32, 64, 128"),
        (("residual", 10), {"widths": (8, 8)}, "as many widths"),
        (("plain", 10), {"blocks": (1,)}, "does not take"),
        (("plain", 10), {"widths": (8,) * 9}, "8 widths at most"),
    ],
)
def test_what_cannot_be_built_gets_one_sentence(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        build(*arguments, **options)
    assert "\n" not in str(raised.value)
