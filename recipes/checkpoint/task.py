"""One rank's part of a checkpoint that is being written, perhaps while training goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.files import sync_folder
from recipes.checkpoint.manifest import FileDigest, digest_file

FULL_DISK = "no space left on the disk"
SPARE_BYTES = 1 << 20


class Task:
    """Some work that ends with digests of files, or with words that say why not.

    Args:
        work: Does it, and returns the digests.
        folder: Where it writes.
        background: In a thread of its own; else at once, before this returns.
    """

    def __init__(self, work: Callable[[], list[FileDigest]], folder: Path, *, background: bool) -> None:
        self._work, self._folder = work, folder
        self._digests: list[FileDigest] = []
        self._words: str | None = None
        # A daemon: a process that must end for another reason doesn't wait for a disk that hangs.
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True) if background else None
        if self._thread is None:
            self._run()
        else:
            self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._thread is not None and self._thread.is_alive()

    def outcome(self) -> str:
        """What came of it, as words for the other ranks; waits for the end."""
        if self._thread is not None:
            self._thread.join()
        return json.dumps({"words": self._words, "files": [file.model_dump() for file in self._digests]})

    def _run(self) -> None:
        try:
            self._digests = self._work()
        except Exception as error:
            self._words = words_of(error, self._folder)


def words_of(error: Exception, folder: Path) -> str:
    """What a failed write says to the other ranks; the traceback goes to this rank's log."""
    traceback.print_exception(error)
    full = _disk_is_full(error) or _nothing_left(folder)
    return FULL_DISK if full else f"{type(error).__name__}: {error}"


def settle_files(folder: Path, names: Sequence[str]) -> list[FileDigest]:
    """Makes some files durable and hashes them."""
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    return [digest_file(folder, name) for name in names]


def sync_tree(folder: Path) -> None:
    """Makes a folder's files and names durable."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _nothing_left(folder: Path) -> bool:
    # torch's writer reports a full disk as a wrong position in its file; the partial checkpoint is still there then.
    return shutil.disk_usage(folder.parent).free < SPARE_BYTES


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it wraps, is a full disk; writers in other processes send only words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or FULL_DISK in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
