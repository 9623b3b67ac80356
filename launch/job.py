"""What an executor is told about a job: a command and how its processes end, nothing about the work itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class StopTo(StrEnum):
    """Who hears the polite request to stop.

    Under torchrun it must be the ranks: its agent answers a signal by ending the ranks before they can agree on a last
    checkpoint. A single process with workers of its own hears it as a process group.
    """

    RANKS = "ranks"
    GROUP = "group"


@dataclass(frozen=True)
class JobDescription:
    """One job on one executor.

    Attributes:
        run: the run directory; its `logs/` and `processes/` are the only parts that an executor writes.
        command: the command line, one word an item.
        environment: variables added to the inherited environment.
        working_directory: where relative paths of the configuration start; None: here.
        processes: how many ranks the command starts.
        stop_to: who receives the request to stop.
        stop_grace_seconds: how long a stop may take before the processes are killed.
    """

    run: Path
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    processes: int = 1
    stop_to: StopTo = StopTo.GROUP
    stop_grace_seconds: float = 120.0
