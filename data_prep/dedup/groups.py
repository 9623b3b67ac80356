"""From similar pairs to which documents go, in one pass over the input's order.

Joining every pair into one group would chain: A like B, B like C, and C goes though nothing like it stays. So a
document goes only where a document that stays is at least as similar as the threshold asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.dedup.identity import number, place
from data_prep.dedup.pairs import Pairs
from data_prep.dedup.runs import writing_runs
from data_prep.dedup.sketches import Sketches

_SCAN = 1 << 22
_EXAMPLES, _MEMBERS = 10, 5


class Decisions:
    """Which document stays for which: one number a document, on the disk.

    Args:
        path: the scratch file; 0 for documents that stay, else 1 + the place of the one that stays instead.
        sketches: signatures of all documents.
        threshold: the least similarity.
    """

    def __init__(self, path: Path, sketches: Sketches, threshold: float) -> None:
        self.sketches, self.threshold = sketches, np.float32(threshold)
        counts = sketches.counts()
        self._ranks, self._ends = list(counts), list(accumulate(counts.values()))
        self._begins = dict(zip(self._ranks, [0, *self._ends], strict=False))
        self.documents, self.dropped = sum(counts.values()), 0
        self._instead: npt.NDArray[np.int64] = np.memmap(path, "<i8", "w+", shape=(max(self.documents, 1),))

    def decide(self, pairs: Iterator[Pairs], path: Path) -> None:
        """Take the documents in order and note which go, and for which one that stays.

        Args:
            pairs: sorted by the later document; all pairs of a document in one piece.
            path: for the runs: the document that goes, the one that stays instead.
        """
        with writing_runs(path, ("u8", "u8")) as writer:
            for piece in pairs:
                going = np.array(list(self._going(piece)), np.uint64).reshape(-1, 2)
                self.dropped += len(going)
                writer.append(going[:, 0], going[:, 1])

    def _going(self, pairs: Pairs) -> Iterator[tuple[int, int]]:
        later, earlier = pairs.later.tolist(), pairs.earlier.tolist()
        begin = 0
        while begin < len(later):
            document, end = later[begin], begin + 1
            while end < len(later) and later[end] == document:
                end += 1
            stays = self._who_stays_for(document, earlier[begin:end])
            if stays is not None:
                self._instead[self._place(document)] = 1 + self._place(stays)
                yield document, stays
            begin = end

    def _who_stays_for(self, document: int, alike: list[int]) -> int | None:
        """The first document that stays and is similar; None if this one stays too."""
        others = []
        for other in alike:
            instead = int(self._instead[self._place(other)])
            if not instead:
                return other
            others.append(self._number(instead - 1))
        stay = np.unique(np.array(others, np.uint64))
        similarity = self.sketches.similarities(stay, np.full(len(stay), document, np.uint64))
        near = stay[similarity >= self.threshold]
        return int(near[0]) if len(near) else None

    def _place(self, document: int) -> int:
        rank, position = place(document)
        return self._begins[rank] + position

    def _number(self, where: int) -> int:
        i = bisect_right(self._ends, where)
        rank = self._ranks[i]
        return number(rank, where - self._begins[rank])

    def sizes(self, counts_path: Path) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """(size of a cluster -> how many there are, (size, place of the one that stays) of the largest ones)."""
        counts: npt.NDArray[np.uint32] = np.memmap(counts_path, "<u4", "w+", shape=(max(self.documents, 1),))
        for _, instead in self._scan():
            where, repeats = np.unique(instead, return_counts=True)
            counts[where] += repeats.astype(np.uint32)
        sizes: Counter[int] = Counter()
        largest: list[tuple[int, int]] = []
        for begin in range(0, self.documents, _SCAN):
            part = np.asarray(counts[begin : begin + _SCAN])
            found, repeats = np.unique(part, return_counts=True)
            sizes.update(dict(zip(found.tolist(), repeats.tolist(), strict=True)))
            places = np.lexsort((np.arange(len(part)), -part.astype(np.int64)))[:_EXAMPLES]
            largest += [(-int(part[i]), begin + int(i)) for i in places if part[i]]
            largest = sorted(largest)[:_EXAMPLES]
        sizes.pop(0, None)
        return {size + 1: count for size, count in sorted(sizes.items())}, [
            (1 - less, where) for less, where in largest
        ]

    def members(self, stays: list[int]) -> list[list[int]]:
        """The numbers of the first documents of some clusters, the one that stays first."""
        found = {where: [self._number(where)] for where in stays}
        for gone, instead in self._scan():
            for where in stays:
                room = _MEMBERS - len(found[where])
                found[where] += [self._number(int(i)) for i in gone[instead == where][:room]] if room > 0 else []
        return [found[where] for where in stays]

    def _scan(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """(places of documents that go, places of those that stay for them), some at a time."""
        for begin in range(0, self.documents, _SCAN):
            part = np.asarray(self._instead[begin : begin + _SCAN])
            gone = np.flatnonzero(part)
            yield begin + gone, part[gone] - 1
