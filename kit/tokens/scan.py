"""One pass over the tokens of a split, or a look at a bounded sample of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kit.tokens.fingerprints import FingerprintFile, of_documents
from kit.tokens.shards import Shard

SAMPLED_PLACES = 64
SAMPLED_TOKENS = 1 << 14  # at every place
SAMPLED_DOCUMENTS = 1024
_PIECE_TOKENS = 1 << 18
_BATCH_DOCUMENTS = 1 << 12


@dataclass
class Scan:
    """What a pass found.

    Attributes:
        counts: How often each id occurs; of pieces of the file in which every id is in the vocabulary.
        outside: Position of the first id outside of the vocabulary.
        no_end: Number of the first document that does not end with the end token.
        without_end: How many documents do not.
        empty: Documents of one token.
    """

    counts: npt.NDArray[np.int64]
    outside: int | None = None
    no_end: int | None = None
    without_end: int = 0
    empty: int = 0

    def count(self, tokens: np.ndarray, start: int) -> None:
        """Add ids to the counts, or note where one is outside.

        Args:
            tokens: A row of them, not empty.
            start: The position of the first.
        """
        size = len(self.counts)
        if int(tokens.max()) < size and int(tokens.min()) >= 0:
            self.counts += np.bincount(tokens, minlength=size)
        elif self.outside is None:
            self.outside = start + int(np.argmax((tokens >= size) | (tokens < 0)))

    def ends(self, last_tokens: np.ndarray, eod_id: int, numbers: npt.NDArray[np.int64]) -> None:
        """Look at the last token of some documents, in ascending order of their numbers."""
        wrong = last_tokens != eod_id
        self.without_end += int(wrong.sum())
        if self.no_end is None and wrong.any():
            self.no_end = int(numbers[int(np.argmax(wrong))])


def scan_all(shard: Shard, vocab_size: int, eod_id: int, whole: FingerprintFile, beginnings: FingerprintFile) -> Scan:
    """Read every token. Memory is bounded, also for a document of any length.

    Args:
        shard: The split.
        vocab_size: Ids must be below it.
        eod_id: The end token.
        whole: Gets the fingerprint of every document.
        beginnings: The same of the first 64 tokens.
    """
    found = Scan(np.zeros(vocab_size, np.int64))
    for start in range(0, len(shard.tokens), _PIECE_TOKENS):
        found.count(shard.tokens[start : start + _PIECE_TOKENS], start)
    start = 0
    for first in range(0, shard.documents, _BATCH_DOCUMENTS):
        lengths = shard.lengths[first : first + _BATCH_DOCUMENTS].astype(np.int64)
        tokens = shard.tokens[start : start + int(lengths.sum())]
        of_whole, of_beginnings = of_documents(tokens, lengths)
        whole.add(of_whole)
        beginnings.add(of_beginnings)
        found.empty += int((lengths == 1).sum())
        found.ends(tokens[np.cumsum(lengths) - 1], eod_id, first + np.arange(len(lengths)))
        start += len(tokens)
    return found


def scan_sample(shard: Shard, vocab_size: int, eod_id: int) -> Scan:
    """Read at most 2^20 tokens at 64 places, the first and the last among them, and the ends of 1,024 documents."""
    found = Scan(np.zeros(vocab_size, np.int64))
    tokens = len(shard.tokens)
    last = max(0, tokens - SAMPLED_TOKENS)
    for start in np.unique(np.linspace(0, last, SAMPLED_PLACES).astype(np.int64)).tolist() if tokens else ():
        found.count(shard.tokens[start : start + SAMPLED_TOKENS], start)
    if shard.documents:
        numbers = np.unique(np.linspace(0, shard.documents - 1, SAMPLED_DOCUMENTS).astype(np.int64))
        last_of = shard.pointers[numbers] // shard.dtype.itemsize + shard.lengths[numbers] - 1
        found.ends(shard.tokens[last_of], eod_id, numbers)
    return found
