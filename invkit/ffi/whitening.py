"""What precedes the generator: whitening of the logits, and a coarse image regressed from them (our additions).

Teterwak et al. (2021, arXiv 2103.07470) feed the raw logits to the generator. `Whitening` first brings them to unit
covariance; `CoarseRegressor` estimates a small version of the image, to which the generator adds detail.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from invkit.ffi.ridge import ridge as ridge_regression


class Whitening(nn.Module):
    """A fixed, invertible linear map of the logits to unit covariance: (z - mean) @ matrix.

    A layer with spectral norm suppresses the directions in which raw logits vary little, and these carry nearly
    everything but the class. The map starts as the identity and is set by `fit`; training does not change it.

    Args:
        dim: length of a logit vector.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def fit(self, z: Tensor, shrink: float = 1e-3) -> None:
        """Set the map from examples: matrix = C^(-1/2) with C = (1 - shrink) covariance + shrink (mean variance) I.

        Args:
            z: logits, (N, dim).
            shrink: share of the identity in C, above 0 and up to 1.

        Raises:
            ValueError: another `shrink`.
        """
        if not 0 < shrink <= 1:
            raise ValueError(f"shrink lies above 0, so that the map can be inverted, and up to 1, not at {shrink}.")
        z = z.double()
        covariance = z.T.cov().reshape(z.shape[1], z.shape[1])
        scale = covariance.diagonal().mean().clamp_min(1e-12)
        values, vectors = torch.linalg.eigh(covariance)
        values = (1 - shrink) * values.clamp_min(0) + shrink * scale
        self.mean.copy_(z.mean(0))
        self.matrix.copy_(vectors * values.rsqrt() @ vectors.T)

    def forward(self, z: Tensor) -> Tensor:
        """Whitened logits (N, dim) of logits (N, dim), in float32."""
        with torch.autocast(z.device.type, enabled=False):  # half precision has too few digits for the differences
            return (z.float() - self.mean) @ self.matrix

    def inverse(self, white: Tensor) -> Tensor:
        """The logits (N, dim) of whitened logits (N, dim)."""
        return torch.linalg.solve(self.matrix.double(), white.double(), left=False).float() + self.mean


class CoarseRegressor(nn.Module):
    """Regresses a coarse image (N, 3, side, side) from whitened logits: a linear map plus a small network.

    The linear map is a ridge regression in closed form (`fit`). The network also sees the class probabilities, since a
    logit means more beside those of its own class than among all. It is trained by itself before the generator
    (`invkit.ffi.training.fit_coarse_images`), where an image costs far less than in training a generator.

    Args:
        condition_dim: length of a logit vector.
        side: side of the coarse image in pixels.
        hidden: width of the network's three hidden layers; None for no network.
        linear: False leaves out the linear map and gives the network, with smooth units then, the whitened logits
            alone. From many images, or many logits, this is more accurate than both parts together
            (`benchmarks/coarse_readers.py`).

    Raises:
        ValueError: neither a linear map nor a network.
    """

    def __init__(self, condition_dim: int, side: int, hidden: int | None = None, linear: bool = True):
        super().__init__()
        if not (linear or hidden):
            raise ValueError("A regressor of coarse images is linear or has a network: give the network a width.")
        self.side = side
        self.linear = nn.Linear(condition_dim, 3 * side**2) if linear else None
        self.network = None
        if hidden:
            widths = pairwise(((1 + linear) * condition_dim, hidden, hidden, hidden, 3 * side**2))
            unit = nn.ReLU if linear else nn.GELU
            layers = [layer for a, b in widths for layer in (nn.Linear(a, b), unit())]
            self.network = nn.Sequential(*layers[:-1])
            nn.init.zeros_(self.network[-1].weight)
            nn.init.zeros_(self.network[-1].bias)

    def forward(self, white: Tensor, probabilities: Tensor) -> Tensor:
        """Coarse images (N, 3, side, side) from whitened logits and probabilities, both (N, condition_dim)."""
        if self.linear is None:
            pixels = self.network(white)
        else:
            pixels = self.linear(white)
            if self.network is not None:
                pixels = pixels + self.network(torch.cat([white, 2 * probabilities], dim=1))
        return pixels.float().view(-1, 3, self.side, self.side)

    @torch.no_grad()
    def fit(self, white: Tensor, images: Tensor, ridge: float = 0.1) -> None:
        """Set the linear map from examples; without one, set the network to start from the mean image.

        Args:
            white: whitened logits, (N, condition_dim).
            images: coarse images, (N, 3, side, side) in [0, 1].
            ridge: penalty, in units of the mean variance of the whitened logits.
        """
        if self.linear is None:
            self.network[-1].bias.copy_(images.flatten(1).mean(0))
            return
        weight, bias = ridge_regression(white, images.flatten(1), [ridge])[0]
        self.linear.weight.copy_(weight.T)
        self.linear.bias.copy_(bias)

    def first_layers(self) -> list[nn.Linear]:
        """The layers whose input is the whitened logits; `LogitGenerator.fold` merges the whitening into them."""
        network = [self.network[0]] if self.network is not None else []
        return network if self.linear is None else [self.linear, *network]
