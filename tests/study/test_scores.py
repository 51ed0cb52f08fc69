"""Scores of reconstructions, and the words that intervals allow, where the right answer is known beforehand."""

import copy
import pickle

import pytest
import torch

from invkit import metrics
from invkit.statistics import Interval
from study import scores as study
from study.baselines import class_means
from study.scores import MEASURES, Reconstruction, Scores

SIDE = 32


def flat(colours):
    """(N, 3) -> images of one colour each."""
    return colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()


@pytest.fixture(scope="module")
def images():
    """Forty images of one colour each."""
    return flat(torch.rand(40, 3, generator=torch.Generator().manual_seed(0)))


def scores_of(guess, images, predicted, **options):
    classify, other = lambda x: x.mean((2, 3)), lambda x: x.mean((2, 3)).flip(1)
    return study.score(guess, images, predicted, classify, other, **options)


def test_perfect_reconstructions_score_perfectly(images):
    images, predicted = images[:20], images[:20].mean((2, 3)).argmax(1)
    scores = scores_of(images, images, predicted, n_perceptual=5, batch=6)
    means = scores.intervals()
    assert means["psnr"].value == study.CEILING and means["ssim"].value > 0.999
    assert means["found"].value == means["found_in_class"].value == means["same_class"].value == 1
    assert means["perceptual"].value == pytest.approx(0, abs=1e-6) and means["perceptual"].n == 5
    flipped = images.mean((2, 3)).flip(1).argmax(1)
    assert means["independent"].value == pytest.approx((flipped == predicted).float().mean().item())


def test_the_class_mean_finds_its_class_but_no_image(images):
    images, predicted = images[:40], torch.arange(40) % 2
    guess = class_means(images, predicted, 2)[predicted]
    scores = scores_of(guess, images, predicted, n_perceptual=2)
    assert scores.found_in_class.mean() < 0.1


def test_an_image_without_rival_is_left_out(images):
    images, predicted = images[:6], torch.tensor([0, 0, 1, 2, 2, 2])
    scores = scores_of(images, images, predicted)
    assert scores.found_in_class.isnan().tolist() == [False, False, True, False, False, False]
    assert scores.intervals()["found_in_class"].n == 5


def test_a_part_is_scored_among_all_images(images):
    images, predicted = images[:30], torch.zeros(30, dtype=torch.long)
    guess = images.roll(-10, 0)  # number i is image i + 10, which only the larger set holds
    alone = scores_of(guess[:10], images[:10], predicted[:10])
    among = scores_of(guess[:10], images, predicted)
    whole = scores_of(guess, images, predicted)
    assert torch.equal(among.found, whole.found[:10]) and torch.equal(among.found_in_class, whole.found[:10])
    assert among.found.sum() == 0 and alone.found.sum() <= 10
    assert torch.equal(whole.first(10).psnr, among.psnr)
    with pytest.raises(ValueError, match="begin with the originals"):
        scores_of(guess, images[:10], predicted[:10])
    with pytest.raises(ValueError, match="its predicted class"):
        scores_of(guess[:10], images, predicted[:10])


def test_differences_are_paired(images):
    images, predicted = images[:30], torch.zeros(30, dtype=torch.long)
    near, far = (0.9 * images + 0.05, 0.8 * images + 0.1)
    a, b = scores_of(near, images, predicted, n_perceptual=10), scores_of(far, images, predicted, n_perceptual=10)
    differences = a.minus(b)
    assert differences["psnr"].value == pytest.approx(6.02, abs=0.01)  # half the error
    assert differences["psnr"].high - differences["psnr"].low < 0.01  # of every image, whatever its own PSNR
    assert differences["perceptual"].n == 10


def test_scores_are_those_of_the_metrics(images):
    guess = (images + 0.1).clamp(0, 1)
    scores = study.score(guess, images)
    assert list(scores) == ["psnr", "ssim", "found", "perceptual"]
    assert torch.equal(scores.psnr, metrics.psnr(guess, images)) and torch.equal(scores["ssim"], scores.ssim)
    intervals = scores.intervals()
    assert intervals["psnr"].low < intervals["psnr"].value < intervals["psnr"].high


def test_shares_have_wilsons_interval():
    found = Scores({"found": torch.ones(3)}).intervals()["found"]
    assert found.value == 1 and found.low < 1


def test_shuffled_images_are_not_found(images):
    assert not study.score(images.roll(1, 0).clamp(0.01, 0.99), images).found.any()


