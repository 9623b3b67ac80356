"""Near duplicates over the whole input by MinHash with banding (Broder 1997; Leskovec et al., chapter 3).

`minhash_signatures` passes documents through and writes their signatures; `minhash_buckets` (any number of tasks)
finds pairs that meet in a bucket and estimates their similarity from the whole signatures; `minhash_cluster` (one
task) decides which documents go; `minhash_filter` drops them. The first document in input order stays, and each one
that goes is similar to one that stays.

The folder holds afterwards: `similar/*.runs` (the pairs that count; `read_pairs` reads them), `remove/*.runs` (who
goes, and who stays instead) and `clusters.json`:
    {"documents": N, "pairs": N, "dropped": N, "sizes": {"2": clusters of two documents, ...},
     "examples": [{"size": N, "documents": [{"id": "...", "url": "..."}, ...]}, ...]}
with the ten largest clusters as examples, at most five documents of each, the one that stays first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.blocks.config import MinHashConfig
from data_prep.dedup.groups import Decisions
from data_prep.dedup.identity import (
    NAMES_SUFFIX,
    SIGNATURES,
    DropListed,
    number,
    read_names,
    task_file,
    write_count,
    write_name,
)
from data_prep.dedup.pairs import COLUMNS, Pairs, candidates, read_pairs, similar
from data_prep.dedup.runs import RunWriter, key_range, merged, run_files, writing_runs, written_whole
from data_prep.dedup.sketches import SUFFIX, Rows, Sketches, bucket_keys, sketch, width, write_rows
from kit.files import atomic_write

CLUSTERS_FILE = "clusters.json"
_AT_ONCE = 1 << 13  # documents whose signatures wait in memory


def minhash_signatures(config: MinHashConfig, folder: Path) -> WriteSketches:
    """Step 1: the signature of every document."""
    return WriteSketches(config, folder)


def minhash_buckets(config: MinHashConfig, folder: Path) -> FindSimilar:
    """Step 2, any number of tasks: pairs of similar documents."""
    return FindSimilar(config, folder)


def minhash_cluster(config: MinHashConfig, folder: Path) -> Decide:
    """Step 3, one task: which documents go."""
    return Decide(config, folder)


def minhash_filter(config: MinHashConfig, folder: Path) -> DropListed:
    """Step 4: drops them as near_duplicate."""
    return DropListed("minhash_filter", folder, "remove", "near_duplicate")


class WriteSketches(PipelineStep):
    """Passes documents through; writes their signatures, the keys of their buckets, and their names."""

    type = "DEDUP"
    name = "minhash_signatures"

    def __init__(self, config: MinHashConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the files get their names when all are written."""
        rows = np.empty((_AT_ONCE, width(self.config)), np.uint32)
        waiting, position = 0, -1
        with (
            written_whole(task_file(self.folder / SIGNATURES, rank, SUFFIX)) as sketches,
            writing_runs(task_file(self.folder / "buckets", rank), ("u8", "u8")) as buckets,
            written_whole(task_file(self.folder / "names", rank, NAMES_SUFFIX)) as names,
        ):
            for position, document in enumerate(data):
                rows[waiting] = sketch(document.text, self.config)
                write_name(names, document)
                waiting += 1
                if waiting == _AT_ONCE:
                    self._write(rows, number(rank, position + 1), sketches, buckets)
                    waiting = 0
                yield document
            self._write(rows[:waiting], number(rank, position + 1), sketches, buckets)
        write_count(self.folder / SIGNATURES, rank, position + 1)

    def _write(self, rows: Rows, end: int, sketches: IO[bytes], buckets: RunWriter) -> None:
        write_rows(sketches, rows)
        documents = np.arange(end - len(rows), end, dtype=np.uint64)
        buckets.append(bucket_keys(rows, self.config).ravel(), np.repeat(documents, self.config.buckets))


class FindSimilar(PipelineStep):
    """Writes the similar pairs among the documents that meet in a bucket; every task takes a share of the buckets."""

    type = "DEDUP"
    name = "minhash_buckets"

    def __init__(self, config: MinHashConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the task's runs of pairs."""
        share = merged(run_files(self.folder / "buckets"), *key_range(rank, world_size))
        sketches = Sketches(self.folder / SIGNATURES, width(self.config))
        meeting = candidates((keys, documents) for keys, documents in share)
        with writing_runs(task_file(self.folder / "pairs", rank), COLUMNS) as writer:
            for pairs in similar(meeting, sketches, self.config.threshold):
                writer.append(*pairs)


class Decide(PipelineStep):
    """Decides which documents go, and sums up the clusters."""

    type = "DEDUP"
    name = "minhash_cluster"

    def __init__(self, config: MinHashConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the list of documents that go, the pairs that count and the summary."""
        scratch = [self.folder / "instead.scratch", self.folder / "counts.scratch"]
        sketches = Sketches(self.folder / SIGNATURES, width(self.config))
        decisions = Decisions(scratch[0], sketches, self.config.threshold)
        counted = 0
        with writing_runs(task_file(self.folder / "similar", 0), COLUMNS) as writer:

            def kept() -> Iterator[Pairs]:
                nonlocal counted
                for pairs in read_pairs(self.folder / "pairs"):
                    counted += len(pairs.later)
                    writer.append(*pairs)
                    yield pairs

            decisions.decide(kept(), task_file(self.folder / "remove", 0))
        summary = {"documents": decisions.documents, "pairs": counted, "dropped": decisions.dropped}
        atomic_write(self.folder / CLUSTERS_FILE, json.dumps({**summary, **self._clusters(decisions, scratch[1])}))
        for path in scratch:
            path.unlink()

    def _clusters(self, decisions: Decisions, counts: Path) -> dict[str, Any]:
        sizes, largest = decisions.sizes(counts)
        clusters = decisions.members([where for _, where in largest])
        names = read_names(self.folder / "names", [document for cluster in clusters for document in cluster])
        examples = [
            {"size": size, "documents": [dict(zip(("id", "url"), names[d], strict=True)) for d in cluster]}
            for (size, _), cluster in zip(largest, clusters, strict=True)
        ]
        return {"sizes": {str(size): count for size, count in sizes.items()}, "examples": examples}
