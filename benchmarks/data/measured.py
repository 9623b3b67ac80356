"""Running one side of a comparison as a process of its own, and what it cost."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from kit.errors import RunFailure

ROOT = Path(__file__).resolve().parents[2]
_SHOWN_LINES = 12
_ORPHAN_SECONDS = 10
_PR_SET_CHILD_SUBREAPER = 36
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


class Cost(NamedTuple):
    """What a finished process used, and the JSON object of its last line.

    Attributes:
        cpu_seconds: user and system time of it and of all its children.
        peak_gib: the largest resident size that one of its processes reached.
    """

    cpu_seconds: float
    peak_gib: float
    result: dict[str, Any]


def run(command: list[str]) -> Cost:
    """Runs a command with one thread a library, from the repository's root; nothing else may be started meanwhile.

    Raises:
        RunFailure: it did not end with 0, or its last line is no JSON object.
    """
    _adopt_orphans()
    before = _children_seconds()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT, env={**os.environ, **_ONE_THREAD})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _wait_for_orphans()
        out.seek(0)
        errors.seek(0)
        lines = out.read().decode("utf-8", "replace").splitlines()
        if process.returncode != 0:
            tail = errors.read().decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]
            raise _failure(command, f"ended with {process.returncode}:\n  " + "\n  ".join(tail or lines[-3:]))
    return Cost(_children_seconds() - before, usage.ru_maxrss / 2**20, _last_object(command, lines))


def _last_object(command: list[str], lines: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        raise _failure(command, "printed no JSON at its end") from None
    if not isinstance(found, dict):
        raise _failure(command, "printed no JSON object at its end")
    return found


def _failure(command: list[str], what: str) -> RunFailure:
    shown = " ".join(command[:5])
    return RunFailure(f"`{shown} ...` {what}", expected="it to succeed", action="run that command by itself to see why")


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process and what it starts on one core, so that no helper thread gets a second one for nothing."""
    if not hasattr(os, "sched_setaffinity"):  # not on every system
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds() -> float:
    """Of this process and of its children, those that still run included."""
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + _children_seconds() + sum(times.user + times.system for times in alive)


def _children_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _adopt_orphans() -> None:
    """Children that a command leaves behind become ours (Linux), so that their time counts as its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _wait_for_orphans() -> None:
    end = time.monotonic() + _ORPHAN_SECONDS
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        except ChildProcessError:
            return
