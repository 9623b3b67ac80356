"""`slipway export`: a model of a run as a Hugging Face directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.run.directory import RunDirectory
from launch.child import run_module
from launch.console import Console
from launch.verbs.arguments import Answer, add_run_argument, chosen_run
from launch.verbs.chat import stages_of

HELP = "write a checkpoint or a finished model as a Hugging Face directory"
EXAMPLES = """examples:
  slipway export last:pretrain --to my-model --verify
  slipway export last:pretrain --to half-way --step 500
  slipway export last:zero --to small-files --dtype bf16 --shard-gib 2 --json

exit codes: 0 done, 1 failed or the logits differ, 2 wrong input, 130 stopped by Ctrl-C."""
EXPORTED = ("pretrain", "zero")
DTYPES = ("fp32", "bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where; it must not be there yet")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="the checkpoint of this step (default: the finished model, or else the newest intact checkpoint)",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights on disk (default: fp32)")
    parser.add_argument(
        "--shard-gib", type=float, default=4.0, metavar="G", help="largest file of weights (default: 4)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare logits with the training model's on held-out text"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier export at DIR")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Start the export as a process of its own and wait for its end."""
    if not 0 < arguments.shard_gib < float("inf"):
        raise UserError(
            f"--shard-gib {arguments.shard_gib}", expected="a number above 0, in GiB", action="mend the argument"
        )
    words = [str(_run(arguments).path), "--to", str(arguments.to), "--dtype", arguments.dtype]
    words += ["--shard-gib", str(arguments.shard_gib)]
    words += ["--step", str(arguments.step)] if arguments.step is not None else []
    words += [f"--{name}" for name in ("verify", "force") if getattr(arguments, name)]
    code, result = run_module("recipes.export", words, console, "the export")
    for line in _lines(result):
        console.say(line)
    return Answer(code, result)


def _run(arguments: argparse.Namespace) -> RunDirectory:
    """The run that was named; of a chain the last one that trained a model from token shards."""
    run = chosen_run(arguments)
    if run.manifest().stage != "chain":
        return run
    fitting = [stage for stage in stages_of(run) if stage.manifest().stage in EXPORTED]
    if fitting:
        return fitting[-1]
    raise UserError(
        f"{run.id}: a chain without a stage {' or '.join(EXPORTED)}",
        expected="a run with checkpoints of a whole model",
        action="choose one with `slipway status`",
    )


def _lines(result: dict[str, Any]) -> list[str]:
    if "directory" not in result:
        return []
    lines = [f"warning: {words}: left out" for words in result.get("left_out", [])]
    files = len(result["files"])
    lines.append(
        f"Exported {result['source']} of {result['run']} to {result['directory']}: {result['dtype']}, "
        f"{result['bytes'] / 2**30:.2f} GiB in {files} file{'s' if files > 1 else ''}"
    )
    if "max_logit_difference" in result:
        lines.append(
            f"Largest difference of logits: {result['max_logit_difference']:.3g} (allowed: {result['tolerance']:g})"
        )
    return lines
