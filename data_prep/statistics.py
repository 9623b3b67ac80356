"""Languages, lengths, sources and samples of the documents that stayed and of those that went, task by task.

Every task writes what it saw; `merge` adds the tasks up. What comes out depends on the documents alone.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.ledger import size_of
from data_prep.samples import Sample, SmallestHashes, smallest
from kit.files import atomic_write
from kit.tokens.card import LanguageCard, SourceCard
from kit.tokens.shards import Shard

KEPT, DROPPED = "kept", "dropped"
UNKNOWN = "unknown"


class Statistics(NamedTuple):
    """What the card and the report show of a run's documents.

    Attributes:
        languages_in: as identified, before anything was dropped for its language or later.
        languages: of the dataset.
        lengths_kept, lengths_dropped: the least number of characters of a bin -> documents in it; a bin ends where
            the next power of two begins. Dropped are counted once they are text: what had a language.
        sources: by the name of the mixture's source, or else of the input file.
        kept, dropped: the samples.
    """

    languages_in: dict[str, LanguageCard]
    languages: dict[str, LanguageCard]
    lengths_kept: dict[int, int]
    lengths_dropped: dict[int, int]
    sources: dict[str, SourceCard]
    kept: list[Sample]
    dropped: list[Sample]


class TaskStatistics:
    """What one task saw of the documents that stayed, or that one block dropped.

    Args:
        block: the block that drops them; empty for those that stay.
        seed: of the samples.
    """

    def __init__(self, block: str = "", seed: int = 0) -> None:
        self.block = block
        self.languages: dict[str, Counter[str]] = {}
        self.files: dict[str, Counter[str]] = {}
        self.sources: dict[str, str] = {}  # file -> the mixture's source that it belongs to
        self.lengths: Counter[int] = Counter()
        self.samples = SmallestHashes(seed=seed)
        self._last: tuple[str, str, str] = ("", "", "")

    def saw(self, document: Document, reason: str = "") -> None:
        """Count a document, and choose it as a sample if its hash says so."""
        metadata, size = document.metadata, size_of(document)
        file, language = str(metadata.get("file", "")), str(metadata.get("language", ""))
        _add(self.files, file, size)
        if source := metadata.get("source"):
            self.sources[file] = str(source)
        if not reason and (file, document.id, document.text) == self._last:
            # A mixture repeats documents, which are in the dataset as often as it says; but they came in once.
            self.languages[language or UNKNOWN].update({"copies": 1, "copied_bytes": size})
            return
        self._last = (file, document.id, document.text)
        if language or not self.block:
            _add(self.languages, language or UNKNOWN, size)
            self.lengths[_bin(len(document.text))] += 1
        self.samples.offer(document, self.block, reason)

    def write(self, path: Path) -> None:
        """Write it down, whole or not at all."""
        record = {
            "languages": self.languages,
            "files": self.files,
            "sources": self.sources,
            "lengths": self.lengths,
            "samples": self.samples.samples(),
        }
        atomic_write(path, json.dumps(record, ensure_ascii=False))


class KeptStatistics(PipelineStep):
    """Passes documents through and counts them: the last block of the row, so that what it sees is the dataset.

    Args:
        folder: of the run's statistics; the same as that of DroppedStatistics.
        shards: where the block before leaves the documents of a task as a token shard `<rank>`, in their order, by
            the time they end; the tokens are counted in it. None where nothing was tokenised.
        seed: of the samples.
    """

    type = "STATISTICS"
    name = "kept"

    def __init__(self, folder: Path, shards: Path | None = None, seed: int = 0) -> None:
        super().__init__()
        self.folder, self.shards, self.seed = folder, shards, seed

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document; write the counts when the input has ended."""
        seen = TaskStatistics(seed=self.seed)
        numbers: dict[str, int] = {}
        order = array("I")  # the file of every document, by its number: four bytes each
        for document in data:
            seen.saw(document)
            order.append(numbers.setdefault(str(document.metadata.get("file", "")), len(numbers)))
            yield document
        if self.shards is not None and order:
            lengths = Shard(self.shards / f"{rank:05d}").lengths
            tokens = np.bincount(np.frombuffer(order, np.uint32), lengths, len(numbers))
            for file, number in numbers.items():
                seen.files[file]["tokens"] = int(tokens[number])
        seen.write(self.folder / KEPT / f"{rank:05d}.json")


