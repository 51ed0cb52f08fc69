"""Feedforward inversion of logits (Teterwak et al. 2021, arXiv 2103.07470): a BigGAN conditioned on logits.

pairs (images with their logits), biggan (generator and discriminator), losses, training, inverter (what one uses).
"""

from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import Pairs, condition, pairs
from invkit.ffi.training import GeneratorLossWeights, train_generator, train_inverter

__all__ = ["LogitInverter", "Pairs", "GeneratorLossWeights", "condition", "pairs", "train_generator", "train_inverter"]
