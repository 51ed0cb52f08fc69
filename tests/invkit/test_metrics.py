import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from invkit import data, metrics, statistics


@pytest.fixture(scope="module")
def photos():
    return data.load("samples", size=96).images


def random_images(n=4, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_error():
    grey = torch.full((2, 3, 8, 8), 0.5)
    error = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert metrics.psnr(grey, grey + error).tolist() == pytest.approx([20, 40], abs=1e-3)
    assert metrics.psnr(grey, grey).isinf().all()


def test_psnr_of_known_noise():
    clean = torch.full((1, 3, 200, 200), 0.5)
    noise = 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert metrics.psnr(clean, clean + noise).item() == pytest.approx(-20 * np.log10(0.05), abs=0.1)


def test_ssim_is_one_for_equal_images_and_falls_with_noise(photos):
    assert metrics.ssim(photos, photos).tolist() == pytest.approx([1] * 20, abs=1e-5)
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    little, much = ((photos + scale * noise).clamp(0, 1) for scale in (0.05, 0.2))
    assert (metrics.ssim(photos, much) < metrics.ssim(photos, little)).all()
    assert metrics.ssim(photos[:1], little[:1]).shape == (1,)


def test_perceptual_is_per_image_quiet_and_sees_blur(photos, capfd):
    blurred = metrics.thumbnail(photos[:3], 8)
    distance = metrics.perceptual(blurred, photos[:3])
    assert distance.shape == (3,) and (distance > 0.1).all()
    torch.testing.assert_close(metrics.perceptual(photos[:3], photos[:3]), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(metrics.perceptual(photos[1:2], blurred[1:2]), distance[1:2], atol=1e-5, rtol=1e-4)
    assert "LPIPS" in metrics.perceptual_name() and capfd.readouterr() == ("", "")


def test_retrieval_of_perfect_permuted_and_collapsed_reconstructions(photos):
    assert metrics.retrieval_ranks(photos, photos).tolist() == [1] * 20
    assert metrics.retrieval_accuracy(photos.roll(1, dims=0), photos) == 0
    collapsed = photos.mean(dim=0, keepdim=True).expand_as(photos)  # the mean image resembles every candidate alike
    assert metrics.retrieval_ranks(collapsed, photos).tolist() == [20] * 20


def test_retrieval_by_chance_is_top_over_n():
    strangers, candidates = random_images(200, 8, seed=1), random_images(200, 8, seed=2)
    ranks = metrics.retrieval_ranks(strangers, candidates)
    assert ranks.min() >= 1 and ranks.max() <= 200
    assert ranks.float().mean().item() == pytest.approx(100.5, abs=15)
    assert metrics.retrieval_accuracy(strangers, candidates, top=100) == pytest.approx(0.5, abs=0.12)


def test_retrieval_ignores_brightness_shared_by_all_candidates(photos):
    reconstructions = 0.5 * photos + 0.25  # less contrast: the cosine about the mean image still knows them
    assert metrics.retrieval_accuracy(reconstructions, photos) == 1


def test_retrieval_within_a_label():
    images = random_images(4)
    swapped = images[[1, 0, 2, 3]]  # 0 and 1 are mistaken for each other, which only counts if they may compete
    assert metrics.retrieval_ranks(swapped, images, labels=torch.tensor([0, 0, 1, 2])).tolist() == [2, 2, 0, 0]
    assert metrics.retrieval_accuracy(swapped, images, labels=torch.tensor([0, 0, 1, 1])) == 0.5
    with pytest.raises(ValueError, match="No two candidates share a label"):
        metrics.retrieval_accuracy(swapped, images, labels=torch.arange(4))


def gaussian(n, d=16, seed=0, mean=0.0):
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_kernel_distance_is_the_published_estimator():
    a, b = gaussian(30, seed=0), gaussian(30, seed=1, mean=0.5)
    expected = poly_mmd(a.double(), b.double()).item()  # torchmetrics' own, cubic kernel
    assert metrics.kernel_distance(a, b).value == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_of_two_sizes_by_hand():
    a, b = torch.tensor([[0.0], [1.0], [2.0], [0.0]]), torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.0]])
    within = 2 * (1 + 1 + 1 + 27 + 1 + 1) / 12 + 8  # pairs of a have the products 0, 0, 0, 2, 0, 0; of b 1
    assert metrics.kernel_distance(a, b).value == pytest.approx(within - 2 * (1 + 8 + 27 + 1) / 4)


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_kernel_distance_is_unbiased_and_its_interval_covers(mean):
    pairs = [(gaussian(60, seed=2 * i), gaussian(60, seed=2 * i + 1, mean=mean)) for i in range(100)]
    intervals = [metrics.kernel_distance(a, b, subsets=100) for a, b in pairs]
    values = torch.tensor([interval.value for interval in intervals])
    large = metrics.kernel_distance(gaussian(3000, seed=-1), gaussian(3000, seed=-2, mean=mean), subsets=2).value
    truth = large if mean else 0.0
    assert values.mean().item() == pytest.approx(truth, abs=3 * values.std().item() / 10 + 0.02 * mean)
    assert (values < 0).any() or mean  # unbiased, so not bounded by zero
    assert np.mean([interval.low <= truth <= interval.high for interval in intervals]) >= 0.88


