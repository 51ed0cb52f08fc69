"""Outputs of every layout become maps, come back exactly, and are inverted; so is a chain of mixed ones."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from invkit import dci
from invkit.dci import synthetic
from invkit.dci.chain import classifier_blocks, map_shapes
from invkit.dci.inverse_block import InverseBlock
from invkit.dci.layout import layout_of
from invkit.dci.training import Schedule, start_linear
from invkit.network.classifiers import Classifier

SIZE = 16


@pytest.mark.parametrize(
    ("shape", "size", "map_shape"),
    [
        ((8, 7, 7), 28, (8, 7, 7)),
        ((32, 32, 32), 64, (32, 32, 32)),
        ((7, 7, 8), 28, (8, 7, 7)),
        ((197, 6), 224, (6, 15, 14)),  # a class
        ((198, 6), 224, (6, 15, 14)),  # and what was distilled
        ((201, 6), 224, (6, 15, 14)),  # a class and four registers
        ((9, 6), 28, (6, 5, 2)),  # the same beside a square of four, though nine would be a square too
        ((49, 6), 224, (6, 7, 7)),
        ((1, 6), 224, (6, 1, 1)),
        ((5,), 28, (5,)),
    ],
)
def test_a_layout_comes_back_exactly(shape, size, map_shape):
    layout = layout_of(shape, size)
    assert layout.map_shape == map_shape
    h = torch.rand(2, *shape)
    assert layout.to_map(h).shape == (2, *map_shape) and torch.equal(layout.from_map(layout.to_map(h)), h)


def test_neighbours_stay_neighbours():
    grid = torch.arange(16.0).view(4, 4)
    tokens = torch.cat([torch.tensor([-1.0]), grid.flatten()])[None, :, None]
    found = layout_of((17, 1), 64).to_map(tokens)[0, 0]
    assert torch.equal(found[:4], grid) and found[4].tolist() == [-1, 0, 0, 0]
    assert torch.equal(layout_of((4, 4, 2), 64).to_map(torch.stack([grid, -grid], 2)[None])[0, 0], grid)


def test_other_shapes_have_no_layout():
    assert layout_of((4, 196, 192), 224) is None and layout_of((2, 3, 4, 5), 224) is None


class Tokens(nn.Module):
    """(N, C, H, W) -> (N, 1 + H W, C), with a class and an embedding of the places."""

    def __init__(self, channels, places):
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, channels))
        self.places = nn.Parameter(3 * torch.randn(1, places + 1, channels))

    def forward(self, h):
        tokens = h.flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(h), -1, -1), tokens], 1) + self.places


class Mixing(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, h):
        return h + torch.tanh(self.linear(self.norm(h))) + 0.1 * h.mean(1, keepdim=True)


class LastChannels(nn.Module):
    """(N, 1 + 16, C) -> (N, 4, 4, C)."""

    def forward(self, h):
        return h[:, 1:].unflatten(1, (4, 4))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    blocks = [
        ("patches", nn.Conv2d(3, 48, 4, 4)),
        ("tokens", Tokens(48, 16)),
        ("mixing", Mixing(48)),
        ("channels last", LastChannels()),
        ("mixing again", Mixing(48)),
        ("head", nn.Sequential(nn.Flatten(), nn.Linear(768, 5))),
    ]
    model = nn.Sequential(*(module for _, module in blocks))
    return Classifier(model, "mixed", size=SIZE, blocks=blocks)


def test_a_chain_sees_maps_and_its_user_what_the_network_puts_out(mixed):
    assert map_shapes(mixed) == [(3, 16, 16), (48, 4, 4), (48, 5, 4), (48, 5, 4), (48, 4, 4), (48, 4, 4), (5,)]
    images = torch.rand(2, 3, SIZE, SIZE)
    hidden = dci.represent(classifier_blocks(mixed), images, 6)
    assert [tuple(h.shape[1:]) for h in hidden] == map_shapes(mixed)
    torch.testing.assert_close(hidden[-1], mixed.logits(images))


def test_training_lowers_the_error_at_every_depth(mixed):
    pool = synthetic.draw_pool(16, 32)
    images = synthetic.dead_leaves(8, SIZE, seed=9)

    tokens = [False, False, True, True, False, False]
    sizes = [(16, 1, (after, before)) for before, after in pairwise(tokens)]

    def trained(schedule):
        inverter = dci.invert_classifier(mixed, pool, schedule=schedule, sizes=sizes, at_once=True, progress=False)
        errors = [dci.log_error(inverter.reconstruct(images, depth), images) for depth in inverter.depths]
        return inverter, torch.stack(errors)

    start, before = trained(Schedule(divide=1, synchronise=0))
    inverter, after = trained(Schedule(divide=10, synchronise=25, synchronise_lr=2e-3))
    assert inverter.depths == [1, 2, 3, 4, 5] and (after[1:] < before[1:]).all() and after[-1] < before[-1] - 0.05
    assert inverter.represent(images, depth=3).shape == (8, 17, 48)
    assert inverter.reconstruct(images[:1], search=2).shape == (1, 3, SIZE, SIZE)


def test_least_squares_alone_inverts_a_linear_block_and_what_its_places_add(mixed):
    pool, blocks = synthetic.draw_pool(64, 32), classifier_blocks(mixed)[:2]
    hidden = dci.represent(blocks, synthetic.dead_leaves(8, SIZE, seed=9), 2)

    def quality(depth, places):
        torch.manual_seed(0)
        chain = dci.Chain(map_shapes(mixed)[:3], [(8, 1), (8, 1, (places, False))])
        start_linear(chain, blocks, lambda step, depth: pool.batch(step, 16, SIZE))
        return -10 * dci.log_error(chain(hidden[depth], depth)[-1], hidden[0])

    assert quality(1, False) > 25 and quality(2, True) > quality(2, False) + 2


@pytest.mark.parametrize(
    "shapes", [((4, 3, 3), (3, 6, 6)), ((4, 3, 3), (2, 5, 5)), ((4, 4, 4), (6, 2, 2)), ((9,), (4,))]
)
def test_the_linear_path_is_least_squares(shapes):
    torch.manual_seed(0)
    block = InverseBlock(*shapes, width=4)
    truth = InverseBlock(*shapes, width=4).requires_grad_(False)
    source = torch.randn(400, *shapes[0])
    hidden = truth(source)
    block.calibrate(source, hidden)
    block.fit_linear(source, hidden, penalty=0.0)
    torch.testing.assert_close(block(source), hidden, atol=1e-3, rtol=1e-3)
