"""`slipway run`: one recipe, from its parents to its end."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.errors import UserError
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from launch.console import Console
from launch.origin import MissingParent, find_parent, run_key
from launch.plan import Plan, make_plan
from launch.planner.fallback import fall_back
from launch.planner.shown import warning_lines
from launch.prepare import job_of_run, prepare
from launch.rented import rented
from launch.reporting import conclude
from launch.supervise import execute as execute_run
from launch.supervise import result_of
from launch.verbs.arguments import Answer, add_recipe_arguments, parent_references, recipe_sets

HELP = "run one recipe, with a live progress line; Ctrl-C stops it cleanly"
EXAMPLES = """examples:
  slipway run data_prep/demo
  slipway run pretrain/demo --with-parents
  slipway run pretrain/demo --set budget.steps=50 --parent data=last:data_prep
  slipway run pretrain/demo --target-set threads_per_process=2
  slipway run pretrain/demo --on my/hosts.yaml --detach
  slipway run pretrain/10m --ranks 2
  slipway run pretrain/demo --on laptop --set layout.data=16 --fallback
  slipway run pretrain/demo --on kubernetes --render manifests"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_recipe_arguments(parser)
    parser.add_argument("--with-parents", action="store_true", help="first run the recipes of parents that are missing")
    parser.add_argument(
        "--fallback",
        action="store_true",
        help="with fewer devices than the layout needs: the largest layout that fits, the global batch kept",
    )
    parser.add_argument(
        "--render", type=Path, metavar="DIR", help="only write the files that a Kubernetes cluster would be given"
    )
    parser.add_argument("--yes", action="store_true", help="rent the machines of a target of kind aws without asking")
    parser.add_argument("--detach", action="store_true", help="start it and come back; `slipway attach` watches it")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Run the recipe, and its missing parents first where that was asked for."""
    references = parent_references(arguments)
    sets = recipe_sets(arguments)
    if arguments.fallback:
        sets = _fall_back(arguments, sets, references, console)
    plan = make_plan(arguments.recipe, arguments.on, sets, references, arguments.target_set)
    if arguments.render and plan.target.kind != "kubernetes":
        raise UserError(
            f"--render, and {arguments.on} is a target of kind {plan.target.kind}",
            expected="a target of kind kubernetes: only there is a job a set of files",
            action="choose one with --on, such as kubernetes or minikube",
        )
    if plan.target.kind == "aws":
        with rented(plan, arguments, console):
            return _answer(plan, arguments, console)
    return _answer(plan, arguments, console)


def _answer(plan: Plan, arguments: argparse.Namespace, console: Console) -> Answer:
    code, run = _run_plan(plan, arguments, console, last=True)
    summary = {} if arguments.render else conclude(run, console)
    return Answer(code, {**summary, **result_of(run, code)})


def _run_plan(
    plan: Plan, arguments: argparse.Namespace, console: Console, last: bool = False
) -> tuple[int, RunDirectory]:
    """Run a plan after its parents. Returns the exit code, and the run that it belongs to: the last one begun."""
    parents: dict[str, RunDirectory] = {}
    for name, reference in plan.parents.items():
        try:
            parents[name] = find_parent(arguments.runs, name, reference, plan.recipe)
        except MissingParent as missing:
            if not arguments.with_parents or missing.recipe is None:
                raise
            console.say(f"Parent `{name}` is missing: making it with {missing.recipe} first.")
            made_by = make_plan(missing.recipe, arguments.on, target_sets=arguments.target_set)
            code, parents[name] = _run_plan(made_by, arguments, console)
            if code:
                return code, parents[name]
    key = run_key(plan, {name: run.manifest().key for name, run in parents.items()})
    run = prepare(plan, arguments.runs, parents, key)
    _announce(run, parents, console)
    if last and arguments.render:
        return _render(run, arguments.render, console), run
    return execute_run(run, console, debug=arguments.debug, detach=arguments.detach and last), run


def _fall_back(
    arguments: argparse.Namespace, sets: list[str], references: dict[str, str], console: Console
) -> list[str]:
    """The assignments with which the recipe fits the target; says what they change."""
    sets, words = fall_back(arguments.recipe, arguments.on, sets, references, arguments.target_set, arguments.runs)
    for line in words:
        console.say(f"Fallback: {line}")
    return sets


def _render(run: RunDirectory, folder: Path, console: Console) -> int:
    """Write a run's manifests into a folder, for `kubectl apply -f`."""
    from launch.executors.kubernetes.render import render

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render(job_of_run(run)).items():
        atomic_write(folder / name, text)
        console.say(str(folder / name))
    return 0


def _announce(run: RunDirectory, parents: dict[str, RunDirectory], console: Console) -> None:
    origin = "".join(f", {name} from {parent.id}" for name, parent in parents.items())
    console.say(f"Run {run.id}{origin}")
    for line in warning_lines(run.manifest().plan.get("predicted", {})):
        console.say(line)
