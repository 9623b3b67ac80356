"""What saving costs: tokens per second with a checkpoint every 20 steps against none, one thread, alternating.

    python -m benchmarks.pretrain.stall [ROUNDS]

The writer may use what the training thread leaves free: at least one more core. A save falls in the middle of a turn.
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
from benchmarks.pretrain.turns import Side, Turn
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory

EVERY = 20
SAVING = {
    "without": f"checkpoint={{every_steps: {10**6}}}",
    "asynchronous": f"checkpoint={{every_steps: {EVERY}, keep: 1, asynchronous: true}}",
    "synchronous": f"checkpoint={{every_steps: {EVERY}, keep: 1, asynchronous: false}}",
}


def measure(case: Case, text: RunDirectory, work: Path, rounds: int) -> dict[str, Any]:
    """Percent of the throughput that either way of saving costs, and what the loop itself waited for each save."""
    runs = {name: make_run(case, text, work / "runs", 1, [saving]) for name, saving in SAVING.items()}
    with ExitStack() as stack:
        sides = [
            stack.enter_context(Side(name, "benchmarks.pretrain.ours", run, 1, work)) for name, run in runs.items()
        ]
        done = alternate(sides, EVERY, rounds, warmup=EVERY // 2)
    found = {name: {**_percent(done, name), **_waited(runs[name])} for name in SAVING if name != "without"}
    return {"every_steps": EVERY, "batch_samples": case.samples, "sequence_length": case.length, "threads": 1, **found}


def _percent(rounds: list[dict[str, Turn]], name: str) -> dict[str, Any]:
    lost = [100 * (1 - turns[name].rate / turns["without"].rate) for turns in rounds]
    return {
        "percent": round(statistics.median(lost), 2),
        "low": round(min(lost), 2),
        "high": round(max(lost), 2),
        "pairs": len(lost),
    }


def _waited(run: RunDirectory) -> dict[str, float]:
    """Seconds of the loop for each save, and seconds of a step, as the run's own metrics have them."""
    records = list(read_metrics(run.metrics_path))
    saves = sum(record["step"] % EVERY == 0 for record in records)
    waited = sum(record["checkpoint_seconds"] for record in records)
    return {
        "loop_seconds_per_save": round(waited / saves, 3),
        "step_seconds": round(statistics.median(record["step_seconds"] for record in records), 3),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as folder:
        print(json.dumps(measure(CASES["10m"], text_run(CACHE), Path(folder), int(sys.argv[1]) if sys.argv[1:] else 4)))
