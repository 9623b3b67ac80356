"""Pid files that survive the process that wrote them, and what can be asked of the processes they name.

A pid alone says nothing once its process has gone, because the system gives the number to someone else. Every record
therefore carries the start time too, and a signal is only sent where both agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from kit.run.process import ProcessRecord

LAUNCHER = "launcher.json"
JOB = "job.json"
EXIT = "exit.json"
START_TIME_SLACK_SECONDS = 2.0  # the start time is derived from the boot time, which a clock correction can move


def processes_dir(run: Path) -> Path:
    """The folder of a run directory that holds its pid files."""
    return run / "processes"


def read_record(path: Path) -> ProcessRecord | None:
    """The record in a pid file; None where there is none or it is not readable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ProcessRecord(int(data["pid"]), float(data["start_time"]), str(data.get("host", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_node(name: str, node: int) -> str:
    """A file's name for one of a job's hosts: hosts that share a disk must not share it. Node 0 has the plain name."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{node:05d}{dot}{suffix}" if node else name


def launcher_record(run: Path, node: int = 0) -> ProcessRecord | None:
    """The process that leads the job of a run on one of its hosts."""
    return read_record(processes_dir(run) / of_node(LAUNCHER, node))


def rank_records(run: Path) -> dict[int, ProcessRecord]:
    """The ranks of a run that have announced themselves, by rank."""
    records = {}
    for path in sorted(processes_dir(run).glob("rank-*.json")):
        record = read_record(path)
        if record is not None:
            records[int(path.stem.removeprefix("rank-"))] = record
    return records


def clear_records(run: Path, node: int = 0, ranks: Iterable[int] | None = None) -> None:
    """Forget the processes of an earlier attempt: of one host's launcher and ranks, or of all."""
    folder = processes_dir(run)
    if ranks is None:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        return
    names = [of_node(LAUNCHER, node), of_node(EXIT, node), *(f"rank-{rank:05d}.json" for rank in ranks)]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def live_process(record: ProcessRecord | None) -> psutil.Process | None:
    """The process that a record names, where it is still that process, on this host, and not a zombie."""
    if record is None or record.host not in ("", socket.gethostname()):
        return None
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.start_time) < START_TIME_SLACK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def live_processes(run: Path) -> list[psutil.Process]:
    """Every recorded process of a run that still runs, other than this one: the launcher first, then the ranks."""
    launchers = [read_record(path) for path in sorted(processes_dir(run).glob("launcher*.json"))]
    records = [*launchers, *rank_records(run).values()]
    found = [process for record in records if (process := live_process(record)) is not None]
    return [process for process in found if process.pid != os.getpid()]


def is_live(run: Path) -> bool:
    """Whether any recorded process of a run still runs."""
    return bool(live_processes(run))


def send(process: psutil.Process, signal_number: signal.Signals) -> None:
    """Send a signal; a process that has gone is no error."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(signal_number)


def send_to_group(leader: psutil.Process, signal_number: signal.Signals) -> None:
    """Send a signal to the process group of a leader, unless that group is our own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(leader.pid)
        if group != os.getpgrp():
            os.killpg(group, signal_number)


def family(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The given processes and all their descendants.

    torchrun starts every rank in a session of its own, so that one process group does not hold a whole job.
    """
    found: dict[int, psutil.Process] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found[process.pid] = process
            found.update({child.pid: child for child in process.children(recursive=True)})
    return list(found.values())
