"""Whitening is invertible; coarse images are regressed from the logits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invkit.ffi.whitening import CoarseRegressor, Whitening


def test_whitening_is_invertible_and_whitens():
    torch.manual_seed(0)
    scale = torch.logspace(1.5, -0.5, 20)
    z = 3 + torch.randn(4000, 20) * scale @ torch.linalg.qr(torch.randn(20, 20)).Q
    whitening = Whitening(20)
    torch.testing.assert_close(whitening(z), z)  # the identity, until fitted
    whitening.fit(z, shrink=1e-6)
    white = whitening(z)
    torch.testing.assert_close(white.T.cov(), torch.eye(20), atol=0.02, rtol=0)
    torch.testing.assert_close(whitening.inverse(white), z, atol=1e-2, rtol=1e-3)
    whitening.fit(torch.eye(20), shrink=0.01)  # one-hot vectors have no variance along their sum
    assert torch.isfinite(whitening.matrix).all() and torch.linalg.matrix_rank(whitening.matrix) == 20
    with pytest.raises(ValueError, match="shrink"):
        whitening.fit(z, shrink=0)


def test_coarse_images_are_a_ridge_regression():
    torch.manual_seed(0)
    z, weight = torch.randn(500, 10), torch.randn(10, 48)
    images = (z @ weight + 0.5).view(-1, 3, 4, 4)
    regressor = CoarseRegressor(10, 4)
    regressor.fit(z, images, ridge=1e-6)
    torch.testing.assert_close(regressor(z, z.softmax(1)), images, atol=1e-3, rtol=1e-3)


def test_the_network_of_a_coarse_regressor_sees_the_class():
    torch.manual_seed(0)
    regressor, white = CoarseRegressor(10, 4, hidden=16), torch.randn(6, 10)
    nn.init.normal_(regressor.network[-1].weight)
    one, other = (F.one_hot(torch.full((6,), label), 10).float() for label in (0, 1))
    assert not torch.allclose(regressor(white, one), regressor(white, other))


def test_a_coarse_regressor_without_a_linear_part_is_its_network_and_starts_from_the_mean():
    torch.manual_seed(0)
    regressor, white, images = (
        CoarseRegressor(10, 4, hidden=16, linear=False),
        torch.randn(6, 10),
        torch.rand(6, 3, 4, 4),
    )
    regressor.fit(white, images)
    torch.testing.assert_close(regressor(white, white.softmax(1)), images.mean(0).expand(6, 3, 4, 4))
    assert regressor.first_layers() == [regressor.network[0]]
    with pytest.raises(ValueError, match="give the network a width"):
        CoarseRegressor(10, 4, linear=False)
