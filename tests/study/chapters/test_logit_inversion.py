"""Readings, baselines, scores and mistakes, where the right answer is known beforehand."""

import pytest
import torch
from torch import nn

from invkit.network.classifiers import Classifier
from invkit.statistics import Interval
from study.chapters import logit_inversion as study
from study.chapters.logit_inversion import Examples, Reading

SIDE, CLASSES = 32, 6


def flat(colours):
    """(N, 3) -> images of one colour each."""
    return colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()


@pytest.fixture(scope="module")
def examples():
    """The first three of six logits are the colour, stretched; the others are loud and mean nothing."""
    g = torch.Generator().manual_seed(0)
    colours = torch.rand(200, 3, generator=g)
    return Examples(torch.cat([4 * colours - 2, 3 * torch.randn(200, 3, generator=g)], 1), flat(colours))


class FakeInverter:
    """Paints the first three logits, plus noise; as an inverter does, without a network."""

    def __init__(self, noise_dim=3):
        self.noise_dim = noise_dim

    def sample_noise(self, n, seed=0):
        return torch.randn(n, self.noise_dim, generator=torch.Generator().manual_seed(seed))

    def represent(self, images):
        return 4 * images.mean((2, 3)) - 2

    def invert(self, logits, noise=None):
        colours = (logits[:, :3] + 2) / 4
        moved = 0.1 * noise if self.noise_dim and noise is not None else 0
        return flat((colours + moved).clamp(0, 1))


def scores_of(readings, images, predicted, **options):
    classify, other = lambda x: x.mean((2, 3)), lambda x: x.mean((2, 3)).flip(1)
    return study.score(Reading(readings, readings), images, predicted, classify, other, **options)


# ---- readings


def test_the_mean_over_noises_is_nearer_than_a_sample():
    inverter, images = FakeInverter(), flat(0.3 + 0.4 * torch.rand(40, 3, generator=torch.Generator().manual_seed(1)))
    logits = study.represent(inverter, images, batch=7)
    assert torch.equal(logits, inverter.represent(images))
    reading = study.read(inverter, logits, samples=64, batch=9)
    errors = [(r - images).square().mean().item() for r in (reading.sample, reading.mean)]
    assert errors[0] == pytest.approx(0.01, rel=0.3) and errors[1] < errors[0] / 20
    assert torch.equal(study.read(inverter, logits, samples=2, batch=40).sample, reading.sample)
    assert not torch.equal(study.read(inverter, logits, samples=2, seed=1).sample, reading.sample)


def test_without_noise_all_samples_are_one():
    inverter = FakeInverter(noise_dim=0)
    reading = study.read(inverter, torch.zeros(4, 6), samples=16)
    assert torch.equal(reading.mean, reading.sample)
    with pytest.raises(ValueError, match="at least 0"):
        study.read(inverter, torch.zeros(4, 6), samples=-1)


def test_the_best_guess_can_be_what_is_read_without_noise():
    inverter, logits = FakeInverter(), torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    reading = study.read(inverter, logits, samples=0, batch=2)
    assert torch.equal(reading.mean, inverter.invert(logits))
    assert torch.equal(reading.sample, study.read(inverter, logits, samples=3).sample)


# ---- baselines


def test_pairs_must_fit_together():
    with pytest.raises(ValueError, match="one for each"):
        Examples(torch.zeros(20, 3), torch.zeros(21, 3, 8, 8))
    with pytest.raises(ValueError, match="too few"):
        Examples(torch.zeros(1, 3), torch.zeros(1, 3, 8, 8))


def test_the_mean_image_ignores_the_logits(examples):
    readings = study.mean_image(examples)(torch.randn(5, CLASSES))
    assert readings.shape == (5, 3, SIDE, SIDE)
    assert torch.allclose(readings, examples.images.mean(0).expand(5, -1, -1, -1))


def test_class_means_are_means_of_the_class():
    images = flat(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]))
    means = study.class_means(images, torch.tensor([0, 0, 2]), 4)
    assert means.mean((1, 2, 3)).tolist() == pytest.approx([0.25, 0.5, 1.0, 0.5])  # a class without images: all


