"""`slipway logs`: what the processes of a run wrote."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kit.config import load
from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.target import Target
from launch.console import Console
from launch.outcome import log_tail, standing
from launch.verbs.arguments import Answer, add_run_argument, chosen_run, with_processes

HELP = "show the log of a run's launcher, of one rank, or of all with their hosts in front"
EXAMPLES = """examples:
  slipway logs --last
  slipway logs RUN --rank 1 --lines 200
  slipway logs RUN --all --follow"""
FOLLOW_SECONDS = 0.5
ENDED = ("finished", "failed", "stopped")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, metavar="N", help="the log of rank N (default: rank 0, or the launcher's)")
    which.add_argument("--launcher", action="store_true", help="the launcher's log")
    which.add_argument("--all", action="store_true", help="every log, each line with its host and rank in front")
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="how many of the last lines (default: 40)")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends or Ctrl-C")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Print the end of a log, or of all, and what is added."""
    run = with_processes(chosen_run(arguments))
    if arguments.all:
        logs = {_prefix(run, path.stem): path for path in sorted(run.logs.glob("*.log"))}
    else:
        logs = {"": choose_log(run, arguments.rank, arguments.launcher)}
    # Where the files end now: what comes later belongs to --follow.
    ends = {path: path.stat().st_size for path in logs.values()}
    lines = [prefix + line for prefix, path in logs.items() for line in log_tail(path, arguments.lines)]
    for line in lines:
        console.say(line)
    if arguments.follow:
        _follow(run, logs, ends, arguments.all, console)
    told = {"log": str(next(iter(logs.values())))} if not arguments.all and logs else {}
    return Answer(0, {"run_id": run.id, **told, "logs": [str(path) for path in logs.values()], "lines": lines})


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


def _prefix(run: RunDirectory, name: str) -> str:
    """`[n2 rank 3] `: the host, and what wrote the log there."""
    kind, _, number = name.partition("-")
    what = f"rank {int(number)}" if kind == "rank" else kind
    if kind not in ("rank", "launcher") or not run.target_path.is_file():
        return f"[{name}] "
    target = load(Target, run.target_path)
    devices = target.devices_per_host if isinstance(target.devices_per_host, int) else 1
    node = int(number or 0) // devices if kind == "rank" else int(number or 0)
    if target.kind == "kubernetes":
        return f"[pod {node} {what}] "
    host = target.hosts[node].name if node < len(target.hosts) else f"host {node}"
    return f"[{what}] " if target.kind == "local" else f"[{host} {what}] "


def _follow(run: RunDirectory, logs: dict[str, Path], ends: dict[Path, int], every: bool, console: Console) -> None:
    """Print what is added; with all logs also those that appear later."""
    while True:
        ended = standing(run).state.value in ENDED
        if every:
            logs = {_prefix(run, path.stem): path for path in sorted(run.logs.glob("*.log"))}
        for prefix, path in logs.items():
            _print_added(prefix, path, ends, console)
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)


def _print_added(prefix: str, path: Path, ends: dict[Path, int], console: Console) -> None:
    """The whole lines since the last look; the rest of a line waits."""
    with path.open("rb") as file:
        file.seek(ends.get(path, 0))
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    ends[path] = ends.get(path, 0) + len(whole)
    for line in whole.decode("utf-8", "replace").splitlines():
        console.say(prefix + line)
