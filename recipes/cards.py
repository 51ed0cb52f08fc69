"""What the card of shipped weights says besides how they were trained: the data, its licence, and what they reach.

Inverters of logits are measured on 1000 test images of their data, zero-shot inverters on synthetic images or latents
that no training has seen: `python -m invkit measure NAME` does it again, `python -m invkit compare FOLDER` sets weights
trained again beside the shipped ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch.nn import functional as F

from invkit import data, metrics, statistics, store
from invkit.dci import synthetic
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.ffi.inverter import LogitInverter
from invkit.inverters import load_inverter

HELD_OUT, SYNTHETIC, LATENTS = 1000, 32, 256  # images or latents measured on
SEED = 900_001  # of those that are drawn: no recipe uses it

GLYPHS = "glyphs drawn from the fonts of matplotlib: DejaVu (Bitstream Vera licence), Computer Modern and STIX (OFL)"
LICENCES = {
    "glyphs": GLYPHS,
    "glyphs:independent": GLYPHS,
    "faces": "samples of the face generator in the wheel gan-face-generate (MIT)",
    "tiny-imagenet": "Tiny ImageNet (Stanford CS231n), photos of ImageNet: for research and education, not commercial",
    "imagenet": "ImageNet-1k: for research and education, not commercial",
    "synthetic": "synthetic images and latents alone, free of rights",
}


def data_of(name: str) -> str:
    """The data set that the shipped weights of this name were trained on; "synthetic" for zero-shot inverters."""
    if name.startswith("dci-"):
        return "synthetic"
    if name == "glyphs-reader":
        return "glyphs:independent"
    known = dict.fromkeys(("resnet50", "resnet152", "v3"), "imagenet")
    known |= {"faces": "faces", "tiny": "tiny-imagenet", "independent": "glyphs:independent", "glyphs": "glyphs"}
    found = [source for word, source in known.items() if word in name.split("-")]
    if not found:
        raise ValueError(f"It is not known what {name!r} was trained on: add its data to the table in invkit.cards.")
    return found[0]


def complete(card: dict) -> dict:
    """The card with its data and their licence; it needs the name of what was trained."""
    source = data_of(card["name"])
    return card | {"data": source, "licence": LICENCES[source]}


def measure(folder: str | Path) -> dict:
    """Measures the inverter in a folder (or of a shipped name) and writes the figures on its card; returns them.

    Each figure is {"value", "ci95", "unit", "n"}; PSNR in dB, retrieval as a share.
    """
    folder, inverter = store.find(folder), load_inverter(folder)
    card = complete({"name": folder.name} | inverter.card)
    kinds = {LogitInverter: _of_logits, ClassifierInverter: _of_a_classifier, GeneratorInverter: _of_a_generator}
    with torch.inference_mode():
        card["metrics"] = kinds[type(inverter)](inverter, card["data"])
    partial = folder / ".card.json"
    partial.write_text(json.dumps(card, indent=2) + "\n")
    os.replace(partial, folder / store.CARD)
    return card["metrics"]


def compare(folder: str | Path) -> list[tuple[str, str, str, str]]:
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
    facts = json.loads(card.read_text())
    accuracy = {key: facts.get("accuracy", {}).get(key) for key in ("clean", "pgd20", "validation")}
    shares = {f"accuracy, {key}": f"{value:.3f}" for key, value in accuracy.items() if value is not None}
    for key, figure in facts.get("metrics", {}).items():
        digits = 3 if figure["unit"] == "share" else 2
        value, low, high = (f"{number:.{digits}f}" for number in (figure["value"], *figure["ci95"]))
        shares[key] = f"{value} ({low} to {high}) {figure['unit']}"
    return shares


def _of_logits(inverter: LogitInverter, source: str) -> dict:
    """Of readings with the noise at its centre: PSNR, that of the mean image beside it, and retrieval among all."""
    shown = data.load(source, split="test", n=HELD_OUT).images
    read = torch.cat([inverter.reconstruct(part) for part in shown.split(100)])
    size = (inverter.size, inverter.size)
    images = F.interpolate(shown, size=size, mode="bilinear", antialias=True) if shown.shape[-2:] != size else shown
    mean = images.mean(0, keepdim=True).expand_as(images)
    return {
        "psnr": _figure(statistics.bootstrap(metrics.psnr(read, images)), "dB"),
        "psnr_of_the_mean_image": _figure(statistics.bootstrap(metrics.psnr(mean, images)), "dB"),
        "retrieval": _figure(statistics.proportion(metrics.retrieval_ranks(read, images) == 1), "share"),
    }


def _of_a_classifier(inverter: ClassifierInverter, source: str) -> dict:
    """PSNR at each depth."""
    images = synthetic.dead_leaves(SYNTHETIC, inverter.size, SEED)
    return {
        f"psnr_depth_{depth}": _figure(
            statistics.bootstrap(metrics.psnr(_by_parts(inverter, images, depth), images)), "dB"
        )
        for depth in inverter.depths
    }


def _by_parts(inverter: ClassifierInverter, images: torch.Tensor, depth: int) -> torch.Tensor:
    return torch.cat([inverter.reconstruct(part, depth) for part in images.split(8)])


def _of_a_generator(inverter: GeneratorInverter, source: str) -> dict:
    """PSNR of the regenerated images, in one forward pass."""
    images = inverter.generator.images(inverter.generator.sample_latents(LATENTS, seed=SEED))
    return {"psnr": _figure(statistics.bootstrap(metrics.psnr(inverter.reconstruct(images), images)), "dB")}


def _figure(interval: statistics.Interval, unit: str) -> dict:
    low, high = round(interval.low, 4), round(interval.high, 4)
    return {"value": round(interval.value, 4), "ci95": [low, high], "unit": unit, "n": interval.n}
