"""Opening a crawl file: what it is compressed with decides how its records are found."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import fsspec

from data_prep.reading.members import MAGIC, MemberRecords
from data_prep.reading.records import PlainRecords
from data_prep.reading.syntax import Arc, Syntax, Warc, skip_blank
from data_prep.reading.window import Window

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_FIRST_BYTES = 1 << 20
_COPY_BYTES = 1 << 20


def open_raw(path: str) -> IO[bytes]:
    """Open a local path or a URL for reading, unbuffered by any decompression."""
    if "://" not in path:
        return Path(path).open("rb", buffering=0)
    stream: IO[bytes] = fsspec.open(path, "rb").open()
    return stream


def open_seekable(path: str) -> tuple[IO[bytes], int]:
    """The raw bytes of a file and their number; a server that gives no ranges is copied to a temporary file first."""
    stream = open_raw(path)
    try:
        size = stream.seek(0, 2)
        stream.seek(0)
    except (OSError, ValueError):
        copy = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115  the caller closes it
        with stream:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
        stream, size = copy, copy.tell()
        stream.seek(0)
    return stream, size


def open_decompressed(path: str) -> tuple[IO[bytes], int | None]:
    """The bytes inside a file, and their number where it is not compressed: gzip (all members) and xz are undone."""
    stream, size = open_seekable(path)
    head = stream.read(len(XZ))
    stream.seek(0)
    if head.startswith(GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream)), None
    if head.startswith(XZ):
        return cast(IO[bytes], lzma.LZMAFile(stream)), None
    return stream, size


@contextmanager
def open_records(path: str, arc: bool, limit: int) -> Iterator[PlainRecords | MemberRecords]:
    """The records of a WARC, WET or ARC file.

    Args:
        path: local, or a URL.
        arc: whether its records are ARC's.
        limit: largest body in bytes.
    """
    syntax: Syntax = Arc if arc else Warc
    stream, size = open_seekable(path)
    with stream:
        window = Window(stream, size)
        window.load(0, _FIRST_BYTES)
        head = window.data
        members, plain = MemberRecords(window, syntax, limit), PlainRecords(window, syntax, limit)
        if _record_by_record(head, syntax) if head.startswith(GZIP) else _members_behind_damage(head, members, plain):
            yield members
        elif head.startswith((GZIP, XZ)):
            inside, _ = open_decompressed(path)
            with inside:
                yield PlainRecords(Window(inside), syntax, limit)
        else:
            yield plain


def _members_behind_damage(head: bytes, members: MemberRecords, plain: PlainRecords) -> bool:
    """Whether a file that begins with neither a record nor a compression goes on with gzip members."""
    known = head.startswith(XZ) or members.syntax.begins.match(head, skip_blank(head, 0)) is not None
    if known or MAGIC not in head or (first := members.find(0)) is None:
        return False
    other = plain.find(0)
    return other is None or first < other


def _record_by_record(head: bytes, syntax: Syntax) -> bool:
    """Whether the first gzip member ends with the first record; where that cannot be seen, as a rule it does."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(head, _FIRST_BYTES)
        first = syntax.parse(data, skip_blank(data, 0))
        if first is None:
            return True
        end = first.body_start + first.length
        if inflater.eof and end > len(data):  # cut anywhere, or with a wrong length: the next member tells
            data, end = zlib.decompressobj(wbits=31).decompress(inflater.unused_data, _FIRST_BYTES), 0
            return not data or syntax.begins.match(data, skip_blank(data, 0)) is not None
    except zlib.error:
        return True
    return syntax.begins.match(data, skip_blank(data, end)) is None
