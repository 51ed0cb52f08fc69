"""BigGAN's generator and discriminator, conditioned on logits in place of a class (Teterwak et al. 2021, 2103.07470).

BigGAN is Brock, Donahue & Simonyan (ICLR 2019, arXiv 1809.11096). `published` returns the arguments that build its own
networks. The defaults depart from them for training on CPUs: narrow where maps are large, a small network between the
logits and the conditional batch norms, whitened logits (`invkit.ffi.whitening`), and a coarse image that the generator
adds detail to. Every departure is a switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from invkit.ffi.batch_norm import SharedBatchNorm2d
from invkit.ffi.whitening import CoarseRegressor, Whitening


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a gain and bias that are linear in a condition c: (1 + U c) norm(x) + V c (de Vries et al. 2017).

    Args:
        channels: of the maps.
        condition_dim: length of c.
        normed: what the linear maps U and V go through, see `_normed`.
    """

    def __init__(self, channels: int, condition_dim: int, normed: Callable[[nn.Module], nn.Module]):
        super().__init__()
        self.norm = SharedBatchNorm2d(channels, affine=False)
        self.gain = normed(nn.Linear(condition_dim, channels, bias=False))
        self.bias = normed(nn.Linear(condition_dim, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.norm(x)
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[:, :, None, None].to(x.dtype), x, gain[:, :, None, None].to(x.dtype))


class UpBlock(nn.Module):
    """Residual block that doubles the sides by nearest-neighbour up-sampling (Brock et al. 2018, figure 15b).

    The convolutions of up-sampled maps are computed from the small maps: the same numbers for less work.

    Args:
        inputs, outputs: channels.
        condition_dim: length of the condition of its two batch norms.
        normed: what its layers go through, see `_normed`.
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
    """Residual block of the discriminator (Brock et al. 2018, figure 15c).

    Args:
        inputs, outputs: channels.
        normed: what its layers go through, see `_normed`.
        down: halve the sides by averaging.
        first: its input is the image, so it does not begin with a ReLU.
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
    """Self-attention over places, with pooled keys and values (Zhang et al. 2019, SAGAN); starts as the identity.

    Args:
        channels: of the map, a multiple of 8.
        normed: what its layers go through, see `_normed`.
    """

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
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gain * self.leave(attended.transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))


class LogitGenerator(nn.Module):
    """BigGAN's generator (Brock et al. 2018) with logits in place of the class (Teterwak et al. 2021).

    A chunk of the noise seeds a 4x4 map. Every block doubles its sides, and the condition of its two batch norms is a
    shared map of the logits together with a noise chunk of the block's own (hierarchical noise).

    Args:
        size: side of the images in pixels, 8 or more and a power of two.
        condition_dim: length of a logit vector.
        noise_dim: length of the noise, a multiple of the number of chunks: one for the seed and one for each block.
            None for 16 each.
        channels: of the 4x4 map, then of every block's output. None for `LEAN_GENERATOR[size]`; `published` has
            BigGAN's own.
        shared_dim: length of the shared map of the logits.
        hidden: width of the two hidden layers of that map; None for a linear map without bias, as published.
        coarse: side of a coarse image that a `CoarseRegressor` estimates from the logits. The shared map sees it, and
            it is enlarged and added before the last tanh. None for none, as published.
        coarse_hidden: width of the regressor's network; None for a linear regressor.
        coarse_linear: False for a regressor that is a network alone.
        whiten: pass the logits through `Whitening` first, whose `fit` has to be called.
        seeded: seed the 4x4 map from noise and the shared map of the logits; False for noise alone, as published.
        logit_noise: standard deviation of noise added to the (whitened) logits in training.
        attention: side of the map that gets self-attention, or None.
        spectral: spectral norm (Miyato et al. 2018) on every weight, as published, except for those of hidden layers
            and of the layer that adds to a coarse image.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(
        self, size: int, condition_dim: int, noise_dim: int | None = None, channels: Sequence[int] | None = None, *,
        shared_dim: int = 128, hidden: int | None = 256, coarse: int | None = 8, coarse_hidden: int | None = None,
        coarse_linear: bool = True, whiten: bool = True, seeded: bool = True, logit_noise: float = 0.0,
        attention: int | None = None, spectral: bool = True,
    ):  # fmt: skip
        super().__init__()
        chunks = _doublings(size) + 1
        channels = tuple(channels or LEAN_GENERATOR.get(size, ()))
        noise_dim = 16 * chunks if noise_dim is None else noise_dim
        if len(channels) != chunks:
            raise ValueError(f"{size} pixels need {chunks} numbers of channels, from 4x4 up, not {channels}.")
        if noise_dim < 1 or noise_dim % chunks:
            raise ValueError(f"noise_dim must be a multiple of {chunks}, the seed and the blocks, not {noise_dim}.")
        if coarse and hidden is None:
            raise ValueError("A coarse image goes with a hidden layer: give hidden a width, or coarse=None.")
        normed, chunk = _normed(spectral), noise_dim // chunks
        self.size, self.condition_dim, self.noise_dim = size, condition_dim, noise_dim
        self.seeded, self.logit_noise = seeded, logit_noise

        # From the logits to the condition of the blocks. The order in which layers are made fixes their random weights.
        self.whitening = Whitening(condition_dim) if whiten else nn.Identity()
        if hidden is None:
            self.shared = normed(nn.Linear(condition_dim, shared_dim, bias=False))
        else:
            self.shared = _hidden_layers(condition_dim + (3 * coarse**2 if coarse else 0), hidden, shared_dim)
        self.coarse = None
        if coarse:
            self.coarse = CoarseRegressor(condition_dim, coarse, coarse_hidden, coarse_linear).requires_grad_(False)

        # From noise and condition to the image.
        self.seed = normed(nn.Linear(chunk + shared_dim * seeded, 16 * channels[0]))
        self.blocks = nn.ModuleList(
            UpBlock(inputs, outputs, shared_dim + chunk, normed) for inputs, outputs in pairwise(channels)
        )
        sides = [8 * 2**k for k in range(len(self.blocks))]
        self.attention, self.attention_after = _attention(attention, sides, channels[1:], normed)
        self.norm = SharedBatchNorm2d(channels[-1])
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
        shared = self.shared(torch.cat([condition, 4 * coarse.flatten(1) - 2], dim=1) if self.coarse else condition)
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
        """Replace the running statistics of batch norm by their averages over given batches; ends in eval mode.

        Averaged weights need statistics of their own, taken by passing batches through them (Brock et al. 2018,
        appendix D). The estimates of the spectral norms settle at the same time.

        Args:
            batches: pairs of noise (N, noise_dim) and conditions (N, condition_dim).
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
        """Turn a trained generator into plain layers that compute the same map, to be saved and used.

        Weights with spectral norm become their present values, and the whitening is merged into the layers that take
        the logits.

        Returns:
            The arguments of this class that, put in place of its own, build a generator of the new form.
        """
        for part in list(self.modules()):
            if is_parametrized(part, "weight"):
                remove_parametrizations(part, "weight")
        folded = {"spectral": False}
        if isinstance(self.whitening, Whitening) and isinstance(self.shared, nn.Sequential):
            mean, matrix = self.whitening.mean.double(), self.whitening.matrix.double()
            for layer in (self.shared[0], *(self.coarse.first_layers() if self.coarse else ())):
                weight = (
                    layer.weight[:, : self.condition_dim].double() @ matrix.T
                )  # not the columns of the coarse image
                layer.bias.copy_(layer.bias.double() - weight @ mean)
                layer.weight[:, : self.condition_dim] = weight
            self.whitening = nn.Identity()
            folded["whiten"] = False
        return folded


