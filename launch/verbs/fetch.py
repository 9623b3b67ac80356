"""`slipway fetch`: bring a run's artifacts, and if wanted its checkpoints, home from the hosts that it ran on."""

from __future__ import annotations

import argparse

from launch.console import Console
from launch.executors.table import executor_for
from launch.prepare import job_of_run
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "copy a run's artifacts from where it ran (a finished run has done so by itself)"
EXAMPLES = """examples:
  slipway fetch --last
  slipway fetch RUN --checkpoints"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    parser.add_argument("--checkpoints", action="store_true", help="the training checkpoints too; they can be large")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Copy the folders."""
    run = chosen_run(arguments)
    folders = ["artifacts", *(["checkpoints"] if arguments.checkpoints else [])]
    job = job_of_run(run)
    executor_for(job.target).fetch(job, console.say, folders)
    files = sorted(str(path.relative_to(run.path)) for name in folders for path in (run.path / name).rglob("*"))
    console.say(f"{len(files)} files and folders under {run.path}")
    return Answer(0, {"run_id": run.id, "path": str(run.path), "folders": folders, "files": files})
