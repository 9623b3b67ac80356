"""Writing WARC files like Common Crawl's, the same bytes on every run: request, response and metadata of each page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

DATE = "2026-01-01T00:00:00Z"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:slipway:bench-data")


class Page(NamedTuple):
    """One page as a crawler would have met it."""

    url: str
    payload: bytes


def write_warc(path: Path, pages: Iterable[Page]) -> None:
    """One file, a gzip member a record; where there are no pages it holds the warcinfo record alone."""
    with path.open("wb") as stream:
        info = b"software: slipway benchmarks.data\r\nformat: WARC File Format 1.0\r\nisPartOf: bench-data\r\n"
        stream.write(_member({"WARC-Type": "warcinfo", "Content-Type": "application/warc-fields"}, info, path.name))
        for page in pages:
            for member in _page_records(page):
                stream.write(member)


def _page_records(page: Page) -> Iterable[bytes]:
    address = urlsplit(page.url)
    about = {"WARC-Target-URI": page.url, "WARC-IP-Address": "192.0.2.1"}
    request = f"GET {address.path or '/'} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept-Encoding: br,gzip\r\n\r\n"
    kind = {"Content-Type": "application/http; msgtype=request"}
    yield _member({"WARC-Type": "request", **about, **kind}, request.encode(), page.url)
    yield _response(page, about)
    facts = b"fetchTimeMs: 100\r\ncharset-detected: UTF-8\r\n"
    kind = {"Content-Type": "application/warc-fields", "WARC-Target-URI": page.url}
    yield _member({"WARC-Type": "metadata", **kind}, facts, page.url)


def _response(page: Page, about: dict[str, str]) -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {_content_type(page.payload)}\r\n"
    head = f"{http}X-Crawl-Content-Length: {len(page.payload)}\r\nContent-Length: {len(page.payload)}\r\n\r\n"
    headers = {
        "WARC-Type": "response",
        **about,
        "Content-Type": "application/http; msgtype=response",
        "WARC-Payload-Digest": _digest(page.payload),
        "WARC-Identified-Payload-Type": "text/html",
    }
    return _member(headers, head.encode() + page.payload, page.url)


def _content_type(payload: bytes) -> str:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return "text/html"
    return "text/html; charset=utf-8"


def _member(headers: dict[str, str], block: bytes, name: str) -> bytes:
    record_id = uuid.uuid5(_NAMESPACE, f"{headers['WARC-Type']} {name}")
    lines = ["WARC/1.0", f"WARC-Date: {DATE}", f"WARC-Record-ID: <urn:uuid:{record_id}>"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    lines += [f"WARC-Block-Digest: {_digest(block)}", f"Content-Length: {len(block)}"]
    return gzip.compress("\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n", compresslevel=6, mtime=0)


def _digest(content: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(content).digest()).decode()
