"""Small transformers of timm, with random weights, are inverted at every block: tokens, and maps of either order."""

import pytest
import torch

import invkit
from invkit import dci, metrics
from invkit.dci import synthetic
from invkit.dci.training import Schedule

TRANSFORMERS = {
    "timm:deit_tiny_distilled_patch16_224": (  # a class and what was distilled are tokens without a place
        {"size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        [(24, 4, 4), *[(18, 24)] * 4],
    ),
    "timm:swin_tiny_patch4_window7_224": (  # maps with their channels last, in windows
        {"size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)},
        [(16, 8, 8), (8, 8, 16), (4, 4, 32), (4, 4, 32)],
    ),
    "timm:maxvit_pico_rw_256": (  # convolutions, then attention in windows and in grids
        {"size": 64, "embed_dim": (32, 32), "depths": (1, 1)},
        [(24, 32, 32), (32, 32, 32), (32, 16, 16), *[(16, 16, 32)] * 4, (32, 8, 8), *[(8, 8, 32)] * 4],
    ),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_is_inverted_at_every_block(name):
    arguments, shapes = TRANSFORMERS[name]
    torch.manual_seed(0)
    classifier = invkit.load_classifier(name, pretrained=False, num_classes=5, **arguments)
    assert [block.shape for block in classifier.blocks] == [*shapes, (5,)]
    assert [block.invertible for block in classifier.blocks] == [True] * len(shapes) + [False]
    pool, images = synthetic.draw_pool(12, 2 * classifier.size), synthetic.dead_leaves(6, classifier.size, seed=9)
    inverter = dci.invert_classifier(
        classifier, pool, schedule=Schedule(divide=4, synchronise=4), sizes=[(16, 1)] * len(shapes), at_once=True,
        crops=lambda depth: (6, classifier.size), progress=False,
    )  # fmt: skip
    assert inverter.depths == list(range(1, len(shapes) + 1))
    flat = metrics.psnr(images.mean((2, 3), keepdim=True).expand_as(images), images).mean()
    for depth in inverter.depths:
        assert inverter.represent(images, depth).shape[1:] == shapes[depth - 1]
        assert metrics.psnr(inverter.reconstruct(images, depth), images).mean() > flat + 1.5
