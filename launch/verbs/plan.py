"""`slipway plan`: what a run would be, without touching anything."""

from __future__ import annotations

import argparse
import json
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

from kit.config import dump
from kit.errors import UserError
from kit.flops import (
    CONVENTIONS,
    DEFAULT_CONVENTION,
    flops_per_token,
    non_embedding_parameters,
    parameter_count,
)
from kit.run.directory import RunDirectory
from kit.units import format_count
from launch.console import Console
from launch.origin import find_parent
from launch.plan import Plan, make_plan, shown_command, work_of_stage
from launch.planner.models import Parents, UnknownModel, find_model
from launch.planner.prediction import predict, rented
from launch.planner.prices import price_called, prices
from launch.planner.shown import offer_lines, prediction_lines, warning_lines
from launch.verbs.arguments import Answer, add_recipe_arguments, parent_references, recipe_sets

HELP = "show the configuration, layout, size, memory, time and commands of a run; touches nothing"
EXAMPLES = """examples:
  slipway plan pretrain/demo
  slipway plan pretrain/demo --set layout.tensor=1 --set layout.data=2
  slipway plan pretrain/demo --priced-as h100
  slipway plan pretrain/7b --ranks 64 --on my/hosts.yaml
  slipway plan my/recipe.yaml --on my/target.yaml --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_recipe_arguments(parser)
    names = ", ".join(price.name for price in prices())
    parser.add_argument(
        "--priced-as", metavar="NAME", help=f"memory, hours and USD on one kind of rented accelerator: {names}"
    )


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Print the plan."""
    sets, references = recipe_sets(arguments), parent_references(arguments)
    plan = make_plan(arguments.recipe, arguments.on, sets, references, arguments.target_set)
    parents = {name: _look_up(arguments.runs, name, reference, plan) for name, reference in plan.parents.items()}
    job = shown_command(work_of_stage(plan.kind, plan.target, plan.processes), "RUN_DIR", plan.target)
    size = model_size(plan, parents)
    predicted = predict(plan, parents, arguments.runs)
    offers = rented(plan, parents, price_called(arguments.priced_as) if arguments.priced_as else None)
    shown = _shown_by_stage(plan)
    console.say(f"# {plan.stage}/{plan.name}, from {plan.recipe}\n{dump(plan.config)}")
    console.say(f"# target {arguments.on}, settled for this machine\n{dump(plan.target)}")
    alone = "one process" if plan.processes == 1 else "one process a host"
    layout = plan.layout.describe() if plan.layout else alone
    ranks = "1 rank" if plan.processes == 1 else f"{plan.processes} ranks"
    console.say(f"Layout:     {layout}: {ranks}, {plan.target.threads_per_process} thread(s) each")
    for line in [*size_lines(size), *prediction_lines(predicted), *warning_lines(predicted)]:
        console.say(line)
    for name, run in parents.items():
        found = str(run.path) if isinstance(run, RunDirectory) else f"not there yet ({run.found})"
        console.say(f"Parent:     {name} ({plan.parents[name]}): {found}")
    words = [f"{key}={value}" for key, value in job.environment.items()]
    console.say(f"Command:    {' '.join(words)} {shlex.join(job.command)}")
    for title, data in shown.items():
        console.say(f"\n{title}:\n{json.dumps(data, indent=1)}")
    for line in offer_lines(offers):
        console.say(line)
    console.say("Nothing was touched. RUN_DIR is made when it runs: slipway run " + arguments.recipe)
    told = _as_data(plan, list(job.command), job.environment, size, parents)
    return Answer(0, told | {"predicted": predicted, "rented": offers, "shown": shown})


def model_size(plan: Plan, parents: Parents) -> dict[str, Any]:
    """Parameters and FLOPs per token of a stage that works on a model; empty for other stages."""
    try:
        shape, source = find_model(plan, parents)
    except UnknownModel:
        return {}
    convention = str((plan.config.get("logging") or {}).get("flops_convention", DEFAULT_CONVENTION))
    return {
        "parameters_non_embedding": non_embedding_parameters(shape),
        "vocab": shape.vocab,
        "parameters": parameter_count(shape),
        "source": source,
        "flops_convention": convention,
        "flops_per_token": flops_per_token(convention, shape),
    }


def size_lines(size: dict[str, Any]) -> list[str]:
    """The size in words."""
    if not size:
        return []
    body = format_count(size["parameters_non_embedding"])
    convention = CONVENTIONS[size["flops_convention"]]
    return [
        f"Parameters: {format_count(size['parameters'])}, {body} without embeddings (vocabulary {size['vocab']})",
        f"FLOPs:      {format_count(size['flops_per_token'])} a token, forward and backward, by convention "
        f"{size['flops_convention']}: {convention.words} ({convention.source})",
    ]


def _look_up(root: Path, name: str, reference: str, plan: Plan) -> RunDirectory | UserError:
    try:
        return find_parent(root, name, reference, plan.recipe)
    except UserError as error:
        return error


def _shown_by_stage(plan: Plan) -> dict[str, Any]:
    """What a stage adds to its plan, such as the JSON of its engine: title -> data."""
    module = import_module(plan.kind.config.partition(":")[0])
    show = getattr(module, "shown_with_plan", None)
    return show(plan.config, plan.target.device) if show else {}


def _as_data(
    plan: Plan,
    command: list[str],
    environment: dict[str, str],
    size: dict[str, Any],
    parents: dict[str, RunDirectory | UserError],
) -> dict[str, Any]:
    return {
        "recipe": plan.recipe,
        "stage": plan.stage,
        "name": plan.name,
        "config": plan.config,
        "target": plan.target.model_dump(mode="json"),
        "layout": plan.layout.model_dump(mode="json") if plan.layout else None,
        "processes": plan.processes,
        "command": command,
        "environment": environment,
        "parents": {
            name: {
                "reference": plan.parents[name],
                "run_id": run.id if isinstance(run, RunDirectory) else None,
            }
            for name, run in parents.items()
        },
        "model": size,
    }
