"""Ridge regression against its definition."""

import torch

from invkit.ffi.ridge import leave_one_out_errors, ridge


def test_it_solves_the_penalised_normal_equations():
    torch.manual_seed(0)
    x, y = torch.randn(50, 4) * torch.tensor([1.0, 3.0, 0.2, 1.0]) + 5, torch.randn(50, 2)
    for penalty, (weight, bias) in zip((0.1, 10.0), ridge(x, y, (0.1, 10.0)), strict=True):
        z = (x - x.mean(0)).double()
        gram = z.T @ z / 50
        wanted = torch.linalg.solve(gram + penalty * gram.diagonal().mean() * torch.eye(4), z.T @ y.double() / 50)
        torch.testing.assert_close(weight, wanted.float())
        torch.testing.assert_close(x.mean(0) @ weight + bias, y.mean(0))


def test_a_linear_map_is_found():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(40, 3), torch.randn(3, 2), torch.randn(2)
    [(found, offset)] = ridge(x, x @ weight + bias, [1e-9])
    torch.testing.assert_close(found, weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(offset, bias, rtol=1e-4, atol=1e-4)


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