def test_the_best_guess_and_the_sample_are_measured_each_by_its_own(images):
    scores = study.score(Reconstruction(images, images.roll(1, 0)), images, measures=("found", "perceptual"))
    assert list(scores) == ["found", "perceptual"] and scores.found.all() and scores.perceptual.max() > 0
    assert list(study.score(images, images, n_perceptual=0, measures=("psnr", "perceptual", "same_class"))) == ["psnr"]


def test_the_shorter_of_two_is_compared_with_the_first_of_the_longer():
    many = Scores({"psnr": torch.tensor([3.0, 4.0, 50.0]), "found": torch.tensor([1.0, 1.0, 0.0])})
    few = Scores({"psnr": torch.tensor([1.0, 2.0])})
    differences = many.minus(few)
    assert list(differences) == ["psnr"] and differences["psnr"].value == 2 and differences["psnr"].n == 2


def test_scores_can_be_copied_and_say_what_was_measured():
    scores = Scores({"psnr": torch.ones(3)})
    for again in (copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        assert torch.equal(again.psnr, scores.psnr)
    with pytest.raises(AttributeError, match="measured were psnr"):
        _ = scores.found


# ---- words


ABOVE, AROUND, BELOW = Interval(1, 0.5, 2, 9), Interval(1, -0.1, 2, 9), Interval(-1, -2, -0.5, 9)


def test_a_verdict_needs_an_interval_without_zero():
    assert [study.verdict(interval) for interval in (ABOVE, BELOW, AROUND)] == ["better", "worse", "not told apart"]
    assert study.verdict(BELOW, "more", "less") == "less"


def test_a_word_knows_which_measures_are_better_low():
    assert study.word("psnr", ABOVE) == study.word("perceptual", BELOW) == study.word("kid", BELOW) == "better"
    assert study.word("found", BELOW) == study.word("perceptual", ABOVE) == "worse"


@pytest.mark.parametrize(
    ("gain", "word"),
    [
        ([0.9, 1.0, 1.1, 1.2], "helps"),
        ([-0.9, -1.0, -1.1, -1.2], "hurts"),
        ([-1.0, 1.0, -2.0, 2.0], "no difference seen"),
    ],
)
def test_verdict_over_seeds_follows_the_interval(gain, word):
    variant = torch.tensor([[20.0, 25.0, 30.0, 35.0]])
    assert study.verdict_over_seeds(variant + torch.tensor(gain), variant) == word
    interval = study.difference_over_seeds(variant + torch.tensor(gain), variant)
    assert interval.value == pytest.approx(sum(gain) / 4, abs=1e-5) and interval.n == 4


def test_verdict_over_seeds_needs_every_seed():
    variant = torch.tensor([[20.0, 25.0, 30.0], [20.0, 25.0, 30.0]])
    gain = torch.tensor([[3.0, 3.1, 3.2], [-0.1, -0.2, -0.1]])  # clear on average, but one seed disagrees
    assert study.verdict_over_seeds(variant + gain, variant) == "no difference seen"


def test_values_are_written_in_their_unit():
    share = Interval(0.5, 0.25, 0.75, 9)
    assert study.written("found", share) == "50.0 [25.0, 75.0]" and MEASURES["found"].heading == "found, %"
    assert study.judged("psnr", ABOVE) == "+1.00 [+0.50, +2.00]: better"
    assert MEASURES["ssim"].heading == "SSIM"


def test_a_chapter_may_have_its_own_tolerance():
    assert study.tolerance("psnr") == study.tolerance("psnr", "02_logit_inversion") == 0.5
    assert study.tolerance("psnr", "10_leakage") == 1 and study.tolerance("ssim", "10_leakage") == 0.05
    assert study.tolerance("found_in_class", "11_natural_images") is None
    assert study.tolerance_of(Interval(10, 9, 12, 5)) == 1.5
    assert study.tolerance_of(Interval(100, 100, 100, 5)) == 2 and study.tolerance_of(Interval(0, 0, 0, 5)) == 1e-3


def test_confidence_is_the_largest_probability():
    assert study.confidence(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist() == pytest.approx([0.5, 1.0])


def test_nothing_found_still_has_an_interval():
    none = study.mean_over_trainings("found", torch.zeros(1, 50))
    assert none.value == 0 and none.high > 0.02
    two = study.mean_over_trainings("found", torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    assert two.value == pytest.approx(0.5) and two.n == 3
