"""Clean text between two steps: JSON lines, one file a task, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

_KEPT = ("url", "language", "file", "source")


class StoreDocuments(PipelineStep):
    """Writes every document to `folder/<rank>.jsonl` and passes it on."""

    type = "STORE"
    name = "store"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the file gets its name when all are written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{rank:05d}.jsonl"
        partial = path.with_suffix(".partial")
        with open(partial, "w", encoding="utf-8") as file:
            for document in data:
                metadata = {key: value for key in _KEPT if (value := document.metadata.get(key))}
                file.write(json.dumps({"id": document.id, "text": document.text, **metadata}, ensure_ascii=False))
                file.write("\n")
                yield document
        os.replace(partial, path)


class LoadDocuments(PipelineStep):
    """Reads back what StoreDocuments wrote for the same task."""

    type = "LOAD"
    name = "load"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the task's documents in order."""
        yield from read_stored(self.folder / f"{rank:05d}.jsonl")


def read_stored(path: Path) -> Iterator[Document]:
    """The documents of one file."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            data = json.loads(line)
            yield Document(text=data.pop("text"), id=data.pop("id"), metadata=data)


def read_all_stored(folder: Path) -> Iterator[Document]:
    """The documents of every task, in task order."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from read_stored(path)
