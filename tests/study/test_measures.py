"""The equivalent thumbnail, the kernel distance and the correlation of logits."""

from functools import partial

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from invkit import data, metrics
from study.measures import correlation, equivalent_thumbnail, kernel_distance


@pytest.fixture(scope="module")
def photos():
    return data.load("samples", size=96).images


def gaussian(n, d=16, seed=0, mean=0.0):
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_kernel_distance_is_the_published_estimator():
    a, b = gaussian(30, seed=0), gaussian(30, seed=1, mean=0.5)
    expected = poly_mmd(a.double(), b.double()).item()  # torchmetrics' own, cubic kernel
    assert kernel_distance(a, b).value == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_of_two_sizes_by_hand():
    a, b = torch.tensor([[0.0], [1.0], [2.0], [0.0]]), torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.0]])
    within = 2 * (1 + 1 + 1 + 27 + 1 + 1) / 12 + 8  # pairs of a have the products 0, 0, 0, 2, 0, 0; of b 1
    assert kernel_distance(a, b).value == pytest.approx(within - 2 * (1 + 8 + 27 + 1) / 4)


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_kernel_distance_is_unbiased_and_its_interval_covers(mean):
    pairs = [(gaussian(60, seed=2 * i), gaussian(60, seed=2 * i + 1, mean=mean)) for i in range(100)]
    intervals = [kernel_distance(a, b, subsets=100) for a, b in pairs]
    values = torch.tensor([interval.value for interval in intervals])
    large = kernel_distance(gaussian(3000, seed=-1), gaussian(3000, seed=-2, mean=mean), subsets=2).value
    truth = large if mean else 0.0
    assert values.mean().item() == pytest.approx(truth, abs=3 * values.std().item() / 10 + 0.02 * mean)
    assert (values < 0).any() or mean  # unbiased, so not bounded by zero
    assert np.mean([interval.low <= truth <= interval.high for interval in intervals]) >= 0.88


@pytest.mark.parametrize("squeezenet", [False, True])
def test_kernel_distance_of_features_grows_with_blur_and_needs_no_pairs(squeezenet):
    photos = data.load("samples", size=40).images
    of = partial(metrics.perceptual_features, squeezenet=squeezenet)
    near, far = (kernel_distance(of(metrics.thumbnail(photos, size)), of(photos.flip(0))) for size in (20, 5))
    assert near.value < far.value and far.low > 0 and far.n == 20
    by_colour = kernel_distance(photos.mean((2, 3)), metrics.thumbnail(photos, 5).mean((2, 3)))
    assert by_colour.low < 0 < by_colour.high  # blur keeps the mean colour


def test_equivalent_thumbnail_of_a_thumbnail_is_its_size(photos):
    scores = [metrics.psnr(metrics.thumbnail(photos, size), photos).mean().item() for size in (1, 5, 11, 30, 60)]
    assert scores == sorted(scores)
    assert equivalent_thumbnail(photos, scores) == pytest.approx([1, 5, 11, 30, 60], rel=0.05)
    assert equivalent_thumbnail(photos, scores[1]) == pytest.approx(5, rel=0.05)
    assert equivalent_thumbnail(photos, 0.0) == 0  # worse than each image's mean colour
    assert equivalent_thumbnail(photos, [0.0, scores[2]]) == pytest.approx([0, 11], rel=0.05)


def test_other_features_are_one_sentence():
    for a, b in ((torch.zeros(9, 2), torch.zeros(9, 3)), (torch.zeros(3, 2), torch.zeros(9, 2))):
        with pytest.raises(ValueError, match="at least 4 images"):
            kernel_distance(a, b)


def test_correlation_is_that_of_each_row():
    a = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 0, 1]])
    b = torch.tensor([[10.0, 20, 30], [3, 2, 1], [0, 0, 1]])
    torch.testing.assert_close(correlation(a, b), torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
