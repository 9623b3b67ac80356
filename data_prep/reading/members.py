"""Records of a file that is compressed record by record, as crawlers write it: a gzip member each."""

from __future__ import annotations

import zlib

from data_prep.reading.records import CORRUPT, TOO_LARGE, TRUNCATED, Found
from data_prep.reading.syntax import HEAD_BYTES, Syntax, skip_blank
from data_prep.reading.window import Window

MAGIC = b"\x1f\x8b\x08"
_FEED_BYTES = 1 << 15
_SEARCH_BYTES = 1 << 18
_PROBE_BYTES = 1 << 12
_DRAIN_FACTOR = 16
_RESERVED_FLAGS = 0xE0
_PROBED_BYTES = 1 << 9


class MemberRecords:
    """Records of gzip members.

    Args:
        window: the compressed bytes.
        syntax: of the records.
        limit: largest body in bytes; a member that inflates to more is passed over without being kept.
    """

    back = 1 << 22  # passing over a member means inflating it; crawlers cut records at 1 to 5 MiB before compression

    def __init__(self, window: Window, syntax: Syntax, limit: int) -> None:
        self.window, self.syntax, self.limit = window, syntax, limit

    @property
    def size(self) -> int | None:
        """Bytes of the file, where it can be read from the middle."""
        return self.window.size

    def find(self, offset: int) -> int | None:
        """Where the first member at or after `offset` is that begins a record, or breaks before one could show."""
        while True:
            index = self.window.load(offset, _SEARCH_BYTES + _PROBE_BYTES)
            data = self.window.data
            found = data.find(MAGIC, index, index + _SEARCH_BYTES + len(MAGIC))
            while found >= 0:
                if self._plausible(data[found : found + _PROBE_BYTES]):
                    return offset + found - index
                found = data.find(MAGIC, found + 1, index + _SEARCH_BYTES + len(MAGIC))
            if len(data) <= index + _SEARCH_BYTES:
                return None
            offset += _SEARCH_BYTES

    def _plausible(self, probe: bytes) -> bool:
        if len(probe) < 4 or probe[3] & _RESERVED_FLAGS:
            return False
        inflater = zlib.decompressobj(wbits=31)
        try:
            text = inflater.decompress(probe, _PROBED_BYTES).lstrip(b"\r\n")
        except zlib.error:
            return True
        return bool(text) and self._begins(text)

    def _begins(self, text: bytes) -> bool:
        return text.startswith(self.syntax.mark) if self.syntax.mark else self.syntax.begins.match(text) is not None

    def take(self, offset: int, wanted: bool = True) -> tuple[list[Found], int | None]:
        """The records of the member at `offset`, and the offset behind it."""
        if self.window.at_end(offset):
            return [], None
        index = self.window.load(offset, len(MAGIC))
        if self.window.data[index : index + len(MAGIC)] != MAGIC:
            return [Found(offset, None, b"", CORRUPT)], self.find(offset + 1)
        data, end, reason = self._inflate(offset)
        if reason == TOO_LARGE:
            head = self.syntax.parse(data, skip_blank(data, 0))
            return [Found(offset, head, b"", TOO_LARGE)], end if end is not None else self.find(offset + 1)
        if end is None:
            head = self.syntax.parse(data, skip_blank(data, 0))
            return [Found(offset, head, b"", reason)], self.find(offset + 1)
        return (self._split(offset, data) if wanted else []), end

    def _inflate(self, offset: int) -> tuple[bytes, int | None, str | None]:
        """The bytes in a member, the offset behind it, and what is wrong with it; no end where it breaks."""
        inflater = zlib.decompressobj(wbits=31)
        pieces: list[bytes] = []
        total, most = 0, self.limit + HEAD_BYTES
        position = offset
        while not inflater.eof:
            index = self.window.load(position, 1)
            fed = self.window.data[index : index + _FEED_BYTES]
            if not fed:
                return b"".join(pieces), None, TRUNCATED
            try:
                piece = inflater.decompress(fed)
            except zlib.error:
                return b"".join(pieces), None, CORRUPT
            position += len(fed) - len(inflater.unused_data)
            total += len(piece)
            if total <= most or not pieces:
                pieces.append(piece)
            elif total > _DRAIN_FACTOR * most:  # a bomb: looking for the next member is cheaper than inflating it
                return pieces[0], None, TOO_LARGE
        if total > most:
            return pieces[0], position, TOO_LARGE
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), position, None

    def _split(self, offset: int, data: bytes) -> list[Found]:
        """The records of one member: nearly always one."""
        found: list[Found] = []
        start = skip_blank(data, 0)
        while start < len(data):
            head = self.syntax.parse(data, start)
            if head is None:
                return [*found, Found(offset, None, b"", CORRUPT, len(found))]
            end = head.body_start + head.length
            if end > len(data):
                return [*found, Found(offset, head, data[head.body_start :], TRUNCATED, len(found))]
            start = skip_blank(data, end)
            intact = start == len(data) or self.syntax.begins.match(data, start) is not None
            body = data[head.body_start : end]
            found.append(Found(offset, head, body, None if intact else CORRUPT, len(found)))
            if not intact:
                return found
        return found
