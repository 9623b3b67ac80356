"""Frames: what one host's part of a run writes, as lines that another machine can append exactly once.

A frame is one line, `NAME@OFFSET|text`: a line of text, and where it begins in its file. `~` in place of `|` marks a
piece that has no end of line yet. People can read it, and reading a stream twice does no harm. NAME is `rank-00001`,
`launcher`, `events`, `metrics`, or `failures`: the failed events of a host other than the first.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.host.group import launcher_log
from launch.job import Work

POLL_SECONDS = 0.25
PIECE_SECONDS = 1.0
LARGEST_READ = 1 << 18
END = b"@end|"
BEAT = b"@beat|"
SIZES = b"@sizes|"


@dataclass
class Source:
    """One file of a host, and how far it has been sent."""

    name: str
    path: Path
    offset: int = 0
    waiting_since: float | None = None
    only: bytes = b""

    def frames(self, last: bool) -> Iterator[bytes]:
        """What was added; a line without its end waits a moment, unless it is the last look."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(LARGEST_READ)
        except OSError:
            return
        while data:
            line, newline, rest = data.partition(b"\n")
            if not newline and not (last or self._waited() or len(data) >= LARGEST_READ):
                return
            self.waiting_since = None
            if self.only in line:
                yield b"%s@%d%s%s\n" % (self.name.encode(), self.offset, b"|" if newline else b"~", line)
            self.offset += len(line) + len(newline)
            data = rest

    def _waited(self) -> bool:
        now = time.monotonic()
        if self.waiting_since is None:
            self.waiting_since = now
        return now - self.waiting_since > PIECE_SECONDS


def sources(run: Path, work: Work, node: int, positions: Mapping[str, int]) -> list[Source]:
    """The files that a host sends: its ranks' logs and its launcher's; the first host also events and metrics."""
    named = [(f"rank-{rank:05d}", run / "logs" / f"rank-{rank:05d}.log") for rank in work.ranks_of(node)]
    launcher = launcher_log(run, node)
    named.append((launcher.stem, launcher))
    if node == 0:
        named += [("events", run / "events.jsonl"), ("metrics", run / "metrics.jsonl")]
    found = [Source(name, path, _start(path, positions.get(name, 0))) for name, path in named]
    if node:
        path = run / "events.jsonl"
        found.append(Source("failures", path, _start(path, positions.get("failures", 0)), only=b'"event": "failed"'))
    return found


def stream(
    found: list[Source], ended: Callable[[], int | None], write: Callable[[bytes], None], heartbeat: float | None
) -> int | None:
    """Send what the files hold and what is added, until the job has ended and all is said.

    Args:
        found: the files.
        ended: gives the exit code once the job has ended here, before that raises StillRunning.
        write: takes whole frames.
        heartbeat: seconds between signs of life; None: none.

    Returns:
        What `ended` gave.
    """
    sizes = {source.name: source.offset for source in found}
    write(SIZES + json.dumps({"stream": secrets.token_hex(8), "sizes": sizes}).encode() + b"\n")
    beat = time.monotonic()
    while True:
        try:
            code, over = ended(), True
        except StillRunning:
            code, over = None, False
        frames = [frame for source in found for frame in source.frames(last=over)]
        if frames:
            write(b"".join(frames))
        if over and not frames:
            write(END + json.dumps({"exit_code": code}).encode() + b"\n")
            return code
        if heartbeat is not None and time.monotonic() - beat >= heartbeat:
            beat = time.monotonic()
            write(BEAT + json.dumps({"time": time.time()}).encode() + b"\n")
        if not over:
            time.sleep(POLL_SECONDS)


class StillRunning(Exception):
    """The job has not ended on this host."""


def _start(path: Path, position: int) -> int:
    """Where to go on: the position, unless the file is another, shorter one than the reader knew."""
    size = path.stat().st_size if path.exists() else 0
    return position if position <= size else 0
