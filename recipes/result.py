"""How a process that a verb of `slipway` has started tells its result: JSON through a pipe of its own. Torch-free."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from kit.errors import SlipwayError

INTERRUPTED = 130


def give_result(result_fd: int | None, result: Mapping[str, Any], error: SlipwayError | None, code: int) -> None:
    """Writes the result, or the error; without a pipe the error goes to standard error."""
    if result_fd is None:
        if error is not None:
            print(error, file=sys.stderr, flush=True)
        return
    told: dict[str, Any] = {**result, "exit_code": code}
    if error is not None:
        told["error"] = error.parts()
    with os.fdopen(result_fd, "w", encoding="utf-8") as pipe:
        json.dump(told, pipe)


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """The terminal and the verb may both say so; the second mustn't disturb the end that has begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
