"""`slipway chain`: several stages in order; what is done already is not done again."""

from __future__ import annotations

import argparse

from launch.chain import start_chain
from launch.console import Console
from launch.verbs.arguments import Answer

HELP = "run a chain of stages; finished runs with the same inputs are used again"
EXAMPLES = """examples:
  slipway chain demo
  slipway chain demo --set pretrain.budget.steps=100
  slipway chain demo --set 'data.input.paths=["crawl/"]'
  slipway chain demo --fresh"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("chain", metavar="CHAIN", help="a short name such as demo, or the path of a YAML file")
    parser.add_argument("--on", default="laptop", metavar="TARGET", help="target: a name or a path (default: laptop)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="stage.a.b=c", help="change a key of a stage's recipe"
    )
    parser.add_argument("--fresh", action="store_true", help="do every stage again, even where nothing changed")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Run the chain."""
    return Answer(
        *start_chain(
            arguments.chain, arguments.runs, arguments.on, arguments.set, arguments.fresh, console, arguments.debug
        )
    )
