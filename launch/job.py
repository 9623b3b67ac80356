"""What an executor is told about a job: how many ranks of which module, and how they end; nothing of the work."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from kit.target import Target
from launch.host.network import ADDRESS


class StopTo(StrEnum):
    """Who hears the polite request to stop.

    Under torchrun it must be the ranks: its agent answers a signal by ending the ranks before they can agree on a last
    checkpoint. A single process with workers of its own hears it as a process group.
    """

    RANKS = "ranks"
    GROUP = "group"


@dataclass(frozen=True)
class Work:
    """The part of a job that is the same wherever it runs.

    Attributes:
        module: what `python -m` runs with the run directory as its argument.
        processes: how many ranks, over all hosts.
        hosts: on how many hosts, equally many on each.
        parallel: whether torchrun starts the ranks; else it is one process a host that may fork workers, which is told
            its host's number where there are several.
        threads: CPU threads of each rank.
        environment: variables added to the inherited environment.
        stop_to: who receives the request to stop.
        stop_grace_seconds: how long a stop may take before the processes are killed.
    """

    module: str
    processes: int = 1
    hosts: int = 1
    parallel: bool = True
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    stop_to: StopTo = StopTo.RANKS
    stop_grace_seconds: float = 120.0

    @property
    def ranks_per_host(self) -> int:
        """Ranks of one host."""
        return self.processes // self.hosts

    def ranks_of(self, node: int) -> range:
        """The ranks of one host."""
        return range(node * self.ranks_per_host, (node + 1) * self.ranks_per_host)

    def as_data(self) -> dict[str, Any]:
        """As plain data, which `work_from` reads."""
        return asdict(self)


def work_from(data: dict[str, Any]) -> Work:
    """What `Work.as_data` gave; keys that it doesn't know are left out."""
    known = {key: data[key] for key in Work.__dataclass_fields__ if key in data}
    return Work(**{**known, "stop_to": StopTo(known.get("stop_to", StopTo.RANKS))})


@dataclass(frozen=True)
class JobDescription:
    """One job on one executor.

    Attributes:
        run: the run directory here, whose logs, events and metrics an executor keeps up to date.
        target: where it runs, settled.
        work: what runs.
        working_directory: where relative paths of the configuration start; None: here.
        parents: finished runs whose artifacts it reads.
        inputs: files, folders and patterns of its configuration, as written there.
    """

    run: Path
    target: Target
    work: Work
    working_directory: Path | None = None
    parents: tuple[Path, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.name


@dataclass(frozen=True)
class Place:
    """One host's part in a job.

    Attributes:
        python: the interpreter there, an absolute path.
        run: the run directory there.
        node: the host's number among the job's, from 0.
        address: where the other hosts reach this one.
        master_address, master_port: where the ranks meet: on the host with node 0.
        working_directory: where relative paths of the configuration start.
        source: the folder that holds the code; None: it is installed.
    """

    python: str
    run: str
    node: int = 0
    address: str = "127.0.0.1"
    master_address: str = "127.0.0.1"
    master_port: int = 0
    working_directory: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class HostJob:
    """What one host is told: a command, and which processes will come of it."""

    run: Path
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    node: int = 0
    ranks: tuple[int, ...] = (0,)
    stop_to: StopTo = StopTo.GROUP
    stop_grace_seconds: float = 120.0

    def as_data(self) -> dict[str, Any]:
        """As plain data, which `host_job_from` reads."""
        place = str(self.working_directory) if self.working_directory else None
        return {**asdict(self), "run": str(self.run), "working_directory": place}


def host_job_from(data: dict[str, Any]) -> HostJob:
    """What `HostJob.as_data` gave."""
    place = data.get("working_directory")
    return HostJob(
        run=Path(data["run"]),
        command=tuple(data["command"]),
        environment=dict(data["environment"]),
        working_directory=Path(place) if place else None,
        node=int(data["node"]),
        ranks=tuple(data["ranks"]),
        stop_to=StopTo(data["stop_to"]),
        stop_grace_seconds=float(data["stop_grace_seconds"]),
    )


def host_job(work: Work, place: Place) -> HostJob:
    """The command of one host."""
    command = [place.python, "-u"]
    if work.parallel:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(work.ranks_per_host)]
        command += ["--nnodes", str(work.hosts), *_meeting(work, place), "--max-restarts", "0"]
    command += ["-m", work.module, place.run]
    if not work.parallel and work.hosts > 1:
        command += ["--host", str(place.node), "--hosts", str(work.hosts)]
    environment = {"OMP_NUM_THREADS": str(work.threads), "PYTHONUNBUFFERED": "1", **work.environment}
    if work.hosts > 1:
        environment[ADDRESS] = place.address
    if place.source:
        environment["PYTHONPATH"] = place.source
    return HostJob(
        run=Path(place.run),
        command=tuple(command),
        environment=environment,
        working_directory=Path(place.working_directory) if place.working_directory else None,
        node=place.node,
        ranks=tuple(work.ranks_of(place.node)),
        stop_to=work.stop_to,
        stop_grace_seconds=work.stop_grace_seconds,
    )


def _meeting(work: Work, place: Place) -> list[str]:
    """How the hosts' launchers find each other."""
    if work.hosts == 1:
        # The loopback address: without it torchrun looks up the machine's name, which many laptops can't resolve.
        return ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "127.0.0.1"]
    words = ["--node-rank", str(place.node), "--rdzv-backend", "static", "--local-addr", place.address]
    return [*words, "--master-addr", place.master_address, "--master-port", str(place.master_port)]


def debug_environment(debug: bool) -> dict[str, str]:
    """Variables that make ranks say more."""
    return {"SLIPWAY_DEBUG": "1"} if debug or os.environ.get("SLIPWAY_DEBUG") else {}
