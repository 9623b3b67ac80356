"""What a process takes before it holds a model, from the measured table in runtime.yaml."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from kit.config import read_yaml
from launch.planner.workload import Workload

TABLE = Path(__file__).with_name("runtime.yaml")
GIB = 1024**3


@cache
def table() -> dict[str, Any]:
    """The whole file."""
    return read_yaml(TABLE)


def runtime_bytes(load: Workload) -> float:
    """Resident bytes of a process (CPU), or what CUDA takes on the device."""
    if load.device != "cpu":
        return float(table()["cuda"]["gib"]) * GIB
    measured = {row["name"]: float(row["gib"]) for row in table()["cpu"]}
    return measured[_row(load)] * GIB


def heap_share(load: Workload) -> float:
    """What the heap keeps besides, as a share of what comes and goes within a step; CUDA's allocator is not counted."""
    if load.device != "cpu":
        return 0.0
    row = table()["heap"]
    if load.engine != "megatron":
        return float(row["flat"])
    return min(float(row["megatron_per_doubling"]) * math.log2(1 + load.steps), float(row["megatron_most"]))


def _row(load: Workload) -> str:
    if load.stage == "evaluate":
        return "evaluate"
    if load.stage == "rlhf" and load.parts.get("algorithm") in ("dpo", "grpo"):
        return "trl"
    if load.lora_rank is not None:
        return "lora"
    return load.engine
