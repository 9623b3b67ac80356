"""Exact duplicates over the whole input, by text or by address: the first document in input order stays.

Three parts of the pipeline: `..._signatures` passes documents through and writes a hash of each; `..._find` (any
number of tasks, no documents) shares out the range of hashes and lists what came before; `..._filter` drops it. All
files are sorted runs (data_prep/dedup/runs.py), so memory does not grow with the input.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.dedup.identity import (
    SIGNATURES,
    DropListed,
    bytes_key,
    number,
    task_file,
    text_key,
    write_count,
    write_repeated,
)
from data_prep.dedup.runs import key_range, merged, run_files, writing_runs

Key = Callable[[Document], int | None]

_AT_ONCE = 1 << 16
_WHITE_SPACE = b" \t\n\r\v\f"
_DEFAULT_PORT = re.compile(r":(?:80|443)?$")


def exact_signatures(folder: Path) -> WriteKeys:
    """Step 1: the hash of every document's text without its white space."""
    return WriteKeys("exact_signatures", folder / SIGNATURES, content_key)


def exact_find(folder: Path) -> FindRepeated:
    """Step 2, any number of tasks: which documents repeat an earlier one."""
    return FindRepeated("exact_find", folder / SIGNATURES, folder / "duplicates")


def exact_filter(folder: Path) -> DropListed:
    """Step 3: drops them as exact_duplicate."""
    return DropListed("exact_filter", folder, "duplicates", "exact_duplicate")


def url_signatures(folder: Path) -> WriteKeys:
    """Step 1: the hash of every document's address; documents without one are never duplicates."""
    return WriteKeys("url_signatures", folder / SIGNATURES, address_key)


def url_find(folder: Path) -> FindRepeated:
    """Step 2, any number of tasks: which addresses came before."""
    return FindRepeated("url_find", folder / SIGNATURES, folder / "duplicates")


def url_filter(folder: Path) -> DropListed:
    """Step 3: drops them as url_duplicate."""
    return DropListed("url_filter", folder, "duplicates", "url_duplicate")


def content_key(document: Document) -> int:
    """Equal for texts that differ in white space alone (ASCII's, no-break and ideographic spaces)."""
    data = document.text.encode("utf-8", "surrogatepass").translate(None, _WHITE_SPACE)
    return bytes_key(data.replace(b"\xc2\xa0", b"").replace(b"\xe3\x80\x80", b""))


def address_key(document: Document) -> int | None:
    """Equal for addresses of the same page: scheme, `www.`, default port, fragment and last slash do not count."""
    url = str(document.metadata.get("url") or "").strip()
    return text_key(normalised_address(url)) if url else None


def normalised_address(url: str) -> str:
    """The address without what does not change the page; one that cannot be taken apart stays as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    host = _DEFAULT_PORT.sub("", parts.netloc.rpartition("@")[2].lower()).removeprefix("www.")
    return host + parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")


class WriteKeys(PipelineStep):
    """Passes documents through and writes (key, document) runs.

    Args:
        name: of the step.
        folder: where the task's file goes.
        key: the key of a document; None leaves it out.
    """

    type = "DEDUP"

    def __init__(self, name: str, folder: Path, key: Key) -> None:
        self.name = name
        super().__init__()
        self.folder, self.key = folder, key

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the file gets its name when all are written."""
        with writing_runs(task_file(self.folder, rank), ("u8", "u8")) as writer:
            keys, documents = array("Q"), array("Q")
            position = -1
            for position, document in enumerate(data):
                key = self.key(document)
                if key is not None:
                    keys.append(key)
                    documents.append(number(rank, position))
                if len(keys) == _AT_ONCE:
                    writer.append(np.array(keys, np.uint64), np.array(documents, np.uint64))
                    keys, documents = array("Q"), array("Q")
                yield document
            writer.append(np.array(keys, np.uint64), np.array(documents, np.uint64))
        write_count(self.folder, rank, position + 1)


class FindRepeated(PipelineStep):
    """Lists the documents whose key an earlier one has; every task takes a share of the keys."""

    type = "DEDUP"

    def __init__(self, name: str, folder: Path, output: Path) -> None:
        self.name = name
        super().__init__()
        self.folder, self.output = folder, output

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the task's runs of documents' numbers."""
        share = merged(run_files(self.folder), *key_range(rank, world_size))
        write_repeated(share, task_file(self.output, rank))
