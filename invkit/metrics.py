"""How alike two sets of images (or latents) are, and how sure the figures are.

- PSNR in dB; SSIM (Wang et al. 2004, by torchmetrics); a learned perceptual distance (see `perceptual`).
- Retrieval: does a reconstruction resemble its own original more than the other originals do?
- The equivalent thumbnail: PSNR rewards blur, so it is translated into "as good as the image shrunk to s x s pixels".
- Kernel distance between two sets of images as wholes (KID, Binkowski et al. 2018), unpaired.
- R² and cosine for latents.
- Intervals: 95 % bootstrap percentile intervals over images (Efron 1979, by scipy), paired where the data are paired,
  and Wilson's interval (1927) for proportions.

Images are float tensors (N, 3, H, W) in [0, 1]; measures "per image" are tensors (N,) on the images' device.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from invkit import store
from invkit.statistics import Interval

STLPIPS_FILE = "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth"
STLPIPS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
LPIPS_FILE = "lpips/weights/v0.1/alex.pth"
LPIPS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet_Weights.IMAGENET1K_V1
ALEXNET_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
CHUNK = 25  # images compared at a time: bounds the memory of SSIM and of the perceptual network


# ---- images against images -------------------------------------------------------------------------------------------


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, 10 log10(1 / mean squared error); infinite for equal images."""
    _check_pair(a, b)
    return -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3)))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of pixels (…, 3, H, W), (…)."""
    return (a - b).square().mean(dim=(-3, -2, -1)).sqrt()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, 1 for equal images (Wang et al. 2004; 11-pixel window, mean over colours)."""
    _check_pair(a, b)
    if min(a.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs at least 11x11 pixels, but the images are {_size(a)}: enlarge both first.")
    return _in_chunks(lambda x, y: structural_similarity_index_measure(x, y, data_range=1.0, reduction="none"), a, b)


def perceptual(a: Tensor, b: Tensor) -> Tensor:
    """Learned perceptual distance of each image pair, 0 for equal images; `perceptual_name()` says which one it is.

    LPIPS (Zhang et al. 2018, AlexNet) if torchvision's AlexNet weights lie in torch's download cache already, otherwise
    its shift-tolerant form (Ghildyal and Liu 2022), whose AlexNet comes complete in a wheel. The two have different
    scales. Nothing is downloaded here, so that a number never depends on whether a network happened to be up; to have
    LPIPS, run once: python -c "import torchvision; torchvision.models.alexnet(weights='DEFAULT')"
    """
    _check_pair(a, b)
    if min(a.shape[-2:]) < 32:
        raise ValueError(f"The perceptual distance needs at least 32x32 pixels, not {_size(a)}: enlarge both first.")
    network = _perceptual_network(perceptual_name()).to(a.device)
    with torch.no_grad():
        return _in_chunks(lambda x, y: network(x, y, normalize=True).flatten(), a, b)


def perceptual_name() -> str:
    """Which distance `perceptual` computes here: "LPIPS (AlexNet)" or "ST-LPIPS (shift-tolerant AlexNet)"."""
    return "LPIPS (AlexNet)" if _alexnet_file().is_file() else "ST-LPIPS (shift-tolerant AlexNet)"


def _alexnet_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE


@cache
@torch.no_grad()
def _perceptual_network(name: str) -> nn.Module:
    """Built with random weights and filled here: the packages' own loading neither checks the files nor is strict."""
    if name.startswith("ST-LPIPS"):
        try:
            from stlpips_pytorch import stlpips
        except ImportError as error:
            needs = "pip install stlpips_pytorch torchsummary ipython"
            raise ImportError(f"The perceptual distance needs {error.name}: {needs}") from error
        network = stlpips.LPIPS(net="alex", variant="shift_tolerant", pretrained=False, verbose=False)
        weights = _wheel_weights("stlpips_pytorch", STLPIPS_FILE, STLPIPS_SHA256)
        again = {key.replace("lin", "lins.", 1): value for key, value in weights.items() if key.startswith("lin")}
        network.load_state_dict(weights | again)  # the network lists its layers "lin0" … a second time as "lins.0" …
    else:
        import lpips

        with warnings.catch_warnings():  # lpips calls torchvision by names deprecated since 0.13
            warnings.simplefilter("ignore")
            network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
        backbone = store.load_pickle_checked(_alexnet_file(), ALEXNET_SHA256)
        for key, parameter in network.net.named_parameters():  # "slice2.3.bias" is torchvision's "features.3.bias"
            parameter.copy_(backbone["features." + key.partition(".")[2]])
        weights = _wheel_weights("lpips", LPIPS_FILE, LPIPS_SHA256)
        network.lins.load_state_dict({key.removeprefix("lin"): value for key, value in weights.items()})
    return network.eval().requires_grad_(False)


def _wheel_weights(distribution: str, path: str, sha256: str) -> dict[str, Tensor]:
    return store.load_pickle_checked(store.wheel_file(distribution, path, sha256), sha256)


# ---- retrieval -------------------------------------------------------------------------------------------------------


def retrieval_ranks(reconstructions: Tensor, candidates: Tensor, labels: Tensor | None = None) -> Tensor:
    """Rank (N,) of each reconstruction's own original among the candidates: 1 is found at once, N is last.

    Similarity is the cosine after subtracting the candidates' mean image; candidate i is the original of reconstruction
    i; ties count against it. With `labels` (N,) (say, the classes that the classifier sees in the candidates) only
    candidates of the same label compete, and an image that has no rival gets rank 0.
    """
    _check_pair(reconstructions, candidates)
    mean = candidates.mean(dim=0)
    similarity = F.normalize((reconstructions - mean).flatten(1)) @ F.normalize((candidates - mean).flatten(1)).T
    own = similarity.diagonal().unsqueeze(1)
    rivals = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
    if labels is not None:
        labels = torch.as_tensor(labels, device=candidates.device)
        if labels.shape != (len(candidates),):
            raise ValueError(f"Give one label per candidate, ({len(candidates)},), not {tuple(labels.shape)}.")
        rivals &= labels.unsqueeze(1) == labels.unsqueeze(0)
    ranks = 1 + ((similarity >= own) & rivals).sum(dim=1)
    return torch.where(rivals.any(dim=1), ranks, 0) if labels is not None else ranks


def retrieval_accuracy(
    reconstructions: Tensor, candidates: Tensor, top: int = 1, labels: Tensor | None = None
) -> float:
    """Share of reconstructions whose own original is among the `top` most similar candidates; see `retrieval_ranks`.

    With `labels`, images without a rival of their label are left out. For an interval: `proportion(ranks <= top)`.
    """
    ranks = retrieval_ranks(reconstructions, candidates, labels)
    ranks = ranks[ranks > 0]
    if not len(ranks):
        raise ValueError("No two candidates share a label, so nothing can be confused: give more images, or no labels.")
    return (ranks <= top).float().mean().item()


# ---- sets as wholes --------------------------------------------------------------------------------------------------


def kid(a: Tensor, b: Tensor, features: Callable[[Tensor], Tensor] | None = None, seed: int = 0) -> "Interval":
    """Kernel distance between two sets of images (N, 3, H, W) and (M, 3, H, W): do they look drawn from one source?

    features: images -> (N, D), from a network that neither was attacked nor stands in a loss; None is
    `perceptual_features`. See `kernel_distance`; values of different features cannot be compared.
    """
    _check_images(a, "the first images")
    _check_images(b, "the second images")
    features = features or perceptual_features
    return kernel_distance(features(a), features(b), seed=seed)


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 500, seed: int = 0) -> "Interval":
    """Squared maximum mean discrepancy of features (N, D) and (M, D), cubic kernel (x·y / D + 1)³; 0 is the same.

    Unbiased (Binkowski et al. 2018, "Demystifying MMD GANs", eq. 4), hence below 0 at times, and of use where N < D.
    Interval: the central 95 % over random halves of both sets, which scatter as the whole does about the truth (a
    jackknife that deletes half); n is the size of the smaller set.
    """
    for values in (a, b):
        if values.ndim != 2 or values.shape[1:] != a.shape[1:] or len(values) < 4 or not values.isfinite().all():
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"Compare finite features (N, D) and (M, D) of at least 4 images each, not {shapes}.")
    a, b = a.double(), b.double()
    aa, bb, ab = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    for pairs in (aa, bb):
        pairs.fill_diagonal_(0)  # no image is compared with itself

    def distance(rows: Tensor, columns: Tensor) -> Tensor:
        """(S,) distances between the subsets that the zeros and ones (S, N) and (S, M) choose."""
        n, m = rows.sum(1), columns.sum(1)
        within = ((rows @ aa) * rows).sum(1) / (n * (n - 1)) + ((columns @ bb) * columns).sum(1) / (m * (m - 1))
        return within - 2 * ((rows @ ab) * columns).sum(1) / (n * m)

    generator = torch.Generator().manual_seed(seed)

    def halves(n: int) -> Tensor:
        return (torch.rand(subsets, n, generator=generator).argsort(1) < n // 2).to(a)

    value = distance(a.new_ones(1, len(a)), a.new_ones(1, len(b))).item()
    scatter = distance(halves(len(a)), halves(len(b))).cpu().numpy()
    low, high = np.quantile(scatter, (0.025, 0.975))
    return Interval(value, float(min(low, value)), float(max(high, value)), min(len(a), len(b)))


@torch.no_grad()
def perceptual_features(images: Tensor) -> Tensor:
    """Features (N, 1152) of the AlexNet behind `perceptual`, from all five of its layers.

    At every place the activations are scaled to root mean square 1 (LPIPS scales them to length 1); then the mean over
    places.
    """
    _check_images(images, "images")
    if min(images.shape[-2:]) < 32:
        raise ValueError(f"These features need at least 32x32 pixels, not {_size(images)}: enlarge the images first.")
    network = _perceptual_network(perceptual_name()).to(images.device)

    def pooled(part: Tensor) -> Tensor:
        layers = network.net(network.scaling_layer(2 * part - 1))
        return torch.cat([(F.normalize(x) * x.shape[1] ** 0.5).mean(dim=(2, 3)) for x in layers], dim=1)

    return torch.cat([pooled(part) for part in images.split(CHUNK)])


# ---- the equivalent thumbnail ----------------------------------------------------------------------------------------


def thumbnail(images: Tensor, size: int) -> Tensor:
    """The images (N, 3, H, W) shrunk to size x size (antialiased) and enlarged again, both bilinear."""
    _check_images(images, "images")
    small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


def equivalent_thumbnail(images: Tensor, psnr_db: float | Sequence[float]) -> float | list[float]:
    """The size s at which s x s thumbnails of these images reach this mean PSNR (dB); one s for each PSNR given.

    Interpolated in log s between some 24 sizes from 1 x 1 (each image's mean colour) to nearly the images' own, and
    clipped to those.
    """
    _check_images(images, "images")
    largest = min(images.shape[-2:])
    sizes = np.unique(np.geomspace(1, largest, 24).round().astype(int))[:-1]  # the full size is perfect: infinite dB
    scores = [
        torch.cat([psnr(thumbnail(part, size), part) for part in images.split(CHUNK)]).mean().item()
        for size in sizes.tolist()
    ]
    log_size = np.interp(psnr_db, np.maximum.accumulate(scores), np.log(sizes))
    return np.exp(log_size).tolist()


# ---- latents ---------------------------------------------------------------------------------------------------------


def r2(predicted: Tensor, target: Tensor) -> float:
    """Share of the targets' variance (N, D) that the predictions explain; 1 is perfect, 0 no better than the mean."""
    _check_latents(predicted, target)
    residual = (predicted - target).square().sum()
    total = (target - target.mean(dim=0)).square().sum()
    return (1 - residual / total).item()


def cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine (N,) between each predicted latent and its target, both (N, D)."""
    _check_latents(predicted, target)
    return F.cosine_similarity(predicted, target)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([function(x, y).reshape(len(x)) for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True)])


def _size(images: Tensor) -> str:
    return f"{images.shape[-1]}x{images.shape[-2]}"


def _check_images(images: Tensor, name: str) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a float tensor (N, 3, H, W), not {type(images).__name__}.")
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        what = f"{images.dtype} {tuple(images.shape)}"
        raise TypeError(f"{name} must be a float tensor (N, 3, H, W) of at least one image, not {what}.")
    low, high = images.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
        raise ValueError(f"{name} must lie in [0, 1], not in [{low:.3g}, {high:.3g}]: rescale or clip them first.")


def _check_pair(a: Tensor, b: Tensor) -> None:
    _check_images(a, "the first images")
    _check_images(b, "the second images")
    if a.shape != b.shape:
        raise ValueError(f"Both sets of images must have one shape, not {tuple(a.shape)} and {tuple(b.shape)}.")


def _check_latents(predicted: Tensor, target: Tensor) -> None:
    if predicted.ndim != 2 or predicted.shape != target.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        raise ValueError(f"Both sets of latents must be (N, D) of one shape, not {shapes}.")
