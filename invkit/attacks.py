"""Attacks on classifiers, and how much of them a classifier withstands.

- The attack: projected gradient descent in an L-infinity ball (PGD; Madry et al. 2018, arXiv 1706.06083, section 2.1),
      x_{t+1} = clip(x_t + a sign(grad_x loss(x_t, y)), x - epsilon, x + epsilon), and to [0, 1],
  from a random point of the ball; or in a Euclidean (L2) ball, along the gradient at unit length (appendix A there).
- The measurement: PGD as foolbox (Rauber et al. 2017, arXiv 1707.04131) implements it, not our own.

Images are float in [0, 1], (N, 3, H, W); epsilon is in those units (8/255 = 0.031); labels are int64 (N,).
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invkit.checks import check_images, check_labels, check_seed, check_whole_number
from invkit.network.classifiers import Classifier
from invkit.network.partition import evaluating
from invkit.seeds import seeded

BATCH = 100  # images evaluated at a time

Logits = Callable[[Tensor], Tensor]


# ---- attacks ---------------------------------------------------------------------------------------------------------


@torch.inference_mode(False)
def pgd(
    classifier: Classifier | Logits, images: Tensor, labels: Tensor, epsilon: float = 8 / 255, steps: int = 10,
    step_size: float | None = None, seed: int = 0, norm: str = "Linf",
) -> Tensor:  # fmt: skip
    """Images within epsilon of these and in [0, 1] that raise the classifier's cross-entropy.

    Args:
        classifier: a Classifier, or any differentiable function from images to logits.
        images: floats (N, 3, H, W) in [0, 1].
        labels: the classes to be led away from, int64 (N,).
        epsilon: the radius of the ball, in units of [0, 1] images.
        steps: how many gradients are followed.
        step_size: of each; None is 2.5 epsilon / steps, so that every corner of the ball can be reached.
        seed: of the start, which is uniform in the ball, or for "L2" on its surface.
        norm: "Linf", where each number changes by at most epsilon, or "L2", where an image's changes have at most that
            Euclidean length.

    Returns:
        The attacked images (N, 3, H, W).

    Example:
        >>> import invkit
        >>> classifier = invkit.load_classifier("glyphs-standard-0")
        >>> glyphs = invkit.data.load("glyphs", n=4)
        >>> attacked = pgd(classifier, glyphs.images, glyphs.labels, epsilon=8 / 255)
        >>> (attacked - glyphs.images).abs().max().item() <= 8 / 255 + 1e-6
        True

    Raises:
        TypeError, ValueError: no images, no labels, or no ball.
    """
    logits = classifier.logits if isinstance(classifier, Classifier) else classifier
    images, labels = _checked(classifier, images, labels, epsilon, steps, norm), labels.clone()
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    noise = torch.rand(images.shape, generator=seeded(seed)).to(images.device)
    if norm == "L2":
        attacked = (images + epsilon * _unit(noise - 0.5)).clamp(0, 1)
    else:
        attacked = torch.lerp(images - epsilon, images + epsilon, noise).clamp(0, 1)
    for _ in range(steps):
        with torch.enable_grad():
            attacked.requires_grad_()
            loss = F.cross_entropy(logits(attacked).float(), labels, reduction="sum")
            gradient = torch.autograd.grad(loss, attacked)[0]
        if norm == "L2":
            change = attacked.detach() + step_size * _unit(gradient) - images
            too_far = (_length(change) / epsilon).clamp(min=1)
            attacked = (images + change / too_far).clamp(0, 1)  # clipping brings a point no further from the image
        else:
            attacked = torch.min(torch.max(attacked.detach() + step_size * gradient.sign(), low), high)
    return attacked


def _length(changes: Tensor) -> Tensor:
    """Euclidean length of each image's changes (N, C, H, W), (N, 1, 1, 1)."""
    return changes.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _unit(changes: Tensor) -> Tensor:
    """Changes (N, C, H, W), each image's scaled to length 1; without any it stays 0."""
    return changes / _length(changes).clamp_min(1e-12)


# ---- accuracy, image by image ----------------------------------------------------------------------------------------


@torch.no_grad()
def clean_accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly: bool (N,)."""
    images = _checked(classifier, images, labels)
    parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([classifier.logits(part).argmax(1) == label for part, label in parts])


@torch.inference_mode(False)
def robust_accuracy(
    classifier: Classifier, images: Tensor, labels: Tensor, epsilon: float = 8 / 255, steps: int = 20, seed: int = 0,
    norm: str = "Linf",
) -> Tensor:  # fmt: skip
    """Whether each image is classified correctly as it is and after foolbox's PGD in a ball of that norm: bool (N,).

    The attack has a random start and steps of 2.5 epsilon / steps. Images that are wrong as they are count as broken
    and are not attacked.
    """
    import foolbox  # slow to import, and only measuring needs it

    images = _checked(classifier, images, labels, epsilon, steps, norm)
    check_seed(seed)
    right = clean_accuracy(classifier, images, labels)
    mean, std = (torch.tensor(v, device=images.device) for v in (classifier.mean, classifier.std))
    preprocessing = {"mean": mean, "std": std, "axis": -3}
    kind = foolbox.attacks.L2PGD if norm == "L2" else foolbox.attacks.LinfPGD
    attack = kind(rel_stepsize=2.5 / steps, steps=steps, random_start=True)
    attack.value_and_grad = _value_and_gradient
    with torch.random.fork_rng(), evaluating(classifier.model):
        model = foolbox.PyTorchModel(classifier.model, bounds=(0, 1), device=images.device, preprocessing=preprocessing)
        torch.manual_seed(seed)  # foolbox draws its start from the global generator
        for part in filter(len, right.nonzero().flatten().split(BATCH)):  # none is right: one empty part
            broken = attack(model, images[part], labels[part], epsilons=epsilon)[2]
            right[part] &= ~broken
    return right


def _value_and_gradient(loss_of: Callable, images: Any) -> tuple[Any, Any]:
    """As foolbox's own, which also adds to the gradients of the network's parameters; of its tensors (eagerpy)."""
    inputs = type(images)(images.raw.clone().requires_grad_())
    loss = loss_of(inputs)
    return loss, type(images)(torch.autograd.grad(loss.raw, inputs.raw)[0])


def _checked(
    classifier: Classifier | Logits, images: Tensor, labels: Tensor, epsilon: float = 0.5, steps: int = 1,
    norm: str = "Linf",
) -> Tensor:  # fmt: skip
    """The images, single and within [0, 1]: a rounding beyond it is clipped, which foolbox would not take."""
    if norm not in ("Linf", "L2"):
        raise ValueError(f"norm is 'Linf' or 'L2', not {norm!r}.")
    if not isinstance(epsilon, Real) or not 0 < epsilon < (1 if norm == "Linf" else float("inf")):
        fit = "above 0 and below 1, such as 8 / 255" if norm == "Linf" else "above 0, such as 0.5"
        raise ValueError(f"epsilon is in units of [0, 1] images, {fit}, not {epsilon!r}.")
    check_whole_number(steps, 1, "steps")
    check_images(images)
    check_labels(labels, len(images), classifier.classes if isinstance(classifier, Classifier) else None)
    return images.detach().float().clamp(0, 1)
