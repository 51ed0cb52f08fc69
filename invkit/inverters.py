"""A trained inverter by name or folder, whichever of the three kinds it is.

>>> inv = invkit.load_inverter("dci-lite0")
>>> representation = inv.represent(images, depth=8)  # what the classifier knows after block 8
>>> reconstructions = inv.invert(representation, depth=8)  # images again, from that alone
"""

from __future__ import annotations

from pathlib import Path

from invkit import store
from invkit.dci.chain import Chain
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.inverter import LogitInverter
from invkit.network.classifiers import load_classifier
from invkit.network.generators import load_generator


def load_inverter(name: str | Path) -> ClassifierInverter | GeneratorInverter | LogitInverter:
    """An inverter by shipped name or folder, frozen, with the network it inverts.

    Raises:
        FileNotFoundError: no such name or folder. ValueError: a damaged one, or one of another kind.
    """
    tensors, card = store.load(name)
    if card.get("method") not in (*INVERTERS, "ffi"):
        raise ValueError(f"{name} holds no inverter but {card.get('method')!r}: load it with what trained it.")
    if card["method"] == "ffi":
        classifier = load_classifier(card["network"])
        generator = LogitGenerator(card["size"], card["classes"], **card["generator"] | {"spectral": False})
        generator.load_state_dict(tensors)
        return LogitInverter(generator, classifier, card)
    kind, network = INVERTERS[card["method"]]
    chain = Chain(card["shapes"], card["sizes"])
    chain.load_state_dict(tensors)
    return kind(chain, network(card["network"]), card)


INVERTERS = {"dci": (ClassifierInverter, load_classifier), "dci-gan": (GeneratorInverter, load_generator)}
