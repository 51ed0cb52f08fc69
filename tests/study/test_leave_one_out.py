"""Errors of rows that were left out, against fits without them."""

import torch

from study.leave_one_out import leave_one_out_errors


def test_leave_one_out_errors_are_those_of_fits_to_all_other_rows():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(25, 6, generator=generator).double(), torch.randn(25, 2, generator=generator).double()
    found = leave_one_out_errors(x, y, (0.01, 1.0))
    for penalty, errors in zip((0.01, 1.0), found, strict=True):
        strength = penalty * x.var(0, correction=0).mean() * 25  # on the sum of squares, the same without a row
        residuals = []
        for i in range(25):
            others = torch.arange(25) != i
            some, target = x[others] - x[others].mean(0), y[others] - y[others].mean(0)
            weight = torch.linalg.solve(some.T @ some + strength * torch.eye(6).double(), some.T @ target)
            residuals.append(y[i] - y[others].mean(0) - (x[i] - x[others].mean(0)) @ weight)
        torch.testing.assert_close(errors, torch.stack(residuals).square().mean(0))
