"""From the payload of an HTTP response to text: chunks, content encodings, character set."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_SNIFFED_BYTES = 8192


class UndecodableError(ValueError):
    """The payload contradicts its headers in a way that leaves no text."""


def decode_body(body: bytes, headers: dict[str, str]) -> bytes:
    """Undo Transfer-Encoding and Content-Encoding (RFC 9112 section 7, RFC 9110 section 8.4).

    Crawlers often store the decoded body under the server's old headers, so a body that is plainly text already is
    returned as it is instead of being refused.

    Args:
        headers: of the response, names in lower case.

    Raises:
        UndecodableError: an encoding is named, does not decode, and the body is not text either.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _dechunk(body)
    for coding in reversed([name.strip().lower() for name in headers.get("content-encoding", "").split(",")]):
        body = _decode(body, coding)
    return body


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode by byte order mark, then the header's charset, then the page's meta element, then by detection."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace")
    encoding = charset or detect_encoding(body, from_html_meta=True) or "utf-8"
    return bytes_to_str(body, encoding, errors="replace", fallback_encodings=("utf-8", "cp1252"))


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


def _decode(body: bytes, coding: str) -> bytes:
    if coding in ("", "identity") or not body:
        return body
    decoder = _DECODERS.get(coding)
    if decoder is None:
        raise UndecodableError(f"content encoding {coding}")
    try:
        return decoder(body)
    except (zlib.error, brotli.error) as error:
        if _looks_like_text(body):
            return body
        raise UndecodableError(f"content encoding {coding}: {error}") from error


def _gunzip(body: bytes) -> bytes:
    """All gzip members; a stream that was cut keeps what it gave."""
    out = b""
    while body.startswith(b"\x1f\x8b") or not out:
        decoder = zlib.decompressobj(wbits=31)
        out += decoder.decompress(body)
        body = decoder.unused_data
    return out


def _inflate(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return zlib.decompress(body, wbits=-15)  # many servers send raw deflate under this name


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": brotli.decompress,
}


def _looks_like_text(body: bytes) -> bool:
    head = body[:_SNIFFED_BYTES]
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    return b"\0" not in head and control <= len(head) // 100
