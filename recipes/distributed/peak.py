"""The peak that MFU is measured against: every rank multiplies matrices at the same time."""

from __future__ import annotations

import time

import torch

from recipes.distributed.processes import Processes

SIZES = {"cpu": 1024, "cuda": 8192}


def measure_peak(processes: Processes, dtype: torch.dtype, seconds: float = 0.3) -> tuple[float, str]:
    """Matrix-multiply FLOP/s of the whole job, and the words that say how it was measured. *Collective*: every rank.

    All ranks measure at once, so that what they share (memory, power, a hyperthread) counts against the peak too. The
    fastest multiplication counts: a peak is what the machine can do, not what it did while something else ran.
    """
    size = SIZES[processes.device.type]
    left, right = (torch.randn(size, size, device=processes.device).to(dtype) for _ in range(2))
    for _ in range(2):
        left @ right
    processes.barrier()
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        best = min(best, _timed(left, right))
    threads = "1 thread" if processes.threads == 1 else f"{processes.threads} threads"
    words = f"measured {str(dtype).removeprefix('torch.')} matmul {size}, {threads} a process"
    return processes.total(2.0 * size**3 / best), words


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    left @ right
    if left.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
