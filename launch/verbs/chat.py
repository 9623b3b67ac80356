"""`slipway chat`: talk with a model that a run has made."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import state_of
from launch.child import run_module
from launch.console import Console
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "talk with a model, line by line"
EXAMPLES = """examples:
  slipway chat last:rlhf
  echo "What does HTTP status 404 mean?" | slipway chat last:rlhf
  slipway chat path/to/huggingface/model --temperature 0.8 --top-k 50
  cat questions.txt | slipway chat last:sft --json"""


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
    words = [str(model)]
    for name in ("temperature", "top_k", "new_tokens", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    words.append(f"--system={arguments.system}")
    code, result = run_module("recipes.chat", words, console, "the conversation")
    return Answer(code, {"run": run.id if run else None, "model": str(model), "turns": result.get("turns", [])})


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
    stages = [run] if run.manifest().stage != "chain" else stages_of(run)
    for stage in reversed(stages):
        if (stage.artifacts / "model" / "config.json").is_file():
            return stage, stage.artifacts / "model"
    raise UserError(
        f"{run.id}: stage {run.manifest().stage}, {state_of(run).value}, without artifacts/model",
        expected="a finished run of a stage that exports a model: pretrain, zero, sft, rlhf",
        action="choose one with `slipway status`, or say for example last:sft",
    )


def stages_of(chain: RunDirectory) -> list[RunDirectory]:
    """The runs of a chain's stages, in order, without those that only measure."""
    return [RunDirectory(Path(stage.path)) for stage in chain.manifest().stages if stage.role is None]


def _check(arguments: argparse.Namespace) -> None:
    lowest = {"temperature": 0, "top_k": 0, "new_tokens": 1, "seed": 0}
    for name, least in lowest.items():
        value = getattr(arguments, name)
        if not least <= value < float("inf"):
            raise UserError(
                f"--{name.replace('_', '-')} {value}", expected=f"a number from {least} up", action="mend the argument"
            )
