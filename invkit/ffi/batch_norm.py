"""Batch norm whose statistics are those of all processes' images, on CPUs as well as on GPUs.

PyTorch's SyncBatchNorm does the same, on GPUs alone. Two processes with half a batch each then train as one with the
whole batch does, as BigGAN's were (Brock et al. 2018).
"""

import torch
from torch import Tensor, nn

from invkit.processes import mean_over_processes, process_count


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the images of all processes, each of which has as many; in one process it is the same."""

    def forward(self, x: Tensor) -> Tensor:
        processes = process_count()
        if not self.training or processes == 1:
            return super().forward(x)
        # half precision would lose the small difference of two large means
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        moments = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        mean, square = mean_over_processes(moments)
        variance = (square - mean.square()).clamp_min(0)
        self._track(mean.detach(), variance.detach(), processes * x.numel() // x.shape[1])
        return self._normalised(values, mean, variance).to(x.dtype)

    def _normalised(self, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        gain = (variance + self.eps).rsqrt()
        if self.affine:
            gain = gain * self.weight
        shift = -mean * gain + (self.bias if self.affine else 0)
        return torch.addcmul(shift[:, None, None], values, gain[:, None, None])

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as PyTorch does, with the unbiased variance."""
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)
