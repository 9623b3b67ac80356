"""`slipway attach`: watch a run that was started in another terminal, or by a laptop that has gone since."""

from __future__ import annotations

import argparse

from launch.console import Console
from launch.supervise import attach, result_of
from launch.verbs.arguments import Answer, add_run_argument, chosen_run, with_processes

HELP = "watch a run that runs already, to its end; Ctrl-C stops it cleanly"
EXAMPLES = """examples:
  slipway attach --last
  slipway attach 20260101-120000-pretrain-demo-1a2b"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Watch the run."""
    run = with_processes(chosen_run(arguments))
    code = attach(run, console, debug=arguments.debug)
    return Answer(code, result_of(run, code))
