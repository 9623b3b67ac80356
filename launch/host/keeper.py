"""The first process of a container that a host's agent and ranks live in: it ends the container when nobody needs it.

The agent and the ranks enter the container one by one, and must see each other's processes. So the container outlives
each of them, and this process, which does nothing, outlives them all by a few seconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

IDLE_SECONDS = 15.0
LOCK = "lock"
WANTED = "wanted"


def keep(folder: Path, idle_seconds: float = IDLE_SECONDS) -> int:
    """Return when nothing else has run in this pid namespace for a while, and nobody has come by.

    Args:
        folder: Its file `wanted` is touched by everybody who is about to enter, under the lock that lies beside it; it
            is removed when this container lets nobody in any more.
        idle_seconds: How long is a while.
    """
    signal.signal(signal.SIGTERM, _leave)  # a first process hears no signal that it has no handler for
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the system
    alone_since = time.monotonic()
    while True:
        time.sleep(min(1.0, idle_seconds / 4))
        if _others():
            alone_since = time.monotonic()
        elif time.monotonic() - alone_since > idle_seconds and _close(folder, idle_seconds):
            return 0


def _close(folder: Path, idle_seconds: float) -> bool:
    """Let nobody in any more, unless somebody is on the way. The lock lasts until this process ends."""
    lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    wanted = folder / WANTED
    if _others() or (wanted.exists() and time.time() - wanted.stat().st_mtime < idle_seconds):
        os.close(lock)
        return False
    wanted.unlink(missing_ok=True)
    return True


def _others() -> bool:
    """Whether a process other than this one and its children's remains is here."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
