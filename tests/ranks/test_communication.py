"""The part of a step that is communication, measured on real ranks."""

from __future__ import annotations

import time
from typing import Any

import engine_programs
import pytest
import torch
import torch.distributed as dist
from rank_processes import run_on_ranks

from recipes.distributed.processes import Processes
from recipes.loop import StepEnd
from recipes.training.agreement import agree
from recipes.training.communication import (
    Fixed,
    Kernel,
    WaitClock,
    communication_clock,
    exposed_seconds,
)

LATE_SECONDS = 0.4


def collectives(processes: Processes) -> dict[str, Any]:
    """Every kind of collective with a rank that comes late, then one that was waited for before."""
    before = dist.Work.wait
    one, other = torch.ones(64), 1 - processes.rank

    def exchange() -> None:
        pair = [dist.P2POp(dist.isend, one, other), dist.P2POp(dist.irecv, torch.empty(64), other)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    kinds = {
        "all_reduce": lambda: dist.all_reduce(one),
        "asynchronous": lambda: dist.all_reduce(one, async_op=True).wait(),
        "barrier": lambda: dist.barrier(),
        "broadcast": lambda: dist.broadcast(one, 1),
        "objects": lambda: dist.all_gather_object([None, None], "words"),
        "neighbours": exchange,
    }
    told: dict[str, Any] = {}
    with communication_clock("megatron", processes, 6) as clock:
        assert isinstance(clock, WaitClock)
        for name, kind in kinds.items():
            clock.start()
            if processes.rank == 1:
                time.sleep(LATE_SECONDS)
            kind()
            told[name] = clock.seconds()
    told["restored"] = dist.Work.wait is before
    return told


def test_waiting_for_a_late_rank_is_communication_in_every_collective() -> None:
    first, second = run_on_ranks(collectives, 2)
    assert first.pop("restored") and second.pop("restored")
    for name, seconds in first.items():
        # Rank 0 waits for all of it, rank 1 for nothing.
        assert seconds > LATE_SECONDS * 0.9, name
        assert second[name] < seconds / 2, name


def computing(processes: Processes) -> dict[str, float]:
    """A step that computes, sends beside it, and waits only at its end."""
    with communication_clock("deepspeed", processes, 1) as clock:
        clock.start()
        started = time.perf_counter()
        work = dist.all_reduce(torch.ones(64), async_op=True)
        while time.perf_counter() < started + LATE_SECONDS:
            pass
        work.wait()
        return {"communication": clock.seconds() or 0.0, "step": time.perf_counter() - started}


def test_what_runs_beside_computation_is_not_communication() -> None:
    told = run_on_ranks(computing, 2)
    assert all(one["step"] >= LATE_SECONDS for one in told)
    # The rank that is behind has nothing to wait for; the other waits for it where other work keeps the machine busy.
    assert min(one["communication"] for one in told) < LATE_SECONDS / 4


def engine_step(processes: Processes, engine: str, layout: dict[str, int]) -> dict[str, float]:
    made, _ = engine_programs.started_engine(processes, engine, layout)
    made.train_step(engine_programs.batch_of(made, 1), 1e-3)
    with communication_clock(engine, processes, 1) as clock:
        processes.barrier()
        clock.start()
        started = time.perf_counter()
        if processes.rank == 1:
            time.sleep(LATE_SECONDS)
        made.train_step(engine_programs.batch_of(made, 2), 1e-3)
        step = time.perf_counter() - started
        return {"communication": clock.seconds() or -1.0, "step": step}


@pytest.mark.parametrize(
    ("engine", "layout"),
    [
        ("megatron", {"data": 2}),
        ("megatron", {"tensor": 2}),
        ("megatron", {"pipeline": 2}),
        ("deepspeed", {"data": 2}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_an_engines_step_with_a_late_rank(engine: str, layout: dict[str, int]) -> None:
    told = run_on_ranks(engine_step, 2, engine, layout)
    assert LATE_SECONDS * 0.9 < told[0]["communication"] < told[0]["step"]
    assert told[1]["communication"] < told[1]["step"]


def step_ends(processes: Processes) -> list[StepEnd]:
    """Two steps as both ranks tell of them: rank 1 is asked to stop in the second, where nothing was measured."""
    first = agree(processes, False, 0.25 + processes.rank, 2.0 - processes.rank)
    second = agree(processes, processes.rank == 1, None, 3.0 + processes.rank)
    return [first, second]


def test_the_ranks_agree_on_the_end_of_a_step_in_one_message() -> None:
    first, second = run_on_ranks(step_ends, 2)
    assert first == second == [StepEnd(False, 0.75, 2.0), StepEnd(True, None, 4.0)]


def not_covered(processes: Processes) -> float | None:
    with communication_clock("accelerate", processes, 1) as clock:
        return clock.seconds()


def test_the_engine_that_waits_out_of_sight_has_no_figure() -> None:
    assert run_on_ranks(not_covered, 2) == [None, None]


def test_one_process_does_not_communicate() -> None:
    alone = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=1)
    with communication_clock("accelerate", alone, 1) as clock:
        assert clock == Fixed(0.0)


def test_exposed_communication_by_hand() -> None:
    #   0    100   200   300   400   500   600
    #   |gemm------|                |copy|
    #         |nccl all-reduce-----------|        exposed 200 to 400
    #                                  |nccl--|   exposed 500 to 600
    kernels = [
        Kernel("ncclDevKernel_AllReduce_Sum_f32", 100, 500),
        Kernel("ampere_sgemm_128x64", 0, 200),
        Kernel("Memcpy DtoD", 400, 500),
        Kernel("ncclDevKernel_SendRecv", 450, 600),
    ]
    assert exposed_seconds(kernels) == pytest.approx(300e-9)
    assert exposed_seconds(kernels[1:2]) == 0.0
    assert exposed_seconds(kernels[:1]) == pytest.approx(400e-9)
    assert exposed_seconds([]) == 0.0


def test_the_clock_costs_little() -> None:
    wait = WaitClock().around(lambda work: None)
    started = time.perf_counter()
    for _ in range(10_000):
        wait(None)
    assert time.perf_counter() - started < 0.1, "more than 10 microseconds a collective"
