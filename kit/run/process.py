"""What every process of a run does first: its output goes to a log of its own, and it says who it is."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from kit.files import atomic_write
from kit.run.directory import RunDirectory

_GIB = 1024**3


@dataclass(frozen=True)
class ProcessRecord:
    """A process of a run and its host. A pid alone says nothing once the system has given it to somebody else."""

    pid: int
    start_time: float
    host: str


def log_path(run: RunDirectory, rank: int) -> Path:
    """Returns the log of a rank."""
    return run.logs / f"rank-{rank:05d}.log"


def log_to_file(run: RunDirectory, rank: int) -> None:
    """Sends everything that this process and its children print to the rank's log from here on."""
    run.logs.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(log_path(run, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def announce_process(run: RunDirectory, rank: int) -> None:
    """Writes down this process as a rank of the run, so that others can signal it."""
    record_process(run.processes / f"rank-{rank:05d}.json", os.getpid())


def record_process(path: Path, pid: int) -> ProcessRecord | None:
    """Writes the record of a running process and returns it; None where the process has ended already."""
    try:
        record = ProcessRecord(pid, psutil.Process(pid).create_time(), socket.gethostname())
    except psutil.NoSuchProcess:
        return None
    atomic_write(path, json.dumps(asdict(record)) + "\n")
    return record


def peak_resident_gib() -> float:
    """Returns the largest resident memory so far of this process or of any child that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(usage) * unit / _GIB
