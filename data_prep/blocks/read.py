"""Reading crawl records one by one: a damaged record costs itself, never its neighbours or the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import ReadConfig
from data_prep.blocks.http import PageTooLargeError, UndecodableError, decode_body, decode_text
from data_prep.inputs import CrawlFile
from data_prep.ledger import PAYLOAD, REASON, ReasonKeeper
from data_prep.reading.lines import Line, read_lines
from data_prep.reading.open import open_decompressed, open_records
from data_prep.reading.records import CORRUPT, TOO_LARGE, TRUNCATED, Found
from data_prep.reading.shares import cut, read_range

UNDECODABLE = "undecodable_content"
PAGE_TOO_LARGE = "page_too_large"
UNKNOWN = "unknown_record_type"
CORRUPT_REASONS = (CORRUPT, TRUNCATED, UNDECODABLE)

_CANDIDATES = ("response", "conversion", "revisit")
_PASSED_OVER = ("warcinfo", "request", "metadata", "resource", "continuation")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})")
_FIELD = re.compile(rb"^(content-type|content-encoding|transfer-encoding)[ \t]*:[ \t]*(.*?)[ \t\r]*$", re.I | re.M)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.I)
_HTTP_HEAD_BYTES = 1 << 18


class RecordReader(PipelineStep):
    """Reads WARC, WET, ARC and JSONL files into documents whose metadata carries the raw payload.

    Documents are what may become text: responses, conversions, revisits, JSON lines, and records that are damaged or
    too large (with a reason, so that the next block can count them). Requests, metadata and file headers are passed
    over. They come in the order of files and of the records in them.

    With at least as many files as tasks a task reads whole files. With fewer, the files are cut into equal parts of
    bytes, and a task reads the records that begin in its part; only of a file that has to be decompressed from its
    beginning (xz, or gzip not made record by record), and where there is a limit, a task runs through all and takes
    every world_size-th record. Either way the share depends on the number of tasks alone.

    Args:
        files: the inputs, sorted.
        limit: at most this many candidates of every file.
        config: the largest record.
    """

    type = "READER"
    name = "records"

    def __init__(self, files: list[CrawlFile], limit: int | None = None, config: ReadConfig | None = None) -> None:
        super().__init__()
        self.files = files
        self.limit = limit
        self.config = config or ReadConfig()

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield this task's documents in the order of the input."""
        if len(self.files) >= world_size:
            for file in self.files[rank::world_size]:
                yield from self._first(read_file(file, self.config))
            return
        sizes = [_divisible_bytes(file, self.config) if self.limit is None else 0 for file in self.files]
        for file, size, (begin, end) in zip(self.files, sizes, cut(sizes, rank, world_size), strict=True):
            if not size:
                documents = enumerate(self._first(read_file(file, self.config)))
                yield from (document for number, document in documents if number % world_size == rank)
            elif begin < end:
                yield from read_file(file, self.config, begin, end)

    def _first(self, documents: Iterator[Document]) -> Iterator[Document]:
        for number, document in enumerate(documents):
            if number == self.limit:
                return
            yield document


