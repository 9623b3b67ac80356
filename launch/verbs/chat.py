"""`slipway chat`: talk with a model that a run has made."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

from kit.errors import RunFailure, SlipwayError, UserError
from kit.run.directory import RunDirectory
from kit.run.events import state_of
from launch.console import Console
from launch.supervise import INTERRUPTED
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "talk with a model, line by line"
EXAMPLES = """examples:
  slipway chat last:rlhf
  echo "What does HTTP status 404 mean?" | slipway chat last:rlhf
  slipway chat path/to/huggingface/model --temperature 0.8 --top-k 50
  cat questions.txt | slipway chat last:sft --json"""
STDERR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default: 0)"
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the likeliest K (default: 0, all)")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="longest answer (default: 64)")
    parser.add_argument("--seed", type=int, default=1234, metavar="N", help="of the draws (default: 1234)")
    parser.add_argument("--system", default="", metavar="TEXT", help="a system message before the conversation")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Start the conversation as a process of its own and wait for its end."""
    _check(arguments)
    run, model = find_model(arguments)
    command = [sys.executable, "-u", "-m", "recipes.chat", str(model)]
    for name in ("temperature", "top_k", "new_tokens", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    command.append(f"--system={arguments.system}")
    result, interrupted = _converse(command, console)
    if "error" in result:
        kind = UserError if result["exit_code"] == UserError.exit_code else RunFailure
        raise kind(result["error"]["found"], expected=result["error"]["expected"], action=result["error"]["action"])
    code = INTERRUPTED if interrupted else int(result["exit_code"])
    return Answer(code, {"run": run.id if run else None, "model": str(model), "turns": result["turns"]})


def find_model(arguments: argparse.Namespace) -> tuple[RunDirectory | None, Path]:
    """The run that was named and its model; for a chain its last stage with a model; or a model by its path.

    Raises:
        UserError: nothing fits, or the run has no model.
    """
    path = Path(arguments.run or "")
    if arguments.run and not arguments.last and path.is_dir() and not (path / "manifest.json").is_file():
        if not (path / "config.json").is_file():
            raise UserError(
                f"{path}: neither manifest.json nor config.json",
                expected="a run directory, or a Hugging Face model directory",
                action="mend the path, or name a run: `slipway chat last:rlhf`",
            )
        return None, path.resolve()
    run = chosen_run(arguments)
    stages = [run] if run.manifest().stage != "chain" else _stages(run)
    for stage in reversed(stages):
        if (stage.artifacts / "model" / "config.json").is_file():
            return stage, stage.artifacts / "model"
    raise UserError(
        f"{run.id}: stage {run.manifest().stage}, {state_of(run).value}, without artifacts/model",
        expected="a finished run of a stage that exports a model: pretrain, zero, sft, rlhf",
        action="choose one with `slipway status`, or say for example last:sft",
    )


def _stages(chain: RunDirectory) -> list[RunDirectory]:
    return [RunDirectory(Path(stage.path)) for stage in chain.manifest().stages if stage.role is None]


def _check(arguments: argparse.Namespace) -> None:
    lowest = {"temperature": 0, "top_k": 0, "new_tokens": 1, "seed": 0}
    for name, least in lowest.items():
        value = getattr(arguments, name)
        if not least <= value < float("inf"):
            raise UserError(
                f"--{name.replace('_', '-')} {value}", expected=f"a number from {least} up", action="mend the argument"
            )


def _ended(process: subprocess.Popen[bytes], pipe: TextIO) -> str:
    """Asks the process to end and returns its result; a second Ctrl-C kills it."""
    try:
        process.send_signal(signal.SIGINT)
        return pipe.read()
    except KeyboardInterrupt:
        process.kill()
        raise


def _converse(command: list[str], console: Console) -> tuple[dict[str, Any], bool]:
    """Runs the conversation on our terminal; its result comes through a pipe of its own.

    Returns:
        The result, and whether we were interrupted.
    """
    read, write = os.pipe()
    interrupted = False
    process = subprocess.Popen(
        [*command, "--result-fd", str(write)], stdout=STDERR if console.as_json else None, pass_fds=(write,)
    )
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        try:
            text = pipe.read()
        except KeyboardInterrupt:
            # From the terminal it went to the process too; from `kill` it did not. Hearing it twice does no harm.
            interrupted = True
            text = _ended(process, pipe)
    code = process.wait()
    if not text:
        if interrupted:
            return {"turns": [], "exit_code": INTERRUPTED}, True
        raise SlipwayError(
            f"the process of the conversation ended with code {code} and no result",
            expected="a conversation that ends by itself",
            action="see its words above; memory is the usual reason",
        )
    return dict(json.loads(text)), interrupted
