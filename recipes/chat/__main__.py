"""`python -m recipes.chat MODEL_DIR`: a conversation with a model; `slipway chat RUN` starts it.

Every line of standard input is a message; answers go to standard output as they come, remarks to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recipes.quiet  # noqa: F401  before anything imports torch
from kit.errors import SlipwayError
from recipes.result import INTERRUPTED, give_result, interrupt_once

if TYPE_CHECKING:
    from recipes.chat.dialogue import Dialogue

PROMPT = "> "


def main(words: list[str] | None = None) -> int:
    """Talks until the input ends; returns the exit code."""
    signal.signal(signal.SIGINT, interrupt_once)
    arguments = _parser().parse_args(words)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    turns: list[dict[str, Any]] = []
    code, error = 0, None
    try:
        code = _talk(arguments, turns)
    except KeyboardInterrupt:
        print(file=sys.stdout, flush=True)
        code = INTERRUPTED
    except SlipwayError as failure:
        code, error = failure.exit_code, failure
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    give_result(arguments.result_fd, {"turns": turns}, error, code)
    return code


def _talk(arguments: argparse.Namespace, turns: list[dict[str, Any]]) -> int:
    """The conversation; every finished turn is added to `turns`. A message that doesn't fit is no end of it."""
    dialogue = _open(arguments)
    interactive = sys.stdin.isatty()
    if not dialogue.format.chat:
        _remark("This model has no chat template: it continues each line as a text of its own.")
    if interactive:
        _remark("Write a message; Ctrl-D ends.")
    code = 0
    for line in _lines(interactive):
        try:
            _answer(dialogue, line)
        except SlipwayError as error:
            _remark(str(error))
            code = error.exit_code
        finally:
            turns[:] = [turn.record() for turn in dialogue.turns]
    return 0 if interactive else code


def _open(arguments: argparse.Namespace) -> Dialogue:
    from transformers.utils.logging import disable_progress_bar

    from kit.target import Target
    from recipes.chat.dialogue import Decoding, Dialogue
    from recipes.chat.generation import load_model
    from recipes.distributed.processes import choose_device

    disable_progress_bar()
    model, tokenizer = load_model(arguments.model, choose_device(Target(), 0))
    decoding = Decoding(arguments.temperature, arguments.top_k, arguments.new_tokens, arguments.seed)
    return Dialogue(model, tokenizer, decoding, arguments.system)


def _answer(dialogue: Dialogue, line: str) -> None:
    pieces = dialogue.ask(line)
    with contextlib.closing(pieces):  # an interrupted answer is kept as far as it came
        for number, piece in enumerate(pieces):
            if number == 0 and dialogue.forgotten:
                turns = "turn is" if dialogue.forgotten == 1 else f"{dialogue.forgotten} turns are"
                _remark(f"(The context is full: the oldest {turns} forgotten.)")
            sys.stdout.write(piece)
            sys.stdout.flush()
    print(flush=True)


def _lines(interactive: bool) -> Iterator[str]:
    """The messages: lines that hold more than spaces."""
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - line editing and history for input()
    while True:
        try:
            line = input(PROMPT) if interactive else sys.stdin.readline()
        except EOFError:
            print(flush=True)
            return
        if not interactive and not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.chat", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="a Hugging Face directory")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--system", default="")
    parser.add_argument("--result-fd", type=int, help="where the turns go as JSON when the conversation has ended")
    return parser


if __name__ == "__main__":
    sys.exit(main())
