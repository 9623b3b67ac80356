"""A detached job on a host: a small process of its own starts it, waits for it, and writes down how it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from kit.errors import RunFailure, SlipwayError
from kit.files import atomic_write
from kit.run.process import record_process
from launch.host import processes
from launch.host.group import HostProcesses, live_ranks, refuse_live
from launch.host.processes import EXIT, JOB, LAUNCHER, of_node, processes_dir
from launch.host.stream import StillRunning
from launch.job import HostJob, host_job_from

START_SECONDS = 20.0
MINDER = "minder.json"


def start(job: HostJob) -> dict[str, Any]:
    """Start a job that outlives this process and its terminal.

    Raises:
        UserError: the run's processes are still there.
        RunFailure: it doesn't start.
    """
    refuse_live(job.run)
    folder = processes_dir(job.run)
    folder.mkdir(parents=True, exist_ok=True)
    # An earlier attempt's records would look like this one's start: a kill would then come before there is anything.
    for name in (EXIT, MINDER, LAUNCHER):
        (folder / of_node(name, job.node)).unlink(missing_ok=True)
    atomic_write(folder / of_node(JOB, job.node), json.dumps(job.as_data()) + "\n")
    words = [sys.executable, "-m", "launch.host", "mind", str(job.run), "--node", str(job.node)]
    minder = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    record_process(folder / of_node(MINDER, job.node), minder.pid)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = _read(folder / of_node(EXIT, job.node))
        if ended is not None and "found" in ended:
            raise RunFailure(str(ended["found"]), expected=str(ended["expected"]), action=str(ended["action"]))
        if ended is not None or processes.launcher_record(job.run, job.node) is not None:
            return {"pid": minder.pid}
        time.sleep(0.05)
    minder.kill()
    raise RunFailure(
        f"the job did not start within {START_SECONDS:.0f} s",
        expected="a launcher process",
        action=f"see {job.run / 'logs'} on this host",
    )


def mind(run: Path, node: int) -> int:
    """Start the job that `start` wrote down, wait, and write its exit code. Runs in a session of its own."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    job = stored_job(run, node)
    group = HostProcesses()
    try:
        group.submit(job)
    except SlipwayError as error:
        atomic_write(processes_dir(run) / of_node(EXIT, node), json.dumps({"exit_code": 1, **error.parts()}) + "\n")
        return 1
    code = group.wait(job)
    atomic_write(processes_dir(run) / of_node(EXIT, node), json.dumps({"exit_code": code}) + "\n")
    return 0


def stored_job(run: Path, node: int) -> HostJob:
    """The job that was started last on this host."""
    data = _read(processes_dir(run) / of_node(JOB, node))
    if data is None:
        raise RunFailure(
            f"no job of {run.name} was started on this host",
            expected=f"{processes_dir(run) / of_node(JOB, node)}",
            action="start it with `slipway run` or `slipway resume`",
        )
    return host_job_from(data)


def has_ended(run: Path, node: int) -> int | None:
    """The exit code of the job here; None where nobody could write it down.

    Raises:
        StillRunning: it has not ended.
    """
    ended = _read(processes_dir(run) / of_node(EXIT, node))
    minder = _minder(run, node)
    if minder is not None and ended is None:
        raise StillRunning
    if ended is None and processes.is_live(run):
        raise StillRunning
    code = (ended or _read(processes_dir(run) / of_node(EXIT, node)) or {}).get("exit_code")
    return int(code) if code is not None else None


def status(run: Path, node: int) -> dict[str, Any]:
    """What runs here now."""
    launcher = processes.live_process(processes.launcher_record(run, node))
    ranks = {str(rank): process.pid for rank, process in live_ranks(run)}
    minder = _minder(run, node)
    return {
        "live": bool(launcher or ranks or minder),
        "launcher_pid": launcher.pid if launcher else None,
        "rank_pids": ranks,
        "exit": _read(processes_dir(run) / of_node(EXIT, node)),
    }


def end(run: Path, node: int, force: bool) -> dict[str, Any]:
    """Stop or kill the job here and wait until its minder has gone too. Nothing to stop is no error."""
    if not (processes_dir(run) / of_node(JOB, node)).exists():
        return {"clean": True, "live": False}
    job, group = stored_job(run, node), HostProcesses()
    clean = True
    deadline = time.monotonic() + job.stop_grace_seconds + 2 * START_SECONDS
    while True:
        # Looked at again and again: a minder that is just starting has nothing yet that could be ended.
        if processes.is_live(run) and force:
            group.kill(job)
        elif processes.is_live(run):
            clean = group.stop(job) and clean
        minder = _minder(run, node)
        if minder is None:
            return {"clean": clean, "live": processes.is_live(run)}
        if time.monotonic() > deadline:
            processes.send(minder, signal.SIGKILL)
        time.sleep(0.05)


def _minder(run: Path, node: int) -> psutil.Process | None:
    return processes.live_process(processes.read_record(processes_dir(run) / of_node(MINDER, node)))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return data
    except (OSError, ValueError):
        return None
