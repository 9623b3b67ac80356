"""`slipway scale`: the same work on more and more ranks, and how efficient that is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kit.config import parse
from kit.errors import UserError
from launch.chain import start_study
from launch.console import Console
from launch.study import StudyConfig
from launch.verbs.arguments import Answer, parent_references

HELP = "measure how training scales: every point several times, in turn, with a report"
EXAMPLES = """examples:
  slipway scale pretrain/scaling --ranks 1,2
  slipway scale pretrain/scaling --on cluster.yaml --ranks 1,2,4,8 --split data,tensor --mode strong,weak
  slipway scale pretrain/scaling zero/tiny --on slow-link.yaml --on fast-link.yaml --ranks 1,2 --steps 30
  slipway scale pretrain/scaling --ranks 1,2 --wandb offline

strong: the same global batch on every number of ranks; weak: the same batch per rank. A recipe of stage zero is
divided over its data axis alone. A study that was interrupted goes on with `slipway resume`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="recipes of stage pretrain or zero")
    parser.add_argument("--on", action="append", metavar="TARGET", help="target; several, to compare links")
    parser.add_argument("--ranks", type=_numbers, default=[1, 2], metavar="1,2,4", help="numbers of ranks")
    parser.add_argument("--mode", type=_words, default=["strong"], metavar="strong,weak", help="what stays the same")
    parser.add_argument(
        "--split",
        type=_words,
        default=["data", "tensor", "pipeline"],
        metavar="data,tensor",
        help="axes, one at a time",
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how often each point is measured (3)")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps of a run; the recipe's unless given")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change a key of every recipe")
    parser.add_argument(
        "--parent", action="append", default=[], metavar="NAME=RUN", help="the run that a parent is taken from"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what earlier studies have measured")
    parser.add_argument("--wandb", choices=("offline", "online"), help="also as a group of Weights & Biases runs")
    parser.add_argument("--wandb-project", default="slipway", metavar="NAME", help="where that group goes (slipway)")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Measure every point, then report."""
    request = {
        "recipes": arguments.recipes,
        "targets": arguments.on or ["laptop"],
        "ranks": arguments.ranks,
        "modes": arguments.mode,
        "splits": arguments.split,
        "repeats": arguments.repeats,
        "steps": arguments.steps,
        "sets": arguments.set,
        "parents": parent_references(arguments),
    }
    config = parse(StudyConfig, request, "slipway scale")
    command = ["slipway", *sys.argv[1:]] if sys.argv[1:2] == ["scale"] else ["slipway", "scale", *arguments.recipes]
    code, data = start_study(config, arguments.runs, arguments.fresh, command, console, arguments.debug)
    if arguments.wandb and code == 0:
        from reports.wandb_study import log_study  # wandb is slow to import, and most studies don't go there

        data["wandb_runs"] = log_study(Path(data["path"]), arguments.wandb_project, arguments.wandb, console.say)
    return Answer(code, data)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise UserError(
            f"--ranks {text!r}", expected="numbers with commas, such as 1,2,4", action="mend the argument"
        ) from None
