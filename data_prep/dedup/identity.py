"""What names a document during deduplication: the task it came through and its place in it, in one 64-bit number.

Ordering by this number is the order of the input, whichever task ran first; identifiers of the documents themselves
need not be unique. Also here: which documents of a task a step wants gone, and the text behind such a name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.dedup.runs import SUFFIX, Column, merged, run_files, writing_runs
from data_prep.ledger import REASON
from kit.errors import RunFailure
from kit.files import atomic_write

SIGNATURES = "signatures"  # the folder of what the first step writes
NAMES_SUFFIX = ".names.jsonl"
_COUNT_SUFFIX = ".count"
_BITS = 32


def number(rank: int, position: int) -> int:
    """The number of a document."""
    return (rank << _BITS) | position


def place(document: int) -> tuple[int, int]:
    """The task and the position in it."""
    return document >> _BITS, document & ((1 << _BITS) - 1)


def task_file(folder: Path, rank: int, suffix: str = SUFFIX) -> Path:
    """The file of a task."""
    return folder / f"{rank:05d}{suffix}"


def text_key(text: str) -> int:
    """A 64-bit hash: two of a billion different texts share one with a probability of 3 %."""
    return bytes_key(text.encode("utf-8", "surrogatepass"))


def bytes_key(data: bytes) -> int:
    """The same of bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def listed(folder: Path, rank: int) -> Iterator[int]:
    """Positions of the task's documents in the runs of a folder, ascending."""
    for columns in merged(run_files(folder), number(rank, 0), number(rank + 1, 0)):
        for document in columns[0].tolist():
            yield place(document)[1]


def write_repeated(records: Iterator[tuple[Column, ...]], path: Path, columns: Sequence[str] = ("u8",)) -> None:
    """Write the records whose key an earlier record has, without their key.

    Args:
        records: their columns, the key first and the document next, sorted by both.
        path: where the runs go, sorted by document.
        columns: types of the columns after the key.
    """
    last: np.uint64 | None = None
    with writing_runs(path, columns) as writer:
        for part in records:
            repeated = np.empty(len(part[0]), np.bool_)
            repeated[1:] = part[0][1:] == part[0][:-1]
            repeated[0] = last is not None and part[0][0] == last
            last = part[0][-1]
            writer.append(*(column[repeated] for column in part[1:]))


def write_count(signatures: Path, rank: int, count: int) -> None:
    """Note how many documents of a task the signatures are of."""
    atomic_write(task_file(signatures, rank, _COUNT_SUFFIX), str(count))


def check_count(signatures: Path, rank: int, count: int) -> None:
    """Documents are known by their places, so signatures and filter have to see the same ones.

    Raises:
        RunFailure: the filter saw another number of documents.
    """
    expected = int(task_file(signatures, rank, _COUNT_SUFFIX).read_text())
    if count != expected:
        raise RunFailure(
            f"task {rank}: {count} documents to filter, but the signatures in {signatures} are of {expected}",
            expected="the same documents in the same order, with no filter in between",
            action="write the signatures in the step before the filter, behind every other filter",
        )


class DropListed(PipelineStep):
    """Drops the documents that are in the runs of a folder; it has to see the documents that the signatures saw.

    Args:
        name: of the step.
        folder: of this deduplication.
        listed: the folder in it with the runs of documents' numbers.
        reason: the reason for the drop, left in the metadata.

    Raises:
        RunFailure: there were more or fewer documents.
    """

    type = "DEDUP"

    def __init__(self, name: str, folder: Path, listed: str, reason: str) -> None:
        self.name = name
        super().__init__()
        self.folder, self.listed, self.reason = folder, listed, reason

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the other documents."""
        gone = listed(self.folder / self.listed, rank)
        following = next(gone, None)
        position = -1
        for position, document in enumerate(data):
            if position != following:
                yield document
                continue
            document.metadata[REASON] = self.reason
            while following == position:
                following = next(gone, None)
        check_count(self.folder / SIGNATURES, rank, position + 1)


def write_name(file: IO[bytes], document: Document) -> None:
    """Note the identifier and the address of a task's next document, for whoever wants to show some of them."""
    named = json.dumps((str(document.id), str(document.metadata.get("url", ""))))
    file.write(f"{named}\n".encode())


def read_names(folder: Path, documents: list[int]) -> dict[int, tuple[str, str]]:
    """(identifier, address) of a few documents."""
    wanted: dict[int, set[int]] = {}
    for document in documents:
        rank, position = place(document)
        wanted.setdefault(rank, set()).add(position)
    found = {}
    for rank, positions in wanted.items():
        with open(task_file(folder, rank, NAMES_SUFFIX), encoding="utf-8") as file:
            for position, line in enumerate(file):
                if position in positions:
                    identifier, url = json.loads(line)
                    found[number(rank, position)] = (identifier, url)
    return found
