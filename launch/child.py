"""Starts a process of recipes/ for a verb that needs torch, and reads its result; launch itself never imports torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from kit.errors import RunFailure, SlipwayError, UserError
from launch.console import Console
from launch.supervise import INTERRUPTED

STDERR = 2


class Told(NamedTuple):
    """What a process told, and the exit code for it."""

    exit_code: int
    result: dict[str, Any]


def run_module(module: str, words: Sequence[str], console: Console, what: str) -> Told:
    """Runs `python -m MODULE WORDS` on our terminal; its result comes through a pipe of its own.

    Args:
        module: A module of recipes/ that takes --result-fd (see recipes/result.py).
        words: Its arguments.
        console: With --json its standard output goes to standard error.
        what: The process in words, for the error: "the conversation".

    Raises:
        SlipwayError: What the process failed with, or that it ended without a word.
    """
    read, write = os.pipe()
    interrupted = False
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", module, *words, "--result-fd", str(write)],
        stdout=STDERR if console.as_json else None,
        pass_fds=(write,),
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
    if not text and not interrupted:
        raise SlipwayError(
            f"the process of {what} ended with code {code} and no result",
            expected=f"{what} to end by itself",
            action="see its words above; memory is the usual reason",
        )
    result: dict[str, Any] = json.loads(text) if text else {"exit_code": INTERRUPTED}
    if "error" in result:
        kind = UserError if result["exit_code"] == UserError.exit_code else RunFailure
        raise kind(result["error"]["found"], expected=result["error"]["expected"], action=result["error"]["action"])
    told = int(result.pop("exit_code"))
    return Told(INTERRUPTED if interrupted else told, result)


def _ended(process: subprocess.Popen[bytes], pipe: TextIO) -> str:
    """Asks the process to end and returns its result; a second Ctrl-C kills it."""
    try:
        process.send_signal(signal.SIGINT)
        return pipe.read()
    except KeyboardInterrupt:
        process.kill()
        raise
