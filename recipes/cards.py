"""What an inverter's card says besides how it was trained: the figures that it reaches on what no training has seen.

Inverters of logits are measured on 1000 test images of the data that their card names, zero-shot inverters on synthetic
images or latents. `python -m recipes measure FOLDER` does it for any folder; `python -m recipes compare FOLDER` sets
weights trained again beside the shipped ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from invkit import data, metrics, statistics, store
from invkit.dci import synthetic
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.ffi.inverter import LogitInverter
from invkit.inverters import load_inverter

HELD_OUT, SYNTHETIC, LATENTS = 1000, 32, 256  # images or latents measured on
SEED = 900_001  # of the synthetic images and latents: no recipe uses it


def measure_inverter(folder: str | Path, source: str | None = None) -> dict:
    """Measure the inverter in a folder (or of a shipped name) and write the figures on its card.

    Args:
        folder: the folder, or a shipped name.
        source: the data set to measure on, by its name in `invkit.data`, instead of the one that the card names.

    Returns:
        {figure: {"value", "ci95", "unit", "n"}}; PSNR in dB, retrieval as a share.

    Raises:
        ValueError: neither the card nor `source` says what to measure on.
    """
    folder, inverter = store.find(folder), load_inverter(folder)
    source = source or inverter.card.get("data")
    if source is None:
        raise ValueError(
            f'The card in {folder} does not say what to measure on: add "data" to it, or pass --data NAME.'
        )
    found = figures(inverter, source)
    store.save_card(folder, inverter.card | {"data": source, "metrics": found})
    return found


def figures(inverter: LogitInverter | ClassifierInverter | GeneratorInverter, source: str) -> dict:
    """What an inverter reaches: {figure: {"value", "ci95", "unit", "n"}}; source: a data set, or "synthetic"."""
    measured_by, _ = KINDS[type(inverter)]
    with torch.inference_mode():
        return measured_by(inverter, source)


def add_figures(trained) -> None:
    """Put on the card of a freshly trained inverter what it will reach once saved; nothing where it is no inverter.

    Files hold weights in half precision or in 8 bits, so the weights are rounded to it first.
    """
    if type(trained) not in KINDS:
        return
    network = KINDS[type(trained)][1](trained)
    with torch.no_grad():
        store.round_in_place(network.state_dict(), eight_bits=trained.card.get("bits") == 8)
    trained.card["metrics"] = figures(trained, trained.card["data"])


def compare_with_shipped(folder: str | Path) -> list[tuple[str, str, str, str]]:
    """(name, figure, shipped, trained again) of the figures on the shipped cards and on those in `folder`.

    Figures read "value (low to high) unit", or "-" where a card has none: inverters trained at a scale below 1 are not
    measured. Raises FileNotFoundError for a folder with no weights of a shipped name.
    """
    rows = []
    for name in store.recorded():
        file = Path(folder) / name / store.CARD
        if file.is_file():
            shipped, again = (_figures(path) for path in (store.weights_folder() / name / store.CARD, file))
            rows += [(name, figure, shipped.get(figure, "-"), again.get(figure, "-")) for figure in shipped | again]
    if not rows:
        raise FileNotFoundError(f"{folder} holds no weights of a shipped name: make weights trains them.")
    return rows


def _figures(card: Path) -> dict[str, str]:
    """The metrics of an inverter with their intervals; of a classifier its accuracies, shares of so many images."""
    facts = store.read_card(card.parent.absolute())
    try:
        return _shares(facts)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{card} has figures that are none ({error}): fetch or train it again.") from error


def _shares(facts: dict) -> dict[str, str]:
    accuracy = {key: facts.get("accuracy", {}).get(key) for key in ("clean", "pgd20", "validation")}
    shares = {f"accuracy, {key}": f"{value:.3f}" for key, value in accuracy.items() if value is not None}
    for key, figure in facts.get("metrics", {}).items():
        digits = 3 if figure["unit"] == "share" else 2
        value, low, high = (f"{number:.{digits}f}" for number in (figure["value"], *figure["ci95"]))
        shares[key] = f"{value} ({low} to {high}) {figure['unit']}"
    return shares


def _of_logits(inverter: LogitInverter, source: str) -> dict:
    """PSNR of reconstructions without noise, that of the mean image beside it, and retrieval among all images."""
    shown = data.load(source, split="test", n=HELD_OUT).images
    found = torch.cat([inverter.reconstruct(part) for part in shown.split(100)])
    size = (inverter.size, inverter.size)
    images = F.interpolate(shown, size=size, mode="bilinear", antialias=True) if shown.shape[-2:] != size else shown
    mean = images.mean(0, keepdim=True).expand_as(images)
    return {
        "psnr": _figure(statistics.bootstrap(metrics.psnr(found, images)), "dB"),
        "psnr_of_the_mean_image": _figure(statistics.bootstrap(metrics.psnr(mean, images)), "dB"),
        "retrieval": _figure(statistics.proportion(metrics.retrieval_ranks(found, images) == 1), "share"),
    }


def _of_a_classifier(inverter: ClassifierInverter, source: str) -> dict:
    """PSNR at each depth, of synthetic images."""
    images = synthetic.dead_leaves(SYNTHETIC, inverter.size, SEED)
    found = {}
    for depth in inverter.depths:
        reconstructions = torch.cat([inverter.reconstruct(part, depth) for part in images.split(8)])
        found[f"psnr_depth_{depth}"] = _figure(statistics.bootstrap(metrics.psnr(reconstructions, images)), "dB")
    return found


def _of_a_generator(inverter: GeneratorInverter, source: str) -> dict:
    """PSNR of the regenerated images, in one forward pass."""
    images = inverter.generator.images(inverter.generator.sample_latents(LATENTS, seed=SEED))
    return {"psnr": _figure(statistics.bootstrap(metrics.psnr(inverter.reconstruct(images), images)), "dB")}


def _figure(interval, unit: str) -> dict:
    low, high = round(interval.low, 4), round(interval.high, 4)
    return {"value": round(interval.value, 4), "ci95": [low, high], "unit": unit, "n": interval.n}


# Kind of inverter: how it is measured, and the network that was trained.
KINDS = {
    LogitInverter: (_of_logits, lambda inverter: inverter.generator),
    ClassifierInverter: (_of_a_classifier, lambda inverter: inverter.chain),
    GeneratorInverter: (_of_a_generator, lambda inverter: inverter.chain),
}
