"""Ridge regression in closed form (Hoerl & Kennard 1970), for several penalties at once."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """For every penalty the weight (D, E) and bias (E,) with which x @ weight + bias is y (N, E), given x (N, D).

    penalties: in units of the mean variance of x. One eigendecomposition serves them all: with C = x'x / N = V s V' of
    the centred x, weight = V (s + penalty)^-1 V' x'y / N. Float32, from sums over x in float64.
    """
    x_mean, y_mean = x.double().mean(0), y.mean(0)
    centred = x.double() - x_mean
    s, v = torch.linalg.eigh(centred.T @ centred / len(x))
    target = v.T @ (centred.T.float() @ y.float()).double() / len(x)  # x is centred: y need not be
    found = []
    for penalty in penalties:
        weight = v @ (target / (s + penalty * s.mean()).unsqueeze(1))
        found.append((weight.float(), (y_mean - x_mean @ weight).float()))
    return found
