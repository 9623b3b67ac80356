"""Reading crawl records one by one: a damaged record costs itself, never its neighbours or the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from data_prep.blocks.http import UndecodableError, decode_body, decode_text
from data_prep.inputs import CrawlFile, open_decompressed, open_raw, read_head
from data_prep.ledger import PAYLOAD, REASON, ReasonKeeper

CORRUPT = "corrupt_record"
TRUNCATED = "truncated_record"
UNDECODABLE = "undecodable_content"
CORRUPT_REASONS = (CORRUPT, TRUNCATED, UNDECODABLE)

_GZIP_MEMBER = b"\x1f\x8b\x08"
_PLAIN_RECORD = b"WARC/"
_CANDIDATES = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.revisit
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_WINDOW = 1 << 20


class RecordReader(PipelineStep):
    """Reads WARC, WET and JSONL files into documents whose metadata carries the raw payload.

    Documents are what may become text: responses, conversions, revisits, JSON lines, and damaged records (with a
    reason, so that the next block can count them). Requests, metadata and file headers are passed over.

    With at least as many files as tasks a task reads whole files; with fewer, every task runs through all files and
    takes every world_size-th record. Either way the share depends on the number of tasks alone.

    Args:
        files: the inputs, sorted.
        limit: at most this many candidates of every file.
    """

    type = "READER"
    name = "records"

    def __init__(self, files: list[CrawlFile], limit: int | None = None) -> None:
        super().__init__()
        self.files = files
        self.limit = limit

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield this task's documents in the order of the input."""
        striped = len(self.files) < world_size
        for file in self.files if striped else self.files[rank::world_size]:
            for number, document in enumerate(read_file(file)):
                if self.limit is not None and number >= self.limit:
                    break
                if not striped or number % world_size == rank:
                    yield document


