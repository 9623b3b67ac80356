"""`slipway resume`: a run that was stopped, failed or lost goes on in its own directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import RunState
from launch.chain import resume_chain
from launch.console import Console
from launch.executors.table import executor_for
from launch.host.processes import live_processes
from launch.outcome import standing
from launch.planner.fallback import fall_back
from launch.prepare import job_of_run
from launch.reconfigure import apply_change, plan_change
from launch.reporting import conclude
from launch.supervise import execute as execute_run
from launch.supervise import refuse_live, result_of
from launch.verbs.arguments import Answer, add_change_arguments, add_run_argument, chosen_run

HELP = "go on with a run or chain that was stopped, failed or lost"
EXAMPLES = """examples:
  slipway resume --last
  slipway resume 20260101-120000-pretrain-demo-1a2b
  slipway resume --last --set layout.tensor=1 --set layout.pipeline=1
  slipway resume --last --target-set devices_per_host=1 --fallback"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    add_change_arguments(parser)
    parser.add_argument(
        "--fallback",
        action="store_true",
        help="with fewer devices than the run's layout needs: the largest layout that fits, the global batch kept",
    )


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Resume the run."""
    run = chosen_run(arguments)
    if live := live_processes(run.path):
        raise UserError(
            f"{run.id} is still running (process {live[0].pid})",
            expected="a run whose processes have ended",
            action=f"wait for it (`slipway attach {run.id}`), or stop it with `slipway stop {run.id}`",
        )
    changes = bool(arguments.set or arguments.target_set or arguments.fallback)
    if standing(run).state == RunState.FINISHED:
        raise _finished(run, arguments.set)
    if run.manifest().stage == "chain":
        if changes:
            raise _whole_chain(run)
        return Answer(*resume_chain(run, console, arguments.debug))
    told = _reconfigure(run, arguments, console) if changes else {}
    console.say(f"Resuming {run.id}")
    code = execute_run(run, console, resumed=True, debug=arguments.debug)
    return Answer(code, {**conclude(run, console), **result_of(run, code), **told})


def _reconfigure(run: RunDirectory, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check what changes, then write it down; what --json says of it.

    Raises:
        UserError: it still runs somewhere, or the change isn't possible; nothing has been touched then.
        RunFailure: no layout fits.
    """
    job = job_of_run(run)
    refuse_live(job, executor_for(job.target))
    sets = list(arguments.set)
    if arguments.fallback:
        # A run's own files are a recipe and a target like any other.
        paths = str(run.config_path), str(run.target_path)
        sets, words = fall_back(*paths, sets, None, arguments.target_set, run.path.parent)
        for line in words:
            console.say(f"Fallback: {line}")
    change = plan_change(run, sets, arguments.target_set)
    for line in change.lines:
        console.say(line)
    apply_change(run, change)
    return {"reconfigured": {key: list(pair) for key, pair in change.values.items()}}


def _finished(run: RunDirectory, sets: Sequence[str]) -> UserError:
    recipe = run.manifest().plan.get("recipe", "RECIPE")
    words = "".join(f" --set {text}" for text in sets)
    return UserError(
        f"{run.id} has finished: there is nothing left to do",
        expected="a run that was stopped, failed or lost",
        action=f"see it with `slipway report {run.id}`, or start a new one with `slipway run {recipe}{words}`",
    )


def _whole_chain(run: RunDirectory) -> UserError:
    stages = run.manifest().stages
    stage = stages[-1].run_id if stages else "RUN"
    return UserError(
        f"{run.id} is a chain, and what changes is one stage's",
        expected="the run of a stage",
        action=f"`slipway resume {stage} --set ...` first, then `slipway resume {run.id}`",
    )
