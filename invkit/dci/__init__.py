"""Divide-and-conquer inversion (Dong et al. 2021, arXiv 2107.06304): a network inverted block by block, without data.

- `synthetic`: the images to train on; `random_numbers` underlies them.
- `layout`: outputs of any kind as maps. `inverse_block`, `chain`: the inverse of one block, all of them with losses.
- `training`: divide, conquer and re-synchronise.
- `invert`: from a network to its trained inverter. `inverter`: the inverter. `search`: slow, closer reconstructions.
"""

from invkit.dci.chain import (
    Chain,
    ChainLossWeights,
    choose_feedback,
    classifier_blocks,
    invert_representation,
    log_error,
    represent,
)
from invkit.dci.invert import add_feedback, default_sizes, invert_classifier, invert_generator
from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
from invkit.dci.search import search
from invkit.dci.training import Schedule, synchronise, train_chain

__all__ = [
    "Chain", "ChainLossWeights", "ClassifierInverter", "GeneratorInverter", "Schedule", "add_feedback",
    "choose_feedback", "classifier_blocks", "default_sizes", "invert_classifier", "invert_generator",
    "invert_representation", "log_error", "represent", "search", "synchronise", "train_chain",
]  # fmt: skip
