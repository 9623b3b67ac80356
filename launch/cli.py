"""The `slipway` command: finds the verb, and turns every error into three lines and an exit code."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NoReturn

from kit.errors import SlipwayError, UserError
from kit.files import disk_full_as_failure
from launch.console import Console
from launch.supervise import INTERRUPTED
from launch.verbs import arguments as shared
from launch.verbs import (
    attach,
    chain,
    chat,
    check,
    doctor,
    down,
    export,
    fetch,
    logs,
    plan,
    report,
    resume,
    run,
    scale,
    status,
    stop,
    up,
)

VERBS: dict[str, ModuleType] = {
    "plan": plan,
    "run": run,
    "chain": chain,
    "status": status,
    "attach": attach,
    "logs": logs,
    "stop": stop,
    "resume": resume,
    "fetch": fetch,
    "scale": scale,
    "report": report,
    "doctor": doctor,
    "check": check,
    "up": up,
    "down": down,
    "chat": chat,
    "export": export,
}
DESCRIPTION = "From raw crawl records to a trained language model, and a report of what it took."
EPILOG = """examples:
  slipway chain demo                        the whole main job, as `make demo` runs it
  slipway plan pretrain/demo                what a run would be; touches nothing
  slipway run pretrain/demo --with-parents  one stage, and what it needs
  slipway status                            all runs under ./runs
  slipway report --last --json              the numbers of the newest chain

exit codes: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C.
`slipway VERB --help` shows a verb's options and examples."""


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in our three parts."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise UserError(message, expected=self.format_usage().strip(), action=f"see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="slipway", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, module in VERBS.items():
        verb = verbs.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EXAMPLES,
            formatter_class=raw,
        )
        module.add_arguments(verb)
        shared.add_common(verb)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        0 done, 1 failed, 2 the user's error, 130 stopped by Ctrl-C.
    """
    words = list(sys.argv[1:] if words is None else words)
    console = Console(as_json="--json" in words)
    try:
        arguments = build_parser().parse_args(words)
        # Said aloud, because a shell script starts its background commands with Ctrl-C ignored.
        signal.signal(signal.SIGINT, _as_interrupt)
        signal.signal(signal.SIGTERM, _as_interrupt)
        # The last resort: what writes our own small files names the file itself.
        with disk_full_as_failure(arguments.runs):
            answer = VERBS[arguments.verb].execute(arguments, console)
        console.result(answer.data)
        return int(answer.exit_code)
    except SlipwayError as error:
        return _report_error(error, console, debug="--debug" in words)
    except KeyboardInterrupt:
        console.end_live()
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report_error(_unexpected(error), console, debug="--debug" in words)


def _report_error(error: SlipwayError, console: Console, debug: bool) -> int:
    console.end_live()
    if debug:
        traceback.print_exc()
    print(error, file=sys.stderr)
    if console.as_json:
        print(json.dumps({"error": error.parts(), "exit_code": error.exit_code}, ensure_ascii=False), flush=True)
    return error.exit_code


def _unexpected(error: Exception) -> SlipwayError:
    return SlipwayError(
        f"{type(error).__name__}: {error}",
        expected="no error here: this one is a fault of Slipway, or of the machine",
        action="run it again with --debug and report what it prints",
    )


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C, and any other polite request to end: the run is stopped cleanly."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
