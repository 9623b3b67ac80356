"""WARC/1.1 framing (ISO 28500:2017) that yields the same bytes on every run."""

import base64
import gzip
import hashlib
import uuid
from dataclasses import dataclass
from email.utils import formatdate

FILENAME = "docs.warc.gz"
RECORD_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:slipway:sample:{FILENAME}")


@dataclass(frozen=True)
class Page:
    """One page as a crawler would have met it."""

    url: str
    package: str
    language: str
    charset: str
    payload: bytes
    modified_seconds: int


def warcinfo_record(date: str, fields: dict[str, str]) -> bytes:
    """The record that opens the file and says what it holds."""
    block = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    headers = {
        "WARC-Type": "warcinfo",
        "WARC-Record-ID": _record_id("warcinfo"),
        "WARC-Date": date,
        "WARC-Filename": FILENAME,
        "Content-Type": "application/warc-fields",
        "WARC-Block-Digest": _digest(block),
    }
    return _member(headers, block)


def response_record(page: Page, date: str, date_seconds: int) -> bytes:
    """The page as an HTTP response, in a gzip member of its own.

    Args:
        page: What was fetched; its payload goes in untouched.
        date: WARC-Date.
        date_seconds: The same instant since the epoch, for the HTTP Date header.
    """
    http = {
        "Date": formatdate(date_seconds, usegmt=True),
        "Last-Modified": formatdate(page.modified_seconds, usegmt=True),
        "Content-Language": page.language,
        "Content-Type": f"text/html; charset={page.charset}",
        "Content-Length": str(len(page.payload)),
        "Connection": "close",
    }
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in http.items()) + "\r\n"
    block = head.encode("ascii") + page.payload
    headers = {
        "WARC-Type": "response",
        "WARC-Record-ID": _record_id(page.url),
        "WARC-Date": date,
        "WARC-Warcinfo-ID": _record_id("warcinfo"),
        "WARC-Target-URI": page.url,
        "Content-Type": "application/http; msgtype=response",
        "WARC-Identified-Payload-Type": "text/html",
        "WARC-Payload-Digest": _digest(page.payload),
        "WARC-Block-Digest": _digest(block),
    }
    return _member(headers, block)


def _member(headers: dict[str, str], block: bytes) -> bytes:
    """One record as one gzip member; mtime 0, so that the bytes depend on nothing but the record."""
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(block)}"]
    record = "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"
    return gzip.compress(record, compresslevel=9, mtime=0)


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(RECORD_NAMESPACE, name)}>"


def _digest(content: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(content).digest()).decode()
