"""Random numbers of a training step: they follow from the seed of the run and the number of the step alone.

A run that was stopped can then go on bit for bit where it was, and batches can be prepared ahead in another thread,
because nothing is taken from PyTorch's global random numbers.
"""

import numpy as np
import torch
from torch import Tensor

from invkit.checks import check_room, check_seed, check_whole_number


def seed_for(seed: int, step: int) -> int:
    """The seed of one step of a run. Neighbouring seeds share none: a run has fewer than a million steps.

    Args:
        seed: the seed of the run, 0 or more.
        step: the number of the step, or of whatever else the run counts (epochs, views), from 0.
    """
    check_seed(seed)
    return seed * 1_000_003 + step


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU that starts from a seed; ValueError for one that is no whole number from 0, or absurd."""
    check_seed(seed)
    return torch.Generator().manual_seed(seed)


def generator_for(seed: int, step: int) -> torch.Generator:
    """A generator on the CPU that starts from `seed_for(seed, step)`."""
    return torch.Generator().manual_seed(seed_for(seed, step))


def standard_normal(n: int, numbers: int, seed: int) -> Tensor:
    """Floats (n, numbers) of N(0, 1), whose first rows do not depend on how many follow; ValueError for n below 1."""
    check_whole_number(n, 1, "n")
    check_seed(seed)
    check_room(n * numbers, f"{n} rows of {numbers} random numbers")
    # NumPy draws its numbers in order, however many; torch.randn draws others for another n.
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, numbers), dtype=np.float32))
