"""Small crawls for the tests of data preparation: real pages of the embedded sample, and records made to measure."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_prep.config import DataPrepConfig
from kit.config import digest, dump, parse
from kit.run.directory import RunDirectory
from kit.run.manifest import Manifest, write_manifest

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "data_prep" / "sample" / "docs.warc.gz"
CRAWL = ROOT.parent / "shared" / "data" / "crawl"
PAGES_A_LANGUAGE = 22


def http(body: bytes, *, status: int = 200, content_type: str = "text/html; charset=utf-8", **headers: str) -> bytes:
    """An HTTP response; header names with _ for -."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def record(payload: bytes, url: str = "http://example.org/", kind: str = "response") -> bytes:
    """One WARC record."""
    content_type = "application/http; msgtype=response" if kind in ("response", "revisit") else "text/plain"
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload + b"\r\n\r\n"


@pytest.fixture(scope="session")
def crawl_folder() -> Path:
    if not CRAWL.exists():
        pytest.skip("the real crawl records of ../shared/data/crawl are not on this machine")
    return CRAWL


@pytest.fixture(scope="session")
def sample_pages() -> list[tuple[str, bytes]]:
    """(url, HTTP payload) of the first pages of the sample in each of four languages, as the server names them."""
    pages: dict[str, list[tuple[str, bytes]]] = {language: [] for language in ("en", "fr", "de", "es")}
    with open(SAMPLE, "rb") as stream:
        for item in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=False):
            payload = item.reader.read()
            found = re.search(rb"(?mi)^Content-Language: (\w\w)", payload)
            mine = pages.get(found.group(1).decode() if found else "", [])
            if len(mine) < PAGES_A_LANGUAGE:
                mine.append((item.headers["WARC-Target-URI"], payload))
    return [page for language in pages.values() for page in language]


@pytest.fixture(scope="session")
def small_crawl(sample_pages: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, then ten of them again: five alike to the byte, five with one word added."""
    path = tmp_path_factory.mktemp("crawl") / "small.warc.gz"
    body = b"".join(gzip.compress(record(page, url)) for url, page in sample_pages)
    for number, (url, page) in enumerate(sample_pages[4:84:8]):
        changed = page.replace(b"</p>", b" indeed</p>", 1) if number % 2 else page
        body += gzip.compress(record(changed, f"{url}?again"))
    path.write_bytes(body)
    return path


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[DataPrepConfig, RunDirectory]]:
    """A run directory as the launcher prepares it."""

    def make(paths: list[str], **changes: object) -> tuple[DataPrepConfig, RunDirectory]:
        data = {
            "name": "test",
            "input": {"paths": paths},
            "tasks": 3,
            "workers": 1,
            "filters": {
                "gopher_quality": {"min_alphabetic_word_fraction": 0.6},
                "c4": {"drop_pages_with_curly_brackets": False},
            },
            "tokenizer": {"vocab_size": 800},
            "split": {"validation_fraction": 0.1},
        }
        config = parse(DataPrepConfig, data | changes, "the test")
        run = RunDirectory.create(tmp_path_factory.mktemp("runs"), "data_prep", "test")
        run.config_path.write_text(dump(config))
        manifest = Manifest(
            run_id=run.id, stage="data_prep", name="test", created="now", config_digest=digest(config), key="test"
        )
        write_manifest(run, manifest)
        return config, run

    return make


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[list[object]], Path]:
    def write(rows: list[object]) -> Path:
        path = tmp_path / "texts.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write
