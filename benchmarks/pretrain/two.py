"""Two processes against one, one thread each: what data, tensor and pipeline parallelism gain on this machine.

    python -m benchmarks.pretrain.two [ROUNDS]

The recipe, its global batch and its micro-batches are the same; only the layout differs.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.pretrain.cases import CACHE, CASES, Case, make_run, text_run
from benchmarks.pretrain.speed import alternate
from benchmarks.pretrain.turns import Side
from kit.run.directory import RunDirectory

AXES = ("data", "tensor", "pipeline")
MICRO = ("data.micro_batch_samples=1",)


def wide(case: Case) -> Case:
    """The case with enough micro-batches that a pipeline of two has something to do."""
    return case._replace(samples=8, steps=1)


def measure(case: Case, text: RunDirectory, work: Path, rounds: int) -> dict[str, Any]:
    """Tokens per second of two over one, by axis."""
    runs = {"one": make_run(case, text, work / "runs", 1, MICRO)}
    runs |= {axis: make_run(case, text, work / "runs", 1, [*MICRO, f"layout.{axis}=2"]) for axis in AXES}
    with ExitStack() as stack:
        sides = [
            stack.enter_context(Side(name, "benchmarks.pretrain.ours", run, 1, work, 1 if name == "one" else 2))
            for name, run in runs.items()
        ]
        done = alternate(sides, case.steps, rounds)
    speedups = {axis: [turns[axis].rate / turns["one"].rate for turns in done] for axis in AXES}
    return {
        "batch_samples": case.samples,
        "micro_batch_samples": 1,
        "sequence_length": case.length,
        "rounds": rounds,
        "spread": {axis: [round(min(found), 3), round(max(found), 3)] for axis, found in speedups.items()},
        "tokens_per_second": {
            side.name: round(statistics.median(turns[side.name].rate for turns in done), 1) for side in sides
        },
        "speedup": {axis: round(statistics.median(found), 3) for axis, found in speedups.items()},
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as folder:
        asked = int(sys.argv[1]) if sys.argv[1:] else 6
        print(json.dumps(measure(wide(CASES["10m"]), text_run(CACHE), Path(folder), asked)))
