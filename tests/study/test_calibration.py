"""What calibrated samples give, what samples that agree too much give, and the score against its closed form."""

import math

import pytest
import torch

from invkit.statistics import bootstrap
from study import calibration

G = torch.Generator().manual_seed(0)
S, N, D = 19, 300, 40


def _normal(*shape, scale=1.0):
    return scale * torch.randn(*shape, generator=G)


def test_calibrated_samples_cover_as_often_as_they_say():
    centre = _normal(N, D, scale=3)
    samples, truth = centre + _normal(S, N, D), centre + _normal(N, D)
    share = bootstrap(calibration.inside(calibration.ranks(samples, truth), S))
    assert calibration.nominal(S) == 0.9
    assert share.low < 0.9 < share.high and share.high - share.low < 0.02
    counts = calibration.histogram(calibration.ranks(samples, truth), S)
    assert len(counts) == S + 1 and max(abs(c - 0.05) for c in counts) < 0.01


@pytest.mark.parametrize(("spread", "over"), [(0.3, False), (3.0, True)])
def test_samples_that_agree_too_much_or_too_little_are_told(spread, over):
    centre = _normal(N, D, scale=3)
    samples, truth = centre + _normal(S, N, D, scale=spread), centre + _normal(N, D)
    share = bootstrap(calibration.inside(calibration.ranks(samples, truth), S))
    assert share.low > 0.95 if over else share.high < 0.6
    counts = calibration.histogram(calibration.ranks(samples, truth), S)
    ends, middle = counts[0] + counts[-1], counts[S // 2]
    assert ends < 0.02 < middle if over else ends > 0.4


def test_a_sampler_without_noise_covers_nothing_unless_it_is_right():
    truth = _normal(N, D)
    assert calibration.inside(calibration.ranks((truth + 0.01).expand(S, -1, -1), truth), S).sum() == 0
    ties = calibration.histogram(calibration.ranks(truth.expand(S, -1, -1), truth), S)  # the rank of equals is uniform
    assert max(abs(c - 0.05) for c in ties) < 0.01


def test_the_score_is_that_of_a_normal_distribution_and_least_for_calibrated_samples():
    truth = _normal(N, D)
    found = {s: calibration.crps(_normal(S, N, D, scale=s), truth).value for s in (0.5, 1.0, 2.0)}
    assert found[1.0] == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)  # of N(0, 1) against its own samples
    assert found[1.0] < found[0.5] and found[1.0] < found[2.0]
    sure = calibration.crps(torch.zeros(2, N, D), truth).value
    assert sure == pytest.approx(truth.abs().mean().item(), abs=1e-6)  # the absolute error


def test_samples_of_another_image_score_worse_and_warmer_ones_cover_more():
    centre = _normal(N, D, scale=3)
    noise, truth = _normal(S, N, D), centre + _normal(N, D)
    pair = centre + 0.3 * noise, centre + noise
    row = calibration.row(*pair, truth, [calibration.ranks(one, truth) for one in pair])
    assert row["crps"].high < row["crps_shuffled"].low and row["crps"].high < row["crps_plain"].low
    assert row["covered_plain"].high < 0.6 < 0.89 < row["covered"].value < 0.91


class Shy:
    """An inverter of "logits" that are the images: it adds noise, but only half of what there is."""

    size, truth = 4, 0.05

    def represent(self, images):
        return images.flatten(1)

    def sample_noise(self, n, seed=0):
        return torch.randn(n, 48, generator=torch.Generator().manual_seed(seed))

    def invert(self, logits, noise):
        return (logits + self.truth / 2 * noise).unflatten(1, (3, 4, 4))


def test_the_temperature_is_the_one_that_was_taken_away():
    images = 0.5 + 0.1 * torch.randn(60, 3, 4, 4, generator=G)
    shy = Shy()
    shy.represent = lambda images: images.flatten(1) + _normal(len(images), 48, scale=shy.truth)
    assert calibration.temperature(shy, images, S) == pytest.approx(2, rel=0.1)


def test_too_few_samples_and_shapes_that_do_not_fit_are_refused():
    for samples, truth in ((torch.rand(1, 4, 2), torch.rand(4, 2)), (torch.rand(3, 4, 2), torch.rand(4, 3))):
        with pytest.raises(ValueError, match="Give samples"):
            calibration.ranks(samples, truth)
