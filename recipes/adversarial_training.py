"""Training of small classifiers, standard or adversarially robust (Madry et al. 2018, arXiv 1706.06083, equation 2.1).

Robust training minimises the loss at attacked images. `attack="fast"` takes a single step of 1.25 epsilon (Wong et al.
2020, arXiv 2001.03994), which costs one extra pass instead of many. It can fail all at once ("catastrophic
overfitting": the network withstands that single step and nothing else), so every CHECK_EVERY steps it is compared with
PGD. If it fails, the steps until the next comparison take PGD images, which mends it (Li et al. 2020, arXiv
2006.03089). The card counts these alarms.

Images are uint8, or float in [0, 1], (N, 3, H, W); epsilon is in units of [0, 1]; labels are int64 (N,).
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invkit import checkpoint, store
from invkit.attacks import BATCH, pgd
from invkit.checks import check_images, check_labels
from invkit.network.classifiers import Classifier
from invkit.network.small import build
from invkit.seeds import seed_for
from invkit.training import Player, train

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # preprocessing of what is trained here
CHECK_EVERY = 50  # steps between looks for catastrophic overfitting
CHECK_IMAGES, CHECK_STEPS = 64, 7
MENDING_STEPS = 3  # PGD steps an image, in the CHECK_EVERY training steps after an alarm
STOP_EVERY = 25  # steps between looks at the validation accuracy of a run that is to stop early


def train_classifier(
    architecture: str,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    *,
    classes: int,
    size: int,
    steps: int,
    options: dict | None = None,
    epsilon: float = 0.0,
    attack: str = "fast",
    attack_steps: int = 7,
    norm: str = "Linf",
    start: Classifier | None = None,
    stop_at: tuple[Tensor, Tensor, float] | None = None,
    lr: float = 3e-3,
    weight_decay: float = 0.02,
    folder: str | Path | None = None,
    seed: int = 0,
    name: str = "trained",
    **training,
) -> Classifier:
    """Train a small classifier, standard or adversarially robust; a stopped call goes on where it was.

    Args:
        architecture, options: of `small_networks.build`: "residual" or "plain", its widths and blocks.
        batches: batches(step), a pure function, gives (images (N, 3, size, size), labels int64 (N,)); images are uint8
            or floats in [0, 1].
        epsilon: 0 trains on the images as they are; above 0, on images attacked within a ball of that radius.
        attack: "fast", a single step from a random start, or "pgd" with `attack_steps` steps.
        norm: of the ball, "Linf" or "L2".
        start: a classifier of the same architecture to begin from. From nothing, robust training with many classes
            tends to stay at chance.
        stop_at: (images, labels, accuracy) ends the run as soon as it reaches that accuracy on these held-out images.
        lr, weight_decay: of Adam; folder, seed, training: as for `training.train`.

    Returns:
        The classifier, in eval mode; its card says how it was trained. Its `save` keeps it.

    Raises:
        NotReached: the accuracy of `stop_at` was not reached; a ValueError.
        ValueError: settings or batches that make no sense, a `start` of another shape.
    """
    if attack not in ("fast", "pgd") or not 0 <= epsilon or (norm == "Linf" and epsilon >= 1):
        raise ValueError(f"attack is 'fast' or 'pgd' with epsilon from 0 to below 1, not {attack!r} with {epsilon}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(architecture, classes, size, **(options or {}))
    if start is not None:
        try:
            network.load_state_dict(start.model.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{start.name} is no {architecture} network like the one to train: start from such."
            ) from error
    _check_batch(*batches(0), classes, size)
    trainee = _Trainee(network).to(memory_format=torch.channels_last)

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict]:
        images, labels = _as_float(batch[0]), batch[1]
        scalars = {}
        if stop_at is not None and step and step % STOP_EVERY == 0:
            scalars["validation"] = trainee.accuracy(*stop_at[:2])
            if scalars["validation"] >= stop_at[2]:
                raise _Reached(step, scalars["validation"])
        if epsilon:
            images, watched = _attack(trainee, images, labels, step, epsilon, attack, attack_steps, seed, norm)
            scalars |= watched
        logits = module(images).float()
        scalars["accuracy"] = (logits.argmax(1) == labels).float().mean()
        return F.cross_entropy(logits, labels), scalars

    player = Player("classifier", trainee, loss, lr, weight_decay=weight_decay, clip=1.0)
    training = {"description": name} | training
    if stop_at is not None:  # a checkpoint before every look: whoever calls again repeats the look and no step
        training |= {"ema": None, "checkpoint_every_steps": STOP_EVERY}
    began = time.monotonic()
    try:
        run = train(player, batches, steps=steps, folder=folder, seed=seed, **training)
        done, seconds, stopped = run.steps, run.seconds, None
    except _Reached as reached:
        done, stopped = reached.step, reached.accuracy
        seconds = time.monotonic() - began if folder is None else checkpoint.seconds(Path(folder))
    if stop_at is not None and stopped is None:
        found = trainee.eval().accuracy(*stop_at[:2])
        raise NotReached(f"{steps} steps ended at an accuracy of {found:.3f}, not {stop_at[2]:.3f}: give more steps.")
    card = {
        "method": "classifier",
        "architecture": architecture,
        "options": options or {},
        "classes": classes,
        "size": size,
        "mean": list(MEAN),
        "std": list(STD),
        "epsilon": epsilon,
        "attack": attack if epsilon else None,
        "norm": norm if epsilon else None,
        "alarms": int(trainee.alarms) if epsilon else None,
        "start": start.name if start is not None else None,
        "stopped_at": stopped,
        "seed": seed,
        "steps": done,
        "hours": round(seconds / 3600, 3),
        "machine": store.machine_class(),
        "code": store.code_version(),
    }
    return Classifier(network, name, size, MEAN, STD, card=card)


class _Trainee(nn.Module):
    """The network with its preprocessing, and what a run must remember of overfitting to resume exactly.

    Buffers: alarms, how often it was seen; mend_until, the step up to which PGD images are trained on.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        for key, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        for key in ("alarms", "mend_until"):
            self.register_buffer(key, torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """With the running statistics, whatever mode it is in."""
        training = self.training
        self.eval()
        right = [
            self(_as_float(part.to(self.mean.device))).argmax(1).cpu() == label.cpu()
            for part, label in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        ]
        self.train(training)
        return torch.cat(right).float().mean().item()


class NotReached(ValueError):
    """The accuracy at which a run was to stop was not reached within its steps."""


class _Reached(Exception):
    """The accuracy asked for, in this step."""

    def __init__(self, step: int, accuracy: float):
        super().__init__(f"accuracy {accuracy:.3f} in step {step}")
        self.step, self.accuracy = step, accuracy


def _attack(
    trainee: _Trainee,
    images: Tensor,
    labels: Tensor,
    step: int,
    epsilon: float,
    attack: str,
    attack_steps: int,
    seed: int,
    norm: str,
) -> tuple[Tensor, dict[str, float]]:
    """The images to train on in this step and, in a step that looks for catastrophic overfitting, what it saw.

    The network is attacked as it will be used, with the running statistics of its norms.
    """
    trainee.eval()
    draw = seed_for(seed, step)
    mending = attack == "fast" and step < int(trainee.mend_until)
    if attack == "pgd":
        attacked = pgd(trainee, images, labels, epsilon, attack_steps, seed=draw, norm=norm)
    elif mending:
        attacked = pgd(trainee, images, labels, epsilon, MENDING_STEPS, seed=draw, norm=norm)
    else:
        attacked = pgd(trainee, images, labels, epsilon, 1, 1.25 * epsilon, seed=draw, norm=norm)
    seen = {}
    if attack == "fast" and step % CHECK_EVERY == 0:  # mending is over by then
        few, truth = images[:CHECK_IMAGES], labels[:CHECK_IMAGES]
        harder = pgd(trainee, few, truth, epsilon, CHECK_STEPS, seed=draw, norm=norm)
        with torch.no_grad():
            seen = {
                "fast_accuracy": (trainee(attacked[:CHECK_IMAGES]).argmax(1) == truth).float().mean().item(),
                "pgd_accuracy": (trainee(harder).argmax(1) == truth).float().mean().item(),
            }
        if overfits(**seen):
            trainee.alarms += 1
            trainee.mend_until.fill_(step + CHECK_EVERY)
    trainee.train()
    return attacked, seen


def overfits(fast_accuracy: float, pgd_accuracy: float) -> bool:
    """Catastrophic overfitting: the single step is withstood, while PGD breaks more than half of what withstands it."""
    return fast_accuracy > 0.3 and pgd_accuracy < 0.5 * fast_accuracy


def _as_float(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _check_batch(images: Tensor, labels: Tensor, classes: int, size: int) -> None:
    """One sentence before anything is trained, instead of a crash or nonsense within."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"Training images must be uint8, or floats in [0, 1], not {images.dtype}.")
    check_images(_as_float(images))
    check_labels(labels, len(images), classes)
    if images.shape[-2:] != (size, size):
        found = f"{images.shape[-1]}x{images.shape[-2]}"
        raise ValueError(f"The training images are {found} pixels, the network takes {size}x{size}: resize them.")
