"""What logit vectors hold besides the class, and whether those of images seen in training differ from those of others.

An inverter learns from the logits of one set of images and reads those of another: if the classifier was trained on
either, its confidence may give that away (membership inference; Shokri et al. 2017, arXiv 1610.05820). Logits are float
(N, classes), labels int64 (N,).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from invkit.attacks import clean_accuracy, robust_accuracy
from invkit.data import glyphs
from invkit.data.images import Data
from invkit.network.classifiers import Classifier
from invkit.statistics import Interval, bootstrap, proportion
from study.notebook import listed
from study.ratios import bootstrap_of_sums


def per_image(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Scalars (N,) of each logit vector: "largest" logit, its "margin" to the second, "spread" (standard deviation over
    the classes), "loss" (cross-entropy in nats) and whether the largest is "right"."""
    _check(logits, labels)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return {
        "largest": first,
        "margin": first - second,
        "spread": logits.std(1),
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "right": logits.argmax(1) == labels,
    }


def robustness_curve(
    classifier: Classifier, images: Tensor, labels: Tensor, epsilons: Sequence[float], steps: int = 20, seed: int = 0
) -> Tensor:
    """`robust_accuracy` at several epsilons, rising: bool (len(epsilons), N); epsilon 0 is `clean_accuracy`.

    What a small ball breaks, a larger one breaks too, as it holds the same adversarial image: it is not attacked again.
    """
    if list(epsilons) != sorted(epsilons):
        raise ValueError(f"Give the epsilons in rising order, not {list(epsilons)}.")
    right, curve = clean_accuracy(classifier, images, labels), []
    for epsilon in epsilons:
        left = right.nonzero().flatten()
        if epsilon and len(left):
            right = right.clone()
            right[left] = robust_accuracy(classifier, images[left], labels[left], epsilon, steps, seed)
        curve.append(right)
    return torch.stack(curve)


def membership(seen: Tensor, unseen: Tensor) -> Interval:
    """How well the loss tells an image seen in training (N,) from one unseen (M,): the area under the ROC curve.

    0.5 for not at all, 1 where every seen image has the smaller loss; 95 % interval by DeLong et al. (1988).
    """
    a, b = (np.asarray(values.detach().cpu(), dtype=np.float64) for values in (seen, unseen))
    if a.ndim != 1 or b.ndim != 1 or min(len(a), len(b)) < 2:
        raise ValueError(f"Give at least two losses of each kind, not {a.shape} and {b.shape}.")
    ranks = rankdata(np.concatenate([a, b]))
    # for each image, the share of the other kind that lies on its far side; ties count half
    beaten = 1 - (ranks[: len(a)] - rankdata(a)) / len(b)
    beating = (ranks[len(a) :] - rankdata(b)) / len(a)
    area = beaten.mean()
    error = 1.96 * np.sqrt(beaten.var(ddof=1) / len(a) + beating.var(ddof=1) / len(b))
    return Interval(float(area), float(max(0, area - error)), float(min(1, area + error)), len(a) + len(b))


def within_class_share(logits: Tensor, labels: Tensor, seed: int = 0) -> Interval:
    """The share of the logits' variance that lies among images of one class, which no class label could tell.

    Squared distances from the class's mean, corrected for its few images, over those from the mean of all; classes of
    one image are left out. 95 % bootstrap interval over images, the means held.
    """
    _check(logits, labels)
    counts = torch.bincount(labels)[labels]
    logits, labels, counts = (values[counts > 1] for values in (logits.double(), labels, counts))
    if not len(labels):
        raise ValueError("No class has two images: give more images.")
    sums = torch.zeros(int(labels.max()) + 1, logits.shape[1], dtype=logits.dtype).index_add(0, labels, logits)
    within = (logits - (sums[labels] / counts[:, None])).square().sum(1) * counts / (counts - 1)
    total = (logits - logits.mean(0)).square().sum(1)
    return bootstrap_of_sums(lambda inside, all: inside / all, within, total, seed=seed)


def directions(logits: Tensor) -> float:
    """How many directions the logits spread in; 1 for a line, the number of classes for a ball.

    The participation ratio (sum l)^2 / sum l^2 of the eigenvalues l of their covariance.
    """
    _check(logits)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(logits.double().T)).clamp_min(0)
    return (eigenvalues.sum().square() / eigenvalues.square().sum()).item()


