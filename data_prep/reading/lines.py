"""Lines of a JSONL file, and of any part of an uncompressed one: no JSON string holds a bare newline."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from data_prep.reading.open import open_decompressed
from data_prep.reading.records import CORRUPT, TOO_LARGE, TRUNCATED

_BUFFER_BYTES = 1 << 20


class Line(NamedTuple):
    """One line that is not blank, or where and why none could be read."""

    offset: int
    data: bytes
    reason: str | None = None


def read_lines(path: str, limit: int, begin: int = 0, end: int | None = None) -> Iterator[Line]:
    """The lines that begin at or after `begin` and before `end`; beyond `limit` bytes a line is passed over."""
    stream, _ = open_decompressed(path)
    with io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES) as buffered:
        offset = begin
        try:
            if begin:
                buffered.seek(begin - 1)
                offset = begin - 1 + _pass_line(buffered)
            while end is None or offset < end:
                data = buffered.readline(limit + 1)
                if not data:
                    return
                if len(data) > limit and not data.endswith(b"\n"):
                    passed = len(data) + _pass_line(buffered)
                    yield Line(offset, data[:_BUFFER_BYTES], TOO_LARGE)
                    offset += passed
                    continue
                if not data.isspace():
                    yield Line(offset, data)
                offset += len(data)
        except EOFError:  # a cut compression
            yield Line(offset, b"", TRUNCATED)
        except (OSError, ValueError, zlib.error, lzma.LZMAError):  # a damaged one: nothing follows
            yield Line(offset, b"", CORRUPT)


def _pass_line(stream: IO[bytes]) -> int:
    """Read on to the end of a line, keeping none of it; how many bytes that were."""
    passed = 0
    while data := stream.readline(_BUFFER_BYTES):
        passed += len(data)
        if data.endswith(b"\n"):
            break
    return passed