class ProjectionDiscriminator(nn.Module):
    """BigGAN's discriminator of (image, logits) pairs: D(x, z) = w·h(x) + <V z, h(x)> (Miyato & Koyama 2018).

    Args:
        size: side of the images in pixels.
        condition_dim: length of a logit vector.
        channels: output channels of each residual block; None for `LEAN_DISCRIMINATOR[size]`.
        downs: how many of the first blocks halve the sides; None for as many as halve them down to 4 pixels.
        whiten: pass the logits through `Whitening` before the projection.
        attention: side of the map that gets self-attention, or None.
        spectral: spectral norm on every weight.

    Raises:
        ValueError: sizes that do not fit together.
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
        self.attention, self.attention_after = _attention(attention, sides, channels, normed)
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
LEAN_GENERATOR = {
    8: (256, 96), 16: (256, 192, 64), 32: (256, 192, 96, 32), 64: (192, 192, 128, 64, 16),
    128: (192, 192, 128, 96, 48, 16),
}  # fmt: skip
LEAN_DISCRIMINATOR = {
    8: (64,), 16: (48, 128), 32: (32, 96, 192), 64: (16, 48, 96, 192), 128: (16, 32, 64, 128, 192)
}  # fmt: skip


def published(size: int, width: int) -> tuple[dict, dict]:
    """Arguments for BigGAN's own generator and discriminator (Brock et al. 2018, appendix B).

    Args:
        size: side of the images in pixels, 32, 64 or 128.
        width: base width of both, 64 for CIFAR at 32 pixels and 96 for ImageNet at 128.

    Returns:
        Arguments of `LogitGenerator` and of `ProjectionDiscriminator`, without condition_dim.

    Raises:
        ValueError: another size.
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
        if not module.weight.is_meta:  # on the meta device parameters are only counted
            nn.init.orthogonal_(module.weight)
        return spectral_norm(module) if spectral else module

    return prepare


def _hidden_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def _attention(side: int | None, sides: list[int], channels: Sequence[int], normed) -> tuple[Attention | None, int]:
    """Self-attention on the map of this side, and the number of the block that it follows; (None, -1) for no side.

    sides, channels: of the output of each block.
    """
    if side is None:
        return None, -1
    if side not in sides:
        raise ValueError(f"Self-attention can sit at one of the sides {sides}, not at {side}.")
    return Attention(channels[sides.index(side)], normed), sides.index(side)


def double_and_convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Nearest-neighbour doubling of x followed by a 3x3 convolution, in 4/9 of the multiplications.

    Doubling is a transposed convolution with a 2x2 box of ones. Together with the convolution it is one transposed
    convolution, whose 4x4 weight is the convolution's with the box convolved into it.

    Args:
        x: maps, (N, I, H, W).
        weight: (O, I, 3, 3).
        bias: (O,).

    Returns:
        Maps, (N, O, 2H, 2W).
    """
    w = F.pad(weight.flip(2, 3).transpose(0, 1), [1, 1, 1, 1])
    w = w[..., 1:, 1:] + w[..., 1:, :-1] + w[..., :-1, 1:] + w[..., :-1, :-1]
    return F.conv_transpose2d(x, w, bias, stride=2, padding=1)


def _doublings(size: int) -> int:
    """How often 4 pixels have to be doubled to become `size`."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"BigGAN generates squares of 8, 16, 32, … pixels, not of {size}.")
    return size.bit_length() - 3
