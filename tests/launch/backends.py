"""The places that the contract is tried on. A backend is one class and one line in BACKENDS."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from backend import kubernetes_backend
from lab.host_lab import HostLab, missing

from kit.config import dump
from kit.run.directory import RunDirectory
from launch.job import JobDescription


class Backend(Protocol):
    """What the suite needs to know of a place, beside the command line."""

    name: str

    def target(self, **changes: Any) -> str:
        """A target with room for two ranks (where it has hosts, one on each of two): what `--on` is given."""

    def processes_left(self, run: RunDirectory) -> list[str]:
        """Every process of a run that is there, wherever it may be: in words."""

    def kill_rank(self, run: RunDirectory, rank: int) -> None:
        """Kill a rank as the system would for want of memory: SIGKILL, from outside."""

    def spoilt(self, job: JobDescription) -> AbstractContextManager[JobDescription]:
        """A prepared job that can't start on one of its places."""


class LocalBackend:
    """This machine."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def target(self, **changes: Any) -> str:
        path = self._folder / f"local-{len(list(self._folder.iterdir()))}.yaml"
        path.write_text(dump({"kind": "local", "devices_per_host": 2, "device": "cpu", **changes}))
        return str(path)

    def processes_left(self, run: RunDirectory) -> list[str]:
        return [" ".join(p.cmdline()) for p in _processes() if str(run.path) in _words(p)]

    def kill_rank(self, run: RunDirectory, rank: int) -> None:
        _kill_rank([p for p in _processes() if str(run.path) in _words(p)], rank)

    @contextmanager
    def spoilt(self, job: JobDescription) -> Iterator[JobDescription]:
        yield JobDescription(job.run, job.target, job.work, Path("/nowhere"))


class SshBackend:
    """Two hosts of a lab, one rank on each."""

    name = "ssh"

    def __init__(self, lab: HostLab) -> None:
        self.lab = lab

    def target(self, **changes: Any) -> str:
        return str(self.lab.target(**changes))

    def processes_left(self, run: RunDirectory) -> list[str]:
        hosts = [f"{host}: {' '.join(_words(p))}" for host in self.lab.hosts for p in self.lab.processes_on(host)]
        return [*hosts, *(" ".join(_words(p)) for p in _processes() if run.id in " ".join(_words(p)))]

    def kill_rank(self, run: RunDirectory, rank: int) -> None:
        _kill_rank([p for host in self.lab.hosts for p in self.lab.processes_on(host)], rank)

    @contextmanager
    def spoilt(self, job: JobDescription) -> Iterator[JobDescription]:
        self.lab.run_on("n2", "mv slipway/source slipway/away")
        try:
            yield job
        finally:
            self.lab.run_on("n2", "mv slipway/away slipway/source")


def local_backend(folder: Path) -> Iterator[Backend]:
    yield LocalBackend(folder)


def ssh_backend(folder: Path) -> Iterator[SshBackend]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with HostLab(2) as lab:
        yield SshBackend(lab)


BACKENDS: dict[str, Callable[[Path], Iterator[Backend]]] = {
    "local": local_backend,
    "ssh": ssh_backend,
    "kubernetes": kubernetes_backend,
}
MARKS = {"ssh": [pytest.mark.hosts], "kubernetes": [pytest.mark.hosts]}


def _processes() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if process.pid != os.getpid()]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


def _kill_rank(processes: list[psutil.Process], rank: int) -> None:
    for process in processes:
        try:
            is_rank = "recipes" in process.cmdline() and process.environ().get("RANK") == str(rank)
        except psutil.NoSuchProcess:
            continue
        if is_rank:
            os.kill(process.pid, signal.SIGKILL)
            return
    raise AssertionError(f"no rank {rank} among {[_words(p) for p in processes]} ({sys.platform})")
