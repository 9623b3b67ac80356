"""The checkpoints of a run: written beside their name, verified, and renamed when complete."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.errors import RunFailure
from kit.files import sync_folder
from recipes.checkpoint.hosts import Hosts, find_hosts
from recipes.checkpoint.manifest import CheckpointManifest, FileDigest, file_names, read_complete, write_complete
from recipes.checkpoint.search import newest_intact
from recipes.checkpoint.task import FULL_DISK, Task, settle_files, sync_tree, words_of
from recipes.checkpoint.writing import Writing
from recipes.distributed.processes import Processes

_NAME = re.compile(r"step-(\d{8})")
_ADVICE = "free some space, or set checkpoint.keep lower"

WriteState = Callable[[Path], Callable[[], None] | None]


@dataclass
class _Save:
    """A checkpoint under way: its phases are writing, then hashing what is left and spreading over hosts."""

    manifest: CheckpointManifest
    partial: Path
    final: Path
    background: bool
    writing: Writing | None
    task: Task
    written: bool = False
    digests: dict[str, FileDigest] = field(default_factory=dict)


class CheckpointStore:
    """Checkpoints under one folder. *Collective*: every rank calls everything alike.

    Args:
        folder: Where they lie: the same path for every rank. Where hosts share no disk, each gets its whole copy.
        processes: The job.
        keep: How many of the newest complete ones stay.
        keep_every: Those of every so many steps stay too.
    """

    def __init__(self, folder: Path, processes: Processes, keep: int, keep_every: int | None = None) -> None:
        self._folder, self._processes, self._keep, self._keep_every = folder, processes, keep, keep_every
        self._found_hosts: Hosts | None = None
        self._under_way: _Save | None = None
        self._damaged: set[int] = set()
        self.complaints: list[str] = []

    def save(self, manifest: CheckpointManifest, write_state: WriteState) -> Path:
        """Writes a checkpoint; afterwards it is there and complete, or there is nothing of it. *Collective*.

        Args:
            manifest: What it is; its files are filled in here.
            write_state: Writes this rank's part into a folder that exists, or copies it and says how to write it.

        Raises:
            RunFailure: If any rank couldn't write; older checkpoints are as they were.
        """
        self.start(manifest, write_state, background=False)
        return self._path(manifest.step)

    def start(self, manifest: CheckpointManifest, write_state: WriteState, *, background: bool = True) -> None:
        """Begins a checkpoint: it is complete once `settle` says so. There must be none under way. *Collective*.

        Args:
            manifest: What it is; its files are filled in here.
            write_state: Writes this rank's part, or copies it and says how to write it.
            background: Whether the copy is written while training goes on; else it is complete when this returns, as
                it is where `write_state` leaves nothing to do.

        Raises:
            RunFailure: If any rank couldn't write; older checkpoints are as they were.
        """
        assert self._under_way is None, "settle the checkpoint under way first"
        final = self._path(manifest.step)
        partial = final.with_name(final.name + ".partial")
        left: list[Writing | None] = []
        self._all(lambda: self._prepare(partial), partial)
        self._all(lambda: left.append(_as_writing(write_state(partial))), partial)
        writing = left[0]

        def work() -> list[FileDigest]:
            if writing is None:
                return []
            writing()
            return settle_files(partial, [str(path.relative_to(partial)) for path in writing.files])

        background = background and writing is not None
        task = Task(work, partial, background=background)
        self._under_way = _Save(manifest, partial, final, background, writing, task)
        if not background:
            self.settle(wait=True)

    @property
    def under_way(self) -> bool:
        """Whether a checkpoint is being written; the same on every rank."""
        return self._under_way is not None

    def settle(self, *, wait: bool = False) -> int | None:
        """Brings a checkpoint under way forward: its step once it is complete, else None. *Collective*: every rank.

        Args:
            wait: Until it is complete; else only as far as it goes without waiting.

        Raises:
            RunFailure: On every rank, if any rank couldn't write; older checkpoints are as they were.
        """
        while (save := self._under_way) is not None:
            if not wait and self._processes.agree_any(save.task.running):
                return None
            self._gather(save)
            if save.written:
                self._all(lambda save=save: self._complete(save), save.partial)  # type: ignore[misc]
                self._under_way = None
                return save.manifest.step
            self._second_phase(save)
        return None

    def newest_intact(self) -> tuple[Path, CheckpointManifest] | tuple[None, None]:
        """The newest checkpoint whose files are all as they were written, or None. *Collective*: every rank.

        What is wrong with newer ones is in `complaints` of their disk's leader. The ranks of a disk share the
        verifying; a disk that lacks the chosen one (a new host) receives it.

        Raises:
            UserError: On every rank, if one was written in another schema.
        """
        found = newest_intact(self._hosts, self._processes, self._path, self.steps)
        self.complaints = found.complaints if self._hosts.leads else []
        self._damaged = found.damaged
        if found.step is None:
            return None, None
        path = self._path(found.step)
        if self._hosts.leads:
            if found.here != found.step:
                shutil.rmtree(path, ignore_errors=True)
            self._hosts.spread(path)
        self._processes.barrier()
        manifest = read_complete(path)
        assert isinstance(manifest, CheckpointManifest), f"{path}: {manifest}"
        return path, manifest

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

    def _prepare(self, partial: Path) -> None:
        if self._hosts.leads:
            # Also what a killed process left of other steps: there is none under way now.
            for left_behind in self._folder.glob("*.partial"):
                shutil.rmtree(left_behind, ignore_errors=True)
            partial.mkdir(parents=True)

    def _gather(self, save: _Save) -> None:
        """Every rank learns what came of every rank's task."""
        told = [json.loads(words or "{}") for words in self._processes.gather_words(save.task.outcome())]
        self._fail_if_any([one["words"] for one in told], save.partial)
        for one in told:
            for file in one["files"]:
                save.digests.setdefault(file["path"], FileDigest(**file))

    def _second_phase(self, save: _Save) -> None:
        """Lets the engine tie its parts together; then what nobody has hashed is hashed, and hosts exchange files."""
        complete = None if save.writing is None else save.writing.complete
        self._all(lambda: complete() if complete else None, save.partial)
        names: list[str] = []
        self._all(lambda: names.extend(file_names(save.partial)), save.partial)
        share = self._hosts.share([name for name in names if name not in save.digests])

        def work() -> list[FileDigest]:
            digests = settle_files(save.partial, share)
            if self._hosts.leads:
                self._hosts.spread(save.partial)
            return digests

        # On one disk an engine that writes behind training has left only its index to hash.
        quick = save.writing is not None and len(self._hosts.leaders) == 1
        save.task = Task(work, save.partial, background=save.background and not quick)
        save.written = True

    def _complete(self, save: _Save) -> None:
        if not self._hosts.leads:
            return
        files = [save.digests[name] for name in sorted(save.digests)]
        write_complete(save.partial, save.manifest.model_copy(update={"files": files}))
        sync_tree(save.partial)
        if save.final.exists():
            # A damaged one of the same step that was left out at the start; the new one replaces it.
            shutil.rmtree(save.final)
        os.replace(save.partial, save.final)
        sync_folder(self._folder)
        for step in self._no_longer_kept(save.manifest.step):
            shutil.rmtree(self._path(step))

    def _no_longer_kept(self, newest: int) -> list[int]:
        """What may go now that `newest` is complete: older ones, and those that were found damaged at the start."""
        self._damaged.discard(newest)
        steps = self.steps()
        # One that is newer than what was just saved was left out at the start: training went on from before it.
        left_out = [step for step in steps if step > newest or step in self._damaged]
        good = [step for step in steps if step not in left_out]
        kept = set(good[-self._keep :])
        if self._keep_every is not None:
            kept |= {step for step in good if step % self._keep_every == 0}
        return [step for step in steps if step not in kept]

    def _all(self, action: Callable[[], None], partial: Path) -> None:
        """Runs an action on every rank and fails on every rank if it failed on one. *Collective*."""
        words: str | None = None
        try:
            action()
        except Exception as error:
            words = words_of(error, partial)
        self._fail_if_any(self._processes.gather_words(words), partial)

    def _fail_if_any(self, words: list[str | None], partial: Path) -> None:
        failures = {rank: told for rank, told in enumerate(words) if told is not None}
        if not failures:
            return
        self._under_way = None
        if self._hosts.leads:
            shutil.rmtree(partial, ignore_errors=True)
        rank = next((rank for rank, told in failures.items() if told == FULL_DISK), min(failures))
        raise RunFailure(
            f"rank {rank} could not write {partial.name} in {partial.parent}: {failures[rank]}",
            expected="room for a checkpoint; older checkpoints are untouched",
            action=f"{_ADVICE if failures[rank] == FULL_DISK else 'see that rank in logs/'}, then `slipway resume` it",
        )


def _as_writing(left: Callable[[], None] | None) -> Writing | None:
    return left if left is None or isinstance(left, Writing) else Writing(left)
