"""A chain of inverses: its loss terms, their gradients, and error feedback."""

import pytest
import torch
from torch import nn

from invkit import dci
from invkit.dci.chain import FLOOR, Chain, ChainLossWeights, loss_terms

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8)]
SIZES = [(8, 1), (8, 1)]


def test_blocks_are_the_classifiers_own(classifier, blocks):
    images = torch.rand(2, 3, 16, 16)
    hidden = dci.represent(blocks, images, 2)
    assert torch.equal(hidden[0], images)
    for depth in (1, 2):
        torch.testing.assert_close(hidden[depth], classifier.features(images, depth))


def test_log_error_is_the_psnr_up_to_sign_and_scale():
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert dci.log_error(a, b) * -10 == pytest.approx((20 + 40) / 2, abs=0.3)  # FLOOR shaves a little off the 40 dB
    assert dci.log_error(a, b, 0.1) == pytest.approx((0 - 2) / 2, abs=1e-3)


def test_terms_are_switchable_and_vanish_for_a_perfect_reading(blocks):
    hidden = dci.represent(blocks, torch.rand(4, 3, 16, 16), 2)
    perfect = [hidden[1], hidden[0]]
    units = [1.0]
    total, terms = loss_terms(perfect, hidden, blocks, units, ChainLossWeights(1, 1, 1))
    assert set(terms) == {"block", "input", "cycle"}
    assert all(value == pytest.approx(-5, abs=1e-3) for value in terms.values())  # log10 of FLOOR
    assert total == pytest.approx(-15, abs=3e-3)
    for name in ("block", "input", "cycle"):
        alone = ChainLossWeights(**{"block": 0, "input": 0, "cycle": 0, name: 2.0})
        total, terms = loss_terms(perfect, hidden, blocks, units, alone)
        assert set(terms) == {name} and total == pytest.approx(-10, abs=2e-3)


def test_each_term_sees_its_own_error(blocks):
    hidden = dci.represent(blocks, torch.rand(4, 3, 16, 16), 2)
    worse_block = [hidden[1] + 0.3, hidden[0]]
    worse_input = [hidden[1], hidden[0] + 0.1]
    _, block = loss_terms(worse_block, hidden, blocks, [1.0], ChainLossWeights(1, 1, 1))
    _, image = loss_terms(worse_input, hidden, blocks, [1.0], ChainLossWeights(1, 1, 1))
    assert block["block"] == pytest.approx(torch.tensor(0.09).log10().item(), abs=1e-3)
    assert block["input"] == pytest.approx(-5, abs=1e-3)
    assert image["input"] == pytest.approx(-2, abs=1e-2) and image["cycle"] > -4 > image["block"]


def test_gradients_against_finite_differences(blocks):
    torch.manual_seed(1)
    chain = Chain(SHAPES, SIZES).double()
    for p in chain.parameters():
        nn.init.normal_(p, std=0.1)
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    double = [lambda h, block=block: block(h.float()).double() for block in blocks]
    hidden = dci.represent(double, images, 2)
    weight = chain.inverses[0].leave.weight

    def loss():
        # log_error works in float32, so the check is of its double-precision twin for the input term
        reading = chain(hidden[2], 2)[-1]
        return (reading - images).square().flatten(1).mean(1).add(FLOOR).log10().mean()

    analytic = torch.autograd.grad(loss(), weight)[0][0, 0, 0, 0]
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1e-6
        above = loss()
        weight[0, 0, 0, 0] -= 2e-6
        below = loss()
        weight[0, 0, 0, 0] += 1e-6
    assert analytic.item() == pytest.approx((above - below).item() / 2e-6, rel=1e-4)
    terms = loss_terms(chain(hidden[2], 2), hidden, double, [1.0], ChainLossWeights(0, 1, 0))[0]
    assert terms.item() == pytest.approx(loss().item(), abs=1e-5)


def test_feedback_removes_systematic_errors():
    """A reading that shrinks its input by a fifth: every step of feedback leaves a fifth of the error before."""

    class Shrinking(nn.Module):
        def forward(self, y, depth):
            return [0.8 * y]

    x = torch.rand(3, 3, 4, 4)
    for steps in range(4):
        reading = dci.invert_representation(Shrinking(), [nn.Identity()], x, 1, (steps, 1.0))
        torch.testing.assert_close(x - reading, x * 0.2 ** (steps + 1), atol=1e-6, rtol=1e-4)
    steps, rate = dci.choose_feedback(Shrinking(), [nn.Identity()], x, 1)
    assert (steps, rate) == (4, 1.0)  # full steps beat half ones, and each earns its 0.1 dB


def test_feedback_that_does_not_help_is_not_chosen():
    class Blind(nn.Module):
        def forward(self, y, depth):
            return [torch.full_like(y, 0.5)]

    assert dci.choose_feedback(Blind(), [nn.Identity()], torch.rand(3, 3, 4, 4), 1, (0, 1))[0] == 0
