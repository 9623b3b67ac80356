"""Fingerprints of documents: which have the same tokens. Memory is bounded for any number of documents of any length.

A fingerprint is the 64-bit BLAKE2b of a document's bytes in the token file. Among 10^8 different documents the chance
that any two have the same one is about 0.0003. They lie in a temporary file and are compared part by part.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

NEAR_TOKENS = 64
_BYTES = 8
_BITS = 64


def of_documents(tokens: np.ndarray, lengths: npt.NDArray[np.int64]) -> tuple[Words, Words]:
    """Fingerprints of whole documents, and of the first 64 tokens of those that have more.

    Args:
        tokens: Documents one after another, as they are in the token file.
        lengths: How many tokens each has; their sum is the number of tokens.
    """
    view = tokens.data.cast("B")
    near = NEAR_TOKENS * tokens.itemsize
    ends = (np.cumsum(lengths) * tokens.itemsize).tolist()
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    whole = [blake2b(view[start:end], digest_size=_BYTES).digest() for start, end in places]
    beginnings = [
        blake2b(view[start : start + near], digest_size=_BYTES).digest() for start, end in places if end - start > near
    ]
    return np.frombuffer(b"".join(whole), np.uint64), np.frombuffer(b"".join(beginnings), np.uint64)


class FingerprintFile:
    """Fingerprints on disk, so that their number is not bounded by memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self.count = 0

    def add(self, words: Words) -> None:
        """Append."""
        self._file.write(words.tobytes())
        self.count += len(words)

    def close(self) -> None:
        """No more are added."""
        self._file.close()

    def part(self, number: int, bits: int) -> Words:
        """Those whose first `bits` bits are `number`."""
        step = 1 << 20
        found = []
        words: Words = np.fromfile(self._path, np.uint64) if not bits else np.memmap(self._path, np.uint64, "r")
        if not bits:
            return words
        for start in range(0, len(words), step):
            chunk = np.asarray(words[start : start + step])
            found.append(chunk[chunk >> np.uint64(_BITS - bits) == number])
        return np.concatenate(found)


def repeated(file: FingerprintFile, most_in_memory: int = 1 << 23) -> int:
    """How many fingerprints an earlier one equals."""
    bits = part_bits(file.count, most_in_memory)
    return file.count - sum(len(np.unique(file.part(number, bits))) for number in range(1 << bits))


def shared(file: FingerprintFile, other: FingerprintFile, most_in_memory: int = 1 << 23) -> int:
    """How many fingerprints are in the other file too."""
    bits = part_bits(max(file.count, other.count), most_in_memory)
    parts = ((file.part(number, bits), other.part(number, bits)) for number in range(1 << bits))
    return sum(int(np.isin(mine, theirs).sum()) for mine, theirs in parts)


def part_bits(count: int, most_in_memory: int) -> int:
    """Into two to the power of how many parts to cut."""
    return max(0, (max(1, count) - 1) // most_in_memory).bit_length()
