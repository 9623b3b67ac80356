"""Which documents to compare, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.dedup.runs import Hashes, merged, run_files
from data_prep.dedup.sketches import Sketches

COLUMNS = ("u8", "u8", "f4")  # the later document, the earlier one, their similarity

_NEIGHBOURS = 4  # documents of a bucket are compared with this many before them, and with the first one
_AT_ONCE = 1 << 15


class Pairs(NamedTuple):
    """Pairs of documents, one a place."""

    later: Hashes
    earlier: Hashes
    similarity: npt.NDArray[np.float32]


def read_pairs(folder: Path) -> Iterator[Pairs]:
    """The pairs in the runs of a folder, each once, sorted by the later and then by the earlier document."""
    for later, earlier, similarity in merged(run_files(folder)):
        order = np.lexsort((earlier, later))
        pairs = Pairs(later[order], earlier[order], similarity[order])
        new = np.ones(len(order), np.bool_)
        new[1:] = (pairs.later[1:] != pairs.later[:-1]) | (pairs.earlier[1:] != pairs.earlier[:-1])
        yield Pairs(pairs.later[new], pairs.earlier[new], pairs.similarity[new])


def candidates(buckets: Iterable[tuple[Hashes, Hashes]]) -> Iterator[tuple[Hashes, Hashes]]:
    """(later, earlier) documents that share a bucket, each pair once a piece.

    In a bucket of n documents these are at most 5 n pairs, not n * n / 2: the first one stands for the bucket, and
    neighbours catch what differs from it (pages that share a template, say); a pair that is really alike meets in
    several buckets.

    Args:
        buckets: (keys, documents), sorted by both.
    """
    carried: tuple[Hashes, Hashes] | None = None
    for keys, documents in buckets:
        if carried is not None and carried[0][0] == keys[0]:  # a bucket that is cut by the end of a piece
            keys, documents = np.concatenate([carried[0], keys]), np.concatenate([carried[1], documents])
        yield _meeting(keys, documents)
        carried = _tail(keys, documents)


def similar(pairs: Iterable[tuple[Hashes, Hashes]], sketches: Sketches, threshold: float) -> Iterator[Pairs]:
    """Those pairs whose signatures agree in at least `threshold`, with their similarity."""
    for later, earlier in pairs:
        for begin in range(0, len(later), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            similarity = sketches.similarities(later[part], earlier[part])
            alike = similarity >= np.float32(threshold)
            yield Pairs(later[part][alike], earlier[part][alike], similarity[alike])


def _meeting(keys: Hashes, documents: Hashes) -> tuple[Hashes, Hashes]:
    new = np.ones(len(keys), np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    places = np.flatnonzero(first != np.arange(len(keys)))
    later, earlier = [documents[places]], [documents[first[places]]]
    for distance in range(1, _NEIGHBOURS + 1):
        inside = places[places - distance > first[places]]
        later.append(documents[inside])
        earlier.append(documents[inside - distance])
    return _each_once(np.concatenate(later), np.concatenate(earlier))


def _each_once(later: Hashes, earlier: Hashes) -> tuple[Hashes, Hashes]:
    order = np.lexsort((earlier, later))
    later, earlier = later[order], earlier[order]
    new = later != earlier
    new[1:] &= (later[1:] != later[:-1]) | (earlier[1:] != earlier[:-1])
    return later[new], earlier[new]


def _tail(keys: Hashes, documents: Hashes) -> tuple[Hashes, Hashes]:
    """What the last bucket still needs for its next documents: its first one and its last ones."""
    begin = int(np.searchsorted(keys, keys[-1]))
    rest = np.arange(max(begin + 1, len(keys) - _NEIGHBOURS), len(keys))
    kept = np.concatenate([[begin], rest]).astype(np.int64)
    return keys[kept], documents[kept]
