"""MinHash signatures on disk: one fixed-size row a document, and the keys under which similar documents meet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from data_prep.blocks.config import MinHashConfig
from data_prep.dedup.identity import place, task_file, text_key
from data_prep.dedup.runs import Hashes
from data_prep.dedup.words import mixed, ngram_hashes, word_hashes

Rows = npt.NDArray[np.uint32]

SUFFIX = ".signatures"
_COMBINE = 0x9E3779B97F4A7C15


def sketch(text: str, config: MinHashConfig) -> Rows:
    """The signature of a text: [length of the signature], uint32.

    Fast similarity sketching (Dahlgaard et al. 2017), as rensa has it: two signatures agree in a place
    with the probability of the texts' Jaccard similarity, at the cost of about one hash a shingle instead of one a
    shingle and place. A text without a word has one shingle, the text itself.
    """
    shingles = ngram_hashes(word_hashes(text), config.ngram)
    if not len(shingles):
        shingles = np.array([text_key(text.strip())], np.uint64)
    ends = np.array([0, len(shingles)], np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(shingles, ends, width(config), config.seed)
    return np.fromiter(digests.to_rows()[0], np.uint32, width(config))


def width(config: MinHashConfig) -> int:
    """Numbers in a signature."""
    return config.buckets * config.hashes_per_bucket


def bucket_keys(rows: Rows, config: MinHashConfig) -> Hashes:
    """[documents, buckets]: equal where two documents agree in all hashes of a bucket."""
    parts = rows.reshape(len(rows), config.buckets, config.hashes_per_bucket)
    keys = np.broadcast_to(np.arange(1, config.buckets + 1, dtype=np.uint64), parts.shape[:2]).copy()
    for place_in_bucket in range(config.hashes_per_bucket):
        keys *= np.uint64(_COMBINE)
        keys ^= parts[:, :, place_in_bucket]
        keys = mixed(keys)
    return keys


def write_rows(file: IO[bytes], rows: Rows) -> None:
    """Add the rows of a task's next documents to its file."""
    file.write(rows.astype("<u4", copy=False).tobytes())


class Sketches:
    """Reads rows of any documents; a file is open only while rows are taken from it.

    Args:
        folder: where the tasks' files are.
        length: numbers in a row.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length

    def counts(self) -> dict[int, int]:
        """Task -> number of its documents, in task order."""
        files = sorted((int(path.name.removesuffix(SUFFIX)), path) for path in self.folder.glob(f"*{SUFFIX}"))
        return {rank: path.stat().st_size // (4 * self.length) for rank, path in files}

    def rows(self, documents: Hashes) -> Rows:
        """The rows of some documents, whose numbers ascend."""
        found = np.empty((len(documents), self.length), np.uint32)
        for rank, part in _by_task(documents):
            path = task_file(self.folder, rank, SUFFIX)
            stored = np.memmap(path, "<u4", "r").reshape(-1, self.length)
            found[part] = stored[(documents[part] & np.uint64(0xFFFFFFFF)).astype(np.int64)]
        return found

    def similarities(self, first: Hashes, second: Hashes) -> npt.NDArray[np.float32]:
        """The estimated Jaccard similarity of every pair."""
        documents, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        rows = self.rows(documents)
        agree = rows[places[: len(first)]] == rows[places[len(first) :]]
        return (np.count_nonzero(agree, axis=1) / np.float32(self.length)).astype(np.float32)


def _by_task(documents: Hashes) -> Iterator[tuple[int, slice]]:
    tasks = documents >> np.uint64(32)
    edges = [0, *(np.flatnonzero(tasks[1:] != tasks[:-1]) + 1).tolist(), len(tasks)]
    for begin, end in pairwise(edges if len(tasks) else []):
        yield place(int(documents[begin]))[0], slice(begin, end)
