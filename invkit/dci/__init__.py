"""Divide-and-conquer inversion (Dong et al. 2021, arXiv 2107.06304): a network read back block by block, without data.

synthetic (images without data), matching (images matched to a classifier), inverse_block (one inverse), chain (all of
them, and their losses), training (divide, synchronise), refine (the deep ones further), search, inverter (what one uses).
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
from invkit.dci.inverter import (
    ClassifierInverter,
    GeneratorInverter,
    add_feedback,
    default_sizes,
    invert_classifier,
    invert_generator,
)
from invkit.dci.refine import refine
from invkit.dci.training import Schedule, synchronise, train_chain

__all__ = [
    "Chain", "ClassifierInverter", "GeneratorInverter", "Schedule", "ChainLossWeights", "add_feedback", "choose_feedback",
    "classifier_blocks", "default_sizes", "invert_classifier", "invert_generator", "invert_representation", "log_error", "refine",
    "represent", "synchronise", "train_chain",
]  # fmt: skip
