import numpy as np
import pytest
import torch

from invkit import statistics


def test_bootstrap_is_centred_seeded_and_as_wide_as_the_standard_error():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    interval = statistics.bootstrap(values)
    assert interval.value == pytest.approx(values.mean().item()) and interval.n == 400
    assert (interval.high - interval.low) == pytest.approx(2 * 1.96 * values.std().item() / 20, rel=0.1)
    assert interval == statistics.bootstrap(values) and interval != statistics.bootstrap(values, seed=1)
    assert statistics.bootstrap([0, 0, 0, 0, 100], statistic="median").value == 0


@pytest.mark.parametrize("n", [5, 15, 50])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_an_interval_covers_the_true_mean_about_95_times_in_100(n, kind):
    rng = np.random.default_rng(n)
    truth, draw = {"normal": (0, rng.normal), "exponential": (1, rng.exponential)}[kind]
    intervals = [statistics.bootstrap(draw(size=n), n_boot=400) for _ in range(500)]
    covered = sum(interval.low <= truth <= interval.high for interval in intervals) / 500
    assert 0.89 <= covered <= 0.985  # the percentile method covers 78 % of five exponential values


def test_few_shares_that_hardly_differ_still_have_an_interval():
    rare = statistics.bootstrap([0.0] * 19 + [1.0])  # a third of the resamples hold no 1
    assert rare.low < 0 < rare.value < rare.high < 0.2
    same = statistics.bootstrap([3.0] * 10)
    assert (same.low, same.value, same.high) == (3, 3, 3)


def test_paired_bootstrap_sees_a_small_difference_under_large_scatter():
    a = 10 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    b = a - 0.1 + 0.01 * torch.randn(100, generator=torch.Generator().manual_seed(1))
    interval = statistics.paired_bootstrap(a, b)
    assert interval.low > 0.09 and interval.high < 0.11


def test_proportion_has_a_width_even_when_all_are_hits():
    interval = statistics.proportion(torch.ones(200, dtype=torch.bool))
    assert interval.value == 1
    assert interval.low == pytest.approx(200 / (200 + 1.96**2), abs=1e-4)  # Wilson's formula at 200 of 200


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: statistics.bootstrap([1.0]), "at least two"),
        (lambda: statistics.bootstrap([1.0, float("inf")]), "not finite"),
        (lambda: statistics.bootstrap([1.0, 2.0], statistic="mode"), "'mean' or 'median'"),
        (lambda: statistics.paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0]), "a has 2 values, b has 3"),
        (lambda: statistics.proportion([0.3, 1.0]), "true/false"),
    ],
)
def test_wrong_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_interval_in_per_cent_and_in_words():
    share = statistics.Interval(0.5, 0.25, 0.75, 9)
    assert share.times(100) == statistics.Interval(50, 25, 75, 9)
    assert f"{share:.2f}" == "0.50 [0.25, 0.75]" and f"{share:.0%}" == "50 % [25 %, 75 %]"
    assert str(share) == f"{share}" == "0.5 [0.25, 0.75]"
