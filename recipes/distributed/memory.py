"""How much memory this process has used."""

from __future__ import annotations

import resource
import sys

import torch

GIB = 1024**3


def peak_memory_gib(device: torch.device) -> float:
    """The largest resident (CPU) or allocated (CUDA) memory of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
