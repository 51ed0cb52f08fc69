"""Intervals over trainings and images cover what they say, where a bootstrap over images alone does not."""

import pytest
import torch

from invkit.statistics import bootstrap
from study.trainings import difference_of_trainings, slope


def scores_of(trainings, images, gain, seed, luck=0.3):
    """Scores (trainings, images) with the luck of each training, that of each image, and that of both."""
    g = torch.Generator().manual_seed(seed)
    own = luck * torch.randn(trainings, 1, generator=g)
    return gain + own + torch.randn(1, images, generator=g) + 0.5 * torch.randn(trainings, images, generator=g)


def test_the_interval_of_a_difference_covers_the_luck_of_trainings_too():
    """A bootstrap over the images alone covers far less, since all images share the luck of a training."""
    covered = narrow = 0
    for seed in range(200):
        a, b = scores_of(4, 100, 1.0, 2 * seed), scores_of(4, 100, 0.0, 2 * seed + 1)
        careful, naive = difference_of_trainings(a, b), bootstrap((a - b).mean(0), n_boot=200)
        covered += careful.low <= 1 <= careful.high
        narrow += naive.low <= 1 <= naive.high
    assert covered >= 186 and narrow <= 176
    with pytest.raises(ValueError, match="two pairs"):
        difference_of_trainings(a[:1], b[:1])


def test_a_slope_is_found_and_its_interval_covers_it():
    doses, covered = [0, 0, 0, 1, 2, 4, 4, 4], 0
    for seed in range(200):
        values = scores_of(8, 60, 0.0, seed) + 0.2 * torch.tensor(doses)[:, None]
        found = slope(doses, values)
        covered += found.low <= 0.2 <= found.high
    assert covered >= 186
    line = slope(doses, 0.5 * torch.tensor(doses, dtype=torch.float64)[:, None].expand(-1, 6))
    assert line.value == pytest.approx(0.5) and line.high - line.low < 1e-6
    with pytest.raises(ValueError, match="three classifiers"):
        slope([0, 1], torch.zeros(2, 5))
