"""`slipway stop`: end a run cleanly from another terminal."""

from __future__ import annotations

import argparse
import signal
import time

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import append_event, state_of
from launch.console import Console
from launch.executors.protocol import Ending
from launch.executors.table import executor_for
from launch.host import processes
from launch.outcome import UNFINISHED, close_attempt, log_ends, standing
from launch.prepare import job_of_run
from launch.supervise import drain, explain, result_of
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "stop a run or chain: its ranks finish their step and write a checkpoint"
EXAMPLES = """examples:
  slipway stop --last
  slipway stop 20260101-120000-pretrain-demo-1a2b"""
CHAIN_SECONDS = 150.0
WATCHER_SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Stop the run."""
    run = chosen_run(arguments)
    watched = processes.is_live(run.path)
    if run.manifest().stage == "chain" and watched:
        return _stop_chain(run, console)
    if run.manifest().stage == "chain" or not (watched or standing(run).unwatched):
        raise _not_running(run)
    job = job_of_run(run)
    executor = executor_for(job.target)
    if not watched and not executor.status(job).live:
        raise _not_running(run)
    starts = log_ends(run) if watched else {}
    append_event(run, "stop_requested")
    console.say(f"Stopping {run.id}: what is done is kept.")
    clean = executor.stop(job)
    ending = Ending() if watched else drain(job, executor)
    _let_watcher_write(run)
    code = close_attempt(run, ending, starts, killed=not clean)
    explain(run, console)
    stopped = str(state_of(run)) in ("stopped", "finished")
    return Answer(0 if stopped else code, result_of(run, 0 if stopped else code))


def _not_running(run: RunDirectory) -> UserError:
    return UserError(
        f"{run.id} does not run: it is {standing(run).words}",
        expected="a run whose processes are there",
        action="see the runs with `slipway status`",
    )


def _let_watcher_write(run: RunDirectory) -> None:
    """A `slipway run` that watches in another terminal writes the last event itself: give it a moment."""
    deadline = time.monotonic() + WATCHER_SECONDS
    while state_of(run) in UNFINISHED and time.monotonic() < deadline:
        time.sleep(0.1)


def _stop_chain(run: RunDirectory, console: Console) -> Answer:
    """The chain's own process hears the request, as if by Ctrl-C, and stops its stage."""
    launcher = processes.live_process(processes.launcher_record(run.path))
    if launcher is not None:
        processes.send(launcher, signal.SIGTERM)
        deadline = time.monotonic() + CHAIN_SECONDS
        while processes.is_live(run.path) and time.monotonic() < deadline:
            time.sleep(0.2)
    console.say(f"{run.id}: {standing(run).words}. Go on with: slipway resume {run.id}")
    return Answer(0, {"run_id": run.id, "state": standing(run).words})