def test_the_class_mean_reads_the_class_that_the_logits_name(examples):
    readings = study.class_mean(examples)(examples.logits[:30])
    classes = examples.logits.argmax(1)
    for reading, label in zip(readings, classes[:30], strict=True):
        assert torch.allclose(reading, examples.images[classes == label].mean(0), atol=1e-5)


def test_ridge_recovers_a_linear_map_and_ignores_noise(examples):
    g = torch.Generator().manual_seed(2)
    colours = torch.rand(50, 3, generator=g)
    logits = torch.cat([4 * colours - 2, 3 * torch.randn(50, 3, generator=g)], 1)
    assert torch.allclose(study.ridge(examples)(logits), flat(colours), atol=1e-3)


def test_ridge_is_the_closed_form(examples):
    penalty = 0.3
    z, x = examples.logits - examples.logits.mean(0), examples.images.flatten(1) - examples.images.flatten(1).mean(0)
    covariance = z.T @ z / len(z)
    scale = penalty * covariance.diagonal().mean()
    weight = torch.linalg.solve(covariance + scale * torch.eye(CLASSES), z.T @ x / len(z))
    expected = (z @ weight + examples.images.flatten(1).mean(0)).clamp(0, 1).unflatten(1, (3, SIDE, SIDE))
    assert torch.allclose(study.ridge(examples, [penalty])(examples.logits), expected, atol=1e-4)


def test_ridge_chooses_the_penalty_on_pairs_it_was_not_fitted_on():
    """With as many logits as examples and nothing to learn, the least penalty fits best and predicts worst."""
    g = torch.Generator().manual_seed(3)
    examples = Examples(torch.randn(60, 40, generator=g), torch.rand(60, 3, 8, 8, generator=g))
    readings = study.ridge(examples, [1e-6, 100.0])(torch.randn(20, 40, generator=g))
    assert (readings - examples.images.mean(0)).abs().max() < 0.1


def test_nearest_returns_the_training_image_itself(examples):
    assert torch.equal(study.nearest(examples, batch=7)(examples.logits[20:40]), examples.images[20:40])


def test_nearest_measures_nearness_by_the_angle_where_length_means_nothing():
    g = torch.Generator().manual_seed(4)
    angle, length = 6.28 * torch.rand(400, generator=g), torch.rand(400, 1, generator=g) * 9 + 1
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    images = flat(torch.cat([direction, -direction[:, :1]], 1) / 2 + 0.5)
    readings = study.nearest(Examples(direction * length, images))(direction[:100] * length[100:200])
    assert (readings - images[:100]).abs().mean() < 0.03


def test_optimisation_finds_an_image_with_these_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5))
    classifier = Classifier(model, "tiny", size=8)
    images = torch.rand(3, 3, 8, 8)
    logits = classifier.logits(images)
    found = study.optimise(classifier, logits, steps=200)
    chance = (classifier.logits(images.flip(0).contiguous()) - logits).square().sum()
    assert found.shape == images.shape and (classifier.logits(found) - logits).square().sum() < 0.05 * chance


# ---- scores


def test_perfect_readings_score_perfectly(examples):
    images, predicted = examples.images[:20], examples.images[:20].mean((2, 3)).argmax(1)
    scores = scores_of(images, images, predicted, n_perceptual=5, batch=6)
    means = scores.intervals()
    assert means["psnr"].value == study.CEILING and means["ssim"].value > 0.999
    assert means["found"].value == means["found_in_class"].value == means["same_class"].value == 1
    assert means["perceptual"].value == pytest.approx(0, abs=1e-6) and means["perceptual"].n == 5
    flipped = images.mean((2, 3)).flip(1).argmax(1)
    assert means["independent"].value == pytest.approx((flipped == predicted).float().mean().item())


def test_the_class_mean_finds_its_class_but_no_image(examples):
    images, predicted = examples.images[:40], torch.arange(40) % 2
    readings = study.class_means(images, predicted, 2)[predicted]
    scores = scores_of(readings, images, predicted, n_perceptual=2)
    assert scores.found_in_class.mean() < 0.1


def test_an_image_without_rival_is_left_out(examples):
    images, predicted = examples.images[:6], torch.tensor([0, 0, 1, 2, 2, 2])
    scores = scores_of(images, images, predicted)
    assert scores.found_in_class.isnan().tolist() == [False, False, True, False, False, False]
    assert scores.intervals()["found_in_class"].n == 5


