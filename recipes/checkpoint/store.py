"""The checkpoints of a run: written beside their name, verified, and renamed when complete."""

from __future__ import annotations

import errno
import os
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

from kit.errors import RunFailure
from kit.files import sync_folder
from recipes.checkpoint.hosts import Hosts, find_hosts
from recipes.checkpoint.manifest import CheckpointManifest, digest_files, read_complete, write_complete
from recipes.distributed.processes import Processes

_NAME = re.compile(r"step-(\d{8})")
_FULL_DISK = "no space left on the disk"
_ADVICE = "free some space, or set checkpoint.keep lower"


class CheckpointStore:
    """Checkpoints under one folder, of which the newest `keep` stay.

    Args:
        folder: Where they lie: the same path for every rank. Where hosts share no disk, each gets its whole copy.
        processes: The job.
        keep: How many complete ones stay.
    """

    def __init__(self, folder: Path, processes: Processes, keep: int) -> None:
        self._folder, self._processes, self._keep = folder, processes, keep
        self._found_hosts: Hosts | None = None

    def save(self, manifest: CheckpointManifest, write_state: Callable[[Path], None]) -> Path:
        """Writes a checkpoint; afterwards it is there and complete, or there is nothing of it. *Collective*.

        Args:
            manifest: What it is; its files are filled in here.
            write_state: Writes this rank's part into a folder that exists.

        Raises:
            RunFailure: If any rank couldn't write; older checkpoints are as they were.
        """
        final = self._path(manifest.step)
        partial = final.with_name(final.name + ".partial")
        self._all(lambda: self._prepare(partial), partial)
        self._all(lambda: write_state(partial), partial)
        self._all(lambda: self._spread(partial), partial)
        self._all(lambda: self._complete(partial, final, manifest), partial)
        return final

    def newest_intact(self) -> tuple[Path, CheckpointManifest] | tuple[None, None]:
        """The newest checkpoint whose files are all as they were written, or None. *Collective*: every rank.

        What is wrong with newer ones is in `complaints` of rank 0. The first rank of every disk verifies, the others
        believe it; a disk that lacks the chosen one (a new host) receives it.
        """
        self.complaints: list[str] = []
        mine = self._newest_here() if self._hosts.leads else None
        found = [int(words) for words in self._processes.gather_words(mine) if words is not None]
        if not found:
            return None, None
        path = self._path(max(found))
        if self._hosts.leads:
            if mine != str(max(found)):
                shutil.rmtree(path, ignore_errors=True)
            self._spread(path)
        self._processes.barrier()
        text = (path / "COMPLETE").read_text(encoding="utf-8")
        return path, CheckpointManifest.model_validate_json(text)

    def steps(self) -> list[int]:
        """The steps of all checkpoints that have their final name, ascending."""
        if not self._folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    @property
    def _hosts(self) -> Hosts:
        """Who looks after which disk. The first use is *collective*."""
        if self._found_hosts is None:
            self._found_hosts = find_hosts(self._folder, self._processes)
        return self._found_hosts

    def _newest_here(self) -> str | None:
        """The newest intact step on this disk; what is wrong with newer ones becomes a complaint."""
        for step in sorted(self.steps(), reverse=True):
            found = read_complete(self._path(step))
            if isinstance(found, CheckpointManifest):
                return str(step)
            self.complaints.append(f"checkpoint {self._path(step).name} is left out: {found}")
        return None

    def _spread(self, folder: Path) -> None:
        if self._hosts.leads:
            self._hosts.spread(folder)

    def _prepare(self, partial: Path) -> None:
        if self._hosts.leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def _complete(self, partial: Path, final: Path, manifest: CheckpointManifest) -> None:
        if not self._hosts.leads:
            return
        write_complete(partial, manifest.model_copy(update={"files": digest_files(partial)}))
        _sync(partial)
        if final.exists():
            # A damaged one of the same step that was left out at the start; the new one replaces it.
            shutil.rmtree(final)
        os.replace(partial, final)
        sync_folder(self._folder)
        for step in self.steps()[: -self._keep]:
            shutil.rmtree(self._path(step))

    def _all(self, action: Callable[[], None], partial: Path) -> None:
        """Runs an action on every rank and fails on every rank if it failed on one. *Collective*."""
        words: str | None = None
        try:
            action()
        except Exception as error:
            traceback.print_exc()
            full = _disk_is_full(error) or _nothing_left(partial.parent)
            words = _FULL_DISK if full else f"{type(error).__name__}: {error}"
        failures = {rank: w for rank, w in enumerate(self._processes.gather_words(words)) if w is not None}
        if not failures:
            return
        if self._hosts.leads:
            shutil.rmtree(partial, ignore_errors=True)
        rank = next((rank for rank, w in failures.items() if w == _FULL_DISK), min(failures))
        raise RunFailure(
            f"rank {rank} could not write {partial.name} in {partial.parent}: {failures[rank]}",
            expected="room for a checkpoint; older checkpoints are untouched",
            action=f"{_ADVICE if failures[rank] == _FULL_DISK else 'see that rank in logs/'}, then `slipway resume` it",
        )


def _sync(folder: Path) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _nothing_left(folder: Path) -> bool:
    # torch's writer reports a full disk as a wrong position in its file; the partial checkpoint is still there then.
    return shutil.disk_usage(folder).free < 1 << 20


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it wraps, is a full disk; writers in other processes send only words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or _FULL_DISK in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
