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

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from invkit.ridge import ridge as regress


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3, without normalisation; starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        for zero in (self.first.bias, self.second.weight, self.second.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class InverseBlock(nn.Module):
    """Inverse g of a block f: from f(h), shaped `in_shape`, back to h, shaped `out_shape` (channels, height, width).

    Args:
        in_shape: shape of what is inverted, (C, H, W) or (C,) for a vector.
        out_shape: shape of what is read back. Maps of other sizes than these work as long as nothing is a vector.
        width: channels of the hidden maps; 0 leaves one convolution behind a leaky ReLU, from a map of the same size or
            a larger one.
        blocks: residual blocks, at the coarser of the two resolutions.

    Raises:
        ValueError: a shape that is neither (C,) nor (C, H, W); one convolution for what has to be enlarged.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], width: int, blocks: int = 2):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        source, target = _as_map(in_shape), _as_map(out_shape)
        self.up, self.down = _ratio(source[1:], target[1:]), _ratio(target[1:], source[1:])
        outputs = target[0] * self.up**2
        dense = self.down > 1 and target[1:] == (1, 1)  # a vector out of a map: every place has weights of its own
        self.plain = width == 0
        if self.plain:
            if self.up > 1:
                raise ValueError(f"One convolution does not enlarge {source} to {target}: give a width above 0.")
            overlapping = 2 * self.down + self.down % 2, (self.down + 1) // 2
            kernel, padding = (source[1:], 0) if target[1:] == (1, 1) else overlapping
            self.skip = nn.Conv2d(source[0], outputs, kernel, self.down, padding)
        else:
            self._add_hidden(source, outputs, dense, width, blocks)
        if self.up > 1:  # start from nearest-neighbour up-sampling: no chequerboard (Aitken et al. 2017)
            for tensor in (self.skip.weight.data, self.skip.bias.data):
                tensor.copy_(tensor[:: self.up**2].repeat_interleave(self.up**2, 0))
        self.register_buffer("in_mean", torch.zeros(1, source[0], 1, 1))
        self.register_buffer("in_std", torch.ones(1, source[0], 1, 1))
        self.register_buffer("out_mean", torch.zeros(1, target[0], 1, 1))
        self.register_buffer("out_std", torch.ones(1, target[0], 1, 1))

    def _add_hidden(self, source: tuple[int, int, int], outputs: int, dense: bool, width: int, blocks: int) -> None:
        """The residual path and the linear one beside it."""
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        if self.down > 1 and not dense:
            self.enter = nn.Conv2d(source[0], width, 2 * self.down, self.down, padding=self.down // 2)
            self.skip = nn.Conv2d(source[0], outputs, self.down, self.down)
        else:
            self.enter = nn.Conv2d(source[0], width, 3 if source[1:] != (1, 1) else 1, padding="same")
            self.skip = nn.Conv2d(source[0], outputs, source[1:] if dense else 1)
        self.leave = nn.Conv2d(width, outputs, source[1:]) if dense else nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @torch.no_grad()
    def calibrate(self, source: Tensor, target: Tensor) -> None:
        """Takes the units of both sides from examples: f(h), (N, *in_shape), and h, (N, *out_shape)."""
        for name, values in (("in", source), ("out", target)):
            values = values.float().reshape(len(values), values.shape[1], -1)
            mean, std = values.mean((0, 2)), values.std((0, 2))
            getattr(self, f"{name}_mean").copy_(mean.view(1, -1, 1, 1))
            getattr(self, f"{name}_std").copy_(std.clamp_min(1e-3 * std.max().clamp_min(1e-6)).view(1, -1, 1, 1))

    def forward(self, y: Tensor) -> Tensor:
        native = y.shape[1:] == self.in_shape
        y = (y.reshape(len(y), -1, *(y.shape[2:] or (1, 1))) - self.in_mean) / self.in_std
        h = self.skip(F.leaky_relu(y, 0.2)) if self.plain else self.leave(self.body(self.enter(y))) + self.skip(y)
        if self.up > 1:
            h = F.pixel_shuffle(h, self.up)
        h = h * self.out_std + self.out_mean
        if len(self.out_shape) == 1:
            return h.flatten(1)
        return h[..., : self.out_shape[1], : self.out_shape[2]] if native else h


def _as_map(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) not in (1, 3):
        raise ValueError(f"An inverse block reads and writes vectors (C,) or maps (C, H, W), not {tuple(shape)}.")
    return (*shape, 1, 1) if len(shape) == 1 else tuple(shape)


def _ratio(small: Sequence[int], large: Sequence[int]) -> int:
    """How many times the size `small` must be enlarged to reach `large`; odd sizes are rounded up and cropped."""
    return max(1, *(math.ceil(b / a) for a, b in zip(small, large, strict=True)))


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


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition (de Vries et al. 2017): (1 + U c) norm(x) + V c."""

    def __init__(self, channels: int, condition_dim: int, normed: Callable[[nn.Module], nn.Module]):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = normed(nn.Linear(condition_dim, channels, bias=False))
        self.bias = normed(nn.Linear(condition_dim, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.norm(x)
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[:, :, None, None].to(x.dtype), x, gain[:, :, None, None].to(x.dtype))


class UpBlock(nn.Module):
    """Residual block that doubles the sides by nearest-neighbour up-sampling (Brock et al. 2018, figure 15b).

    Both convolutions of what is doubled are computed from the small map: the same numbers for less work.
    """

    def __init__(self, inputs: int, outputs: int, condition_dim: int, normed: Callable[[nn.Module], nn.Module]):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, condition_dim, normed)
        self.norm2 = ConditionalBatchNorm(outputs, condition_dim, normed)
        self.conv1 = normed(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = normed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = normed(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = double_and_convolve(F.relu(self.norm1(x, condition)), self.conv1.weight, self.conv1.bias)
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """Residual block of the discriminator (Brock et al. 2018, figure 15c); down: halve the sides by averaging.

    first: it takes the image, so it does not begin with a ReLU.
    """

    def __init__(self, inputs: int, outputs: int, normed: Callable[[nn.Module], nn.Module], down: bool, first: bool):
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = normed(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = normed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = normed(nn.Conv2d(inputs, outputs, 1)) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        return F.avg_pool2d(h, 2) + self.skip(F.avg_pool2d(x, 2)) if self.down else h + self.skip(x)


class Attention(nn.Module):
    """Self-attention over places (Zhang et al. 2019, SAGAN), with keys and values pooled; starts as the identity."""

    def __init__(self, channels: int, normed: Callable[[nn.Module], nn.Module]):
        super().__init__()
        self.query = normed(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.key = normed(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.value = normed(nn.Conv2d(channels, channels // 2, 1, bias=False))
        self.leave = normed(nn.Conv2d(channels // 2, channels, 1, bias=False))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key, value = (F.max_pool2d(f(x), 2).flatten(2).transpose(1, 2) for f in (self.key, self.value))
        read = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gain * self.leave(read.transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))


class CoarseReader(nn.Module):
    """Reads a coarse image (N, 3, side, side) from whitened logits: linearly, and with what a small network adds.

    The linear part is a ridge regression (`fit`), in closed form. The network, if it has a width `hidden`, also sees
    the probabilities: an image's place among those of its class tells more than its place among all. It is trained by
    itself before the generator (`ffi.read_coarsely`): an image costs it far less than it costs a generator.

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


class LogitGenerator(nn.Module):
    """BigGAN's generator (Brock et al. 2018) with logits in the place of the class (Teterwak et al. 2021).

    A chunk of the noise seeds a 4x4 map; every block doubles its sides, and its two conditional batch norms read a
    shared map of the logits beside a noise chunk of the block's own (hierarchical noise).

    Args:
        size: pixels of a side, 8 or more and a power of two.
        condition_dim: length of the logit vectors.
        noise_dim: length of the noise; a multiple of the number of chunks, one for the seed and one for each block.
        channels: of the 4x4 map, then of every block's output; `LEAN_GENERATOR[size]` by default, `published` has
            BigGAN's own.
        shared_dim: length of the shared map of the logits.
        hidden: width of the two hidden layers of that map; None for a linear map without bias, as published.
        coarse: side of a coarse image that is read from the logits by a `CoarseReader` of its own, told to the shared
            map and, enlarged, added before the last tanh; None for none, as published.
        coarse_hidden: width of that reader's network; None reads linearly.
        coarse_linear: False leaves that network alone.
        whiten: pass the logits through `Whitening` first (`generator.whitening.fit`).
        seeded: seed the 4x4 map from the shared map of the logits too, not from noise alone.
        logit_noise: standard deviation of noise added to the (whitened) logits in training.
        attention: side of the map that gets self-attention, or None.
        spectral: spectral norm (Miyato et al. 2018) on every weight but those of hidden layers, and of what is added to
            a coarse image.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(
        self,
        size: int,
        condition_dim: int,
        noise_dim: int | None = None,
        channels: Sequence[int] | None = None,
        *,
        shared_dim: int = 128,
        hidden: int | None = 256,
        coarse: int | None = 8,
        coarse_hidden: int | None = None,
        coarse_linear: bool = True,
        whiten: bool = True,
        seeded: bool = True,
        logit_noise: float = 0.0,
        attention: int | None = None,
        spectral: bool = True,
    ):
        super().__init__()
        blocks = _doublings(size)
        channels = tuple(channels or LEAN_GENERATOR.get(size, ()))
        noise_dim = 16 * (blocks + 1) if noise_dim is None else noise_dim
        if len(channels) != blocks + 1:
            raise ValueError(f"{size} pixels need {blocks + 1} numbers of channels, from 4x4 up, not {channels}.")
        if noise_dim < 1 or noise_dim % (blocks + 1):
            raise ValueError(f"noise_dim must be a multiple of {blocks + 1}, the seed and the blocks, not {noise_dim}.")
        normed = _normed(spectral)
        self.size, self.condition_dim, self.noise_dim = size, condition_dim, noise_dim
        self.seeded, self.logit_noise = seeded, logit_noise
        chunk = noise_dim // (blocks + 1)
        self.whitening = Whitening(condition_dim) if whiten else nn.Identity()
        if hidden is None:
            self.shared = normed(nn.Linear(condition_dim, shared_dim, bias=False))
        else:
            inputs = condition_dim + (3 * coarse**2 if coarse else 0)
            self.shared = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, shared_dim),
            )
        if coarse and hidden is None:
            raise ValueError("A coarse image goes with a hidden layer: give hidden a width, or coarse=None.")
        self.coarse = None
        if coarse:
            self.coarse = CoarseReader(condition_dim, coarse, coarse_hidden, coarse_linear).requires_grad_(False)
        self.seed = normed(nn.Linear(chunk + shared_dim * seeded, 16 * channels[0]))
        self.blocks = nn.ModuleList(
            UpBlock(inputs, outputs, shared_dim + chunk, normed) for inputs, outputs in pairwise(channels)
        )
        sides = [8 * 2**k for k in range(blocks)]
        if attention is not None and attention not in sides:
            raise ValueError(f"Self-attention can sit at one of the sides {sides}, not at {attention}.")
        self.attention = Attention(channels[1 + sides.index(attention)], normed) if attention else None
        self.attention_after = sides.index(attention) if attention else None
        self.norm = nn.BatchNorm2d(channels[-1])
        if coarse:  # what the blocks add to the coarse image starts at zero
            self.leave = nn.Conv2d(channels[-1], 3, 3, padding=1)
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)
        else:
            self.leave = normed(nn.Conv2d(channels[-1], 3, 3, padding=1))

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Images (N, 3, size, size) in [0, 1] from noise (N, noise_dim) and logits (N, condition_dim)."""
        probabilities = condition.float().softmax(1)
        condition = self.whitening(condition)
        if self.training and self.logit_noise:
            condition = condition + self.logit_noise * torch.randn_like(condition)
        coarse = self.coarse(condition, probabilities) if self.coarse else None
        seen = torch.cat([condition, 4 * coarse.flatten(1) - 2], dim=1) if self.coarse else condition
        shared = self.shared(seen)
        first, *chunks = noise.to(shared.dtype).chunk(len(self.blocks) + 1, dim=1)
        h = self.seed(torch.cat([first, shared], dim=1) if self.seeded else first)
        h = h.view(len(h), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        for k, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            h = block(h, torch.cat([shared, chunk], dim=1))
            if k == self.attention_after:
                h = self.attention(h)
        h = self.leave(F.relu(self.norm(h))).float()
        if self.coarse:
            enlarged = F.interpolate(coarse, size=self.size, mode="bilinear")
            h = h + torch.atanh((2 * enlarged - 1).clamp(-0.95, 0.95))
        return (torch.tanh(h) + 1) / 2

    @torch.no_grad()
    def set_standing_statistics(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Replaces the running statistics of batch norm by averages over (noise, condition) batches.

        Averaged weights need statistics of their own, taken by passing batches through them (Brock et al. 2018,
        appendix D). The estimates of the spectral norms settle at the same time. Leaves the generator in eval mode.
        """
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
        self.train()
        for noise, condition in batches:
            self(noise, condition)
        self.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    @torch.no_grad()
    def fold(self) -> dict:
        """Multiplies out what is fixed once training is over: the same map, as plain weights, to save and use.

        Spectrally normalised weights become what they are now, and the whitening becomes a part of the first layer.
        Returns the options of this class that build a generator of the folded form.
        """
        for part in list(self.modules()):
            if is_parametrized(part, "weight"):
                remove_parametrizations(part, "weight")
        folded = {"spectral": False}
        if isinstance(self.whitening, Whitening) and isinstance(self.shared, nn.Sequential):
            mean, matrix = self.whitening.mean.double(), self.whitening.matrix.double()
            for layer in (self.shared[0], *(self.coarse.first_layers() if self.coarse else ())):
                weight = layer.weight[:, : self.condition_dim].double() @ matrix.T  # a coarse image's columns stay
                layer.bias.copy_(layer.bias.double() - weight @ mean)
                layer.weight[:, : self.condition_dim] = weight
            self.whitening = nn.Identity()
            folded["whiten"] = False
        return folded


class ProjectionDiscriminator(nn.Module):
    """BigGAN's discriminator of (image, logits) pairs: D(x, z) = w·h(x) + <V z, h(x)> (Miyato & Koyama 2018).

    Args:
        size: pixels of a side.
        condition_dim: length of the logit vectors.
        channels: output channels of each residual block; `LEAN_DISCRIMINATOR[size]` by default.
        downs: how many blocks, the first ones, halve the sides.
        whiten: pass the logits through `Whitening` before the projection.
        attention: side of the map that gets self-attention, or None.
        spectral: spectral norm on every weight.
    """

    def __init__(
        self,
        size: int,
        condition_dim: int,
        channels: Sequence[int] | None = None,
        downs: int | None = None,
        *,
        whiten: bool = True,
        attention: int | None = None,
        spectral: bool = True,
    ):
        super().__init__()
        channels = tuple(channels or LEAN_DISCRIMINATOR.get(size, ()))
        downs = min(_doublings(size), len(channels) or 1) if downs is None else downs
        if not channels or downs > len(channels):
            raise ValueError(f"A discriminator of {size} pixels needs channels for {downs} halvings, not {channels}.")
        normed = _normed(spectral)
        self.size, self.condition_dim = size, condition_dim
        self.blocks = nn.ModuleList(
            DownBlock(inputs, outputs, normed, down=k < downs, first=k == 0)
            for k, (inputs, outputs) in enumerate(pairwise((3, *channels)))
        )
        sides = [size // 2 ** min(k + 1, downs) for k in range(len(channels))]
        if attention is not None and attention not in sides:
            raise ValueError(f"Self-attention can sit at one of the sides {sides}, not at {attention}.")
        self.attention = Attention(channels[sides.index(attention)], normed) if attention else None
        self.attention_after = sides.index(attention) if attention else None
        self.whitening = Whitening(condition_dim) if whiten else nn.Identity()
        self.linear = normed(nn.Linear(channels[-1], 1))
        self.projection = normed(nn.Linear(condition_dim, channels[-1], bias=False))

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Scores (N,), high for real, of images (N, 3, size, size) in [0, 1] with logits (N, condition_dim)."""
        h = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        for k, block in enumerate(self.blocks):
            h = block(h)
            if k == self.attention_after:
                h = self.attention(h)
        h = F.relu(h).sum(dim=(2, 3))
        projected = self.projection(self.whitening(condition))
        return (self.linear(h).squeeze(1) + (projected * h).sum(1)).float()


# Channels for training on CPUs: wide where a map is small and convolutions are dense, narrow where pixels are many.
LEAN_GENERATOR = {32: (256, 192, 96, 32), 64: (192, 192, 128, 64, 16), 128: (192, 192, 128, 96, 48, 16)}
LEAN_DISCRIMINATOR = {32: (32, 96, 192), 64: (16, 48, 96, 192), 128: (16, 32, 64, 128, 192)}


def published(size: int, width: int) -> tuple[dict, dict]:
    """Arguments for BigGAN's own generator and discriminator of 32, 64 or 128 pixels (Brock et al. 2018, appendix B).

    width: their base width, 64 for CIFAR at 32 pixels and 96 for ImageNet at 128. Conditions and sizes come besides.
    """
    plans = {  # multiples of the width, halvings, side of the self-attention
        32: ((4, 4, 4, 4), (4, 4, 4, 4), 2, None),
        64: ((16, 16, 8, 4, 2), (1, 2, 4, 8, 16), 4, 32),
        128: ((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5, 64),
    }
    if size not in plans:
        raise ValueError(f"BigGAN's plans here are for {', '.join(map(str, plans))} pixels, not {size}.")
    up, down, downs, attention = plans[size]
    generator = {"channels": tuple(width * k for k in up), "noise_dim": 20 * len(up), "attention": attention}
    generator |= {"size": size, "hidden": None, "coarse": None, "whiten": False, "seeded": False}
    discriminator = {"channels": tuple(width * k for k in down), "downs": downs, "attention": attention}
    return generator, discriminator | {"size": size, "whiten": False}


def _normed(spectral: bool) -> Callable[[nn.Module], nn.Module]:
    """What every linear map of BigGAN goes through: orthogonal initial weights and, if wanted, a spectral norm."""

    def prepare(module: nn.Module) -> nn.Module:
        if not module.weight.is_meta:  # where parameters are only counted
            nn.init.orthogonal_(module.weight)
        return spectral_norm(module) if spectral else module

    return prepare


def double_and_convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """conv2d(nearest-neighbour doubling of x, weight (O, I, 3, 3), bias, padding=1), in 4/9 of its multiplications.

    Doubling is a transposed convolution with a 2x2 box of ones, so both together are one with the box convolved into
    the weight, 4x4.
    """
    w = F.pad(weight.flip(2, 3).transpose(0, 1), [1, 1, 1, 1])
    w = w[..., 1:, 1:] + w[..., 1:, :-1] + w[..., :-1, 1:] + w[..., :-1, :-1]
    return F.conv_transpose2d(x, w, bias, stride=2, padding=1)


def _doublings(size: int) -> int:
    """How often 4 pixels double to become `size`."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"BigGAN draws squares of 8, 16, 32, … pixels, not of {size}.")
    return size.bit_length() - 3
