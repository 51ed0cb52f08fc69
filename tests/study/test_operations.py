"""Operations are counted by hand's rule: a multiplication or an addition is one, forwards and back."""

import torch

from study.operations import operations_in


def test_a_product_of_matrices_costs_two_operations_an_entry_and_a_term():
    a, b = torch.rand(2, 3), torch.rand(3, 4, requires_grad=True)
    assert operations_in(lambda: a @ b) == 2 * 2 * 3 * 4
    assert operations_in(lambda: (a @ b).sum().backward()) == 2 * (2 * 2 * 3 * 4)  # and the gradient of b alone


def test_what_computes_nothing_costs_nothing():
    assert operations_in(lambda: torch.rand(3).exp()) == 0
