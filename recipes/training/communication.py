"""How much of a step goes to communication: measured while the step runs, by the one way that fits device and engine.

On a CPU, gloo's collectives are waited for in Python: a rank's communication is the time that it is blocked there. On
a CUDA device waiting in Python only orders streams, so a few steps are profiled: communication is the time in which
NCCL kernels run and nothing else does. What runs beside computation costs no time and is not counted by either.

Waiting for a rank that comes late counts in both: to the ranks that wait, imbalance is communication.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from recipes.distributed.processes import Processes
from recipes.loop import Clock

WAITS_IN_PYTHON = ("reference", "megatron", "deepspeed")
"""Engines whose every collective is waited for through Work.wait. torch's DistributedDataParallel, which engine
accelerate uses, waits inside its C++ reducer, where nobody can measure it from here."""

PROFILED_STEPS = 3
MOST_STEPS_BEFORE = 5


class Fixed(NamedTuple):
    """A clock that knows its answer: 0 for a rank alone, None where nothing can be measured."""

    answer: float | None

    def start(self) -> None:
        """Nothing to do."""

    def seconds(self) -> float | None:
        """The answer."""
        return self.answer


class WaitClock:
    """Adds up how long the thread that made it is blocked in collectives.

    Every collective of torch.distributed that is waited for in Python goes through Work.wait, synchronous ones and
    barriers too. Reading the time around each of them costs less than a microsecond.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._blocked = 0.0

    def start(self) -> None:
        """Forgets what was counted before, in a validation or a checkpoint."""
        self._blocked = 0.0

    def seconds(self) -> float:
        """Blocked since `start`."""
        return self._blocked

    def around(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        """Work.wait with the clock running."""

        def timed(work: dist.Work, *arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return wait(work, *arguments, **named)
            started = time.perf_counter()
            try:
                return wait(work, *arguments, **named)
            finally:
                self._blocked += time.perf_counter() - started

        return timed


class KernelClock:
    """Profiles the kernels of a few steps after the warm-up; the other steps are not measured.

    Args:
        steps: How many steps there will be.
    """

    def __init__(self, steps: int) -> None:
        self._before, self._seen = min(MOST_STEPS_BEFORE, steps // 4), 0
        self._profile: torch.profiler.profile | None = None

    def start(self) -> None:
        """Starts the profiler where the step's turn has come."""
        self._seen += 1
        if self._before < self._seen <= self._before + PROFILED_STEPS:
            torch.cuda.synchronize()
            self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profile.start()

    def seconds(self) -> float | None:
        """Exposed communication of a step that was profiled."""
        if self._profile is None:
            return None
        torch.cuda.synchronize()
        profile, self._profile = self._profile, None
        profile.stop()
        return exposed_seconds(kernels_of(profile))


class Kernel(NamedTuple):
    """Something that ran on the device."""

    name: str
    start_ns: int
    end_ns: int


def kernels_of(profile: torch.profiler.profile) -> list[Kernel]:
    """What ran on CUDA devices while a profile was taken, copies included."""
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    return [
        Kernel(event.name(), event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profile.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    ]


def exposed_seconds(kernels: Sequence[Kernel]) -> float:
    """The time in which a NCCL kernel runs and no other: union of all kernels less the union of the others."""
    others = [kernel for kernel in kernels if "nccl" not in kernel.name.lower()]
    return (_covered_ns(kernels) - _covered_ns(others)) / 1e9


def _covered_ns(kernels: Sequence[Kernel]) -> int:
    covered, reached = 0, 0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start_ns):
        covered += max(0, kernel.end_ns - max(reached, kernel.start_ns))
        reached = max(reached, kernel.end_ns)
    return covered


@contextmanager
def communication_clock(engine: str, processes: Processes, steps: int) -> Iterator[Clock]:
    """The clock for an engine on this job's device; Work.wait is as before when the context ends.

    Args:
        engine: As the recipe names it.
        processes: The job.
        steps: How many steps will be measured.
    """
    if processes.world_size == 1:
        yield Fixed(0.0)
    elif processes.device.type == "cuda":
        yield KernelClock(steps)
    elif engine in WAITS_IN_PYTHON:
        clock, wait = WaitClock(), dist.Work.wait
        dist.Work.wait = clock.around(wait)
        try:
            yield clock
        finally:
            dist.Work.wait = wait
    else:
        yield Fixed(None)
