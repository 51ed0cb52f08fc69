"""The inverse of one shallow block of a network (Dong et al. 2021, arXiv 2107.06304, section 3).

`InverseBlock` maps the output of a block to its input, whatever the block does to the resolution: a strided block is
inverted by sub-pixel up-sampling (Shi et al. 2016, arXiv 1609.05158), an up-sampling one by a strided convolution, a
linear layer by a linear layer. It standardises both sides by the mean and standard deviation of their channels
(`InverseBlock.calibrate`), and it starts as a linear map, since the last convolution of every residual branch starts at
zero. Without hidden maps it is one convolution behind a leaky ReLU, and a chain of such inverses is a plain
convolutional encoder, the cheapest there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
    """The inverse g of a block f: a map from f(h) back to h.

    Args:
        in_shape: shape of f(h) without the batch, (C, H, W), or (C,) for a vector.
        out_shape: shape of h without the batch, of the same two kinds. Maps of other sizes work too, as long as neither
            side is a vector. Of tokens without a place the rows below a square may be missing on one side.
        width: channels of the hidden maps; 0 leaves one convolution behind a leaky ReLU, which cannot enlarge a map.
        blocks: number of residual blocks, computed at the coarser of the two resolutions.
        places: for f(h) and for h, whether what examples have in common at each place is taken off and put on, in their
            native size, since the tokens of a transformer have an embedding of their place added to them. `calibrate`
            sets it, training goes on from there.

    Raises:
        ValueError: a shape that is neither (C,) nor (C, H, W); a width of 0 where the map has to be enlarged.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        width: int,
        blocks: int = 2,
        places: tuple[bool, bool] = (False, False),
    ):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        source, target = _as_map(in_shape), _as_map(out_shape)
        # by their widths: maps are squares, but for rows of tokens without a place (`invkit.dci.layout`)
        self.up, self.down = (max(1, round(a[2] / b[2])) for a, b in ((target, source), (source, target)))
        outputs = target[0] * self.up**2
        dense = self.down > 1 and target[1:] == (1, 1)  # from a map to a vector: every place has weights of its own
        self.in_place = nn.Parameter(torch.zeros(1, *source)) if places[0] else None
        self.out_place = nn.Parameter(torch.zeros(1, *target)) if places[1] else None
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
        """Add the residual path (enter, body, leave) and the linear one beside it (skip)."""
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        if self.down > 1 and not dense:
            kernel = 2 * self.down - self.down % 2  # as many places as the skip has
            self.enter = nn.Conv2d(source[0], width, kernel, self.down, padding=self.down // 2)
            self.skip = nn.Conv2d(source[0], outputs, self.down, self.down)
        else:
            self.enter = nn.Conv2d(source[0], width, 3 if source[1:] != (1, 1) else 1, padding="same")
            self.skip = nn.Conv2d(source[0], outputs, source[1:] if dense else 1)
        self.leave = nn.Conv2d(width, outputs, source[1:]) if dense else nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @torch.no_grad()
    def calibrate(self, source: Tensor, target: Tensor) -> None:
        """Set the mean and standard deviation of the channels on both sides from examples.

        Args:
            source: f(h), (N, *in_shape).
            target: h, (N, *out_shape).
        """
        for name, values in (("in", source), ("out", target)):
            maps, values = values.float(), values.float().reshape(len(values), values.shape[1], -1)
            mean, std = values.mean((0, 2)), values.std((0, 2))
            place = getattr(self, f"{name}_place")
            if place is not None:  # the unit is that of what differs between images
                common = maps.mean(0, keepdim=True) - mean.view(1, -1, 1, 1)
                std = (maps - common).std((0, 2, 3))
            std = std.clamp_min(1e-3 * std.max().clamp_min(1e-6)).view(1, -1, 1, 1)
            getattr(self, f"{name}_mean").copy_(mean.view(1, -1, 1, 1))
            getattr(self, f"{name}_std").copy_(std)
            if place is not None:
                chance = (std / common.abs().clamp_min(1e-9 * std)).square() / len(maps)  # share of the mean's square
                place.copy_(common / std * (1 - chance).clamp_min(0))

    @torch.no_grad()
    def fit_linear(self, source: Tensor, target: Tensor, penalty: float = 0.03) -> None:
        """Set the linear path beside the hidden maps to the ridge regression of h on f(h), after `calibrate`.

        Args:
            source: examples of f(h), (N, *in_shape).
            target: h, (N, *out_shape).
            penalty: of the squared weights, in units of the variance of the standardised f(h).
        """
        y = self._standardised(source.float())
        h = (target.float().reshape(len(target), -1, *(target.shape[2:] or (1, 1))) - self.out_mean) / self.out_std
        h = h if self.out_place is None else h - self.out_place
        rows, columns = y.shape[2] // self.down, y.shape[3] // self.down
        x = F.pixel_unshuffle(y[:, :, : rows * self.down, : columns * self.down], self.down)
        beyond = [max(0, n * self.up - side) for n, side in zip((columns, rows), (h.shape[3], h.shape[2]), strict=True)]
        h = F.pad(h, (0, beyond[0], 0, beyond[1]), mode="replicate")
        top, left = (h.shape[2] - rows * self.up) // 2, (h.shape[3] - columns * self.up) // 2  # as `_fitted` has them
        h = h[:, :, top : top + rows * self.up, left : left + columns * self.up]
        x, h = (part.transpose(0, 1).flatten(1) for part in (x, F.pixel_unshuffle(h, self.up)))
        x = F.pad(x, (0, 0, 0, 1), value=1.0)  # for the bias
        square = x @ x.T / x.shape[1] + penalty * torch.eye(len(x), device=x.device)
        weight = torch.linalg.solve(square, x @ h.T / x.shape[1]).T
        self.skip.weight.copy_(weight[:, :-1].reshape(self.skip.weight.shape))
        self.skip.bias.copy_(weight[:, -1])

    def _standardised(self, y: Tensor) -> Tensor:
        """f(h) as a map of channels of mean 0 and variance 1, less what is common to each place."""
        native = y.shape[1:] == self.in_shape
        y = (y.reshape(len(y), -1, *(y.shape[2:] or (1, 1))) - self.in_mean) / self.in_std
        return y - self.in_place if self.in_place is not None and native else y

    def forward(self, y: Tensor) -> Tensor:
        """h, (N, *out_shape), from y = f(h), (N, *in_shape)."""
        native = y.shape[1:] == self.in_shape
        y = self._standardised(y)
        h = self.skip(F.leaky_relu(y, 0.2)) if self.plain else self.leave(self.body(self.enter(y))) + self.skip(y)
        if self.up > 1:
            h = F.pixel_shuffle(h, self.up)
        if native and len(self.out_shape) == 3:
            h = _fitted(h, *self.out_shape[1:])
            h = h if self.out_place is None else h + self.out_place
        h = h * self.out_std + self.out_mean
        return h.flatten(1) if len(self.out_shape) == 1 else h


def _fitted(h: Tensor, rows: int, columns: int) -> Tensor:
    """A map cut or padded to this size: at its edges by what is there, since a network whose convolutions or pools are
    not padded (27 places to 13) does not see them; tokens that f has left out, which are rows alone, by zeros."""
    below, right = max(0, rows - h.shape[2]), max(0, columns - h.shape[3])
    if right:
        edges = (right // 2, right - right // 2, below // 2, below - below // 2)
        h = F.pad(h, edges, mode="replicate")
    elif below:
        h = F.pad(h, (0, 0, 0, below))
    return h[..., :rows, :columns]


def _as_map(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of a shape; a vector (C,) is a map of one place."""
    if len(shape) not in (1, 3):
        raise ValueError(f"An inverse block takes vectors (C,) or maps (C, H, W), not {tuple(shape)}.")
    return (*shape, 1, 1) if len(shape) == 1 else tuple(shape)
