"""Which classifier an inverter is of: written on its card, and found again when the inverter is loaded.

A card holds the arguments with which `load_classifier` makes the classifier again, where there are any, and the
fingerprint of its weights. A name on a card may come from anywhere, so only shipped, timm's and torchvision's networks
are made from it, with few arguments; all else, such as code, is run only where the caller trusts it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from invkit import store
from invkit.network.classifiers import OWN, Classifier, load_classifier

HARMLESS = set("name pretrained size weights output cuts num_classes in_chans".split())  # arguments on a card


def identity(classifier: Classifier) -> dict[str, Any]:
    """What a card says of a classifier, JSON: its "source" (None for a module), size, normalisation, fingerprint."""
    return {
        "source": classifier.source,
        "size": classifier.size,
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "fingerprint": classifier.fingerprint,
    }


def found_from_anywhere(known: dict[str, Any]) -> dict[str, Any]:
    """What `identity` says, with the whole path of a file of weights, so that other folders have it too."""
    if (source := known["source"]) and (file := source.get("weights")):
        return known | {"source": source | {"weights": str(store.expanded(file).absolute())}}
    return known


def find_classifier(
    card: dict[str, Any], classifier: Classifier | nn.Module | None = None, trust: bool = False
) -> Classifier:
    """The classifier that a card tells of.

    Args:
        card: of an inverter; an old one has no "classifier", and its network's name alone is looked for.
        classifier: the classifier itself, or its module, which then gets the size and the normalisation of the card.
        trust: make what the card names also where it is another network than a shipped one, timm's or torchvision's.

    Raises:
        ValueError: a classifier that cannot be made again, or is not the one that was inverted.
    """
    name, known = card["network"], card.get("classifier", {})
    size = known.get("size") or (card["size"] if card["method"] == "dci" else card.get("classifier_size"))
    if classifier is None:
        classifier = load_classifier(**_source(name, known, trust) | {"size": size})
        if classifier.name != name:
            raise ValueError(f"This inverter is of {name}, but its card's source is {classifier.name}: train it again.")
    elif not isinstance(classifier, Classifier):
        classifier = Classifier(classifier, name, size, known.get("mean"), known.get("std"))
    if size not in (None, classifier.size):
        raise ValueError(f"This inverter is of {name} at {size} pixels, not {classifier.size}: give size={size}.")
    if known and classifier.fingerprint != known["fingerprint"]:
        raise ValueError(
            f"{classifier.name} has other weights (fingerprint {classifier.fingerprint}) than the {name} that was "
            f"inverted ({known['fingerprint']}): pass that network as classifier=, or train an inverter of this one."
        )
    return classifier


def _source(name: str, known: dict[str, Any], trust: bool) -> dict[str, Any]:
    """The arguments of `load_classifier`; ValueError where the classifier has to be given."""
    give = "pass it, load_inverter(folder, classifier=model)"
    source = known.get("source") if known else {"name": name}
    if source is None:
        raise ValueError(f"This inverter is of {name}, which was given as a module: {give}.")
    library, _, called = source["name"].partition(":")
    there = library in (*OWN, *store.recorded()) if not called else library in ("timm", "torchvision")
    if not trust and (not there or ":" in called or not source.keys() <= HARMLESS):
        more = f"more than a shipped network or one of timm or torchvision ({store.quoted(source)})"
        raise ValueError(f"This inverter's card names {more}: {give}, or trust=True makes it.")
    if source.get("pretrained") is False and not source.get("weights"):
        raise ValueError(f"This inverter is of {name} with random weights, which no name brings back: {give}.")
    return source
