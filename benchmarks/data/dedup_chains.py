"""The two chains that benchmarks/data/dedup.py compares, and what each of them found."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.blocks.config import MinHashConfig
from data_prep.blocks.minhash import minhash_buckets, minhash_cluster, minhash_filter, minhash_signatures
from data_prep.dedup.pairs import read_pairs
from data_prep.dedup.runs import merged, run_files

TASKS = 2


def ours(documents: list[Document], folder: Path, config: MinHashConfig | None = None) -> float:
    """CPU seconds of our four steps over the documents, in two tasks."""
    config = config or MinHashConfig()
    steps = [minhash_signatures(config, folder), minhash_filter(config, folder)]
    between = [(minhash_buckets(config, folder), TASKS), (minhash_cluster(config, folder), 1)]
    return _four_steps(documents, steps, between)


def datatrove(documents: list[Document], folder: Path) -> float:
    """CPU seconds of datatrove's four steps, as FineWeb ran them (14 buckets of 8 hashes)."""
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.hashing import HashConfig

    # Its default, xxhash, hands over text where xxhash 4 takes bytes alone.
    config = minhash.MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1"))
    places = [str(folder / name) for name in ("signatures", "pairs", "remove")]
    steps = [minhash.MinhashDedupSignature(places[0], config), minhash.MinhashDedupFilter(places[2])]
    between = [
        (minhash.MinhashDedupBuckets(places[0], places[1], config=config), config.num_buckets),
        (minhash.MinhashDedupCluster(places[1], places[2], config=config), 1),
    ]
    return _four_steps(documents, steps, between)


def _four_steps(
    documents: list[Document], around: list[PipelineStep], between: list[tuple[PipelineStep, int]]
) -> float:
    size = -(-len(documents) // TASKS)
    parts = [documents[size * rank : size * (rank + 1)] for rank in range(TASKS)]
    began = time.process_time()
    for rank, part in enumerate(parts):
        _drain(around[0].run(iter(part), rank, TASKS))
    for step, tasks in between:
        for rank in range(tasks):
            _drain(step.run(None, rank, tasks))
    for rank, part in enumerate(parts):
        _drain(around[1].run(iter(part), rank, TASKS))
    return time.process_time() - began


def _drain(documents: Iterable[Document] | None) -> None:
    for _ in documents or ():
        pass


class Found:
    """What a chain reported, by the documents' places in the list.

    Attributes:
        pairs: (later, earlier).
        stays: document that goes -> document that stays instead.
    """

    def __init__(self, pairs: list[tuple[int, int]], stays: dict[int, int]) -> None:
        self.pairs, self.stays = pairs, stays
        self._together = {frozenset(pair) for pair in pairs}

    @classmethod
    def by_us(cls, folder: Path, documents: int) -> Found:
        """Read our folder."""
        size = -(-documents // TASKS)

        def place(document: int) -> int:
            return (document >> 32) * size + (document & 0xFFFFFFFF)

        def places(columns: Iterator[Any]) -> list[tuple[int, int]]:
            both = (zip(part[0].tolist(), part[1].tolist(), strict=True) for part in columns)
            return [(place(a), place(b)) for part in both for a, b in part]

        return cls(places(read_pairs(folder / "similar")), dict(places(merged(run_files(folder / "remove")))))

    @classmethod
    def by_datatrove(cls, folder: Path, documents: int) -> Found:
        """Read datatrove's folder: pairs that meet in a bucket; of a cluster the one that is not removed stays."""
        size = -(-documents // TASKS)
        rows = (
            row
            for path in sorted((folder / "pairs").glob("*.dups"))
            for row in struct.iter_unpack("<4I", path.read_bytes())
        )
        pairs = sorted({(max(a, b), min(a, b)) for a, b in ((f * size + d, g * size + e) for f, d, g, e in rows)})
        removed = {
            int(path.stem) * size + place
            for path in (folder / "remove").glob("*.remove")
            for (place,) in struct.iter_unpack("<I", path.read_bytes())
        }
        clusters: dict[int, list[int]] = {}
        for pair in pairs:
            first, second = (clusters.setdefault(place, [place]) for place in pair)
            if first is not second:
                first += second
                clusters.update(dict.fromkeys(second, first))
        stays = {place: next(other for other in clusters[place] if other not in removed) for place in sorted(removed)}
        return cls(pairs, stays)

    def finds(self, first: int, second: int) -> bool:
        """Whether two documents were found to be alike."""
        alike = self.stays.get(first, first) == self.stays.get(second, second)
        return alike or frozenset((first, second)) in self._together
