"""The run directory here, kept like the one where the job runs: every frame is appended exactly once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from kit.files import atomic_write

POSITIONS = "positions.json"
_FRAME = re.compile(rb"([a-z]+(?:-\d{5})?)@(\d+)([|~])(.*)", re.DOTALL)
_FILES = {"events": "events.jsonl", "metrics": "metrics.jsonl", "failures": "events.jsonl"}


class Mirror:
    """Appends the frames of a job's hosts to the local run directory.

    How far each host's files have been taken is kept in processes/positions.json, so that a second watcher, or a second
    look at the same stream, adds nothing twice.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._path = run / "processes" / POSITIONS
        kept = _read(self._path)
        self._positions: dict[str, dict[str, int]] = kept.get("positions", {})
        self._streams: dict[str, str] = kept.get("streams", {})
        self._files: dict[str, BinaryIO] = {}
        self._changed = False
        self.ended: dict[str, int | None] = {}

    def positions(self, host: str) -> dict[str, int]:
        """How far a host's files have been taken: name -> bytes."""
        return dict(self._positions.get(host, {}))

    def feed(self, host: str, line: bytes) -> None:
        """Take one line of a host's stream. What is not a frame is a word of the host's own and goes to its log."""
        if line.startswith(b"@"):
            self._control(host, line)
            return
        frame = _FRAME.fullmatch(line.rstrip(b"\n"))
        if frame is None:
            self._append("logs/host-" + re.sub(r"[^A-Za-z0-9._-]", "-", host) + ".log", line.rstrip(b"\n") + b"\n")
            return
        name, offset, text = frame[1].decode(), int(frame[2]), frame[4] + (b"\n" if frame[3] == b"|" else b"")
        taken = self._positions.setdefault(host, {})
        if offset < taken.get(name, 0):
            return
        if not (name in ("events", "failures") and b'"failed"' in text and self._known(frame[4])):
            self._append(_FILES.get(name, f"logs/{name}.log"), text)
        taken[name] = offset + len(text)
        self._changed = True

    def flush(self) -> None:
        """Make what was fed visible, then note how far it goes."""
        for file in self._files.values():
            file.flush()
        if self._changed:
            self._changed = False
            kept = {"positions": self._positions, "streams": self._streams}
            atomic_write(self._path, json.dumps(kept) + "\n")

    def close(self) -> None:
        """Flush and let go of the files."""
        self.flush()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _control(self, host: str, line: bytes) -> None:
        word, _, text = line.partition(b"|")
        try:
            data: dict[str, Any] = json.loads(text)
        except ValueError:
            return
        if word == b"@end":
            self.ended[host] = data.get("exit_code")
        elif word == b"@sizes" and self._streams.get(host) != data["stream"]:
            # A stream that was not seen before says where its files begin: on another disk they begin anew.
            self._streams[host] = data["stream"]
            self._positions.setdefault(host, {}).update(data["sizes"])
            self._changed = True

    def _append(self, name: str, data: bytes) -> None:
        if name not in self._files:
            path = self._run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = path.open("ab")
        self._files[name].write(data)
        if name == "events.jsonl":
            self._files[name].flush()

    def _known(self, line: bytes) -> bool:
        """Whether the events here hold this line: hosts that share a disk tell of the same failure."""
        path = self._run / "events.jsonl"
        return path.exists() and line in path.read_bytes().split(b"\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return data
    except (OSError, ValueError):
        return {}
