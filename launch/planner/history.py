"""How fast the newest finished run of the same recipe was on this machine: better than any assumption."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from kit.config import read_yaml
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import RunState, read_events, state_of
from launch.plan import Plan

SAME_SPEED = ["engine", "algorithm", "method", "model", "model_path", "layout", "precision", "data", "zero", "lora"]
SAME_SPEED += ["start_from", "ppo", "grpo", "dpo", "generation", "answers", "tasks", "instructions", "input"]
SAME_SPEED += ["batch_samples", "recompute"]
"""Keys on which the speed of a step depends; other keys may differ from the earlier run."""


class Measured(NamedTuple):
    """What an earlier run took, in seconds: each step (None: it has none), and everything besides steps."""

    run_id: str
    step_seconds: float | None
    other_seconds: float

    def seconds(self, steps: int) -> float:
        """What a run of so many steps would take."""
        return self.other_seconds + (self.step_seconds or 0.0) * steps


def newest_like(plan: Plan, root: Path) -> Measured | None:
    """The newest finished run of this machine that would run at the speed of a planned one; None without one."""
    if not Path(root).is_dir():
        return None
    for run in reversed(list_runs(root)):
        if f"-{plan.stage}-{plan.name}-" in run.id and state_of(run) == RunState.FINISHED and _is_alike(run, plan):
            return _measured(run)
    return None


def _is_alike(run: RunDirectory, plan: Plan) -> bool:
    config = run.config()
    if any(config.get(key) != plan.config.get(key) for key in SAME_SPEED):
        return False
    target = read_yaml(run.target_path) if run.target_path.exists() else {}
    wanted = plan.target.model_dump(mode="json")
    return all(target.get(key) == wanted[key] for key in ("kind", "device", "threads_per_process")) and _was_here(run)


def _was_here(run: RunDirectory) -> bool:
    records = sorted(run.processes.glob("rank-*.json"))
    return bool(records) and json.loads(records[0].read_text()).get("host") == socket.gethostname()


def _measured(run: RunDirectory) -> Measured | None:
    """Of a run that was never interrupted; the seconds of one that was say nothing."""
    events = read_events(run)
    kinds = [str(event["event"]) for event in events]
    if kinds.count("started") != 1 or "resumed" in kinds:
        return None
    whole = _time(events[-1]) - _time(events[0])
    steps = [float(record["step_seconds"]) for record in read_metrics(run.metrics_path) if "step_seconds" in record]
    if not steps:
        return Measured(run.id, None, whole)
    # Checkpoints and validations are in some steps' seconds, so the mean is what a step costs.
    return Measured(run.id, sum(steps) / len(steps), max(0.0, whole - sum(steps)))


def _time(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(str(event["time"])).timestamp()
