"""Sorted runs on disk and their merge: how records of any number are brought into order in bounded memory.

A file holds records in runs, each sorted by its first column. Merging cuts the range of keys into parts that fit into
memory, takes each run's records of a part, and sorts them there: every record is read once, and the order of the
result depends on the files' names alone. Keys are hashes, so parts are even; a part that is not is halved.

File: for every run its columns one after another, then a JSON footer {"columns": [...], "runs": [lengths]}, then the
footer's length in 8 bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

KEYS_END = 1 << 64
SUFFIX = ".runs"

_IN_MEMORY = 1 << 20  # records; sorting takes about 50 bytes each on top of the records

Column = npt.NDArray[Any]
Hashes = npt.NDArray[np.uint64]


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when the block ends without an error; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        yield file
    os.replace(partial, path)


@contextmanager
def writing_runs(path: Path, columns: Sequence[str] = ("u8",)) -> Iterator[RunWriter]:
    """A writer of a run file, which gets its name when the block ends without an error."""
    with written_whole(path) as file:
        writer = RunWriter(file, columns)
        yield writer
        writer.finish()


class RunWriter:
    """Writes records that come in any order.

    Args:
        file: where they go.
        columns: types of the columns, the key (uint64) first; records of equal keys stay in the order they came in.
        in_memory: how many records are sorted at a time.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[str], in_memory: int = _IN_MEMORY) -> None:
        self._types = [np.dtype(f"<{column}") for column in columns]
        self._file, self._in_memory = file, in_memory
        self._waiting: list[tuple[Column, ...]] = []
        self._count = 0
        self._lengths: list[int] = []

    def append(self, *columns: Column) -> None:
        """Add records, given as one array a column."""
        self._waiting.append(columns)
        self._count += len(columns[0])
        if self._count >= self._in_memory:
            self._write_run()

    def _write_run(self) -> None:
        if not self._count:
            return
        columns = [np.concatenate([part[i] for part in self._waiting]) for i in range(len(self._types))]
        order = np.argsort(columns[0], kind="stable")
        for column, kind in zip(columns, self._types, strict=True):
            self._file.write(column[order].astype(kind, copy=False).tobytes())
        self._lengths.append(self._count)
        self._waiting, self._count = [], 0

    def finish(self) -> None:
        """Write what is left and the footer."""
        self._write_run()
        footer = json.dumps({"columns": [kind.str for kind in self._types], "runs": self._lengths}).encode()
        self._file.write(footer + len(footer).to_bytes(8, "little"))


class Run(NamedTuple):
    """One sorted run: where its columns lie."""

    path: Path
    offset: int
    length: int
    types: tuple[np.dtype[Any], ...]

    def edges(self, keys: Sequence[int]) -> npt.NDArray[np.int64]:
        """How many records have a key below each of these (non-descending) ones."""
        stored = np.memmap(self.path, self.types[0], "r", self.offset, (self.length,))
        below = np.searchsorted(stored, np.array([key for key in keys if key < KEYS_END], np.uint64))
        return np.concatenate([below, np.full(len(keys) - len(below), self.length)]).astype(np.int64)

    def read(self, begin: int, end: int) -> tuple[Column, ...]:
        """The columns of some records."""
        columns, offset = [], self.offset
        for kind in self.types:
            columns.append(np.fromfile(self.path, kind, end - begin, offset=offset + begin * kind.itemsize))
            offset += self.length * kind.itemsize
        return tuple(columns)


def run_files(folder: Path) -> list[Path]:
    """The run files of a folder in the order of their numbers."""
    return sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (len(path.name), path.name))


def merged(
    files: Sequence[Path], begin: int = 0, end: int = KEYS_END, in_memory: int = _IN_MEMORY
) -> Iterator[tuple[Column, ...]]:
    """The records with keys in [begin, end), sorted by key, then by file and place in it, some at a time.

    The records of one key come in one piece unless they alone are more than `in_memory`.
    """
    runs = [run for path in files for run in _runs_of(path)]
    total = int(sum(edges[1] - edges[0] for edges in (run.edges([begin, end]) for run in runs)))
    if not total:
        return
    parts = min(-(-total * 5 // (in_memory * 4)), end - begin)  # a little smaller than what fits: few need halving
    limits = [begin + (end - begin) * i // parts for i in range(parts)] + [end]
    table = np.array([run.edges(limits) for run in runs])
    for i in range(parts):
        yield from _part(runs, table[:, i], table[:, i + 1], limits[i], limits[i + 1], in_memory)


def key_range(rank: int, world_size: int) -> tuple[int, int]:
    """The share of one of several tasks in the range of keys."""
    return KEYS_END * rank // world_size, KEYS_END * (rank + 1) // world_size


def _part(
    runs: list[Run], low: Column, high: Column, begin: int, end: int, in_memory: int
) -> Iterator[tuple[Column, ...]]:
    used = [(run, int(a), int(b)) for run, a, b in zip(runs, low, high, strict=True) if b > a]
    total = sum(b - a for _, a, b in used)
    if not total:
        return
    if total <= in_memory:
        yield _sorted([run.read(a, b) for run, a, b in used])
    elif end - begin > 1:
        middle = (begin + end) // 2
        between = np.array([run.edges([middle])[0] for run in runs], np.int64)
        yield from _part(runs, low, between, begin, middle, in_memory)
        yield from _part(runs, between, high, middle, end, in_memory)
    else:  # one key alone: run after run is the order asked for
        for run, a, b in used:
            for start in range(a, b, in_memory):
                yield run.read(start, min(start + in_memory, b))


def _sorted(parts: list[tuple[Column, ...]]) -> tuple[Column, ...]:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return tuple(column[order] for column in columns)


def _runs_of(path: Path) -> list[Run]:
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(8), "little")
        file.seek(-8 - size, os.SEEK_END)
        footer = json.loads(file.read(size))
    types = tuple(np.dtype(column) for column in footer["columns"])
    record, offset, runs = sum(kind.itemsize for kind in types), 0, []
    for length in footer["runs"]:
        runs.append(Run(path, offset, length, types))
        offset += length * record
    return runs
