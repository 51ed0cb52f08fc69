"""How well a ridge regression predicts what it was not fitted to, in closed form."""

from collections.abc import Sequence

import torch
from torch import Tensor

from invkit.ffi.ridge import axes


@torch.no_grad()
def leave_one_out_errors(x: Tensor, y: Tensor, penalties: Sequence[float]) -> Tensor:
    """How well `ridge` predicts rows that it was not fitted to, without fitting it N times.

    The residual of a row that is left out is residual / (1 - leverage) of the fit to all rows (Allen 1974, "The
    relationship between variable selection and data augmentation and a method for prediction").

    Args:
        x: inputs, (N, D).
        y: targets, (N, E).
        penalties: as for `ridge`.

    Returns:
        The mean squared error of every target with every penalty, (penalties, E).
    """
    centred, s, v = axes(x)
    scores, residual = centred @ v, y.double() - y.double().mean(0)
    coefficients = scores.T @ residual / len(x)
    errors = []
    for penalty in penalties:
        shrink = 1 / (s + penalty * s.mean())
        leverage = scores.square() @ shrink / len(x) + 1 / len(x)
        left_out = (residual - scores @ (shrink.unsqueeze(1) * coefficients)) / (1 - leverage).clamp_min(
            1e-9
        ).unsqueeze(1)
        errors.append(left_out.square().mean(0))
    return torch.stack(errors)
