"""Timed all-reduces over a group of ranks, and the bandwidths that follow."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

BUS_BANDWIDTH = "all-reduce bus bandwidth as NCCL-tests define it: bytes / seconds x 2 (n - 1) / n"
ALGORITHM_BANDWIDTH = "bytes / seconds of an all-reduce of `message_bytes` a rank, median of the repeats, best pass"
LATENCY = "seconds of an all-reduce of `latency_bytes`, median of the repeats, of the slower rank, best pass"
WARM_UP = 2
PAUSE_SECONDS = 0.1
"""Between two passes: long enough for another process to have had its turn on a busy core."""


@dataclass(frozen=True)
class Measured:
    """What one group of ranks reached.

    Attributes:
        ranks: The group's, ascending.
        message_bytes: Of one rank's message.
        seconds: Median time of the large all-reduce, on the slowest rank, in the best pass.
        fastest_seconds: The best of all repeats, on the slowest rank.
        latency_seconds: Median time of the small one, on the slowest rank, in the best pass.
    """

    ranks: list[int]
    message_bytes: int
    seconds: float
    fastest_seconds: float
    latency_seconds: float

    def as_data(self) -> dict[str, Any]:
        """With the bandwidths, in bytes a second."""
        algorithm = self.message_bytes / self.seconds
        size = len(self.ranks)
        return {
            **asdict(self),
            "algorithm_bandwidth_bytes_per_second": algorithm,
            "bus_bandwidth_bytes_per_second": algorithm * 2 * (size - 1) / size,
        }


def measure_group(
    group: dist.ProcessGroup,
    ranks: list[int],
    device: torch.device,
    *,
    message_bytes: int,
    bandwidth_repeats: int,
    latency_bytes: int,
    latency_repeats: int,
    passes: int,
) -> Measured:
    """Measures one group. *Collective*: every rank of the group, and nobody else.

    What else runs on a host spoils one pass or another; a bad link is bad in all of them.
    """
    small = torch.zeros(latency_bytes // 4, device=device)
    large = torch.zeros(message_bytes // 4, device=device)
    # The small ones first: a warm-up of few bytes opens the connections.
    best: list[float] = []
    for turn in range(passes):
        if turn:
            time.sleep(PAUSE_SECONDS)
        latencies = _times(small, group, latency_repeats)
        seconds = _times(large, group, bandwidth_repeats)
        mine = [statistics.median(seconds), min(seconds), statistics.median(latencies)]
        slowest = torch.tensor(mine, dtype=torch.float64, device=device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX, group=group)
        best = list(map(min, best or slowest.tolist(), slowest.tolist()))
    return Measured(ranks, large.numel() * 4, *best)


def _times(message: torch.Tensor, group: dist.ProcessGroup, repeats: int) -> list[float]:
    """Seconds of single all-reduces; each follows the last at once, so that the ranks begin together."""
    times = []
    for turn in range(WARM_UP + repeats):
        started = time.perf_counter()
        dist.all_reduce(message, group=group)
        if message.is_cuda:
            torch.cuda.synchronize(message.device)
        if turn >= WARM_UP:
            times.append(time.perf_counter() - started)
    return times
