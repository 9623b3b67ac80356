"""Seconds and USD of a run before it starts: operations over what the devices are assumed to do in a second."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kit.config import read_yaml
from kit.hardware import Accelerator, available_cores
from launch.planner.work import FORWARD, GENERATE, TRAIN, Work

TABLE = Path(__file__).with_name("utilisation.yaml")
MATRIX = 768
"""Side of the matrices that the processor's peak is measured with."""

PEAK_PROGRAM = f"""
import time, numpy
a = numpy.random.rand({MATRIX}, {MATRIX}).astype(numpy.float32)
a @ a
best, began = 1e9, time.perf_counter()
while time.perf_counter() - began < 0.1:
    started = time.perf_counter()
    a @ a
    best = min(best, time.perf_counter() - started)
print(2 * {MATRIX} ** 3 / best)
"""


class Rate(NamedTuple):
    """What the devices of a job do together, in FLOP/s, by kind of work.

    Attributes:
        by_kind: Kind of work -> FLOP/s.
        startup_seconds: What a run takes besides.
        words: Where the figures come from.
    """

    by_kind: dict[str, float]
    startup_seconds: float
    words: str


@cache
def utilisation() -> dict[str, Any]:
    """The whole table."""
    return read_yaml(TABLE)


@cache
def processor_peak(threads: int, processes: int) -> float:
    """FLOP/s of fp32 matrix products in numpy, all processes at once; about half a second, once in a process.

    Processes that have no core of their own add nothing.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PEAK_PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(min(processes, available_cores()))
    ]
    return sum(float(process.communicate(timeout=60)[0]) for process in started)


def processor_rate(threads: int, processes: int, precision: str) -> Rate:
    """What this machine's processor does."""
    row = utilisation()["cpu"]
    peak = processor_peak(threads, processes)
    slower = float(row["bf16_of_fp32"]) if precision == "bf16" else 1.0
    words = (
        f"fp32 matmul {MATRIX} in numpy measured now: {peak / 1e9:.0f} GFLOP/s with {processes} process(es) of "
        f"{threads} thread(s); utilisation {row['train']:.0%} training, {row['generate']:.0%} generating "
        f"({row['source']})"
    )
    if slower < 1:
        words += f"; bf16 at {slower:.0%} of that"
    rates = {kind: peak * slower * float(row[kind]) for kind in (TRAIN, FORWARD, GENERATE)}
    return Rate(rates, float(row["startup_seconds"]), words)


def accelerator_rate(device: Accelerator, devices: int, precision: str) -> Rate | None:
    """What some accelerators do; None where the data sheet has no rate for the precision."""
    row = utilisation()["cuda"]
    peak = device.peak_flops_per_second(precision)
    if peak is None:
        return None
    train = float(row["train"].get(device.match.split()[0], row["train_elsewhere"]))
    shares = {TRAIN: train, FORWARD: float(row["forward"]), GENERATE: float(row["generate"])}
    words = (
        f"{devices} x {device.match}, {peak / 1e12:g} TFLOP/s {precision}; utilisation {train:.0%} ({row['source']})"
    )
    return Rate({kind: devices * peak * share for kind, share in shares.items()}, float(row["startup_seconds"]), words)


def seconds_of(work: Sequence[Work], rate: Rate) -> float:
    """How long a run takes."""
    return rate.startup_seconds + sum(part.flops / rate.by_kind[part.kind] for part in work)


def cost_usd(seconds: float, devices: int, usd_per_hour: float) -> float:
    """What renting the devices for that long costs."""
    return seconds / 3600 * devices * usd_per_hour
