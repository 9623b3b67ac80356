"""From the payload of an HTTP response to text: chunks, content encodings, character set."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_SNIFFED_BYTES = 8192
_BROTLI_STEP = 1 << 20
_MAX_CODINGS = 4
_FALLBACKS = ("utf-8", "cp1252")
_UTF8 = ("utf-8", "utf8")


class UndecodableError(ValueError):
    """The payload contradicts its headers in a way that leaves no text."""


class PageTooLargeError(ValueError):
    """The payload inflates to more than a page may have; it was inflated no further."""


def decode_body(body: bytes, headers: dict[str, str], limit: int) -> bytes:
    """Undo Transfer-Encoding and Content-Encoding (RFC 9112 section 7, RFC 9110 section 8.4).

    Crawlers often store the decoded body under the server's old headers, so a body that is plainly text already is
    returned as it is instead of being refused.

    Args:
        headers: of the response, names in lower case.
        limit: largest page in bytes; no decoder gives more than that before it is stopped.

    Raises:
        UndecodableError: an encoding is named, does not decode, and the body is not text either.
        PageTooLargeError: the page has more bytes than `limit`.
    """
    for coding in _codings(headers.get("transfer-encoding", "")):
        body = _dechunk(body) if coding == "chunked" else _decode(body, coding, limit)
    for coding in _codings(headers.get("content-encoding", "")):
        body = _decode(body, coding, limit)
    if len(body) > limit:
        raise PageTooLargeError(f"more than {limit} bytes")
    return body


def _codings(names: str) -> list[str]:
    """The codings of a header, the outermost (the last one named) first; one named twice in a row counts once."""
    if not names:
        return []
    codings = [name.strip().lower() for name in names.split(",")][::-1][:_MAX_CODINGS]
    return [coding for before, coding in zip(["", *codings], codings, strict=False) if coding != before]


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode by byte order mark, then the header's charset, then the page's meta element, then by detection."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace")
    encoding = charset or detect_encoding(body, from_html_meta=True) or "utf-8"
    if encoding in _UTF8:
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    try:
        return bytes_to_str(body, encoding, errors="replace", fallback_encodings=_FALLBACKS)
    except (LookupError, ValueError):  # the name means no encoding at all
        return bytes_to_str(body, detect_encoding(body) or "utf-8", errors="replace", fallback_encodings=_FALLBACKS)


def _dechunk(body: bytes) -> bytes:
    """Join the chunks; a body that does not begin with a chunk size was joined by the crawler before."""
    pieces: list[bytes] = []
    position = 0
    while True:
        line_end = body.find(b"\r\n", position)
        try:
            size = int(body[position : line_end if line_end >= 0 else None].split(b";")[0], 16)
        except ValueError:
            return b"".join(pieces) if pieces else body
        if size == 0 or line_end < 0:
            return b"".join(pieces)
        pieces.append(body[line_end + 2 : line_end + 2 + size])
        position = line_end + 2 + size + 2


def _decode(body: bytes, coding: str, limit: int) -> bytes:
    if coding in ("", "identity") or not body:
        return body
    decoder = _DECODERS.get(coding)
    if decoder is None:
        raise UndecodableError(f"content encoding {coding}")
    try:
        return decoder(body, limit)
    except (zlib.error, brotli.error) as error:
        if _looks_like_text(body):
            return body
        raise UndecodableError(f"content encoding {coding}: {error}") from error


def _gunzip(body: bytes, limit: int) -> bytes:
    """All gzip members; a stream that was cut keeps what it gave."""
    out = b""
    while body.startswith(b"\x1f\x8b") or not out:
        decoder = zlib.decompressobj(wbits=31)
        out += _bounded(decoder.decompress(body, limit + 1 - len(out)), limit - len(out))
        body = decoder.unused_data
        if not body:
            break
    return out


def _inflate(body: bytes, limit: int) -> bytes:
    try:
        return _bounded(zlib.decompressobj().decompress(body, limit + 1), limit)
    except zlib.error:  # many servers send raw deflate under this name
        return _bounded(zlib.decompressobj(wbits=-15).decompress(body, limit + 1), limit)


def _unbrotli(body: bytes, limit: int) -> bytes:
    decoder = brotli.Decompressor()
    pieces, total = [decoder.process(body, output_buffer_limit=_BROTLI_STEP)], 0
    while pieces[-1]:
        total += len(pieces[-1])
        _bounded(pieces[-1], limit - total + len(pieces[-1]))
        if decoder.is_finished():
            break
        pieces.append(decoder.process(b"", output_buffer_limit=_BROTLI_STEP))
    return b"".join(pieces)


def _bounded(out: bytes, room: int) -> bytes:
    if len(out) > room:
        raise PageTooLargeError(f"more than {room} bytes")
    return out


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _unbrotli,
}


def _looks_like_text(body: bytes) -> bool:
    head = body[:_SNIFFED_BYTES]
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    return b"\0" not in head and control <= len(head) // 100
