"""`slipway doctor`: examine a target's hosts and the network between them, and name what is bad."""

from __future__ import annotations

import argparse
from dataclasses import replace

from kit.config import load
from kit.errors import UserError
from kit.target import Target
from launch.console import Console
from launch.doctor.examine import Doctor
from launch.doctor.shown import data_of, lines_of
from launch.executors.aws_hosts import cluster_hosts
from launch.machine import accelerator_count
from launch.plan import Plan, make_plan
from launch.recipe_files import find_target
from launch.verbs.arguments import Answer

HELP = "examine a target: hosts, names, ports, bandwidth and latency by pair, and GPU health"
EXAMPLES = """examples:
  slipway doctor
  slipway doctor --on cluster.yaml
  slipway doctor --on cluster.yaml --quick
  slipway doctor --on cluster.yaml --ranks 8 --json

exit codes: 0 nothing bad, 1 something is bad (the table names it), 2 wrong input."""
RECIPE = "probe/pairs"
FEWEST = 2
"""Ranks on one machine without GPUs, or on a cluster that doesn't say how many nodes it has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--on", default="laptop", metavar="TARGET", help="target: a name or a path (default: laptop)")
    parser.add_argument("--target-set", action="append", default=[], metavar="a=b", help="change a key of the target")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help=f"change a key of {RECIPE}")
    parser.add_argument(
        "--ranks", type=int, metavar="N", help="ranks of the probe job (default: one a host; on one machine one a GPU)"
    )
    parser.add_argument("--quick", action="store_true", help="hosts, names and ports only: no probe job")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Examine the target and print what was found."""
    target = load(Target, find_target(arguments.on), arguments.target_set)
    plan = plan_of_probe(arguments.on, target, arguments.ranks, arguments.set, arguments.target_set)
    if target.kind == "aws":
        plan = replace(plan, target=cluster_hosts(plan.target, arguments.runs))
    devices = target.devices_per_host if target.devices_per_host != "auto" else plan.processes
    found = Doctor(plan, devices, arguments.runs, console, arguments.debug).examine(arguments.quick)
    for line in lines_of(found):
        console.say(line)
    return Answer(0 if found.healthy else 1, data_of(found))


def plan_of_probe(name: str, target: Target, ranks: int | None, sets: list[str], target_sets: list[str]) -> Plan:
    """The probe on a target, by default with one rank on each of its hosts.

    Raises:
        UserError: So many ranks can't be spread evenly over the hosts.
    """
    hosts = len(target.hosts) or (target.aws.count if target.aws else 0)
    if ranks is not None and ranks < 1:
        raise UserError(f"--ranks {ranks}", expected="1 or more", action="mend the argument")
    if not target.remote:
        chosen = ranks or _ranks_here(target)
        return make_plan(RECIPE, name, [f"layout.data={chosen}", *sets], None, target_sets)
    chosen = ranks or hosts or FEWEST
    if hosts and chosen > hosts and chosen % hosts:
        raise UserError(
            f"--ranks {chosen} on {hosts} hosts",
            expected=f"a multiple of {hosts}, or fewer than {hosts}",
            action="choose another number",
        )
    per_host = max(1, chosen // hosts) if hosts else 1
    return make_plan(
        RECIPE, name, [f"layout.data={chosen}", *sets], None, [*target_sets, f"devices_per_host={per_host}"]
    )


def _ranks_here(target: Target) -> int:
    """One a GPU, or two on the processor."""
    return FEWEST if target.device == "cpu" else accelerator_count() or FEWEST
