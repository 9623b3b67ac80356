"""Token shards: exact round trips, Megatron's own format, and damage said in words."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import RunFailure, UserError
from kit.tokens.shards import Shard, ShardInfo, ShardWriter, best_dtype

DOCUMENTS = [[5, 6, 7, 0], [0], [65_000, 1, 0]]
DTYPES = [np.dtype(np.uint16), np.dtype(np.int32)]


def write(prefix: Path, documents: list[list[int]] = DOCUMENTS, dtype: np.dtype = DTYPES[0]) -> ShardInfo:
    with ShardWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(document)
        return writer.finish()


@given(st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=9), max_size=9), st.sampled_from(DTYPES))
def test_documents_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], dtype: np.dtype
) -> None:
    prefix = tmp_path_factory.getbasetemp() / "round" / "trip"
    info = write(prefix, documents, dtype)
    shard = Shard(prefix)
    assert [shard.document(i).tolist() for i in range(shard.documents)] == documents
    assert shard.tokens.tolist() == [token for document in documents for token in document]
    assert shard.dtype == dtype
    assert (info.documents, info.tokens) == (len(documents), sum(map(len, documents)))
    assert (info.sha256_bin, info.sha256_idx) == shard.digests()


@pytest.mark.parametrize("dtype", DTYPES)
def test_our_files_are_megatrons_files_byte_by_byte(tmp_path: Path, dtype: np.dtype) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    write(tmp_path / "ours", dtype=dtype)
    theirs = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype.type)
    for document in DOCUMENTS:
        theirs.add_item(torch.tensor(document))
        theirs.end_document()
    theirs.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    read = IndexedDataset(str(tmp_path / "ours"))
    assert [read[i].tolist() for i in range(len(read))] == DOCUMENTS
    assert read.document_indices.tolist() == [0, 1, 2, 3]


def test_the_dtype_is_the_one_that_megatron_chooses() -> None:
    assert [best_dtype(v).name for v in (256, 65_499, 65_500, 200_000)] == ["uint16", "uint16", "int32", "int32"]


def test_a_shard_that_is_not_finished_is_absent(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "part", DTYPES[0]) as writer:
        writer.add([1, 2, 3])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no file"):
        Shard(tmp_path / "part")


@pytest.mark.parametrize("tokens", [[70_000], [-1], [], [[1, 2]]])
def test_tokens_that_do_not_fit_are_our_own_mistake(tmp_path: Path, tokens: list) -> None:
    with ShardWriter(tmp_path / "x", DTYPES[0]) as writer, pytest.raises(AssertionError):
        writer.add(tokens)


def patch(path: Path, offset: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


# The index: 9 magic, 8 version, 1 dtype code, 8 sequences, 8 boundaries, then 3 lengths of 4 bytes, 3 offsets of 8.
DAMAGE = {
    "a token file that lost its end": lambda p: cut(p.with_suffix(".bin"), 8),
    "half a token too much": lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes() + b"x"),
    "an empty token file": lambda p: cut(p.with_suffix(".bin"), 0),
    "an index that lost its end": lambda p: cut(p.with_suffix(".idx"), 60),
    "an index shorter than its header": lambda p: cut(p.with_suffix(".idx"), 12),
    "an empty index": lambda p: cut(p.with_suffix(".idx"), 0),
    "another magic": lambda p: patch(p.with_suffix(".idx"), 0, b"TNTIDX"),
    "another version": lambda p: patch(p.with_suffix(".idx"), 9, b"\x02"),
    "an unknown dtype": lambda p: patch(p.with_suffix(".idx"), 17, b"\x63"),
    "a wrong dtype": lambda p: patch(p.with_suffix(".idx"), 17, b"\x04"),
    "too many sequences": lambda p: patch(p.with_suffix(".idx"), 18, struct.pack("<Q", 1 << 60)),
    "a negative length": lambda p: patch(p.with_suffix(".idx"), 34, struct.pack("<3i", 9, -2, 1)),
    "swapped lengths": lambda p: patch(p.with_suffix(".idx"), 34, struct.pack("<3i", 1, 4, 3)),
    "a wrong offset": lambda p: patch(p.with_suffix(".idx"), 46 + 8, struct.pack("<q", 2)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_words(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "shard")
    DAMAGE[damage](tmp_path / "shard")
    with pytest.raises(UserError, match=r"shard\.(bin|idx)"):
        Shard(tmp_path / "shard")


@given(st.integers(0, 93), st.integers(1, 255))
def test_no_changed_byte_of_an_index_gets_through_unnoticed_or_as_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, offset: int, flip: int
) -> None:
    prefix = tmp_path_factory.getbasetemp() / "flip" / "shard"
    info = write(prefix)
    index = prefix.with_suffix(".idx")
    patch(index, offset, bytes([index.read_bytes()[offset] ^ flip]))
    try:
        shard = Shard(prefix)
    except UserError:
        return
    # What the structure cannot tell, the digest in the card does.
    assert shard.digests()[1] != info.sha256_idx


def test_a_missing_half_is_a_user_error(tmp_path: Path) -> None:
    write(tmp_path / "shard")
    (tmp_path / "shard.idx").unlink()
    with pytest.raises(UserError, match=r"shard\.idx"):
        Shard(tmp_path / "shard")


def test_a_full_disk_is_a_failure_in_words_and_leaves_no_part(small_disk: Path) -> None:
    with pytest.raises(RunFailure, match="no space left"):
        write(small_disk / "big", [list(range(1000))] * 1000)
    assert list(small_disk.iterdir()) == []


def test_the_bytes_of_a_small_shard_never_change(tmp_path: Path) -> None:
    info = write(tmp_path / "shard")
    assert info.sha256_bin == hashlib.sha256(np.array([5, 6, 7, 0, 0, 65_000, 1, 0], "<u2").tobytes()).hexdigest()
