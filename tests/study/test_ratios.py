"""Intervals of ratios over images."""

import pytest
import torch

from study.ratios import bootstrap_of_sums


def test_a_ratio_of_sums_is_resampled_image_by_image():
    generator = torch.Generator().manual_seed(0)
    size = 1 + 10 * torch.rand(400, generator=generator)
    part = size * (0.3 + 0.01 * torch.randn(400, generator=generator))
    share = bootstrap_of_sums(lambda a, b: a / b, part, size)
    assert share.value == pytest.approx((part.sum() / size.sum()).item()) and share.n == 400
    assert 0.295 < share.low < share.value < share.high < 0.305  # far narrower than if both were resampled apart
    same = bootstrap_of_sums(lambda a, b, c, d: a / b - c / d, part, size, part, size)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    rare = bootstrap_of_sums(lambda a, b: a / b, torch.ones(5), torch.tensor([0.0, 0, 0, 0, 1]))
    assert rare.value == 5  # resamples without the one are left out
    with pytest.raises(ValueError, match="one value for each image"):
        bootstrap_of_sums(lambda a, b: a / b, part, size[:10])
    with pytest.raises(ValueError, match="at least two, with finite values"):
        bootstrap_of_sums(lambda a, b: a / b, part, size.log() / 0)
