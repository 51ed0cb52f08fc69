"""In which floating-point format to compute: bfloat16 where the device has fast instructions for it, else float32.

On a processor without such instructions bfloat16 is emulated, which is slower than float32.
The choice follows the device's own flags, so that it is the same in every run on one machine. The
environment variable INVKIT_PRECISION, "bf16" or "no", overrides it, for instance to compare two machines.
"""

from __future__ import annotations

import os
from functools import cache

import torch

PRECISIONS = ("auto", "bf16", "no")  # "no": float32, as Accelerate calls it
CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86 and arm


@cache
def fast_bfloat16(kind: str) -> bool:
    """Whether devices of this kind ("cpu", "cuda", …) have instructions for bfloat16, by their flags."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        flags = torch.cpu.get_capabilities()
        return any(flags.get(flag, False) for flag in CPU_FLAGS)
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # of older releases
    return bool(known and known())


def resolve(precision: str, device: torch.device | str) -> str:
    """ "bf16" or "no" for a precision of `PRECISIONS` on this device. Raises ValueError for another word."""
    for name, wanted in (("precision", precision), ("INVKIT_PRECISION", os.environ.get("INVKIT_PRECISION", "auto"))):
        if wanted not in PRECISIONS:
            raise ValueError(f'{name} must be "auto", "bf16" or "no" (float32), not {wanted!r}.')
        if wanted != "auto":
            return wanted
    return "bf16" if fast_bfloat16(torch.device(device).type) else "no"


def autocast(device: torch.device | str, precision: str = "auto") -> torch.autocast:
    """A context in which matrix products and convolutions on this device run in that precision."""
    enabled = resolve(precision, device) == "bf16"
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)
