"""The live line of a run: what it does, how far it is, how fast, and how long it will still take."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kit.run.directory import RunDirectory
from kit.run.events import RunState, read_events
from kit.units import format_bytes, format_count, format_duration
from launch.console import Console

REDRAW_SECONDS = 0.5
RATE_STEPS = 20  # the ETA follows the last steps, so that it forgets the slow first ones
STOPPING = "stopping"
STATES = frozenset(str(state) for state in RunState) | {"started", "checkpointed", "stop_requested"}


class Tail:
    """Reads the JSON lines that were added to a file since the last look; a line that is not whole yet waits."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def read(self) -> list[dict[str, Any]]:
        """The new lines."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        records = []
        for line in whole.decode("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records


class Progress:
    """Watches a run's files and keeps one line about it on a console."""

    def __init__(self, run: RunDirectory, console: Console) -> None:
        self._console = console
        self._label = label(run)
        self._total = total_steps(run.config(), read_events(run))
        self._events = Tail(run.events_path, from_end=True)  # an earlier attempt is no news
        self._metrics = Tail(run.metrics_path, from_end=True)
        self._records: list[dict[str, Any]] = []
        self._doing = "starting"
        self._began = time.monotonic()
        self._drawn = float("-inf")

    def poll(self) -> None:
        """Look at the files and redraw, at most twice a second."""
        if time.monotonic() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        for event in self._events.read():
            self._doing = describe_event(event) or self._doing
            self._total = steps_in(event) or self._total
        self._records = (self._records + self._metrics.read())[-RATE_STEPS:]
        self._console.live(self.line())

    def line(self) -> str:
        """The line as it is now."""
        elapsed = format_duration(time.monotonic() - self._began)
        parts = step_parts(self._records, self._total)
        if not parts or self._finished_steps():
            return "  ".join([self._label, *parts[:1], self._doing, elapsed])
        return "  ".join([self._label, *parts[:-1], self._doing] if self._doing == STOPPING else [self._label, *parts])

    def _finished_steps(self) -> bool:
        return self._total is not None and bool(self._records) and int(self._records[-1]["step"]) >= self._total


def label(run: RunDirectory) -> str:
    """How a run is called in a line: `pretrain/demo`."""
    manifest = run.manifest()
    return f"{manifest.stage}/{manifest.name}"


def total_steps(config: dict[str, Any], events: Iterable[dict[str, Any]] = ()) -> int | None:
    """How many steps a run does: what it said itself when it began to train, or else what its configuration asks for.

    None for stages without steps, and for a budget in tokens before training has begun.
    """
    told = [steps for event in events if (steps := steps_in(event))]
    budget = config.get("budget")
    steps = budget.get("steps") if isinstance(budget, dict) else None
    return told[-1] if told else steps if isinstance(steps, int) else None


def steps_in(event: dict[str, Any]) -> int | None:
    """How many steps a run says that it does, if this is the event that says it."""
    steps = event.get("steps") if event.get("event") == "training_began" else None
    return steps if isinstance(steps, int) else None


def step_parts(records: list[dict[str, Any]], total: int | None) -> list[str]:
    """Step, loss, speed and time left, as far as the last records tell them."""
    if not records or "step" not in records[-1]:
        return []
    last = records[-1]
    parts = [f"step {last['step']}/{total}" if total else f"step {last['step']}"]
    losses = [record["loss"] for record in records if isinstance(record.get("loss"), int | float)]
    if losses:
        parts.append(f"loss {losses[-1]:.4f}")
    rates = [record["tokens_per_second"] for record in records if record.get("tokens_per_second")]
    if rates:
        parts.append(f"{format_count(rates[-1])} tokens/s")
    seconds = [record["step_seconds"] for record in records if record.get("step_seconds")]
    if seconds and total:
        left = (total - int(last["step"])) * sum(seconds) / len(seconds)
        parts.append(f"ETA {format_duration(left)}")
    return parts


def describe_event(event: dict[str, Any]) -> str | None:
    """An event in a few words: what a stage says it does now. None for those that only change the state."""
    kind = str(event.get("event", ""))
    if kind in STATES:
        words = {
            "started": "running",
            "restarting": "restarting",
            "preparing": "preparing",
            "stop_requested": STOPPING,
        }
        return words.get(kind)
    parts = [str(event[key]) for key in ("block", "name", "phase", "stage") if event.get(key)]
    if kind == "progress":
        return " ".join([*parts, f"{event.get('done')}/{event.get('total')}"])
    if "documents_in" in event and "documents_out" in event:
        parts.append(f"{event['documents_in']} -> {event['documents_out']} documents")
    if isinstance(event.get("bytes_out"), int):
        parts.append(format_bytes(event["bytes_out"]))
    return " ".join([kind.replace("_", " "), *parts])
