"""Arguments that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.run.directory import RunDirectory, find_run
from launch.ranks import sets_with_ranks


@dataclass(frozen=True)
class Answer:
    """What a verb ends with: the exit code, and the object that --json prints."""

    exit_code: int = 0
    data: dict[str, Any] = field(default_factory=dict)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that every verb takes."""
    group = parser.add_argument_group("options of every verb")
    group.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    group.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")


def add_run_argument(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """A RUN, or --last."""
    optional = "" if required else "; left out: all runs"
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help=f"run id, its beginning, a path, `last`, or `last:<stage>` (newest finished){optional}",
    )
    parser.add_argument("--last", action="store_true", help="the newest chain, or else the newest run")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """A RECIPE and what changes it."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a short name such as pretrain/demo, or the path of a YAML file"
    )
    parser.add_argument("--on", default="laptop", metavar="TARGET", help="target: a name or a path (default: laptop)")
    add_change_arguments(parser)
    parser.add_argument(
        "--ranks", type=int, metavar="N", help="the recipe's layout for N ranks, where it lists several"
    )
    parser.add_argument(
        "--parent", action="append", default=[], metavar="NAME=RUN", help="the run that a parent is taken from"
    )


def add_change_arguments(parser: argparse.ArgumentParser) -> None:
    """What changes a recipe and a target."""
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change a key of the recipe")
    parser.add_argument("--target-set", action="append", default=[], metavar="a=b", help="change a key of the target")


def recipe_sets(arguments: argparse.Namespace) -> list[str]:
    """What --ranks and --set change in the recipe, in that order.

    Raises:
        UserError: the recipe has no layout for so many ranks.
    """
    return sets_with_ranks(arguments.recipe, arguments.ranks, arguments.set)


def chosen_run(arguments: argparse.Namespace) -> RunDirectory:
    """The run that RUN or --last names.

    Raises:
        UserError: neither or both are given, or nothing fits.
    """
    if bool(arguments.run) == bool(arguments.last):
        raise UserError(
            "both RUN and --last" if arguments.last else "no RUN",
            expected="a run id, its beginning, a path, or --last",
            action="see the runs with `slipway status`",
        )
    return find_run(arguments.runs, arguments.run or "last")


def with_processes(run: RunDirectory) -> RunDirectory:
    """For a chain the run of its last stage, which is the one that runs, failed, or finished last."""
    manifest = run.manifest()
    if manifest.stage != "chain" or not manifest.stages:
        return run
    return RunDirectory.open(Path(manifest.stages[-1].path))


def parent_references(arguments: argparse.Namespace) -> dict[str, str]:
    """--parent NAME=RUN as a mapping.

    Raises:
        UserError: there is no `=`.
    """
    references = {}
    for text in arguments.parent:
        name, equals, reference = text.partition("=")
        if not (name and equals and reference):
            raise UserError(f"--parent {text!r}", expected="--parent NAME=RUN", action="mend the argument")
        references[name] = reference
    return references
