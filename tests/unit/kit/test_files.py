"""Files that are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from kit.errors import RunFailure, UserError
from kit.files import atomic_write, disk_full_as_failure, require_file, sha256_bytes, sha256_file


def test_a_write_makes_its_folder_and_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    atomic_write(path, "é")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_write_gives_the_permissions_of_a_plain_open(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    atomic_write(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    path = tmp_path / "file"
    atomic_write(path, "old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="dying"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_named_and_keeps_the_old_file(small_disk: Path) -> None:
    path = small_disk / "file"
    atomic_write(path, "old")
    with pytest.raises(RunFailure, match="no space left") as caught:
        atomic_write(path, b"x" * 200_000)
    assert str(path) in caught.value.found
    assert path.read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == ["file"]
    atomic_write(path, "room again")
    assert path.read_text() == "room again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_only_a_full_disk_becomes_a_failure(number: int) -> None:
    with pytest.raises(RunFailure):
        with disk_full_as_failure(Path("x")):
            raise OSError(number, "full")
    with pytest.raises(PermissionError):
        with disk_full_as_failure(Path("x")):
            raise PermissionError(errno.EACCES, "not yours")


def test_digests_of_a_file_and_of_its_bytes_agree(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than one read
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_require_file_says_what_should_have_been_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert require_file(tmp_path / "file", "a list") == tmp_path / "file"
    with pytest.raises(UserError, match=r"no file at .*gone") as caught:
        require_file(tmp_path / "gone", "a list of words")
    assert caught.value.expected == "a list of words"
    with pytest.raises(UserError, match="a folder at"):
        require_file(tmp_path, "a list")
    with pytest.raises(UserError, match=r"its folder .* is missing too"):
        require_file(tmp_path / "no" / "gone", "a list")
