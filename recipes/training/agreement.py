"""What the ranks tell each other after a step, in one message."""

from __future__ import annotations

import torch
import torch.distributed as dist

from recipes.distributed.processes import Processes
from recipes.loop import StepEnd


def agree(processes: Processes, stop: bool, communication_seconds: float | None, peak_memory_gib: float) -> StepEnd:
    """Puts together what every rank knows. *Collective*: every rank; one all-reduce of ranks + 2 numbers.

    A sum is all it takes: each rank has a place of its own for its memory, of which the largest is taken afterwards.

    Args:
        processes: The job.
        stop: Whether this rank was asked to stop.
        communication_seconds: This rank's; None on every rank alike.
        peak_memory_gib: This rank's.
    """
    if processes.world_size == 1:
        return StepEnd(stop, communication_seconds, peak_memory_gib)
    told = torch.zeros(2 + processes.world_size, dtype=torch.float64)
    told[0], told[1], told[2 + processes.rank] = float(stop), communication_seconds or 0.0, peak_memory_gib
    told = told.to(processes.device)
    dist.all_reduce(told)
    stops, seconds, *memory = told.tolist()
    mean = None if communication_seconds is None else seconds / processes.world_size
    return StepEnd(stops > 0, mean, max(memory))
