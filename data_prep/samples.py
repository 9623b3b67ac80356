"""The documents that the report shows: chosen by a hash, so that tasks, workers and completion order have no say."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import xxhash
from datatrove.data import Document

from data_prep.ledger import PAYLOAD
from kit.files import atomic_write

SAMPLES_FILE = "samples.json"
SCHEMA_VERSION = 1
SAMPLES = 20  # of the kept and of the dropped documents each
EXCERPT_CHARACTERS = 600
_HASHED_CHARACTERS = 64  # of the text: tells apart documents of one file that share an id
# Control characters and those that turn the direction of what follows: they would spoil the page that shows them.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Sample(NamedTuple):
    """A document that was chosen. `block` and `reason` are empty where it was kept; `text` is how it begins."""

    key: int
    id: str
    file: str
    url: str
    language: str
    block: str
    reason: str
    characters: int
    text: str


class SmallestHashes:
    """Keeps the documents with the smallest hashes of all that are offered: a uniform sample of fixed size.

    Which ones these are depends on the documents alone, so the samples of several tasks add up to the sample of all.

    Args:
        count: how many to keep.
        seed: another seed chooses others.
    """

    def __init__(self, count: int = SAMPLES, seed: int = 0) -> None:
        self.count, self.seed = count, seed
        self._heap: list[tuple[int, Sample]] = []  # the largest hash on top, so negated

    def offer(self, document: Document, block: str = "", reason: str = "") -> None:
        """Take a document in if its hash is small enough; the excerpt is only made then."""
        key = self._key(document)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, (-key, _sample(document, key, block, reason)))
        elif key < -self._heap[0][0]:
            heapq.heapreplace(self._heap, (-key, _sample(document, key, block, reason)))

    def _key(self, document: Document) -> int:
        metadata = document.metadata
        begin = document.text[:_HASHED_CHARACTERS]
        name = f"{self.seed}\0{metadata.get('file', '')}\0{document.id}\0{metadata.get('url', '')}\0{begin}"
        return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))

    def samples(self) -> list[Sample]:
        """What was chosen, the smallest hash first."""
        return smallest((sample for _, sample in self._heap), self.count)


def smallest(samples: Iterable[Sample], count: int = SAMPLES) -> list[Sample]:
    """The first samples by hash; of several tasks' samples, the sample of all their documents."""
    return heapq.nsmallest(count, samples)


def write_samples(path: Path, kept: list[Sample], dropped: list[Sample]) -> None:
    """Write what the report shows: two lists of samples, without their hashes."""
    sides = {"kept": kept, "dropped": dropped}
    rows = {side: [{**s._asdict(), "key": f"{s.key:016x}"} for s in samples] for side, samples in sides.items()}
    atomic_write(path, json.dumps({"schema_version": SCHEMA_VERSION, **rows}, indent=1, ensure_ascii=False) + "\n")


def excerpt(text: str) -> str:
    """How a text begins, in characters that can be shown."""
    begin = text[:EXCERPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", begin.replace("\r\n", "\n"))


def _sample(document: Document, key: int, block: str, reason: str) -> Sample:
    metadata = document.metadata
    text, characters = document.text, len(document.text)
    if not text and (payload := metadata.get(PAYLOAD)):  # a record that was dropped before it was decoded
        text, characters = payload[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"), len(payload)
    return Sample(
        key=key,
        id=excerpt(document.id),
        file=excerpt(str(metadata.get("file", ""))),
        url=excerpt(str(metadata.get("url", ""))),
        language=str(metadata.get("language", "")),
        block=block,
        reason=reason,
        characters=characters,
        text=excerpt(text),
    )
