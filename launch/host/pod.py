"""A container's entry point: one host's part of a job in the foreground, its frames on stdout.

The container gets a folder with the run's files (a ConfigMap, a mount) and its number in JOB_COMPLETION_INDEX. SIGTERM
is the polite request to stop: the ranks finish their step and write a checkpoint.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from kit.errors import RunFailure, UserError
from kit.run.directory import FOLDERS
from launch.host.group import HostProcesses, launcher_log
from launch.host.stream import StillRunning, sources, stream
from launch.job import HostJob, Place, host_job, work_from

FILES = ("config.yaml", "target.yaml", "manifest.json")
NAME_SECONDS = 300.0
HEARTBEAT_SECONDS = 5.0


def run_pod(job_folder: Path, run: Path) -> int:
    """Do this container's part; returns the launcher's exit code.

    Raises:
        UserError: the folder lacks a file, or the index is missing.
        RunFailure: the first container's name doesn't resolve.
    """
    asked = _Asked()
    # The first process of a container doesn't hear a SIGTERM that it has no handler for.
    signal.signal(signal.SIGTERM, asked)
    _raise_limits()
    data = _read_job(job_folder)
    work = work_from(data)
    node = _node(work.hosts)
    _lay_out(job_folder, run)
    job = host_job(work, _place(run, node, data, asked))
    group = HostProcesses()
    found = sources(run, work, node, _sizes(run, node, tuple(job.ranks)))
    asked.leave_if_asked()
    group.submit(job)

    def ended() -> int | None:
        asked.pass_on(group, job)
        if group.is_live(run):
            raise StillRunning
        return group.wait(job)

    code = stream(found, ended, _write, HEARTBEAT_SECONDS)
    return 1 if code is None else code if code >= 0 else 128 - code


class _Asked:
    """A SIGTERM that is passed on to the ranks once, and becomes a kill when the grace is over."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._passed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._at = time.monotonic()

    def leave_if_asked(self) -> None:
        """Before anything has begun, a request to stop is the end."""
        if self._at is not None:
            raise RunFailure("asked to stop before the ranks had begun", expected="a start", action="start it again")

    def pass_on(self, group: HostProcesses, job: HostJob) -> None:
        if self._at is None:
            return
        if not self._passed:
            self._passed = True
            group.request_stop(job)
        elif time.monotonic() - self._at > job.stop_grace_seconds:
            group.kill(job)


def _read_job(folder: Path) -> dict[str, Any]:
    missing = [name for name in (*FILES, "job.json") if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}",
            expected=f"a folder with {', '.join(FILES)} and job.json",
            action="mount what `slipway run --render DIR` wrote",
        )
    data: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return data


def _node(hosts: int) -> int:
    word = os.environ.get("JOB_COMPLETION_INDEX", "0" if hosts == 1 else "")
    if not word.isdigit() or int(word) >= hosts:
        raise UserError(
            f"JOB_COMPLETION_INDEX is {word!r}",
            expected=f"a number from 0 to {hosts - 1}: which of the job's containers this is",
            action="an Indexed Job sets it; elsewhere set it yourself",
        )
    return int(word)


def _lay_out(folder: Path, run: Path) -> None:
    """The run directory, made by whichever container comes first; a resumed run finds its own again."""
    for name in FOLDERS:
        (run / name).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, run / name)


def _place(run: Path, node: int, data: dict[str, Any], asked: _Asked) -> Place:
    hosts, master = int(data.get("hosts", 1)), str(data.get("master_address", "127.0.0.1"))
    address = "127.0.0.1" if hosts == 1 else _own_address()
    if hosts > 1 and node:
        _resolve(master, asked)
    return Place(
        python=sys.executable,
        run=str(run),
        node=node,
        address=address,
        master_address=master if node else address,
        master_port=int(data.get("master_port", 0)),
        working_directory=str(data["working_directory"]) if data.get("working_directory") else None,
    )


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


def _resolve(name: str, asked: _Asked) -> None:
    """Wait until the first container's name is known: it comes with the container's address."""
    deadline = time.monotonic() + NAME_SECONDS
    while True:
        asked.leave_if_asked()
        try:
            socket.getaddrinfo(name, None)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunFailure(
                    f"the name {name} does not resolve: {error}",
                    expected="the address of the job's first container",
                    action="check the headless Service and the cluster's DNS",
                ) from error
            time.sleep(1.0)


def _raise_limits() -> None:
    """Soft limits up to the hard ones: NCCL pins memory, and data loaders open many files."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))


def _sizes(run: Path, node: int, ranks: tuple[int, ...]) -> dict[str, int]:
    """Where this attempt's logs begin: a container's stdout tells of its own attempt only."""
    paths = {f"rank-{rank:05d}": run / "logs" / f"rank-{rank:05d}.log" for rank in ranks}
    paths |= {launcher_log(run, node).stem: launcher_log(run, node)}
    paths |= {"events": run / "events.jsonl", "metrics": run / "metrics.jsonl", "failures": run / "events.jsonl"}
    return {name: path.stat().st_size for name, path in paths.items() if path.exists()}


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
