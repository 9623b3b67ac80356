"""Machines that are rented for one run: made before it, and given back after it whatever happens."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from kit.errors import SlipwayError
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import RunState, state_of
from launch.console import Console
from launch.executors.table import executor_for
from launch.plan import Plan
from launch.prepare import job_of_run
from launch.verbs import down, up


@contextmanager
def rented(plan: Plan, arguments: argparse.Namespace, console: Console) -> Iterator[None]:
    """The cluster of a target of kind aws, for the time of a block; one that is there already stays.

    What a run that did not finish has written (checkpoints too) is fetched before its hosts are given back.

    Raises:
        UserError: The target is wrong, or nobody agreed to the price.
    """
    wanted = argparse.Namespace(
        on=arguments.on, target_set=arguments.target_set, runs=arguments.runs, yes=arguments.yes, cluster=None
    )
    made = bool(up.execute(wanted, console).data["created"])
    before = {run.id for run in list_runs(arguments.runs)}
    try:
        yield
    finally:
        keep = plan.target.aws is not None and plan.target.aws.keep
        if made and not keep and not arguments.detach:
            for run in list_runs(arguments.runs):
                if run.id not in before and state_of(run) != RunState.FINISHED:
                    _save(run, console)
            down.execute(wanted, console)


def _save(run: RunDirectory, console: Console) -> None:
    """Bring home what an unfinished run has; what can't be had must not keep the hosts alive."""
    try:
        job = job_of_run(run)
        executor_for(job.target).fetch(job, console.say, ("artifacts", "checkpoints"))
    except SlipwayError as error:
        console.say(f"Nothing could be fetched of {run.id}: {error.found}")
