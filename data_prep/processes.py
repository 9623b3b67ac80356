"""Small facts about processes: dying with one's parent, and the polite request to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


class StopRequest(BaseException):
    """Somebody asked this process to stop (SIGTERM); what is finished stays and the run can go on later.

    Not an Exception, so that no `except Exception` on the way takes it for an error.
    """


def listen_for_stop() -> None:
    """From now on SIGTERM raises StopRequest where the main thread stands. A second one changes nothing."""
    signal.signal(signal.SIGTERM, _raise_stop)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StopRequest


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent goes, however it goes (Linux; elsewhere nothing happens)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone before the call
        os._exit(1)
