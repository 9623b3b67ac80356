"""The local backend: this machine is the job's one host."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from launch.executors.protocol import Ending, OnPoll, Say, Status, nothing
from launch.host import processes
from launch.host.group import HostProcesses, live_ranks
from launch.job import HostJob, JobDescription, Place, host_job

HOST = "localhost"


class LocalExecutor:
    """Runs a job on this machine. Any process may watch or stop it; only the submitter learns its exit code."""

    def __init__(self) -> None:
        self._processes = HostProcesses()

    def prepare(self, job: JobDescription, say: Say) -> None:
        """Nothing: everything is here."""

    def submit(self, job: JobDescription) -> None:
        """Start the job; see `HostProcesses.submit`."""
        self._processes.submit(local_job(job))

    def wait(self, job: JobDescription, on_poll: OnPoll = nothing) -> Ending:
        """Wait until the job has ended."""
        return Ending({HOST: self._processes.wait(local_job(job), on_poll)})

    def stop(self, job: JobDescription, on_poll: OnPoll = nothing) -> bool:
        """Stop politely, then by force; True where nothing had to be killed."""
        return self._processes.stop(local_job(job), on_poll)

    def kill(self, job: JobDescription) -> None:
        """End every process at once."""
        self._processes.kill(local_job(job))

    def recover(self, job: JobDescription, ending: Ending, on_poll: OnPoll = nothing) -> None:
        """End what an attempt left."""
        self._processes.kill(local_job(job))

    def status(self, job: JobDescription) -> Status:
        """What runs now."""
        launcher = processes.live_process(processes.launcher_record(job.run))
        ranks = {rank: process.pid for rank, process in live_ranks(job.run)}
        live = launcher is not None or bool(ranks)
        return Status(live, launcher.pid if launcher else None, ranks, {HOST: "running" if live else "idle"})

    def fetch(self, job: JobDescription, say: Say, folders: Sequence[str] = ("artifacts",)) -> None:
        """Nothing: the run directory is here."""


def local_job(job: JobDescription) -> HostJob:
    """The job as this machine is told it."""
    place = Place(
        python=sys.executable,
        run=str(job.run),
        working_directory=str(job.working_directory) if job.working_directory else None,
    )
    return host_job(job.work, place)
