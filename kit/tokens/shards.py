"""Token shards in Megatron's MMapIndexedDataset format (Shoeybi et al. 2019): NAME.bin with the tokens, NAME.idx.

Layout of the index, little-endian: magic `MMIDIDX\\0\\0`, uint64 version 1, uint8 dtype code, uint64 number of
sequences, uint64 number of document boundaries, int32 length of every sequence, int64 byte offset of every sequence,
int64 document boundaries. Here one document is one sequence, so the boundaries are 0, 1, ..., n.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kit.errors import UserError
from kit.files import disk_full_as_failure, require_file, sha256_file, sync_folder

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES: dict[int, type[np.generic]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.float64,
    7: np.float32,
    8: np.uint16,
}
_PART = 1 << 20
"""Index entries handled at a time, so that memory does not grow with the number of documents."""
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}


class ShardInfo(NamedTuple):
    """What a finished shard holds."""

    documents: int
    tokens: int
    sha256_bin: str
    sha256_idx: str


def best_dtype(vocab_size: int) -> np.dtype[np.generic]:
    """Returns the dtype that Megatron chooses for a vocabulary: uint16 below 65,500, else int32."""
    return np.dtype(np.uint16) if vocab_size < 65_500 else np.dtype(np.int32)


def bin_path(prefix: Path) -> Path:
    """Returns the path of a shard's token file."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """Returns the path of a shard's index file."""
    return prefix.with_name(prefix.name + ".idx")


class ShardWriter:
    """Writes one shard; under temporary names until `finish`, so that a shard is complete or absent.

    Args:
        prefix: Path without `.bin` / `.idx`.
        dtype: Dtype of the tokens, as from `best_dtype`.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[np.generic]) -> None:
        self._prefix = Path(prefix)
        self._dtype = np.dtype(dtype)
        self._lengths = array("i")  # four bytes a document: a list would take forty
        self._digest = hashlib.sha256()
        self._partial = bin_path(self._prefix).with_suffix(".bin.partial")
        with disk_full_as_failure(self._partial):
            self._prefix.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb")

    def add(self, document: npt.ArrayLike) -> None:
        """Appends one document.

        Args:
            document: Token ids, one-dimensional, not empty.

        Raises:
            RunFailure: If the disk is full.
        """
        tokens = np.asarray(document)
        assert tokens.ndim == 1 and tokens.size, "a document is a row of at least one token"
        if tokens.dtype != self._dtype:
            limits = np.iinfo(self._dtype.name)
            assert limits.min <= tokens.min() and tokens.max() <= limits.max, f"token ids do not fit {self._dtype}"
        data = tokens.astype(self._dtype, copy=False).tobytes()
        with disk_full_as_failure(self._partial):
            self._file.write(data)
        self._digest.update(data)
        self._lengths.append(tokens.size)

    def finish(self) -> ShardInfo:
        """Writes the index, makes both files durable, and gives them their names."""
        idx_partial = idx_path(self._prefix).with_suffix(".idx.partial")
        index_digest = hashlib.sha256()
        with disk_full_as_failure(self._partial):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            with idx_partial.open("wb") as file:
                for part in self._index():
                    file.write(part)
                    index_digest.update(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._partial, bin_path(self._prefix))
            os.replace(idx_partial, idx_path(self._prefix))
            sync_folder(self._prefix.parent)
        return ShardInfo(len(self._lengths), sum(self._lengths), self._digest.hexdigest(), index_digest.hexdigest())

    def _index(self) -> Iterator[bytes]:
        count = len(self._lengths)
        lengths = np.frombuffer(self._lengths, np.intc)
        yield _HEADER.pack(_MAGIC, 1, _CODES[self._dtype], count, count + 1)
        for start in range(0, count, _PART):
            yield lengths[start : start + _PART].astype("<i4").tobytes()
        end = 0
        for start in range(0, count, _PART):
            ends = end + np.cumsum(lengths[start : start + _PART].astype("<i8")) * self._dtype.itemsize
            yield np.concatenate(([end], ends[:-1])).astype("<i8").tobytes()
            end = int(ends[-1])
        for start in range(0, count + 1, _PART):
            yield np.arange(start, min(start + _PART, count + 1), dtype="<i8").tobytes()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_full_as_failure(self._partial):
                self._file.close()
        finally:
            self._partial.unlink(missing_ok=True)


class Shard:
    """A shard opened for reading; the tokens stay on disk (memory map).

    Raises:
        UserError: If a file is missing, or the index is damaged or does not fit the token file.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = Path(prefix)
        self.bin_path = require_file(bin_path(self.prefix), "the token file of a shard")
        self.idx_path = require_file(idx_path(self.prefix), "the index file of a shard")
        with self.idx_path.open("rb") as file:
            head = file.read(_HEADER.size)
        size = self.idx_path.stat().st_size
        if len(head) < _HEADER.size or head[:9] != _MAGIC:
            raise _damaged(self.idx_path, "its first bytes are not those of an index")
        _, version, code, count, boundaries = _HEADER.unpack(head)
        if version != 1 or code not in _DTYPES:
            raise _damaged(self.idx_path, f"version {version}, dtype code {code}")
        self.dtype = np.dtype(_DTYPES[code])
        if size != _HEADER.size + 12 * count + 8 * boundaries:
            raise _damaged(self.idx_path, f"{size} bytes for {count} sequences")
        self.lengths = _mapped(self.idx_path, "<i4", count, _HEADER.size)
        self.pointers = _mapped(self.idx_path, "<i8", count, _HEADER.size + 4 * count)
        self._check_sizes()
        size = self.bin_path.stat().st_size // self.dtype.itemsize
        self.tokens: np.ndarray = (
            np.memmap(self.bin_path, self.dtype, "r", shape=(size,)) if size else np.zeros(0, self.dtype)
        )

    def _check_sizes(self) -> None:
        end, follow = 0, True
        for start in range(0, len(self.lengths), _PART):
            lengths = self.lengths[start : start + _PART].astype(np.int64)
            ends = end + np.cumsum(lengths) * self.dtype.itemsize
            offsets = np.concatenate(([end], ends[:-1]))
            follow = (
                follow and bool((lengths > 0).all()) and np.array_equal(offsets, self.pointers[start : start + _PART])
            )
            end = int(ends[-1])
        actual = self.bin_path.stat().st_size
        if end != actual:
            raise _damaged(self.bin_path, f"{actual} bytes, and its index speaks of {end}")
        if not follow:
            raise _damaged(self.idx_path, "its offsets do not follow from its lengths")

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def document(self, index: int) -> np.ndarray:
        """Returns the tokens of one document, one-dimensional, a view into the file."""
        start = int(self.pointers[index]) // self.dtype.itemsize
        return self.tokens[start : start + int(self.lengths[index])]

    def digests(self) -> tuple[str, str]:
        """Returns the SHA-256 of the token file and of the index file (reads both)."""
        return sha256_file(self.bin_path), sha256_file(self.idx_path)


def _mapped(path: Path, dtype: str, count: int, offset: int) -> np.ndarray:
    """A part of an index, on disk."""
    return np.memmap(path, np.dtype(dtype), "r", offset, (count,)) if count else np.zeros(0, dtype)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what}",
        expected="a complete Megatron .bin/.idx pair as data_prep writes it",
        action="run data_prep again, or copy the shard again if it came from elsewhere",
    )
