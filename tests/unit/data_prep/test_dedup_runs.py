"""Sorted runs and their merge: every record once, in order, in pieces that fit into memory; files whole or absent."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data_prep.dedup.runs import KEYS_END, RunWriter, key_range, merged, run_files, writing_runs, written_whole


def write(path: Path, keys: list[int], first: int, in_memory: int) -> list[tuple[int, int]]:
    """Records (key, number) in runs of about `in_memory`, and what they are."""
    with written_whole(path) as file:
        writer = RunWriter(file, ("u8", "u8"), in_memory)
        for begin in range(0, len(keys), 7):
            part = keys[begin : begin + 7]
            numbers = np.arange(first + begin, first + begin + len(part), dtype=np.uint64)
            writer.append(np.array(part, np.uint64), numbers)
        writer.finish()
    return list(zip(keys, range(first, first + len(keys)), strict=True))


@pytest.fixture
def records(tmp_path: Path) -> list[tuple[int, int]]:
    """Three files of hashes, a third of all records with one and the same key, which is the last one of all."""
    draw = np.random.default_rng(5)
    expected = []
    for rank in range(3):
        keys = draw.integers(0, KEYS_END - 1, 400, dtype=np.uint64, endpoint=True)
        keys[::3] = KEYS_END - 1
        expected += write(tmp_path / f"{rank:05d}.runs", keys.tolist(), rank * 1000, in_memory=50)
    return sorted(expected)  # numbers ascend with files and places, so this is the order that is asked for


def pieces(folder: Path, begin: int = 0, end: int = KEYS_END, in_memory: int = 64) -> list[list[tuple[int, int]]]:
    found = merged(run_files(folder), begin, end, in_memory)
    return [list(zip(keys.tolist(), numbers.tolist(), strict=True)) for keys, numbers in found]


def test_all_records_come_in_order_in_small_pieces(tmp_path: Path, records: list[tuple[int, int]]) -> None:
    found = pieces(tmp_path)
    assert [record for piece in found for record in piece] == records
    assert max(map(len, found)) <= 64


def test_shares_of_the_keys_add_up_to_all_records(tmp_path: Path, records: list[tuple[int, int]]) -> None:
    shares = [pieces(tmp_path, *key_range(rank, 7)) for rank in range(7)]
    assert [record for share in shares for piece in share for record in piece] == records


def test_records_of_one_key_are_not_torn_where_they_fit(tmp_path: Path) -> None:
    write(tmp_path / "00000.runs", [5] * 60 + list(range(100, 200)) + [300] * 60, 0, in_memory=1000)
    ends = [piece[-1][0] for piece in pieces(tmp_path)]
    assert len(ends) > 2
    assert len(set(ends)) == len(ends)


def test_no_records_and_no_files(tmp_path: Path) -> None:
    assert pieces(tmp_path) == []
    write(tmp_path / "00000.runs", [], 0, in_memory=10)
    assert pieces(tmp_path) == []


def test_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for rank in (0, 99_999, 100_000):
        write(tmp_path / f"{rank:05d}.runs", [1], rank, in_memory=10)
    assert [number for piece in pieces(tmp_path) for _, number in piece] == [0, 99_999, 100_000]


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "00000.runs"
    with suppress(KeyboardInterrupt), writing_runs(path) as writer:
        writer.append(np.array([1], np.uint64))
        raise KeyboardInterrupt
    assert run_files(tmp_path) == []
    with writing_runs(path) as writer:
        writer.append(np.array([2], np.uint64))
    assert [piece[0].tolist() for piece in merged(run_files(tmp_path))] == [[2]]
