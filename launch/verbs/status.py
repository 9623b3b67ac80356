"""`slipway status`: all runs in a table, or one in detail."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import read_events
from kit.units import format_duration
from launch.console import Console, table
from launch.executors.local import HOST
from launch.executors.protocol import Status
from launch.executors.table import executor_for
from launch.outcome import last_failure, standing
from launch.prepare import job_of_run
from launch.progress import total_steps
from launch.supervise import as_error
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "show all runs, or one in detail"
EXAMPLES = """examples:
  slipway status
  slipway status --last
  slipway status 20260101-120000-pretrain-demo-1a2b --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser, required=False)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Print the table or the detail."""
    if arguments.run or arguments.last:
        return _detail(chosen_run(arguments), console)
    rows = [summary_of(run) for run in list_runs(arguments.runs)]
    if not rows:
        console.say(f"No runs under {arguments.runs}. Start one with `slipway run RECIPE` or `make demo`.")
    else:
        console.say(table(("RUN", "STAGE", "STATE", "STEP", "LOSS", "AGE"), [_cells(row) for row in rows]))
    return Answer(0, {"runs": rows})


def summary_of(run: RunDirectory) -> dict[str, Any]:
    """One run in a row."""
    manifest = run.manifest()
    metrics = read_metrics(run.metrics_path)
    steps = total_steps(run.config(), read_events(run)) if run.config_path.is_file() else None
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created)
    return {
        "run_id": run.id,
        "path": str(run.path),
        "stage": manifest.stage,
        "name": manifest.name,
        "state": standing(run).words,
        "step": metrics[-1]["step"] if metrics else None,
        "steps": steps,
        "loss": metrics[-1].get("loss") if metrics else None,
        "age_seconds": round(age.total_seconds(), 1),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    step = "-" if row["step"] is None else f"{row['step']}/{row['steps']}" if row["steps"] else str(row["step"])
    loss = f"{row['loss']:.4f}" if isinstance(row["loss"], int | float) else "-"
    return row["run_id"], row["stage"], row["state"], step, loss, format_duration(row["age_seconds"])


def _detail(run: RunDirectory, console: Console) -> Answer:
    manifest = run.manifest()
    row = summary_of(run)
    now = _status_of(run)
    failure = last_failure(run)
    # A resume may have changed it since the manifest was written.
    layout = manifest.layout and (run.config().get("layout") or manifest.layout)
    lines = [
        ("Run", run.id),
        ("Path", str(run.path)),
        ("State", row["state"]),
        ("Step", _cells(row)[3]),
        ("Loss", _cells(row)[4]),
        ("Age", _cells(row)[5]),
        ("Layout", _words(layout)),
        ("Processes", ", ".join(f"rank {rank}: {pid}" for rank, pid in now.rank_pids.items()) or "none"),
        *((f"Host {host}", words) for host, words in now.hosts.items() if host != HOST),
        *((f"Parent {name}", parent.run_id) for name, parent in manifest.parents.items()),
        *((f"Stage {stage.id}", f"{stage.run_id}{' (reused)' if stage.reused else ''}") for stage in manifest.stages),
    ]
    width = max(len(name) for name, _ in lines)
    console.say("\n".join(f"{name.ljust(width)}  {value}" for name, value in lines))
    if failure and standing(run).words.startswith("failed"):
        console.say(str(as_error(failure)))
    if standing(run).unwatched:
        console.say(f"Watch it with: slipway attach {run.id}")
    if standing(run).resumable:
        console.say(f"Go on with: slipway resume {run.id}")
    return Answer(
        0,
        {**row, "rank_pids": now.rank_pids, "hosts": now.hosts, "events": read_events(run), "layout": layout},
    )


def _status_of(run: RunDirectory) -> Status:
    """What the run's executor sees; a chain has no processes but its stages'."""
    if not run.target_path.is_file():
        return Status(False)
    try:
        job = job_of_run(run)
    except UserError as error:
        return Status(False, hosts={"cluster": error.found})  # given back since: the rest is still worth showing
    return executor_for(job.target).status(job)


def _words(layout: dict[str, Any] | None) -> str:
    return (
        " x ".join(f"{axis} {degree}" for axis, degree in (layout or {}).items() if degree not in (1, False))
        or "1 process"
    )
