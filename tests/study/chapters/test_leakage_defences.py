"""Defences, on features whose answers are known."""

import pytest
import torch

from study.chapters import leakage_defences
from study.chapters.leakage_defences import STEPS, Statistics


@pytest.fixture(scope="module")
def features():
    """Gaussian, of another mean and width in every channel: the widths fall from channel 3 to 0."""
    drawn = torch.randn(50, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return drawn * torch.tensor([0.1, 0.5, 1.0, 4.0]).view(4, 1, 1) + torch.tensor([1.0, -2.0, 0.0, 3.0]).view(4, 1, 1)


@pytest.fixture(scope="module")
def statistics(features):
    return Statistics.of(features)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_statistics_are_those_of_each_channel(features, statistics):
    for channel in range(4):
        assert statistics.mean[channel] == pytest.approx(features[:, channel].mean().item(), abs=1e-5)
        assert statistics.std[channel] == pytest.approx(features[:, channel].std().item(), rel=1e-5)


def test_statistics_of_vectors_are_those_of_each_number():
    vectors = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    statistics = Statistics.of(vectors)
    assert torch.equal(statistics.mean, torch.tensor([2.0, 5.0]))
    assert leakage_defences.quantise(1, statistics)(vectors, None).shape == (2, 2)


def test_noise_has_the_standard_deviation_asked_for(features, statistics):
    added = leakage_defences.noise(0.5, statistics)(features, seeded()) - features
    for channel, width in enumerate((0.1, 0.5, 1.0, 4.0)):
        assert added[:, channel].std().item() == pytest.approx(0.5 * width, rel=0.05)
        assert added[:, channel].mean().item() == pytest.approx(0, abs=0.05 * width)


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_quantisation_errs_by_half_a_step_at_most_within_its_range(features, statistics, bits):
    rounded = leakage_defences.quantise(bits, statistics)(features, None)
    step = STEPS[bits - 1] * statistics.std.view(4, 1, 1)
    inside = (features - statistics.mean.view(4, 1, 1)).abs() <= 2 ** (bits - 1) * step
    assert 0.7 < inside.float().mean() <= 1  # of a Gaussian, 89 % with one bit
    assert ((rounded - features).abs() <= step * (0.5 + 1e-3))[inside].all()


@pytest.mark.parametrize("bits", [3, 2, 1])
def test_quantisation_leaves_two_to_the_bits_values_a_channel(features, statistics, bits):
    rounded = leakage_defences.quantise(bits, statistics)(features, None)
    for channel in range(4):
        assert len(rounded[:, channel].unique()) == 2**bits


def test_one_bit_sends_the_sides_of_the_mean(features, statistics):
    rounded = leakage_defences.quantise(1, statistics)(features, None)
    mean, std = statistics.mean.view(4, 1, 1), statistics.std.view(4, 1, 1)
    assert torch.allclose(rounded, mean + torch.where(features >= mean, 0.798, -0.798) * std, atol=1e-5)


def test_each_bit_more_errs_less(features, statistics):
    errors = [
        (leakage_defences.quantise(b, statistics)(features, None) - features).square().mean() for b in range(1, 9)
    ]
    assert all(a > 2 * b for a, b in zip(errors, errors[1:], strict=False))


def test_a_channel_that_never_changes_survives_quantisation():
    constant = torch.full((3, 1, 2, 2), 5.0)
    assert torch.equal(leakage_defences.quantise(2, Statistics.of(constant))(constant, None), constant)


def test_dropout_drops_its_share_and_scales_up_the_rest(features):
    dropped = leakage_defences.dropout(0.3)(features, seeded())
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.015)  # four standard deviations
    kept = dropped != 0
    assert torch.allclose(dropped[kept], features[kept] / 0.7)


def test_pruning_keeps_the_channels_that_vary_most(features, statistics):
    assert leakage_defences.kept_channels(0.5, statistics).tolist() == [2, 3]
    assert leakage_defences.kept_channels(0.25, statistics).tolist() == [1, 2, 3]
    pruned = leakage_defences.prune(0.5, statistics)(features, None)
    assert torch.equal(pruned[:, 2:], features[:, 2:])
    assert torch.equal(pruned[:, :2], statistics.mean[:2].view(2, 1, 1).expand(50, 2, 8, 8))


@pytest.mark.parametrize(("name", "strength"), [("none", 0), ("noise", 0), ("dropout", 0), ("pruning", 0)])
def test_a_defence_of_no_strength_sends_the_features(features, statistics, name, strength):
    assert torch.equal(leakage_defences.make(name, strength, statistics)(features, seeded()), features)


@pytest.mark.parametrize("name", [name for name in leakage_defences.DEFENCES if name != "none"])
def test_a_defence_is_a_pure_function_of_features_and_seed(features, statistics, name):
    defend, before, given = (
        leakage_defences.make(name, 1 if name == "quantisation" else 0.5, statistics),
        None,
        features.clone(),
    )
    before = torch.get_rng_state()
    first, again, other = (defend(features, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in ("quantisation", "pruning"))  # these draw nothing
    assert torch.equal(features, given) and torch.equal(before, torch.get_rng_state())
    assert first.shape == features.shape and first.dtype == features.dtype


def test_labels_name_the_unit():
    assert [
        leakage_defences.setting_label(*setting) for setting in (("none", 0), ("noise", 0.5), ("quantisation", 1))
    ] == [
        "no defence",
        "noise, 0.5 s.d.",
        "quantisation, 1 bit",
    ]
    assert leakage_defences.setting_label("quantisation", 8) == "quantisation, 8 bits"
    assert leakage_defences.setting_label("dropout", 0.25) == "dropout, 25 %"


def test_wrong_requests_name_the_fix(features, statistics):
    with pytest.raises(ValueError, match="choose one of none, noise"):
        leakage_defences.make("blur", 1, statistics)
    with pytest.raises(ValueError, match="whole number of bits from 1 to 8"):
        leakage_defences.quantise(9, statistics)
    with pytest.raises(ValueError, match="0 or more"):
        leakage_defences.noise(-1, statistics)
    with pytest.raises(ValueError, match="something must be sent"):
        leakage_defences.dropout(1.0)
    with pytest.raises(ValueError, match="something must be sent"):
        leakage_defences.prune(1.0, statistics)
    with pytest.raises(ValueError, match="take the statistics at the depth"):
        leakage_defences.noise(1, statistics)(features[:, :3], seeded())
    with pytest.raises(ValueError, match="more images"):
        Statistics.of(torch.ones(1, 3))


@pytest.mark.parametrize("strength", ["x", None, [1], float("nan"), float("inf"), -1])
@pytest.mark.parametrize("name", ["noise", "quantisation", "dropout", "pruning"])
def test_a_strength_that_is_none_is_one_sentence(name, strength):
    statistics = Statistics.of(torch.rand(4, 3, 2, 2))
    with pytest.raises(ValueError, match=r"^(Noise has|Quantise to|A share is)[^\n]+\.$"):
        leakage_defences.DEFENCES[name](strength, statistics)
