"""Records of an uncompressed stream, one after the other; damage costs the damaged record alone."""

from __future__ import annotations

import re
from typing import NamedTuple

from data_prep.reading.syntax import HEAD_BYTES, Arc, Head, Syntax, Warc, follows, skip_blank
from data_prep.reading.window import Window

CORRUPT = "corrupt_record"
TRUNCATED = "truncated_record"
TOO_LARGE = "record_too_large"

_SEARCH_BYTES = 1 << 18
_TRAIL_BYTES = 64
_WARC_START = re.compile(Warc.begins.pattern + rb"[A-Za-z-]+[ \t]*:")
_ARC_START = re.compile(rb"(?<=[\n\0])" + Arc.begins.pattern, re.I)


class Found(NamedTuple):
    """A record, or damage, at an offset of its file. `number` tells the records of one gzip member apart."""

    offset: int
    head: Head | None
    body: bytes
    reason: str | None = None
    number: int = 0


class PlainRecords:
    """Records as they are, or under a compression of the whole file.

    Args:
        window: the bytes.
        syntax: of the records.
        limit: largest body in bytes.
    """

    back = 1 << 28  # passing over a record costs a look at its header alone

    def __init__(self, window: Window, syntax: Syntax, limit: int) -> None:
        self.window, self.syntax, self.limit = window, syntax, limit
        self._start = _ARC_START if syntax is Arc else _WARC_START

    @property
    def size(self) -> int | None:
        """Bytes of the file, where it can be read from the middle."""
        return self.window.size

    def find(self, offset: int) -> int | None:
        """Where the first words at or after `offset` are that begin a record."""
        position = max(offset - 1, 0) if self.window.size is not None else offset
        while True:
            index = self.window.load(position, _SEARCH_BYTES + HEAD_BYTES)
            data = self.window.data
            match = self._start.search(data, index)
            while match is not None and self.window.start + match.start() < offset:
                match = self._start.search(data, match.start() + 1)
            if match is not None:
                return self.window.start + match.start()
            if self.window.at_end(position + _SEARCH_BYTES):
                return None
            position += _SEARCH_BYTES

    def take(self, offset: int, wanted: bool = True) -> tuple[list[Found], int | None]:
        """The record at `offset`, and the offset behind it."""
        index = self.window.load(offset, HEAD_BYTES)
        begin = skip_blank(self.window.data, index)
        offset += begin - index
        if begin >= len(self.window.data):
            return self._end(offset)
        head = self.syntax.parse(self.window.data, begin)
        if head is None:
            return [Found(offset, None, b"", CORRUPT)], self.find(offset + 1)
        body = self.window.start + head.body_start
        if head.length > self.limit or not wanted:
            return self._pass(offset, head, body)
        index = self.window.load(body, head.length + _TRAIL_BYTES)
        data = self.window.data[index : index + head.length]
        if len(data) < head.length:
            return [Found(offset, head, data, self._cut())], self.find(body)
        if not self._ends_well(index, index + head.length):
            return [Found(offset, head, data, CORRUPT)], self.find(body)
        return [Found(offset, head, data)], self._next(body + head.length)

    def _pass(self, offset: int, head: Head, body: int) -> tuple[list[Found], int | None]:
        """Go over a body without keeping it; a length that leads nowhere is not believed."""
        too_large = TOO_LARGE if head.length > self.limit else None
        end = body + head.length
        size = self.window.size
        if size is not None and end > size:
            return [Found(offset, head, b"", TRUNCATED)], self.find(body)
        if size is not None and not self._leads_on(body, end):
            return [Found(offset, head, b"", CORRUPT)], self.find(body)
        return [Found(offset, head, b"", too_large)], self._next(end)

    def _ends_well(self, begin: int, end: int) -> bool:
        """Whether the body data[begin:end] ends where its record does, and has not swallowed another."""
        data = self.window.data
        verdict = follows(self.syntax, data, end)
        return self._start.search(data, begin, end) is None if verdict is None else verdict

    def _leads_on(self, body: int, end: int) -> bool:
        """The same of a body that is not loaded."""
        index = self.window.load(end, _TRAIL_BYTES)
        verdict = follows(self.syntax, self.window.data, index)
        if verdict is None:
            within = self.find(body)
            return within is None or within >= end
        return verdict

    def _next(self, offset: int) -> int:
        """Where the record behind `offset` begins: a share of a file is cut by the first bytes of records."""
        while (index := self.window.load(offset, _TRAIL_BYTES)) < len(self.window.data):
            begin = skip_blank(self.window.data, index)
            if begin < len(self.window.data):
                return self.window.start + begin
            offset += begin - index
        return offset

    def _end(self, offset: int) -> tuple[list[Found], int | None]:
        return ([] if self.window.damage is None else [Found(offset, None, b"", self._cut())]), None

    def _cut(self) -> str:
        damage = self.window.damage
        return TRUNCATED if damage is None or isinstance(damage, EOFError) else CORRUPT