def neighbour_correlation(images: Tensor) -> Tensor:
    """How coarse images (N, 3, H, W) or their differences are: the correlation of pixels beside or below each other.

    (N,): 0 for white noise, near 1 for smooth images.
    """
    centred = images - images.mean((1, 2, 3), keepdim=True)
    beside = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3))
    below = (centred[..., 1:, :] * centred[..., :-1, :]).mean((1, 2, 3))
    return (beside + below) / 2 / centred.square().mean((1, 2, 3)).clamp_min(1e-12)


def means(logits: Tensor, labels: Tensor) -> dict[str, Interval]:
    """The mean of every scalar of `per_image`, with its 95 % bootstrap interval over images."""
    return {name: bootstrap(values.double()) for name, values in per_image(logits, labels).items()}


def _check(logits: Tensor, labels: Tensor | None = None) -> None:
    if not logits.is_floating_point() or logits.ndim != 2 or len(logits) < 2 or logits.shape[1] < 2:
        what = f"{logits.dtype} {tuple(logits.shape)}"
        raise ValueError(f"Logits must be floats (N, classes), at least two of each, not {what}.")
    if not logits.isfinite().all():
        raise ValueError("Some logits are not finite: look at the images and at the classifier.")
    if labels is not None and (labels.shape != logits.shape[:1] or labels.dtype != torch.int64):
        what = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"Give one int64 label for each of the {len(logits)} logit vectors, not {what}.")


# ---- tables, figures and words of the page ---------------------------------------------------------------------------


def class_names(data: str, images: Data) -> list[str]:
    """What captions call the classes of these images: the characters of glyphs, else their numbers."""
    return list(glyphs.CHARACTERS) if data.startswith("glyphs") else [str(k) for k in range(max(images.labels) + 1)]


