"""Inverse blocks: every change of resolution, a linear start, units, refused shapes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invkit.dci.inverse_block import InverseBlock, ResidualBlock

SHAPES = [
    ((8, 8, 8), (8, 8, 8)),  # same size
    ((8, 4, 4), (6, 8, 8)),  # up
    ((8, 4, 4), (3, 16, 16)),  # up by four
    ((8, 4, 4), (3, 7, 7)),  # up, odd: cropped
    ((8, 13, 13), (6, 27, 27)),  # up by two and one place more
    ((8, 10, 10), (6, 12, 12)),  # a convolution without padding
    ((6, 8, 8), (8, 4, 4)),  # down
    ((6, 9, 9), (8, 3, 3)),  # down by three
    ((8, 4, 4), (10,)),  # to a vector
    ((10,), (8, 4, 4)),  # from a vector
    ((10,), (12,)),  # between vectors
]


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_shapes_and_gradients(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=8, blocks=2)
    for p in block.parameters():  # away from the zeros of the start
        nn.init.normal_(p, std=0.1)
    y = torch.randn(3, *source, requires_grad=True)
    h = block(y)
    assert h.shape == (3, *target)
    h.square().sum().backward()
    assert y.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_starts_as_a_linear_map(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=8)
    a, b, zero = torch.randn(1, *source), torch.randn(1, *source), torch.zeros(1, *source)
    torch.testing.assert_close(block(a + b) + block(zero), block(a) + block(b), atol=1e-5, rtol=1e-4)


def test_upsampling_starts_as_nearest_neighbour():
    torch.manual_seed(0)
    h = InverseBlock((4, 4, 4), (3, 8, 8), width=8)(torch.randn(2, 4, 4, 4))
    cells = h.unfold(2, 2, 2).unfold(3, 2, 2)
    assert (cells.flatten(4).std(-1) < 1e-6).all() and h.std() > 0.05


@pytest.mark.parametrize("f", [lambda h: F.max_pool2d(h, 3, 2), lambda h: F.avg_pool2d(h, 3, 1)])
def test_what_is_not_padded_is_inverted_in_its_place(f):
    """27 places come from 13 or 25: the right and lower edges are reconstructed as well as the left and upper ones."""
    torch.manual_seed(0)
    h = F.interpolate(torch.randn(64, 4, 7, 7), size=27, mode="bicubic")
    y = f(h)
    block = InverseBlock(tuple(y.shape[1:]), tuple(h.shape[1:]), width=8)
    block.calibrate(y, h)
    block.fit_linear(y, h)
    error = (block(y) - h).square().mean((0, 1))
    assert error[-9:, -9:].mean() < 1.5 * error[:9, :9].mean() < 0.4


def test_maps_of_other_sizes_work():
    assert InverseBlock((4, 8, 8), (3, 16, 16), width=8)(torch.randn(1, 4, 5, 6)).shape == (1, 3, 10, 12)


def test_calibration_sets_the_units():
    torch.manual_seed(0)
    block = InverseBlock((4, 8, 8), (3, 8, 8), width=8)
    target = 5 + torch.tensor([0.1, 1.0, 10.0]).view(1, 3, 1, 1) * torch.randn(64, 3, 8, 8)
    block.calibrate(torch.randn(64, 4, 8, 8), target)
    torch.testing.assert_close(block.out_std.flatten(), torch.tensor([0.1, 1.0, 10.0]), rtol=0.1, atol=0)
    torch.testing.assert_close(block.out_mean.flatten(), torch.full((3,), 5.0), rtol=0.1, atol=0)
    dead = torch.cat([torch.zeros(4, 1, 8, 8), torch.randn(4, 3, 8, 8)], 1)
    block.calibrate(dead, torch.randn(4, 3, 8, 8))
    assert torch.isfinite(block(dead)).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="vectors .* or maps"):
        InverseBlock((4, 8), (3, 8, 8), width=8)


@pytest.mark.parametrize(
    ("source", "target"), [((8, 8, 8), (8, 8, 8)), ((3, 12, 12), (8, 4, 4)), ((3, 8, 8), (8, 4, 4)), ((8, 4, 4), (5,))]
)
def test_without_hidden_maps_it_is_one_convolution(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=0, blocks=0)
    (weight, bias), h = block.parameters(), torch.randn(2, *source)
    assert block(h).shape == (2, *target)
    block.calibrate(torch.randn(20, *source) * 3 + 1, torch.randn(20, *target) * 2 - 1)
    units = ((h - block.in_mean) / block.in_std, block.out_std, block.out_mean)
    again = F.conv2d(F.leaky_relu(units[0], 0.2), weight, bias, block.skip.stride, block.skip.padding)
    torch.testing.assert_close(block(h), (again * units[1] + units[2]).reshape(2, *target))


def test_between_vectors_the_one_convolution_is_a_matrix():
    block = InverseBlock((5,), (4,), width=0)
    assert block.skip.weight.shape == (4, 5, 1, 1) and block(torch.randn(2, 5)).shape == (2, 4)


def test_one_convolution_does_not_enlarge():
    with pytest.raises(ValueError, match="give a width above 0"):
        InverseBlock((8, 4, 4), (3, 8, 8), width=0)


def test_residual_block_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8)(x), x)
