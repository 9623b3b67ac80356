"""`slipway plan`: what a run would be, without touching anything."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from kit.config import dump
from kit.errors import UserError
from kit.flops import (
    CONVENTIONS,
    DEFAULT_CONVENTION,
    ModelShape,
    flops_per_token,
    non_embedding_parameters,
    parameter_count,
)
from kit.run.directory import RunDirectory
from kit.tokens.card import CARD_NAME, read_card
from kit.units import format_count
from launch.console import Console
from launch.origin import find_parent
from launch.plan import Plan, make_job, make_plan
from launch.verbs.arguments import Answer, add_recipe_arguments, parent_references

HELP = "show the configuration, layout, size and commands of a run; touches nothing"
EXAMPLES = """examples:
  slipway plan pretrain/demo
  slipway plan pretrain/demo --set layout.tensor=1 --set layout.data=2
  slipway plan my/recipe.yaml --on my/target.yaml --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_recipe_arguments(parser)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Print the plan."""
    plan = make_plan(arguments.recipe, arguments.on, arguments.set, parent_references(arguments), arguments.target_set)
    parents = {name: _look_up(arguments.runs, name, reference, plan) for name, reference in plan.parents.items()}
    job = make_job(plan.kind, Path("RUN_DIR"), plan.target, plan.processes)
    size = model_size(plan, _vocabulary(parents))
    console.say(f"# {plan.stage}/{plan.name}, from {plan.recipe}\n{dump(plan.config)}")
    console.say(f"# target {arguments.on}, settled for this machine\n{dump(plan.target)}")
    layout = plan.layout.describe() if plan.layout else "one process"
    ranks = "1 rank" if plan.processes == 1 else f"{plan.processes} ranks"
    console.say(f"Layout:     {layout}: {ranks}, {plan.target.threads_per_process} thread(s) each")
    for line in size_lines(size):
        console.say(line)
    for name, run in parents.items():
        found = str(run.path) if isinstance(run, RunDirectory) else f"not there yet ({run.found})"
        console.say(f"Parent:     {name} ({plan.parents[name]}): {found}")
    words = [f"{key}={value}" for key, value in job.environment.items()]
    console.say(f"Command:    {' '.join(words)} {shlex.join(job.command)}")
    console.say("Nothing was touched. RUN_DIR is made when it runs: slipway run " + arguments.recipe)
    return Answer(0, _as_data(plan, list(job.command), job.environment, size, parents))


def model_size(plan: Plan, vocabulary: int | None) -> dict[str, Any]:
    """Parameters and FLOPs per token of a model recipe; empty for other stages."""
    model, data = plan.config.get("model"), plan.config.get("data")
    if not isinstance(model, dict) or not isinstance(data, dict) or "sequence_length" not in data:
        return {}
    known = model.get("vocab") or vocabulary
    heads = int(model["heads"])
    shape = ModelShape(
        layers=int(model["layers"]),
        hidden=int(model["hidden"]),
        heads=heads,
        kv_heads=int(model["kv_heads"]),
        ffn=int(model["ffn"]),
        head_dim=int(model["hidden"]) // heads,
        vocab=known or 1,
        sequence_length=int(data["sequence_length"]),
        tied=bool(model.get("tied", False)),
    )
    size: dict[str, Any] = {"parameters_non_embedding": non_embedding_parameters(shape), "vocab": known}
    if known:
        convention = str((plan.config.get("logging") or {}).get("flops_convention", DEFAULT_CONVENTION))
        size |= {
            "parameters": parameter_count(shape),
            "flops_convention": convention,
            "flops_per_token": flops_per_token(convention, shape),
        }
    return size


def size_lines(size: dict[str, Any]) -> list[str]:
    """The size in words."""
    if not size:
        return []
    body = format_count(size["parameters_non_embedding"])
    if "parameters" not in size:
        return [f"Parameters: {body} without embeddings; the rest depends on the vocabulary, which the data will bring"]
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


def _vocabulary(parents: dict[str, RunDirectory | UserError]) -> int | None:
    for run in parents.values():
        if isinstance(run, RunDirectory) and (run.artifacts / CARD_NAME).is_file():
            return read_card(run.artifacts / CARD_NAME).tokenizer.vocab_size
    return None


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