def test_kid_grows_with_blur_and_needs_no_pairs():
    photos = data.load("samples", size=40).images
    near, far = (metrics.kid(metrics.thumbnail(photos, size), photos.flip(0)) for size in (20, 5))
    assert near.value < far.value and far.low > 0 and far.n == 20
    by_colour = metrics.kid(photos, metrics.thumbnail(photos, 5), features=lambda images: images.mean((2, 3)))
    assert by_colour.low < 0 < by_colour.high  # blur keeps the mean colour


def test_equivalent_thumbnail_of_a_thumbnail_is_its_size(photos):
    scores = [metrics.psnr(metrics.thumbnail(photos, size), photos).mean().item() for size in (1, 5, 11, 30, 60)]
    assert scores == sorted(scores)
    assert metrics.equivalent_thumbnail(photos, scores) == pytest.approx([1, 5, 11, 30, 60], rel=0.05)
    assert metrics.equivalent_thumbnail(photos, scores[1]) == pytest.approx(5, rel=0.05)
    assert metrics.equivalent_thumbnail(photos, 0.0) == 1  # worse than each image's mean colour


def test_latents():
    target = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)) + 3
    noise = torch.randn(1000, 10, generator=torch.Generator().manual_seed(1))
    assert metrics.r2(target, target) == 1
    assert metrics.r2(target.mean(dim=0).expand_as(target), target) == pytest.approx(0, abs=1e-5)
    assert metrics.r2(target + 0.5 * noise, target) == pytest.approx(0.75, abs=0.02)
    assert metrics.cosine(-2 * target, target).tolist() == pytest.approx([-1] * 1000)


def test_bootstrap_is_centred_seeded_and_as_wide_as_the_standard_error():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    interval = statistics.bootstrap(values)
    assert interval.value == pytest.approx(values.mean().item()) and interval.n == 400
    assert (interval.high - interval.low) == pytest.approx(2 * 1.96 * values.std().item() / 20, rel=0.1)
    assert interval == statistics.bootstrap(values) and interval != statistics.bootstrap(values, seed=1)
    assert statistics.bootstrap([0, 0, 0, 0, 100], statistic="median").value == 0


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        interval = statistics.bootstrap(torch.randn(50, generator=generator), n_boot=500)
        covered += interval.low <= 0 <= interval.high
    assert 0.89 <= covered / 200 <= 0.985


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
    "call, error, message",
    [
        (lambda x: metrics.psnr(x, x[:2]), ValueError, "one shape"),
        (lambda x: metrics.psnr(x * 255, x), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.psnr(x * float("nan"), x), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.psnr((x * 255).byte(), x), TypeError, "float tensor"),
        (lambda x: metrics.psnr(x[0], x[0]), TypeError, r"\(N, 3, H, W\)"),
        (lambda x: metrics.ssim(x[..., :8], x[..., :8]), ValueError, "11x11"),
        (lambda x: metrics.perceptual(x[..., :8], x[..., :8]), ValueError, "32x32"),
        (lambda x: metrics.retrieval_ranks(x, x, labels=[1]), ValueError, "one label per candidate"),
        (lambda x: metrics.kid(x, x * 2), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.kid(x[..., :8], x[..., :8]), ValueError, "32x32"),
        (lambda x: metrics.kernel_distance(torch.zeros(9, 2), torch.zeros(9, 3)), ValueError, "at least 4 images"),
        (lambda x: metrics.kernel_distance(torch.zeros(3, 2), torch.zeros(9, 2)), ValueError, "at least 4 images"),
        (lambda x: statistics.bootstrap([1.0]), ValueError, "at least two"),
        (lambda x: statistics.bootstrap([1.0, float("inf")]), ValueError, "not finite"),
        (lambda x: statistics.bootstrap([1.0, 2.0], statistic="mode"), ValueError, "'mean' or 'median'"),
        (lambda x: statistics.paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0]), ValueError, "a has 2 values, b has 3"),
        (lambda x: statistics.proportion([0.3, 1.0]), ValueError, "true/false"),
        (lambda x: metrics.r2(torch.zeros(3, 2), torch.zeros(3)), ValueError, r"\(N, D\)"),
    ],
)
def test_wrong_input_is_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(random_images())
    assert "\n" not in str(caught.value)


def test_an_interval_in_per_cent_and_in_words():
    share = statistics.Interval(0.5, 0.25, 0.75, 9)
    assert share.times(100) == statistics.Interval(50, 25, 75, 9)
    assert f"{share:.2f}" == "0.50 [0.25, 0.75]" and f"{share:.0%}" == "50 % [25 %, 75 %]"
    assert str(share) == f"{share}" == "0.5 [0.25, 0.75]"
