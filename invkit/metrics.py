"""How alike two sets of images are.

- PSNR in dB; SSIM (Wang et al. 2004, by torchmetrics); two perceptual distances in unrelated spaces of features (see
  `perceptual`, `perceptual_squeezenet`).
- Retrieval: does a reconstruction resemble its own original more than the other originals do?
- Thumbnails, to which a blurred image is compared, and the features behind the perceptual distance.

Images are float tensors (N, 3, H, W) in [0, 1]; measures "per image" are tensors (N,) on the images' device. How sure
the figures are is the subject of `invkit.statistics`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit import checks, store
from invkit.checks import check_image_pairs, check_images, check_size, check_whole_number, checked, form_of

STLPIPS_FILE = "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth"
STLPIPS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
LPIPS_FILE = "lpips/weights/v0.1/alex.pth"
LPIPS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet_Weights.IMAGENET1K_V1
ALEXNET_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
CHUNK = 25  # images compared at a time: bounds the memory of SSIM and of the perceptual network
MEMORY = 400e6  # bytes of what is remembered of originals: of some 40 photos of 224 pixels


# ---- images against images -------------------------------------------------------------------------------------------


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, 10 log10(1 / mean squared error); infinite for equal images.

    Args:
        a: floats (N, 3, H, W) in [0, 1].
        b: images of the same shape.

    Returns:
        One value for each pair, (N,).

    Example:
        >>> black = torch.zeros(1, 3, 8, 8)
        >>> psnr(black + 0.1, black)
        tensor([20.])
    """
    check_image_pairs(a, b)
    return -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3)))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of the pixels of images (…, 3, H, W): one value for each image, (…)."""
    checks.check_broadcastable(a, b)
    return (a - b).square().mean(dim=(-3, -2, -1)).sqrt()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, 1 for equal images (Wang et al. 2004; 11-pixel window, mean over colours).

    Raises ValueError for images below 11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes a second to import

    check_image_pairs(a, b, 11, "SSIM")
    return _in_chunks(lambda x, y: structural_similarity_index_measure(x, y, data_range=1.0, reduction="none"), a, b)


def perceptual(a: Tensor, b: Tensor) -> Tensor:
    """Learned perceptual distance of each image pair, 0 for equal images; `perceptual_name()` says which one it is.

    LPIPS (Zhang et al. 2018, AlexNet) if torchvision's AlexNet weights lie in torch's download cache already, otherwise
    its shift-tolerant form (Ghildyal and Liu 2022), whose AlexNet comes complete in a wheel. The two have different
    scales. Nothing is downloaded here, so that a number never depends on whether a network happened to be up; to have
    LPIPS, run once: python -c "import torchvision; torchvision.models.alexnet(weights='DEFAULT')"
    """
    check_image_pairs(a, b, 32, "The perceptual distance")
    weights: Any = _perceptual_network(perceptual_name()).to(a.device).lins

    def compared(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(weights, _alexnet_layers(x), _remembered(_alexnet_layers, y), strict=True)
        return sum((weigh((u - v) ** 2).mean((2, 3)) for weigh, u, v in pairs), torch.zeros(()))

    with torch.no_grad():
        return _in_chunks(compared, a.float(), b.float())


def perceptual_squeezenet(a: Tensor, b: Tensor) -> Tensor:
    """A second perceptual distance, in a space unrelated to that of `perceptual`: SqueezeNet's, trained on ImageNet.

    As LPIPS without its learned weights (Zhang et al. 2018, equation 1 with w = 1): the squared distance of the
    activations, scaled to length 1 at every place, averaged over places and over the seven layers that LPIPS takes.

    Args:
        a: floats (N, 3, H, W) in [0, 1], of at least 32 x 32 pixels.
        b: images of the same shape.

    Returns:
        One distance for each pair, (N,); 0 for equal images.

    Raises:
        FileNotFoundError: the package with SqueezeNet's weights is not installed.
        ValueError: smaller images.
    """
    check_image_pairs(a, b, 32, "The perceptual distance")

    def compared(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(_squeezenet_layers(x), _remembered(_squeezenet_layers, y), strict=True)
        return torch.stack([(u - v).square().sum(1).mean((1, 2)) for u, v in pairs]).mean(0)

    with torch.no_grad():
        return _in_chunks(compared, a, b)


def _remembered(layers: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
    """The layers of some originals, which are often compared with one reconstruction after another, once for all."""
    key = layers, perceptual_name(), images.shape, images.device, images.sum().item()
    seen, found = _MEMORY.pop(key, (None, []))
    if seen is None or not torch.equal(seen, images):
        seen, found = images.clone(), layers(images)
    _MEMORY[key] = seen, found  # the newest come last
    while sum(h.nbytes for _, kept in _MEMORY.values() for h in kept) > MEMORY and len(_MEMORY) > 1:
        del _MEMORY[next(iter(_MEMORY))]
    return found


_MEMORY: dict[tuple, tuple[Tensor, list[Tensor]]] = {}


def _alexnet_layers(images: Tensor) -> list[Tensor]:
    """The activations after AlexNet's five layers, scaled to length 1 at every place as LPIPS does."""
    network: Any = _perceptual_network(perceptual_name()).to(images.device)
    layers = network.net(network.scaling_layer(2 * images.float() - 1))
    return [h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10) for h in layers]


