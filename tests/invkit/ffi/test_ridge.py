"""Ridge regression against its definition."""

import torch

from invkit.ffi.ridge import ridge


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
