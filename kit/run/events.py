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
    """Appends one event as one JSON line; safe for several processes at once.

    Raises:
        RunFailure: If the disk is full.
    """
    line = json.dumps({"time": now(), "event": kind, **details}, ensure_ascii=False) + "\n"
    with disk_full_as_failure(run.events_path):
        handle = os.open(run.events_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def read_events(run: RunDirectory) -> list[dict[str, Any]]:
    """Returns the events so far; a last line that was cut off is left out."""
    if not run.events_path.exists():
        return []
    events = []
    for line in run.events_path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
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
