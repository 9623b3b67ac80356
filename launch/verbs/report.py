"""`slipway report`: build the report of a run or chain again."""

from __future__ import annotations

import argparse

from launch.console import Console
from launch.reporting import build_report
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "build the report of a run or chain, and print where it is"
EXAMPLES = """examples:
  slipway report --last
  slipway report --last --json
  slipway report 20260101-120000-pretrain-demo-1a2b"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Build the report; with --json print its summary."""
    run = chosen_run(arguments)
    summary = build_report(run)
    console.say(f"Report: {run.report / 'report.html'}")
    return Answer(0, summary)
