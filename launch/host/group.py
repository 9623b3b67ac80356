"""The processes of a job on one host: started, watched, stopped, and found again through their pid files."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from kit.errors import RunFailure, UserError
from kit.run.process import record_process
from launch.host import processes
from launch.host.network import interface_environment
from launch.host.processes import LAUNCHER, of_node, processes_dir
from launch.job import HostJob, StopTo

POLL_SECONDS = 0.2
KILL_SECONDS = 10.0


class HostProcesses:
    """One host's part of jobs. Any process may watch or stop them; only the submitter learns an exit code."""

    def __init__(self) -> None:
        self._submitted: dict[Path, subprocess.Popen[bytes]] = {}

    def submit(self, job: HostJob) -> None:
        """Start the job in a session of its own, so that a Ctrl-C in the terminal reaches it only through `stop`.

        Raises:
            UserError: the run's processes are still there.
            RunFailure: the command can't be started.
        """
        refuse_live(job.run)
        processes_dir(job.run).mkdir(parents=True, exist_ok=True)
        processes.clear_records(job.run, job.node, job.ranks)
        (job.run / "logs").mkdir(exist_ok=True)
        with open(launcher_log(job.run, job.node), "ab") as log:
            try:
                process = subprocess.Popen(
                    job.command,
                    cwd=job.working_directory,
                    env={**os.environ, **job.environment, **interface_environment(job.environment)},
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
        record_process(processes_dir(job.run) / of_node(LAUNCHER, job.node), process.pid)

    def wait(self, job: HostJob, on_poll: Callable[[], None] = lambda: None) -> int | None:
        """Wait until the job has ended here, calling `on_poll` several times a second.

        Returns:
            The launcher's exit code (negative: its signal), or None where another process had submitted the job.
        """
        process = self._submitted.get(job.run)
        while process.poll() is None if process else processes.is_live(job.run):
            on_poll()
            time.sleep(POLL_SECONDS)
        self._sweep(job.run)
        return process.returncode if process else None

    def stop(self, job: HostJob, on_poll: Callable[[], None] = lambda: None) -> bool:
        """Ask the job to stop; kill what is left after the grace period.

        Returns:
            True where everything ended by itself, False where something had to be killed.
        """
        self.request_stop(job)
        deadline = time.monotonic() + job.stop_grace_seconds
        while self.is_live(job.run):
            if time.monotonic() > deadline:
                self.kill(job)
                return False
            on_poll()
            time.sleep(POLL_SECONDS)
        return True

    def kill(self, job: HostJob) -> None:
        """End every process of the job here at once."""
        victims = processes.family(processes.live_processes(job.run))
        for victim in victims:
            processes.send(victim, signal.SIGKILL)
        ours = self._submitted.get(job.run)
        if ours is not None:
            ours.wait(KILL_SECONDS)  # psutil, waiting for our own child, would take its exit code away
        psutil.wait_procs([v for v in victims if ours is None or v.pid != ours.pid], timeout=KILL_SECONDS)

    def is_live(self, run: Path) -> bool:
        """Whether any process of the job still runs here."""
        process = self._submitted.get(run)
        launcher_runs = process is not None and process.poll() is None
        return launcher_runs or processes.is_live(run)

    def request_stop(self, job: HostJob) -> None:
        """Send the polite request to those who listen for it."""
        launcher = processes.live_process(processes.launcher_record(job.run, job.node))
        ranks = [process for _, process in live_ranks(job.run)]
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


def launcher_log(run: Path, node: int = 0) -> Path:
    """The log of one host's launcher."""
    return run / "logs" / of_node("launcher.log", node)


def live_ranks(run: Path) -> list[tuple[int, psutil.Process]]:
    """The ranks of a run that live on this host."""
    records = processes.rank_records(run)
    return [(rank, process) for rank, record in records.items() if (process := processes.live_process(record))]


def refuse_live(run: Path) -> None:
    """Raise a UserError where the processes of a run are still here."""
    live = processes.live_processes(run)
    if live:
        raise UserError(
            f"{run.name} is still running (process {live[0].pid})",
            expected="a run whose processes have ended",
            action=f"wait for it, or stop it with `slipway stop {run.name}`",
        )
