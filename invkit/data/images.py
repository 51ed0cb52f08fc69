"""Images by name, always as float tensors in [0, 1]: `load("glyphs")`, `"faces"`, `"cifar10"`, `"folder:PATH"`, ...

| name | what | labels | splits |
|---|---|---|---|
| glyphs | characters drawn from known factors (`invkit.glyphs`) | the character | all, and test-fonts |
| glyphs:independent | the same, where colour says nothing about the class | the character | all, and test-fonts |
| tiny-imagenet, tiny-imagenet:PATH | photos of 200 ImageNet classes, or fewer, 64 px | order of the folders | all |
| imagenet:PATH | ImageNet-1k unpacked, 128 px (`invkit.imagenet`) | order of the folders | inverter, validation, test |
| cifar10, cifar10:PATH | photos of 10 classes, 32 px | as published | all |
| faces | fresh samples of the face generator, with their latents | -1 | inverter, validation, test |
| samples | the 20 ImageNet photos in the wheel of foolbox | ImageNet class numbers | test |
| photos | those, and five everyday photos in the wheel of scikit-image | the same, -1 for the five | test |
| folder:PATH | one folder a class, or one folder of images | order of the folders, or -1 | test |

All splits: "train" is what classifiers are trained on, "inverter" what inverters are, "validation" is for choosing,
"test" for reporting. No image is in two. Nothing is downloaded but Tiny ImageNet and CIFAR-10, where no folder holds
them (`invkit.archives`). Photos are read and cropped by `invkit.photos`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import functional as TF


@dataclass(frozen=True)
class Data:
    """Images and what is known of them.

    images: float (N, 3, H, W) in [0, 1]; labels: int64 (N,), -1 where unknown; names: N names;
    factors: what each image was drawn from, name -> tensor of N; latents: float (N, D), what a generator made it from.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    factors: dict[str, Tensor] | None = None
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or not self.images.is_floating_point():
            what = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise TypeError(f"images must be a float tensor (N, 3, H, W), not {what}.")
        if len(self.images) and not (self.images.min() >= 0 and self.images.max() <= 1):
            raise ValueError("images must lie in [0, 1]: rescale or clip them first.")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, not {self.labels.dtype}: call .long().")
        others = {"labels": self.labels, "names": self.names, "latents": self.latents, **(self.factors or {})}
        for name, values in others.items():
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{name} holds {len(values)} for {len(self.images)} images: give one for each.")

    def __len__(self) -> int:
        return len(self.images)


def fit_square(images: Tensor, size: int) -> Tensor:
    """Images as squares: the shorter side resized to `size`, bilinear and antialiased, then the centre cropped.

    Args:
        images: floats in [0, 1], (N, 3, H, W).
        size: side of the squares in pixels, 1 or more.

    Returns:
        Images (N, 3, size, size); those that have this size already are returned as they are.

    Raises:
        ValueError: no such images.
    """
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"Images must be floats of shape (N, 3, H, W), not {images.dtype} {tuple(images.shape)}.")
    if images.shape[-2:] == (size, size):
        return images
    return TF.center_crop(TF.resize(images, size, antialias=True), size)
