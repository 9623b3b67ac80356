"""A sliding view of a byte stream: what was read stays until it is passed."""

from __future__ import annotations

import lzma
import zlib
from typing import IO

_CHUNK = 1 << 18


class Window:
    """Bytes of a stream by their offset, read forward in chunks; memory is what a caller asks for at once.

    A compressed stream that is damaged ends where the damage begins; `damage` then says so.

    Args:
        stream: positioned at its beginning.
        size: of the whole stream where it is known and the stream can seek; None reads forward only.
    """

    def __init__(self, stream: IO[bytes], size: int | None = None) -> None:
        self.stream = stream
        self.size = size
        self.data = b""
        self.start = 0  # offset of data[0]
        self.ended = False
        self.damage: Exception | None = None

    def load(self, offset: int, count: int) -> int:
        """Have `count` bytes from `offset` on in `data`, and return the index there of `offset`.

        Fewer are there where the stream ends; what lies before `offset` is forgotten when more has to be read.
        """
        index = offset - self.start
        if index < 0 or index > len(self.data):
            self._go(offset)
            index = offset - self.start
        missing = index + count - len(self.data)
        if missing > 0 and not self.ended:
            pieces = [self.data[index:]]
            while missing > 0 and (piece := self._read(max(missing, _CHUNK))):
                pieces.append(piece)
                missing -= len(piece)
            self.data, self.start = b"".join(pieces), self.start + min(index, len(self.data))
            index = offset - self.start
        return index

    def at_end(self, offset: int) -> bool:
        """Whether nothing lies at or after `offset`."""
        return self.load(offset, 1) >= len(self.data)

    def _go(self, offset: int) -> None:
        if self.size is not None:
            self.stream.seek(offset)
            self.data, self.start, self.ended = b"", offset, False
            return
        assert offset >= self.start, "a stream that cannot seek is read forward only"
        while self.start + len(self.data) < offset and not self.ended:
            self.start += len(self.data)
            self.data = self._read(_CHUNK)
        passed = min(offset - self.start, len(self.data))
        self.data, self.start = self.data[passed:], self.start + passed
        if self.start < offset:
            self.data, self.start = b"", offset

    def _read(self, count: int) -> bytes:
        try:
            piece = self.stream.read(count)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            self.damage, piece = error, b""
        self.ended = not piece
        return piece
