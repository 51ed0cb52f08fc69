"""Ridge regression in closed form (Hoerl & Kennard 1970), for several penalties at once."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """The linear maps from x to y of least squared error, one for each penalty.

    One eigendecomposition serves all penalties: with C = x'x / N = V s V' of the centred x, the weight is
    V (s + penalty)^-1 V' x'y / N. Sums over x are taken in float64, results are float32.

    Args:
        x: inputs, (N, D).
        y: targets, (N, E).
        penalties: of the squared weights, in units of the mean variance of x.

    Returns:
        For every penalty the weight (D, E) and the bias (E,) of y ≈ x @ weight + bias.
    """
    x_mean, y_mean = x.double().mean(0), y.mean(0)
    centred, s, v = axes(x)
    target = v.T @ (centred.T.float() @ y.float()).double() / len(x)  # x is centred: y need not be
    found = []
    for penalty in penalties:
        weight = v @ (target / (s + penalty * s.mean()).unsqueeze(1))
        found.append((weight.float(), (y_mean - x_mean @ weight).float()))
    return found


def axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centred inputs (N, D) in float64, the eigenvalues (D,) of their covariance and its axes (D, D)."""
    centred = x.double() - x.double().mean(0)
    s, v = torch.linalg.eigh(centred.T @ centred / len(x))
    return centred, s, v
