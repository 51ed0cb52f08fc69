"""What processes that train together share, each on a device or a core of its own, as under `accelerate launch`."""

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """How many processes train together; 1 where no group of processes has been made."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes, of one shape in each; its gradient counts what all make of it."""
    return _SumOverProcesses.apply(x) / process_count()


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    backward = forward
