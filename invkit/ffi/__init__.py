"""Feedforward inversion of logits (Teterwak et al. 2021, arXiv 2103.07470): a BigGAN conditioned on logits.

- `pairs`: images with their logits. `whitening`, `ridge`: what precedes the generator.
- `biggan`, `losses`, `training`: generator and discriminator, their losses and their training.
- `invert`: from a classifier to its trained inverter. `inverter`: the inverter.
"""

from invkit.ffi.invert import train_inverter
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import Pairs, condition, logits_of, pairs
from invkit.ffi.training import GeneratorLossWeights, train_generator

__all__ = [
    "GeneratorLossWeights", "LogitInverter", "Pairs", "condition", "logits_of", "pairs", "train_generator",
    "train_inverter",
]  # fmt: skip