def test_a_part_is_scored_among_all_candidates(examples):
    images, predicted = examples.images[:30], torch.zeros(30, dtype=torch.long)
    readings = images.roll(-10, 0)  # reading i is image i + 10, which only the larger set holds
    alone = scores_of(readings[:10], images[:10], predicted[:10])
    among = scores_of(readings[:10], images[:10], predicted[:10], candidates=images, candidate_classes=predicted)
    whole = scores_of(readings, images, predicted)
    assert torch.equal(among.found, whole.found[:10]) and torch.equal(among.found_in_class, whole.found[:10])
    assert among.found.sum() == 0 and alone.found.sum() <= 10
    assert torch.equal(whole.first(10).psnr, among.psnr)
    with pytest.raises(ValueError, match="begin with the originals"):
        scores_of(readings[:10], images[:10], predicted[:10], candidates=images.flip(0), candidate_classes=predicted)


def test_differences_are_paired(examples):
    images, predicted = examples.images[:30], torch.zeros(30, dtype=torch.long)
    near, far = (0.9 * images + 0.05, 0.8 * images + 0.1)
    a, b = scores_of(near, images, predicted, n_perceptual=10), scores_of(far, images, predicted, n_perceptual=10)
    differences = a.minus(b)
    assert differences["psnr"].value == pytest.approx(6.02, abs=0.01)  # half the error
    assert differences["psnr"].high - differences["psnr"].low < 0.01  # of every image, whatever its own PSNR
    assert differences["perceptual"].n == 10


def interval(sign):
    return Interval(sign, sign - 0.5, sign + 0.5, 100)


def test_more_than_the_class_needs_every_measure():
    better = {"psnr": interval(1), "found_in_class": interval(1), "perceptual": interval(-1)}
    assert study.beyond_class(better) == "more"
    assert study.beyond_class(better | {"perceptual": interval(0)}) == "partly more"
    assert study.beyond_class(better | {"perceptual": interval(1)}) == "no more"
    assert study.beyond_class(dict.fromkeys(better, interval(0))) == "no more"


def test_more_in_robust_must_hold_against_the_control():
    up, none, down = ({"psnr": interval(s), "found": interval(s)} for s in (1, 0, -1))
    assert study.robust_verdict(up, up) == "more"
    assert study.robust_verdict(up, none).startswith("more, but no more than")
    assert study.robust_verdict(none, up) == study.robust_verdict(up | {"found": interval(0)}, up) == "not told apart"
    assert study.robust_verdict(down, up) == "less"


# ---- mistakes


def test_confidence_is_the_largest_probability():
    assert study.confidence(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist() == pytest.approx([0.5, 1.0])


def test_controls_are_the_nearest_of_the_same_group():
    wrong, groups = torch.tensor([0.3, 0.9, 0.5]), torch.tensor([1, 1, 2])
    right, right_groups = torch.tensor([0.2, 0.3, 0.8]), torch.tensor([1, 0, 1])
    assert study.match(wrong, groups, right, right_groups).tolist() == [0, 2, -1]
    assert study.match(wrong, groups, right[:0], right_groups[:0]).tolist() == [-1, -1, -1]


def test_distances_are_root_mean_squares():
    a, b = flat(torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]])), flat(torch.full((2, 3), 0.5))
    found = study.distances(a, b)
    assert found.pixel.tolist() == pytest.approx([0, 0.3]) and found.perceptual[0] < found.perceptual[1]


def test_every_reading_is_seen_as_one_thing():
    true, predicted, seen = torch.tensor([1, 1, 1, 2]), torch.tensor([2, 2, 2, 2]), torch.tensor([1, 2, 3, 2])
    masks = study.seen_as(seen, true, predicted)
    assert [mask.long().tolist() for mask in masks.values()] == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_mistakes_are_judged_by_the_sign_of_both_intervals():
    assert study.mistakes_verdict(interval(-1), interval(1)) == "look like the input and are read as the true class"
    assert study.mistakes_verdict(interval(1), interval(-1)) == (
        "look like the wrong class and are read as the predicted class"
    )
    assert study.mistakes_verdict(interval(0), interval(0)) == "look as much like either and are read as either"
