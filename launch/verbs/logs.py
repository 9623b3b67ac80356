"""`slipway logs`: what the processes of a run wrote."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kit.errors import UserError
from kit.run.directory import RunDirectory
from launch.console import Console
from launch.outcome import log_tail, standing
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "show the log of a run's launcher or of one rank"
EXAMPLES = """examples:
  slipway logs --last
  slipway logs RUN --rank 1 --lines 200
  slipway logs RUN --follow"""
FOLLOW_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    parser.add_argument("--rank", type=int, metavar="N", help="the log of rank N (default: rank 0, or the launcher's)")
    parser.add_argument("--launcher", action="store_true", help="the launcher's log")
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="how many of the last lines (default: 40)")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends or Ctrl-C")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Print the end of a log, and what is added to it."""
    run = _with_processes(chosen_run(arguments), arguments.runs)
    path = choose_log(run, arguments.rank, arguments.launcher)
    lines = log_tail(path, arguments.lines)
    for line in lines:
        console.say(line)
    if arguments.follow:
        _follow(run, path, console)
    return Answer(0, {"run_id": run.id, "log": str(path), "lines": lines})


def choose_log(run: RunDirectory, rank: int | None, launcher: bool) -> Path:
    """The log that was asked for; else rank 0's, else the launcher's.

    Raises:
        UserError: there is no such log; names those that are there.
    """
    logs = {path.stem: path for path in sorted(run.logs.glob("*.log"))}
    wanted = "launcher" if launcher else f"rank-{rank or 0:05d}"
    if rank is None and wanted not in logs:
        wanted = "launcher"
    if wanted not in logs:
        raise UserError(
            f"{run.id} has no log {wanted}.log",
            expected=f"one of: {', '.join(logs)}" if logs else "a run that has started; this one has no logs",
            action="choose another rank, or see `slipway status`",
        )
    return logs[wanted]


def _with_processes(run: RunDirectory, root: Path) -> RunDirectory:
    """For a chain the run of its last stage, which is the one that runs, failed, or finished last."""
    manifest = run.manifest()
    if manifest.stage != "chain" or not manifest.stages:
        return run
    return RunDirectory.open(Path(manifest.stages[-1].path))


def _follow(run: RunDirectory, path: Path, console: Console) -> None:
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while True:
            ended = standing(run).state.value in ("finished", "failed", "stopped")
            text = file.read()
            if text:
                console.say(text.rstrip("\n"))
            if ended:
                return
            time.sleep(FOLLOW_SECONDS)
