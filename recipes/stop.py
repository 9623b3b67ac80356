"""Stopping on request: a signal sets a flag, the stage looks at it between steps."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(Exception):
    """A stage ended early because it was asked to; everything it did is kept and it can go on later."""


class StopFlag:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """From now on SIGTERM sets the flag instead of ending the process."""
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


STOP = StopFlag()
"""The process's flag: signals belong to processes, so there is exactly one."""