def _squeezenet_layers(images: Tensor) -> list[Tensor]:
    """The activations after the seven layers of SqueezeNet that LPIPS takes, scaled to length 1 at every place."""
    network, mean = _squeezenet()
    network = network.to(images.device, memory_format=torch.channels_last)
    h = network.relu(network.conv1(images.float() - mean.to(images.device)))
    found = [h]
    for name, layer in network.layers.named_children():
        h = layer(h)
        if name in ("fire3", "fire5", "fire6", "fire7", "fire8", "fire9"):
            found.append(h)
    return [F.normalize(h) for h in found]


@cache
def _squeezenet() -> tuple[nn.Module, Tensor]:
    from invkit.network.wheels import WHEELS

    wheel = WHEELS["squeezenet"]
    return wheel.module().eval().requires_grad_(False), torch.tensor(wheel.mean).view(1, 3, 1, 1)


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
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _wheel_weights(distribution: str, path: str, sha256: str) -> dict[str, Tensor]:
    return store.load_pickle_checked(store.wheel_file(distribution, path, sha256), sha256)


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    # channels last: 1.5 times as fast for the perceptual networks on a CPU
    a, b = (images.contiguous(memory_format=torch.channels_last) for images in (a, b))
    return torch.cat([function(x, y).reshape(len(x)) for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True)])


# ---- retrieval -------------------------------------------------------------------------------------------------------


@checked
def retrieval_ranks(reconstructions: Tensor, candidates: Tensor, labels: Tensor | Sequence | None = None) -> Tensor:
    """Rank (N,) of each reconstruction's own original among the candidates: 1 is found at once, N is last.

    Similarity is the cosine after subtracting the candidates' mean image. Ties count against the original, so that
    reconstructions which are all alike are not called right; torchmetrics' retrieval breaks ties by position and would.

    Args:
        reconstructions: floats (N, 3, H, W) in [0, 1].
        candidates: the originals in the same order, of the same shape.
        labels: a class for each candidate, (N,), say what the classifier sees in it. Only candidates of the same label
            compete then, and an image that has no rival gets rank 0. None: all compete.

    Returns:
        Ranks, int64 (N,). For an accuracy with its interval: `statistics.proportion(ranks <= top)`.
    """
    check_image_pairs(reconstructions, candidates)
    mean = candidates.mean(dim=0, dtype=torch.promote_types(candidates.dtype, reconstructions.dtype))
    similarity = F.normalize((reconstructions - mean).flatten(1)) @ F.normalize((candidates - mean).flatten(1)).T
    own = similarity.diagonal().unsqueeze(1)
    rivals = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
    if labels is not None:
        seen = torch.as_tensor(labels, device=candidates.device)
        if seen.shape != (len(candidates),):
            raise ValueError(f"Give one label per candidate, ({len(candidates)},), not {form_of(seen)}.")
        rivals &= seen.unsqueeze(1) == seen.unsqueeze(0)
    ranks = 1 + ((similarity >= own) & rivals).sum(dim=1)
    return torch.where(rivals.any(dim=1), ranks, 0) if labels is not None else ranks


def retrieval_accuracy(
    reconstructions: Tensor, candidates: Tensor, top: int = 1, labels: Tensor | None = None
) -> float:
    """Share of reconstructions whose own original is among the `top` most similar candidates.

    Args:
        reconstructions, candidates, labels: as for `retrieval_ranks`. With labels, images without a rival of their
            label are left out.
        top: how many candidates may be named, 1 or more.

    Example:
        >>> photos = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> retrieval_accuracy(photos.sqrt(), photos)  # every one is closest to its own photo
        1.0

    Raises:
        ValueError: no two candidates share a label.
    """
    check_whole_number(top, 1, "top")
    ranks = retrieval_ranks(reconstructions, candidates, labels)
    ranks = ranks[ranks > 0]
    if not len(ranks):
        raise ValueError("No two candidates share a label, so nothing can be confused: give more images, or no labels.")
    return (ranks <= top).float().mean().item()


# ---- features --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def perceptual_features(images: Tensor, squeezenet: bool = False) -> Tensor:
    """Features (N, 1152) of the AlexNet behind `perceptual`, from all five of its layers.

    At every place the activations are scaled to root mean square 1 (LPIPS scales them to length 1), and then averaged
    over places. Raises ValueError for images below 32 pixels.

    Args:
        images: floats (N, 3, H, W) in [0, 1].
        squeezenet: take the seven layers behind `perceptual_squeezenet` instead, (N, 1920).
    """
    check_image_pairs(images, images, 32, "This distance")

    layers = _squeezenet_layers if squeezenet else _alexnet_layers
    parts = ([x.mean((2, 3)) * x.shape[1] ** 0.5 for x in layers(part)] for part in images.split(CHUNK))
    return torch.cat([torch.cat(part, 1) for part in parts])


# ---- thumbnails ------------------------------------------------------------------------------------------------------


def thumbnail(images: Tensor, size: int) -> Tensor:
    """The images (N, 3, H, W) shrunk to size x size (antialiased) and enlarged again, both bilinear.

    Example:
        >>> thumbnail(torch.rand(1, 3, 64, 64), 8).shape  # shrunk to 8 × 8 and enlarged again
        torch.Size([1, 3, 64, 64])
    """
    check_images(images)
    check_size(len(images), size)
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")