class DecodeRecords(BaseFilter):
    """From a raw record to its HTML (or, for WET and JSONL, its text); drops what is not a page."""

    name = "read"

    def __init__(self, config: ReadConfig | None = None) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config or ReadConfig()

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Put the decoded page into `doc.text`; only then does the raw payload go."""
        metadata = doc.metadata
        if (reason := metadata.get(REASON)) is not None:
            return False, reason
        if metadata["kind"] == "revisit":  # says only that the page had not changed since another crawl
            return False, "revisit"
        if metadata["kind"] == "response" and (reason := _unwanted(metadata)):
            return False, reason
        try:
            doc.text = _text_of(doc, self.config.max_page_bytes)
        except UndecodableError:
            return False, UNDECODABLE
        except PageTooLargeError:
            return False, PAGE_TOO_LARGE
        if not doc.text or doc.text.isspace():
            return False, "empty_body"
        for key in (PAYLOAD, "headers", "charset", "status"):
            metadata.pop(key, None)
        return True


def read_file(
    file: CrawlFile, config: ReadConfig | None = None, begin: int = 0, end: int | None = None
) -> Iterator[Document]:
    """Every candidate record that begins in these bytes of a file, damaged ones as documents with a reason."""
    limit = (config or ReadConfig()).max_record_bytes
    if file.format == "jsonl":
        yield from (_json_document(line, file) for line in read_lines(file.path, limit, begin, end))
        return
    with open_records(file.path, file.format == "arc", limit) as records:
        for found in read_range(records, begin, end):
            if (document := _document(found, file)) is not None:
                yield document


def _divisible_bytes(file: CrawlFile, config: ReadConfig) -> int:
    """How many bytes of a file can be cut into parts; 0 where it has to be read from its beginning."""
    if file.format == "jsonl":
        stream, size = open_decompressed(file.path)
        stream.close()
        return size or 0
    with open_records(file.path, file.format == "arc", config.max_record_bytes) as records:
        return records.size or 0


def _document(found: Found, file: CrawlFile) -> Document | None:
    """A record as a document; None for records that hold no page and are not damaged."""
    head, reason, body = found.head, found.reason, found.body
    candidate = head is not None and head.kind in _CANDIDATES
    if reason is None and head is not None and not candidate and head.kind not in _PASSED_OVER:
        reason = UNKNOWN
    if (not candidate and reason is None) or (reason == TOO_LARGE and head is not None and not candidate):
        return None
    name = file.given.rsplit("/", 1)[-1]
    identity = f"{name}@{found.offset}" + (f".{found.number}" if found.number else "")
    metadata: dict[str, object] = {"url": head.url if head else "", "kind": "damaged", "file": file.given}
    if reason is not None or head is None:
        return Document(text="", id=identity, metadata=metadata | {REASON: reason, PAYLOAD: body})
    metadata["kind"] = head.kind
    if head.kind == "response":
        body = _http_head(body, metadata)
    metadata[PAYLOAD] = body
    return Document(text="", id=identity, metadata=metadata)


def _http_head(payload: bytes, metadata: dict[str, object]) -> bytes:
    """Note status, headers and character set of a response, and return its body.

    A record that says response without being HTTP gets no status and no headers.
    """
    status = _STATUS.match(payload)
    headers: dict[str, str] = {}
    metadata |= {"status": None, "headers": headers, "charset": None}
    if status is None:
        return payload
    metadata["status"] = int(status[1])
    end, body = _blank_line(payload)
    for name, value in _FIELD.findall(payload, 0, end):
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    if charset := _CHARSET.search(headers.get("content-type", "")):
        metadata["charset"] = charset[1].lower()
    return payload[body:]


def _blank_line(payload: bytes) -> tuple[int, int]:
    """Where the header block ends and where the body begins; header lines may end with a newline alone."""
    strict = payload.find(b"\r\n\r\n", 0, _HTTP_HEAD_BYTES)
    loose = payload.find(b"\n\n", 0, strict if strict >= 0 else _HTTP_HEAD_BYTES)
    if loose >= 0:
        return loose, loose + 2
    return (strict, strict + 4) if strict >= 0 else (len(payload), len(payload))


def _json_document(line: Line, file: CrawlFile) -> Document:
    """One JSON object with a `text`; `id` and `url` if there are any."""
    identity = f"{file.given.rsplit('/', 1)[-1]}@{line.offset}"
    metadata: dict[str, object] = {"url": "", "kind": "conversion", "file": file.given}
    reason, text = line.reason, None
    if reason is None:
        try:
            data = json.loads(line.data)
            text = data["text"] if isinstance(data, dict) else None
        except (ValueError, KeyError, RecursionError):
            text = None
    if not isinstance(text, str):
        metadata |= {"kind": "damaged", REASON: reason or CORRUPT, PAYLOAD: line.data}
        return Document(text="", id=identity, metadata=metadata)
    metadata |= {"url": str(data.get("url", "")), PAYLOAD: text.encode("utf-8", "replace")}
    return Document(text="", id=identity if data.get("id") is None else str(data["id"]), metadata=metadata)


def _unwanted(metadata: dict[str, object]) -> str | None:
    """Why a response is not a page, if it is not."""
    status, headers = metadata["status"], metadata["headers"]
    if status is None:
        return "not_http"
    if status != 200:
        return "http_status"
    assert isinstance(headers, dict)
    content_type = headers.get("content-type", "text/html").split(";")[0].strip().lower()
    return None if content_type in _HTML_TYPES or not content_type else "not_html"


def _text_of(doc: Document, limit: int) -> str:
    metadata = doc.metadata
    if metadata["kind"] == "response":
        return decode_text(decode_body(metadata[PAYLOAD], metadata["headers"], limit), metadata["charset"])
    if len(metadata[PAYLOAD]) > limit:
        raise PageTooLargeError(f"{len(metadata[PAYLOAD])} bytes")
    return str(metadata[PAYLOAD].decode("utf-8", "replace"))
