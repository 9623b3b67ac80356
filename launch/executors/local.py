"""The local backend: one process group on this machine, found again through its pid files."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from kit.errors import RunFailure, UserError
from kit.run.process import record_process
from launch.executors import processes
from launch.executors.processes import LAUNCHER, processes_dir
from launch.job import JobDescription, StopTo

POLL_SECONDS = 0.2
KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Status:
    """What the backend knows about a job: does it run, and with which processes."""

    live: bool
    launcher_pid: int | None
    rank_pids: dict[int, int]


class LocalExecutor:
    """Runs a job on this machine. Any process may watch or stop it; only the submitter learns its exit code."""

    def __init__(self) -> None:
        self._submitted: dict[Path, subprocess.Popen[bytes]] = {}

    def submit(self, job: JobDescription) -> None:
        """Start the job in a session of its own, so that a Ctrl-C in the terminal reaches it only through `stop`.

        Raises:
            UserError: the run's processes are still there.
            RunFailure: the command can't be started.
        """
        refuse_live(job.run)
        processes.clear_records(job.run)
        (job.run / "logs").mkdir(exist_ok=True)
        with open(job.run / "logs" / "launcher.log", "ab") as log:
            try:
                process = subprocess.Popen(
                    job.command,
                    cwd=job.working_directory,
                    env={**os.environ, **job.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise RunFailure(
                    f"{job.command[0]} does not start: {error}",
                    expected="the Python of the set-up environment",
                    action="run `make setup`, then try again",
                ) from error
        self._submitted[job.run] = process
        record_process(processes_dir(job.run) / LAUNCHER, process.pid)

    def wait(self, job: JobDescription, on_poll: Callable[[], None] = lambda: None) -> int | None:
        """Wait until the job has ended, calling `on_poll` several times a second.

        Returns:
            The launcher's exit code (negative: its signal), or None where another process had submitted the job.
        """
        process = self._submitted.get(job.run)
        while process.poll() is None if process else processes.is_live(job.run):
            on_poll()
            time.sleep(POLL_SECONDS)
        self._sweep(job.run)
        return process.returncode if process else None

    def stop(self, job: JobDescription, on_poll: Callable[[], None] = lambda: None) -> bool:
        """Ask the job to stop; kill what is left after the grace period.

        Returns:
            True where everything ended by itself, False where something had to be killed.
        """
        self._request_stop(job)
        deadline = time.monotonic() + job.stop_grace_seconds
        while self._is_live(job.run):
            if time.monotonic() > deadline:
                self.kill(job)
                return False
            on_poll()
            time.sleep(POLL_SECONDS)
        return True

    def kill(self, job: JobDescription) -> None:
        """End every process of the job at once."""
        victims = processes.family(processes.live_processes(job.run))
        for victim in victims:
            processes.send(victim, signal.SIGKILL)
        ours = self._submitted.get(job.run)
        if ours is not None:
            ours.wait(KILL_SECONDS)  # psutil, waiting for our own child, would take its exit code away
        psutil.wait_procs([v for v in victims if ours is None or v.pid != ours.pid], timeout=KILL_SECONDS)

    def status(self, job: JobDescription) -> Status:
        """What runs now."""
        launcher = processes.live_process(processes.launcher_record(job.run))
        ranks = {
            rank: record.pid
            for rank, record in processes.rank_records(job.run).items()
            if processes.live_process(record) is not None
        }
        return Status(launcher is not None or bool(ranks), launcher.pid if launcher else None, ranks)

    def logs(self, job: JobDescription) -> dict[str, Path]:
        """Every log of the job by name: `launcher`, `rank-00000`, ..."""
        return {path.stem: path for path in sorted((job.run / "logs").glob("*.log"))}

    def _is_live(self, run: Path) -> bool:
        process = self._submitted.get(run)
        launcher_runs = process is not None and process.poll() is None
        return launcher_runs or processes.is_live(run)

    def _request_stop(self, job: JobDescription) -> None:
        launcher = processes.live_process(processes.launcher_record(job.run))
        ranks = [
            process
            for record in processes.rank_records(job.run).values()
            if (process := processes.live_process(record)) is not None
        ]
        if job.stop_to is StopTo.RANKS and ranks:
            for rank in ranks:
                processes.send(rank, signal.SIGTERM)
        elif launcher is not None:
            # No rank has announced itself, so none has begun to work: ending the launcher loses nothing.
            processes.send_to_group(launcher, signal.SIGTERM)

    def _sweep(self, run: Path) -> None:
        """End the ranks that outlived their launcher: they are in sessions of their own, so nobody else would."""
        left = processes.live_processes(run)
        for process in left:
            processes.send(process, signal.SIGTERM)
        _, stubborn = psutil.wait_procs(left, timeout=KILL_SECONDS)
        for process in stubborn:
            processes.send(process, signal.SIGKILL)


def refuse_live(run: Path) -> None:
    """Raise a UserError where the processes of a run are still there."""
    live = processes.live_processes(run)
    if live:
        raise UserError(
            f"{run.name} is still running (process {live[0].pid})",
            expected="a run whose processes have ended",
            action=f"wait for it, or stop it with `slipway stop {run.name}`",
        )
