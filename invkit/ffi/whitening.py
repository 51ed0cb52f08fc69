"""Networks: the inverse of one shallow block (Dong et al. 2021, section 3), and BigGAN conditioned on logits.

`InverseBlock` maps what a block puts out to what went in, whatever happens to the resolution on the way: a strided
block is inverted by sub-pixel up-sampling (Shi et al. 2016), an up-sampling one by a strided convolution, a linear
layer by a linear layer. It works in units of the channels' own mean and standard deviation, and starts as a linear map:
the last convolution of every residual branch is zero. Without hidden maps it is one convolution behind a leaky ReLU,
so that a chain of such inverses is a plain encoder, the lightest there is.

`LogitGenerator` and `ProjectionDiscriminator` are those of BigGAN (Brock, Donahue & Simonyan, ICLR 2019, arXiv
1809.11096) that read a logit vector where BigGAN reads a class (Teterwak et al., ICML 2021, arXiv 2103.07470). Switches
depart from the published networks, `published` has those.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from invkit.ffi.ridge import ridge as regress

# ---- BigGAN, conditioned on logits -----------------------------------------------------------------------------------


class Whitening(nn.Module):
    """A fixed, invertible map of the logits to unit covariance: (z - mean) @ matrix.

    Behind a spectral norm, raw logits lose what their directions of low variance say, which is nearly everything but
    the class. Starts as the identity; `fit` sets it, training never changes it.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def fit(self, z: Tensor, shrink: float = 1e-3) -> None:
        """Takes the map from examples (N, dim): matrix = C^(-1/2), C = (1 - shrink) cov + shrink (mean variance) I."""
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
        with torch.autocast(z.device.type, enabled=False):  # half precision has too few digits for the differences
            return (z.float() - self.mean) @ self.matrix

    def inverse(self, white: Tensor) -> Tensor:
        """The logits (N, dim) that the map takes to `white`."""
        return torch.linalg.solve(self.matrix.double(), white.double(), left=False).float() + self.mean


class CoarseRegressor(nn.Module):
    """Reads a coarse image (N, 3, side, side) from whitened logits: linearly, and with what a small network adds.

    The linear part is a ridge regression (`fit`), in closed form. The network, if it has a width `hidden`, also sees
    the probabilities: an image's place among those of its class tells more than its place among all. It is trained by
    itself before the generator (`ffi.fit_coarse_images`): an image costs it far less than it costs a generator.

    linear=False leaves the network alone, which then has smooth units and sees the whitened logits only. From many
    images, or many logits, it learns to read better than both together do (`benchmarks/coarse_readers.py`).
    """

    def __init__(self, condition_dim: int, side: int, hidden: int | None = None, linear: bool = True):
        super().__init__()
        if not (linear or hidden):
            raise ValueError("A reader of coarse images is linear or has a network: give the network a width.")
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
        if self.linear is None:
            read = self.network(white)
        else:
            read = self.linear(white)
            if self.network is not None:
                read = read + self.network(torch.cat([white, 2 * probabilities], dim=1))
        return read.float().view(-1, 3, self.side, self.side)

    @torch.no_grad()
    def fit(self, white: Tensor, images: Tensor, ridge: float = 0.1) -> None:
        """Sets the linear part from logits (N, condition_dim) and images (N, 3, side, side).

        ridge: in units of the mean variance of the whitened logits. A reader without a linear part starts from the
        mean image.
        """
        if self.linear is None:
            self.network[-1].bias.copy_(images.flatten(1).mean(0))
            return
        weight, bias = regress(white, images.flatten(1), [ridge])[0]
        self.linear.weight.copy_(weight.T)
        self.linear.bias.copy_(bias)

    def first_layers(self) -> list[nn.Linear]:
        """Those that read the logits."""
        network = [self.network[0]] if self.network is not None else []
        return network if self.linear is None else [self.linear, *network]
