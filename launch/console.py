"""What people and programs read: lines, one live line, and with --json one object as the last line of stdout."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any, TextIO

PLAIN_LINE_EVERY_SECONDS = 10.0


class Console:
    """Human output goes to stdout, or to stderr with --json, where stdout is for the one JSON object alone."""

    def __init__(self, as_json: bool = False, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stream = stream or (sys.stderr if as_json else sys.stdout)
        self._live = False
        self._last_plain = time.monotonic()
        self._last_text = ""

    def say(self, text: str = "") -> None:
        """Print lines that stay."""
        self._clear()
        self._last_plain = time.monotonic()
        print(text, file=self._stream, flush=True)

    def live(self, text: str) -> None:
        """Show a line that replaces the last one on a terminal; elsewhere print it, at most every ten seconds."""
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + text[:width] + "\x1b[K")
            self._stream.flush()
            self._live = True
        elif text != self._last_text and time.monotonic() - self._last_plain >= PLAIN_LINE_EVERY_SECONDS:
            print(text, file=self._stream, flush=True)
            self._last_plain = time.monotonic()
            self._last_text = text

    def end_live(self) -> None:
        """Leave the last live line standing and go on below it."""
        if self._live:
            self._stream.write("\n")
            self._stream.flush()
            self._live = False

    def result(self, data: dict[str, Any]) -> None:
        """With --json: print the one object, on one line of stdout."""
        self.end_live()
        if self.as_json:
            print(json.dumps(data, ensure_ascii=False, default=str), file=sys.stdout, flush=True)

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._live = False


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Aligned columns, two spaces apart."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)
