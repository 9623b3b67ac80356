"""How much memory this process has used."""

from __future__ import annotations

import torch

from kit.run.process import peak_resident_gib


def peak_memory_gib(device: torch.device) -> float:
    """The largest resident (CPU) or allocated (CUDA) memory of this process so far."""
    return torch.cuda.max_memory_allocated(device) / 1024**3 if device.type == "cuda" else peak_resident_gib()