class DroppedStatistics:
    """What a meter tells of the documents that its block dropped; one for all blocks of a run.

    Args:
        folder: of the run's statistics.
        seed: of the samples.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed

    def begin(self, block: str) -> TaskStatistics:
        """Counts of one block in one task: call `saw(document, reason)` on them for every drop."""
        return TaskStatistics(block, self.seed)

    def end(self, seen: TaskStatistics, rank: int) -> None:
        """Write the counts of one block in one task, if it dropped anything."""
        path = self.folder / DROPPED / seen.block / f"{rank:05d}.json"
        if seen.files:
            seen.write(path)
        else:
            path.unlink(missing_ok=True)  # of an earlier try that was cut off


def merge(folder: Path) -> Statistics:
    """Add up what the tasks of all blocks wrote."""
    kept, dropped = _Sum(), _Sum()
    for path in sorted((folder / KEPT).glob("*.json")):
        kept.add(path)
    for path in sorted((folder / DROPPED).glob("*/*.json")):
        dropped.add(path)
    names = dropped.sources | kept.sources
    return Statistics(
        languages_in=_languages([kept.languages, dropped.languages]),
        languages=_languages([kept.languages], copies=True),
        lengths_kept=dict(sorted(kept.lengths.items())),
        lengths_dropped=dict(sorted(dropped.lengths.items())),
        sources=_sources(kept.files, dropped.files, names),
        kept=smallest(kept.samples),
        dropped=smallest(dropped.samples),
    )


class _Sum:
    """The counts of several tasks."""

    def __init__(self) -> None:
        self.languages: dict[str, Counter[str]] = {}
        self.files: dict[str, Counter[str]] = {}
        self.sources: dict[str, str] = {}
        self.lengths: Counter[int] = Counter()
        self.samples: list[Sample] = []

    def add(self, path: Path) -> None:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for total, part in ((self.languages, record["languages"]), (self.files, record["files"])):
            for name, counts in part.items():
                total.setdefault(name, Counter()).update(counts)
        self.sources |= record["sources"]
        self.lengths.update({int(begin): count for begin, count in record["lengths"].items()})
        self.samples = smallest([*self.samples, *(Sample(*row) for row in record["samples"])])


def _add(counts: dict[str, Counter[str]], name: str, size: int) -> None:
    found = counts.get(name)
    if found is None:
        found = counts[name] = Counter(documents=0, bytes=0)
    found["documents"] += 1
    found["bytes"] += size


def _languages(parts: list[dict[str, Counter[str]]], copies: bool = False) -> dict[str, LanguageCard]:
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.items():
            total.setdefault(name, Counter()).update(counts)
    return {
        name: LanguageCard(
            documents=counts["documents"] + copies * counts["copies"],
            bytes=counts["bytes"] + copies * counts["copied_bytes"],
        )
        for name, counts in sorted(total.items())
    }


def _sources(
    kept: dict[str, Counter[str]], dropped: dict[str, Counter[str]], names: dict[str, str]
) -> dict[str, SourceCard]:
    """Counts by source; a file that no source of the mixture names counts under its own name."""
    total: dict[str, Counter[str]] = {}
    for file in sorted(kept | dropped):
        counts = total.setdefault(names.get(file, file), Counter())
        counts.update(kept.get(file, Counter()))
        counts["dropped"] += dropped.get(file, Counter())["documents"]
    return {
        name: SourceCard(
            documents=counts["documents"], bytes=counts["bytes"], tokens=counts["tokens"], dropped=counts["dropped"]
        )
        for name, counts in sorted(total.items())
    }


def _bin(characters: int) -> int:
    """The largest power of two that is not above it; 0 for an empty text."""
    return 1 << characters.bit_length() >> 1
