"""What every backend can do, so that "stopped" and "resumed" mean the same on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from launch.job import JobDescription

Say = Callable[[str], None]
OnPoll = Callable[[], None]


def nothing() -> None:
    """A poll that looks at nothing."""


@dataclass(frozen=True)
class Ending:
    """How one attempt of a job ended.

    Attributes:
        exit_codes: host -> its launcher's exit code (negative: its signal); None where nobody could learn it.
        lost: hosts that vanished: their processes may still be there.
    """

    exit_codes: dict[str, int | None] = field(default_factory=dict)
    lost: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int | None:
        """The job's: the first that isn't 0; None where one is not known."""
        codes = list(self.exit_codes.values())
        bad = [code for code in codes if code]
        return bad[0] if bad else (0 if codes and all(code == 0 for code in codes) else None)


@dataclass(frozen=True)
class Status:
    """What a backend knows about a job now: does it run, with which processes, and how each host is, in words."""

    live: bool
    launcher_pid: int | None = None
    rank_pids: dict[int, int] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Runs jobs somewhere. Any process may watch, stop or fetch; nothing of a job is kept in the executor's memory."""

    def prepare(self, job: JobDescription, say: Say) -> None:
        """Brings code, configuration, parents and inputs to where they are needed. Again is quick and harmless.

        Raises:
            UserError: Something that the target or the recipe names isn't there.
            RunFailure: A host can't be reached or made ready; names it.
        """

    def submit(self, job: JobDescription) -> None:
        """Starts every host's ranks, or none: where one doesn't start, no process is left anywhere.

        Raises:
            UserError: The run's processes are still there.
            RunFailure: A host doesn't start; names it.
        """

    def wait(self, job: JobDescription, on_poll: OnPoll = nothing) -> Ending:
        """Waits until the job has ended or a host is lost, calling `on_poll` several times a second.

        Meanwhile the run directory here receives logs, events and metrics; a line appears within two seconds.
        """

    def stop(self, job: JobDescription, on_poll: OnPoll = nothing) -> bool:
        """Asks the ranks to finish their step and checkpoint; kills what is left after the grace period.

        Returns:
            True where everything ended by itself. No process is left either way.
        """

    def kill(self, job: JobDescription) -> None:
        """Ends every process of the job at once."""

    def recover(self, job: JobDescription, ending: Ending, on_poll: OnPoll = nothing) -> None:
        """After a failed attempt: clears what it left, and waits until every host that is needed is there again.

        Raises:
            RunFailure: A host doesn't return in time; names it.
        """

    def status(self, job: JobDescription) -> Status:
        """What runs now."""

    def fetch(self, job: JobDescription, say: Say, folders: Sequence[str] = ("artifacts",)) -> None:
        """Copies folders of the run directory from where the job ran, verified by checksums.

        Raises:
            RunFailure: They can't be read, or arrived changed.
        """
