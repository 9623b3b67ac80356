"""How a record begins: the header blocks of WARC (ISO 28500) and the header lines of ARC version 1."""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD_BYTES = 1 << 16
_TRAIL_BYTES = 64
_BLANK = re.compile(rb"[\r\n]+")


class Head(NamedTuple):
    """What a record says of itself. `kind` is response, revisit, conversion, or another that holds no page."""

    kind: str
    url: str
    body_start: int
    length: int


class Warc:
    """WARC and WET records; header lines may end with a newline alone."""

    begins = re.compile(rb"WARC/[01]\.\d+[ \t]*\r?\n")
    mark = b"WARC/"

    _field = re.compile(rb"^(WARC-Type|WARC-Target-URI|Content-Length)[ \t]*:[ \t]*(.*?)[ \t\r]*$", re.I | re.M)

    @classmethod
    def parse(cls, data: bytes, start: int) -> Head | None:
        """The header block at data[start:], or None if there is none that can be read."""
        first = cls.begins.match(data, start)
        if first is None:
            return None
        blank = b"\r\n\r\n" if data[first.end() - 2] == 13 else b"\n\n"
        end = data.find(blank, first.end() - len(blank) // 2, start + HEAD_BYTES)
        if end < 0 or cls.begins.search(data, first.end(), end):  # a head that breaks off, and the next one
            return None
        fields: dict[bytes, bytes] = {}
        for name, value in cls._field.findall(data, first.end(), end):
            fields.setdefault(name.lower(), value)
        length = fields.get(b"content-length", b"")
        kind = fields.get(b"warc-type", b"").decode("latin-1").lower()
        if not (length.isdigit() and len(length) < 19 and kind):
            return None
        url = fields.get(b"warc-target-uri", b"").strip(b"<>").decode("utf-8", "replace")
        return Head(kind, url, end + len(blank), int(length))


class Arc:
    """ARC records: one line of address, host, date, media type and length."""

    begins = re.compile(
        rb"([a-z][a-z0-9+.-]{0,31}:[^\r\n]{0,8192}?) (\S+) (\d{8,17}) ([^\r\n]{0,512}) (\d{1,18})\r?\n", re.I
    )
    mark = b""

    @classmethod
    def parse(cls, data: bytes, start: int) -> Head | None:
        """The header line at data[start:], or None if there is none."""
        line = cls.begins.match(data, start)
        if line is None:
            return None
        url = line[1].decode("utf-8", "replace")
        kind = "warcinfo" if url.lower().startswith("filedesc:") else "response"
        return Head(kind, url, line.end(), int(line[5]))


Syntax = type[Warc] | type[Arc]


def skip_blank(data: bytes, start: int) -> int:
    """Index of the first byte at or after `start` that does not end a line."""
    blank = _BLANK.match(data, start)
    return blank.end() if blank else start


def follows(syntax: Syntax, data: bytes, end: int) -> bool | None:
    """Whether a body that ends at data[end] is followed by another record or by nothing, as it should.

    None where that is not certain: a blank line follows but no record (which may be damaged, or the length is wrong),
    or the file ends without the blank line.
    """
    after = data[end : end + _TRAIL_BYTES]
    blank = (b"\r\n\r\n", b"\n\n") if syntax is Warc else (b"\n",)
    if after in blank or syntax.begins.match(data, skip_blank(data, end)) is not None:
        return True
    return None if not after.strip(b"\r\n") or after.startswith(blank) else False