class DecodeRecords(BaseFilter):
    """From a raw record to its HTML (or, for WET and JSONL, its text); drops what is not a page."""

    name = "read"

    def __init__(self) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Put the decoded page into `doc.text`; only then does the raw payload go."""
        if (reason := doc.metadata.get(REASON)) is not None:
            return False, reason
        if doc.metadata["kind"] == "revisit":  # says only that the page had not changed since another crawl
            return False, "revisit"
        if doc.metadata["kind"] == "response" and (reason := _unwanted(doc.metadata)):
            return False, reason
        try:
            doc.text = _text_of(doc)
        except UndecodableError:
            return False, UNDECODABLE
        if not doc.text.strip():
            return False, "empty_body"
        for key in (PAYLOAD, "headers", "charset", "status"):
            doc.metadata.pop(key, None)
        return True


def read_file(file: CrawlFile) -> Iterator[Document]:
    """Every candidate record of one file, damaged ones as documents with a reason."""
    return _read_warc(file) if file.format == "warc" else _read_jsonl(file)


def _read_warc(file: CrawlFile) -> Iterator[Document]:
    """Read records; after damage, search the next gzip member (or plain record) and go on from there."""
    stream, mark = _seekable(file.path)
    quirks = _has_bare_newlines(file.path)
    with stream:
        position: int | None = 0
        while position is not None:
            stream.seek(position)
            last, count = position, 0
            try:
                for record in ArchiveIterator(stream, record_types=_ANY, parse_http=False, quirks_mode=quirks):
                    last, count = record.stream_pos, count + 1
                    if record.record_type & _CANDIDATES:
                        yield _document(record, file)
                return
            except (OSError, EOFError, ValueError):
                if count or position == 0:  # else: a false start inside the damage, counted already
                    yield _damaged(file, last, CORRUPT)
                position = _find(stream, mark, last + 1)


_ANY = WarcRecordType.any_type


def _seekable(path: str) -> tuple[IO[bytes], bytes]:
    """A stream for the archive iterator, and the bytes at which its records begin."""
    raw = open_raw(path)
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return raw, _GZIP_MEMBER
    if head.startswith(b"WARC/"):
        return raw, _PLAIN_RECORD
    raw.close()
    return open_decompressed(path), _PLAIN_RECORD


def _has_bare_newlines(path: str) -> bool:
    """Whether header lines end with a newline alone. Only then is the parser told to be lenient: it would otherwise
    run over damage without a word.
    """
    return not read_head(path).partition(b"\n")[0].endswith(b"\r")


def _find(stream: IO[bytes], mark: bytes, start: int) -> int | None:
    """Offset of the next `mark` at or after `start`, or None."""
    offset, tail = start, b""
    try:
        stream.seek(start)
        while block := stream.read(_WINDOW):
            found = (tail + block).find(mark)
            if found >= 0:
                return offset - len(tail) + found
            tail, offset = (tail + block)[-len(mark) + 1 :], offset + len(block)
    except (OSError, EOFError, ValueError):
        return None
    return None


def _document(record: WarcRecord, file: CrawlFile) -> Document:
    offset, kind = record.stream_pos, _kind(record)
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    metadata: dict[str, object] = {"url": url, "kind": kind, "file": file.given}
    try:
        expected = record.content_length
        if kind == "response":
            metadata |= _http_head(record)
            expected = record.content_length
        body = record.reader.read()
    except (OSError, EOFError, ValueError):
        return _damaged(file, offset, CORRUPT, url)
    if len(body) < expected:
        return _damaged(file, offset, TRUNCATED, url, body)
    return Document(text="", id=_identity(file, offset), metadata=metadata | {PAYLOAD: body})


def _kind(record: WarcRecord) -> str:
    if record.record_type == WarcRecordType.response:
        return "response"
    return "revisit" if record.record_type == WarcRecordType.revisit else "conversion"


def _http_head(record: WarcRecord) -> dict[str, object]:
    """Status and headers of a response; a record that says response without being HTTP keeps neither."""
    record.parse_http(auto_decode="none", quirks_mode=True, strict_mode=False)
    parsed = record.http_headers if record.is_http_parsed else None
    headers = {name.lower(): value for name, value in parsed or ()}
    return {"status": parsed.status_code if parsed else None, "headers": headers, "charset": record.http_charset}


def _damaged(file: CrawlFile, offset: int, reason: str, url: str = "", body: bytes = b"") -> Document:
    metadata = {"url": url, "kind": "damaged", "file": file.given, REASON: reason, PAYLOAD: body}
    return Document(text="", id=_identity(file, offset), metadata=metadata)


def _identity(file: CrawlFile, offset: int) -> str:
    return f"{file.given.rsplit('/', 1)[-1]}@{offset}"


def _read_jsonl(file: CrawlFile) -> Iterator[Document]:
    """One JSON object a line with a `text`; `id` and `url` if there are any."""
    with open_decompressed(file.path) as stream:
        number = 0
        while True:
            try:
                line = stream.readline()
            except (OSError, EOFError, ValueError) as error:  # a cut or damaged compression: nothing follows
                yield _damaged(file, number, TRUNCATED if isinstance(error, EOFError) else CORRUPT)
                return
            if not line:
                return
            if line.strip():
                yield _json_document(line, file, number)
                number += 1


def _json_document(line: bytes, file: CrawlFile, number: int) -> Document:
    try:
        data = json.loads(line)
        text, given = data["text"], data.get("id")
        assert isinstance(text, str)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return _damaged(file, number, CORRUPT, body=line)
    metadata: dict[str, object] = {"url": str(data.get("url", "")), "kind": "conversion", "file": file.given}
    metadata[PAYLOAD] = text.encode("utf-8", "replace")
    return Document(text="", id=str(given) if given is not None else _identity(file, number), metadata=metadata)


def _unwanted(metadata: dict[str, object]) -> str | None:
    """Why a response is not a page, if it is not."""
    status = metadata["status"]
    if status is None and not metadata["headers"]:
        return "not_http"
    if status is not None and status != 200:
        return "http_status"
    headers = metadata["headers"]
    assert isinstance(headers, dict)
    content_type = headers.get("content-type", "text/html").split(";")[0].strip().lower()
    return None if content_type in _HTML_TYPES or not content_type else "not_html"


def _text_of(doc: Document) -> str:
    metadata = doc.metadata
    if metadata["kind"] != "response":
        return str(metadata[PAYLOAD].decode("utf-8", "replace"))
    return decode_text(decode_body(metadata[PAYLOAD], metadata["headers"]), metadata["charset"])
