"""Accounting: how many documents and bytes went into and came out of every block, and why the others did not."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kit.files import atomic_write
from kit.tokens.card import BlockCard, Example

EXAMPLES_PER_REASON = 3
SNIPPET_CHARACTERS = 200
PAYLOAD = "payload"  # raw bytes of a record, in a document's metadata before it has a text
REASON = "filter_reason"  # where datatrove's filters and ours leave the reason for a drop


class ReasonKeeper:
    """Stands in for datatrove's exclusion writer: only with one do its filters note a reason in the document."""

    def __enter__(self) -> ReasonKeeper:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        """Keep nothing: the meter around the block sees the reason in the document's metadata."""


class Drops(Protocol):
    """Collects what is dropped: `begin` gives what is told of one block's drops in one task (`saw`), `end` ends it."""

    def begin(self, block: str) -> Any:
        """A block begins a task."""

    def end(self, seen: Any, rank: int) -> None:
        """It has ended it."""


class Metered(PipelineStep):
    """Runs another block and counts what goes in and what comes out; the one mechanism of the funnel.

    A document that went in and had not come out when the next one is asked for was dropped: every block here works
    on one document at a time, in order.

    Args:
        block: the block to run.
        name: its name on the card.
        folder: where the counts of each task go.
        position: its place in the pipeline, over all steps.
        default_reason: the reason for blocks that drop without saying why.
        drops: is told of every document that the block drops (data_prep.statistics.DroppedStatistics).
    """

    type = "METER"

    def __init__(
        self,
        block: PipelineStep,
        name: str,
        folder: Path,
        position: int,
        default_reason: str = "dropped",
        drops: Drops | None = None,
    ) -> None:
        self.name = name
        super().__init__()
        self.block = block
        self.folder = folder
        self.position = position
        self.default_reason = default_reason
        self.drops = drops

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield what the block yields; write the counts when its input has ended."""
        seen = self.drops.begin(self.name) if self.drops else None
        tally = _Tally(self.name, self.default_reason, seen)
        began, outside = time.process_time(), 0.0
        for document in self.block.run(tally.watch(data), rank, world_size):
            tally.came_out(document)
            left = time.process_time()
            yield document
            outside += time.process_time() - left
        tally.settle()
        seconds = time.process_time() - began - outside - tally.seconds_upstream
        if self.drops:
            self.drops.end(seen, rank)
        path = self.folder / f"{self.position:02d}-{self.name}" / f"{rank:05d}.json"
        atomic_write(path, json.dumps(tally.card(seconds).model_dump(mode="json"), ensure_ascii=False))


def size_of(document: Document) -> int:
    """Bytes of a document: of its raw record before decoding, of its UTF-8 text afterwards."""
    payload = document.metadata.get(PAYLOAD)
    if payload is not None:
        return len(payload)
    text = document.text
    if text is not _measured[0]:  # most blocks pass the very same string on
        _measured[:] = [text, len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))]
    return int(_measured[1])


_measured: list[Any] = ["", 0]


def read_ledger(folder: Path) -> list[BlockCard]:
    """Add up the tasks of every block, in pipeline order; examples are the first by task."""
    cards = []
    for block_folder in sorted(folder.iterdir()) if folder.exists() else []:
        parts = [BlockCard.model_validate_json(path.read_text("utf-8")) for path in sorted(block_folder.glob("*.json"))]
        if parts:
            cards.append(add_up(parts))
    return cards


def add_up(parts: list[BlockCard]) -> BlockCard:
    """One block's counts over several tasks."""
    dropped: Counter[str] = Counter()
    examples: dict[str, list[Example]] = {}
    for part in parts:
        dropped.update(part.dropped)
        for reason, found in part.examples.items():
            examples.setdefault(reason, []).extend(found)
    return BlockCard(
        name=parts[0].name,
        documents_in=sum(part.documents_in for part in parts),
        documents_out=sum(part.documents_out for part in parts),
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
        cpu_seconds=round(sum(part.cpu_seconds or 0.0 for part in parts), 3),
        dropped=dict(sorted(dropped.items())),
        examples={reason: examples[reason][:EXAMPLES_PER_REASON] for reason in sorted(examples)},
    )


class _Tally:
    """The counts of one block in one task."""

    def __init__(self, name: str, default_reason: str, seen: Any = None) -> None:
        self.name, self.default_reason, self.seen = name, default_reason, seen
        self.documents_in = self.documents_out = self.bytes_in = self.bytes_out = 0
        self.seconds_upstream = 0.0
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self._pending: Document | None = None

    def watch(self, data: Iterator[Document]) -> Iterator[Document]:
        """Pass documents to the block, counting them; asking for the next one settles the one before."""
        source = iter(data)
        while True:
            asked = time.process_time()
            document = next(source, None)
            self.seconds_upstream += time.process_time() - asked
            self.settle()
            if document is None:
                return
            self.documents_in += 1
            self.bytes_in += size_of(document)
            self._pending = document
            yield document

    def came_out(self, document: Document) -> None:
        self.documents_out += 1
        self.bytes_out += size_of(document)
        self._pending = None

    def settle(self) -> None:
        """If the last document did not come out, count it as dropped."""
        document, self._pending = self._pending, None
        if document is None:
            return
        reason = str(document.metadata.pop(REASON, self.default_reason))
        self.dropped[reason] += 1
        if self.seen is not None:
            self.seen.saw(document, reason)
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES_PER_REASON:
            kept.append(_example(document))

    def card(self, seconds: float) -> BlockCard:
        counts: dict[str, Any] = {
            key: getattr(self, key) for key in ("documents_in", "documents_out", "bytes_in", "bytes_out")
        }
        return BlockCard(
            name=self.name, cpu_seconds=seconds, dropped=dict(self.dropped), examples=self.examples, **counts
        )


def _example(document: Document) -> Example:
    payload = document.metadata.get(PAYLOAD)
    text = document.text or (payload[: 4 * SNIPPET_CHARACTERS].decode("utf-8", "replace") if payload else "")
    text = text.encode("utf-8", "replace").decode("utf-8")[:SNIPPET_CHARACTERS]
    return Example(id=document.id, url=str(document.metadata.get("url", "")), text=text)
