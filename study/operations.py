"""Compute as floating-point operations, counted by PyTorch on the very code that runs.

A multiplication or an addition is one operation. Convolutions and matrix products are counted, forwards and back;
losses, norms and the optimiser are free.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def operations_in(work: Callable[[], object]) -> int:
    """Floating-point operations that one call of `work` takes."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
