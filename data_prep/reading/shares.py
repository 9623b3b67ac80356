"""Which task reads which part of which file, so that every record is read exactly once."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.reading.members import MemberRecords
from data_prep.reading.records import Found, PlainRecords


def cut(sizes: list[int], rank: int, world_size: int) -> list[tuple[int, int]]:
    """The byte range of every file that a task has: all files in a row, cut into equal parts."""
    total, before, ranges = sum(sizes), 0, []
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    for size in sizes:
        ranges.append((min(max(first - before, 0), size), min(max(last - before, 0), size)))
        before += size
    return ranges


def read_range(records: PlainRecords | MemberRecords, begin: int = 0, end: int | None = None) -> Iterator[Found]:
    """The records that begin at or after `begin` and before `end`."""
    position = _first(records, begin) if begin else 0
    while position is not None and (end is None or position < end):
        found, position = records.take(position)
        yield from found


def _first(records: PlainRecords | MemberRecords, begin: int) -> int | None:
    """Where the first record at or after `begin` starts.

    The bytes at `begin` may lie in a record that itself holds a crawl, so what looks like a start there proves
    nothing. Reading therefore sets out `records.back` bytes before: a false run breaks where the record around it
    ends, and goes on from the next true start. Only a record of more than `records.back` stored bytes that holds a
    crawl could mislead.
    """
    position = records.find(begin - records.back) if begin > records.back else 0
    while position is not None and position < begin:
        _, position = records.take(position, wanted=False)
    return position
