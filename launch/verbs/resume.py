"""`slipway resume`: a run that was stopped, failed or lost goes on in its own directory."""

from __future__ import annotations

import argparse

from kit.errors import UserError
from kit.run.events import RunState
from launch.chain import resume_chain
from launch.console import Console
from launch.host.processes import live_processes
from launch.outcome import standing
from launch.reporting import conclude
from launch.supervise import execute as execute_run
from launch.supervise import result_of
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "go on with a run or chain that was stopped, failed or lost"
EXAMPLES = """examples:
  slipway resume --last
  slipway resume 20260101-120000-pretrain-demo-1a2b"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Resume the run."""
    run = chosen_run(arguments)
    if live := live_processes(run.path):
        raise UserError(
            f"{run.id} is still running (process {live[0].pid})",
            expected="a run whose processes have ended",
            action=f"wait for it (`slipway attach {run.id}`), or stop it with `slipway stop {run.id}`",
        )
    if standing(run).state == RunState.FINISHED:
        raise UserError(
            f"{run.id} has finished",
            expected="a run that was stopped, failed or lost",
            action=f"see it with `slipway report {run.id}`, or start a new one with `slipway run`",
        )
    if run.manifest().stage == "chain":
        return Answer(*resume_chain(run, console, arguments.debug))
    console.say(f"Resuming {run.id}")
    code = execute_run(run, console, resumed=True, debug=arguments.debug)
    return Answer(code, {**conclude(run, console), **result_of(run, code)})
