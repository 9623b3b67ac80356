"""What happened to a run, in order: an append-only file. The state is a fold over it and is never stored."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from kit.files import disk_full_as_failure
from kit.run.directory import RunDirectory


class RunState(StrEnum):
    """Where a run stands."""

    SUBMITTED = "submitted"
    PREPARING = "preparing"
    RUNNING = "running"
    RESTARTING = "restarting"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


_STATE_AFTER = {
    "submitted": RunState.SUBMITTED,
    "preparing": RunState.PREPARING,
    "started": RunState.RUNNING,
    "restarting": RunState.RESTARTING,
    "failed": RunState.FAILED,
    "stopped": RunState.STOPPED,
    "finished": RunState.FINISHED,
}


def append_event(run: RunDirectory, kind: str, **details: Any) -> None:
    """Appends one event as one JSON line, in one write; safe for several processes at once.

    Raises:
        RunFailure: If the disk is full.
    """
    line = json.dumps({"time": now(), "event": kind, **details}, ensure_ascii=False).encode() + b"\n"
    with disk_full_as_failure(run.events_path):
        handle = os.open(run.events_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                # The last writer was cut off in the middle of a line: keep its rest from swallowing this event.
                # (Where another process is just writing, this makes an empty line, which readers skip.)
                line = b"\n" + line
            while line:
                # A disk that is nearly full takes a part of the line; only the next write says so.
                line = line[os.write(handle, line) :]
        finally:
            os.close(handle)


def read_events(run: RunDirectory) -> list[dict[str, Any]]:
    """Returns the events so far; a line that was cut off is left out."""
    if not run.events_path.exists():
        return []
    events = []
    # Bytes, and split at line feeds only: a cut can go through a character, and a text may hold a U+2028.
    for line in run.events_path.read_bytes().split(b"\n"):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def state_of(run: RunDirectory) -> RunState:
    """Returns the state after the last event that changes it."""
    for event in reversed(read_events(run)):
        if event["event"] in _STATE_AFTER:
            return _STATE_AFTER[event["event"]]
    return RunState.SUBMITTED


def now() -> str:
    """Returns the time in UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