def example_rows(data: str, splits: Mapping[str, Data], seed: int = 0, k: int = 10) -> dict[str, Tensor]:
    """Rows of k example images: of glyphs one factor changed at a time, else the first images of each split."""
    if not data.startswith("glyphs"):
        return {split: part.images[:k] for split, part in splits.items()}
    ramp, place = torch.linspace(0, 1, k), torch.arange(k)
    colours = torch.stack([ramp, 1 - ramp, 0.5 + 0 * ramp], 1)
    base = {"label": glyphs.CHARACTERS.index("A"), "x": 0.0, "y": 0.0, "glyph_size": 0.7, "rotation": 0.0}
    base |= {"font": 1, "slant": 0, "weight": 1, "stroke": 1}
    base |= {"ink": torch.tensor([0.95, 0.85, 0.2]), "ground": torch.tensor([0.1, 0.2, 0.35])}
    changed = {
        "character": {"label": place * 9},
        "font, slant": {"font": place % 3, "slant": place % 6 // 3},
        "weight, stroke": {"weight": place % 6 // 3, "stroke": place % 3},
        "x": {"x": -0.15 + 0.3 * ramp},
        "y": {"y": -0.15 + 0.3 * ramp},
        "size": {"glyph_size": 0.5 + 0.35 * ramp},
        "rotation": {"rotation": -25 + 50 * ramp},
        "ink": {"ink": colours},
        "ground": {"ground": 0.6 * colours.flip(1)},
    }
    return {label: glyphs.draw(k, seed, **base | factors).images for label, factors in changed.items()}


def facts(network: Classifier) -> dict[str, str]:
    """What the card of a classifier says of its training, as a row of a table; without a card, what it is."""
    card, parameters = network.card, f"{sum(p.numel() for p in network.model.parameters()):,}"
    if not card:
        return {"network": type(network.model).__name__, "parameters": parameters}
    return {
        "network": card["architecture"],
        "parameters": parameters,
        "steps": f"{card['steps']:,}",
        "from": card["start"] or "nothing",
        "ε in training": f"{255 * card['epsilon']:g}/255",
        "alarms": "" if card["alarms"] is None else str(card["alarms"]),
        "hours": str(card["hours"]),
        "MB": f"{card['bytes'] / 1e6:.2f}",
    }


def seeds_sentence(shares: Mapping[str, Mapping[str, Interval]]) -> str:
    """How far networks of one kind, which differ in the seed of their training, lie apart; "" for one of each kind.

    shares: {name ending in the seed's number: {"clean": share, "attacked": share}}.
    """
    kinds: dict[str, list] = {}
    for name, row in shares.items():
        kinds.setdefault(name.rstrip("0123456789").rstrip("-"), []).append(row)
    repeated = [rows for rows in kinds.values() if len(rows) > 1]
    if not repeated:
        return ""

    def largest(measure: str) -> float:
        values = [[100 * row[measure].value for row in rows] for rows in repeated]
        return max(max(kind) - min(kind) for kind in values)

    return (
        "Between networks of one kind trained from different seeds the accuracies differ by at most "
        f"{largest('clean'):.1f} points as they are, and {largest('attacked'):.1f} under the attack."
    )


@torch.no_grad()
def attacked_rows(
    images: Tensor, labels: Tensor, networks: Mapping[str, Classifier], changes: Mapping[str, Tensor],
    names: Sequence[str], epsilon: float,
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:  # fmt: skip
    """Rows and captions of a figure: images, and for each kind of network the attacked images and their changes.

    changes: {kind: (N, 3, H, W)}, at most epsilon in every pixel; they are drawn so that they fill the range.
    names: of the classes. The captions say which class the attacked network sees.
    """
    rows, captions = {"image": images}, {"image": [names[label] for label in labels.tolist()]}
    for kind, change in changes.items():
        rows |= {f"attacked, {kind}": images + change, f"change, {kind}": 0.5 + change / (2 * epsilon)}
        seen = networks[kind].logits(images + change).argmax(1)
        captions[f"attacked, {kind}"] = [names[label] for label in seen.tolist()]
    return rows, captions


def split_rows(logits: Mapping[str, Tensor], splits: Mapping[str, Data], seed: int = 0) -> dict[str, dict]:
    """One classifier's logits on every split, as rows of a table: means of the scalars, and `membership`.

    logits: {split: (N, classes)}, of "train" and others. Membership is told from the images of "train".
    """
    scalars = {split: per_image(logits[split], part.labels) for split, part in splits.items()}
    rows = {}
    for split, values in scalars.items():
        rows[split] = {"right": proportion(values["right"])}
        rows[split] |= {name: bootstrap(values[name], seed=seed) for name in ("largest", "margin", "spread", "loss")}
        if split != "train":
            rows[split]["membership"] = membership(scalars["train"]["loss"], values["loss"])
    return rows


def splits_sentence(logits: Mapping[str, Mapping[str, Tensor]], splits: Mapping[str, Data]) -> tuple[str, str]:
    """Two verdicts on the loss: which classifiers' gives training images away, and whose differs between the others.

    logits: {classifier: {split: (N, classes)}}.
    """
    given_away, differing = [], []
    for name, by_split in logits.items():
        losses = {split: per_image(by_split[split], splits[split].labels)["loss"] for split in splits}
        if membership(losses["train"], losses["inverter"]).low > 0.5:
            given_away.append(name)
        others = membership(losses["inverter"], losses["test"])
        if not others.low <= 0.5 <= others.high:
            differing.append(name)
    return (
        f"tells them for {listed(given_away)}" if given_away else "tells them for no network",
        f"differ for {listed(differing)}" if differing else "cannot be told apart",
    )


def photos_sentence(network: Classifier, shares: Sequence[Interval], epsilon: float, steps: int) -> str:
    """How often a classifier of photographs is right.

    shares: as they are first, under the strongest attack last, in [0, 1].
    epsilon: the largest change of a pixel in that attack, of 255; steps: of the attack.
    """
    as_is, attacked = (format(share.times(100), ".0f") for share in (shares[0], shares[-1]))
    return (
        f"{network.name}, with {network.classes:,} classes, is right on {as_is} % of {shares[0].n} photographs and, "
        f"after {steps} steps of the attack within {epsilon:g}/255, on {attacked} %."
    )


def logit_row(logits: Tensor, labels: Tensor, seed: int = 0) -> dict[str, Interval | float]:
    """One classifier's logits (N, classes) as a row of a table: `within_class_share`, `directions` and `means`."""
    share = within_class_share(logits, labels, seed)
    return {"within": share, "directions": directions(logits), **means(logits, labels)}


def shares_compared(first: Interval, second: Interval) -> str:
    """Whether the second share is larger, smaller, or neither for sure because the intervals overlap."""
    if second.low > first.high:
        return "a larger share"
    return "a smaller share" if second.high < first.low else "a share that cannot be told apart"
