"""`python -m recipes.export RUN_DIR --to DIR`: a run's model as a Hugging Face directory. `slipway export` does it."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import recipes.quiet  # noqa: F401  before anything imports torch
from kit.errors import RunFailure, SlipwayError
from kit.run.directory import RunDirectory
from kit.run.process import peak_resident_gib
from recipes.export.target import check_target
from recipes.result import INTERRUPTED, give_result, interrupt_once


def main(words: list[str] | None = None) -> int:
    """Exports, and compares if asked to; returns the exit code."""
    signal.signal(signal.SIGINT, interrupt_once)
    warnings.filterwarnings("ignore", module=r"megatron|torch")
    arguments = _parser().parse_args(words)
    result: dict[str, Any] = {}
    code, error = 0, None
    try:
        _export(arguments, result)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SlipwayError as failure:
        code, error = failure.exit_code, failure
    give_result(arguments.result_fd, result, error, code)
    return code


def _export(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Does it; what is known so far is in `result`, whatever happens next.

    Raises:
        UserError: If there is nothing to export, or something lies where it should go.
        RunFailure: If the disk is full, or the logits differ.
    """
    run = RunDirectory.open(arguments.run)
    check_target(arguments.to, force=arguments.force)
    # What comes from here on takes seconds to import.
    from recipes.export.source import find_exported, held_out
    from recipes.export.write import Form, write_exported

    exported = find_exported(run, arguments.step)
    dataset = held_out(run, exported.recipe) if arguments.verify else None
    began = time.monotonic()
    result |= write_exported(exported, run, arguments.to, Form(arguments.dtype, arguments.shard_gib))
    result |= {"seconds": time.monotonic() - began, "peak_memory_gib": peak_resident_gib()}
    result["left_out"] = list(exported.left_out)
    if dataset is None:
        return
    from recipes.export.verify import TOLERANCE, alone, held_out_tokens, largest_difference

    tokens = held_out_tokens(exported, dataset)
    difference = largest_difference(exported, arguments.to, arguments.dtype, tokens, alone())
    result |= {"max_logit_difference": difference, "tolerance": TOLERANCE}
    if not difference <= TOLERANCE:
        raise RunFailure(
            f"{arguments.to}: logits differ from the training model's by up to {difference:.3g}",
            expected=f"at most {TOLERANCE:g}",
            action="don't use this export: report it with the run's config.yaml",
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--step", type=int)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--shard-gib", type=float, default=4.0)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--result-fd", type=int, help="where the result goes as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
