"""How a run stands, and why it ended: the events, checked against the processes that are really there."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.config import read_yaml
from kit.run.directory import RunDirectory
from kit.run.events import RunState, append_event, read_events, state_of
from launch.executors.protocol import Ending
from launch.host.processes import is_live

UNFINISHED = (RunState.SUBMITTED, RunState.PREPARING, RunState.RUNNING, RunState.RESTARTING)
LAUNCHER = "launcher"
TAIL_LINES = 8
LogStarts = dict[str, int]
_DEATH = re.compile(r"^\s*rank\s*: (\d+) \(local_rank.*\n\s*exitcode\s*: (-?\d+) \(pid: (\d+)\)", re.MULTILINE)


@dataclass(frozen=True)
class Standing:
    """A run's state as people see it.

    Attributes:
        lost: the processes vanished without a last word.
        unwatched: it runs elsewhere and nobody here follows it, so that this is what was known last.
    """

    state: RunState
    lost: bool = False
    unwatched: bool = False

    @property
    def words(self) -> str:
        """The state for a table."""
        return f"{self.state}{' (lost)' if self.lost else ' (not watched)' if self.unwatched else ''}"

    @property
    def resumable(self) -> bool:
        """Whether the run has ended before its work was done."""
        return self.state in (RunState.STOPPED, RunState.FAILED)


@dataclass(frozen=True)
class Death:
    """A rank that ended badly, as torchrun saw it. A negative exit code is a signal."""

    rank: int
    exit_code: int

    @property
    def words(self) -> str:
        """How it ended."""
        return describe_exit(self.exit_code)


def standing(run: RunDirectory) -> Standing:
    """Where a run stands: its events say, unless its processes have gone without writing the last one."""
    state = state_of(run)
    if state in UNFINISHED and not is_live(run.path):
        state = state_of(run)  # it may have finished between the two looks
        if state in UNFINISHED:
            return Standing(state, unwatched=True) if runs_elsewhere(run) else Standing(RunState.FAILED, lost=True)
    return Standing(state)


def runs_elsewhere(run: RunDirectory) -> bool:
    """Whether a run's processes are on other machines; only their executor can say how they are."""
    return run.target_path.is_file() and read_yaml(run.target_path).get("kind", "local") != "local"


def this_attempt(run: RunDirectory) -> list[dict[str, Any]]:
    """The events since the run was last submitted, or began again by itself."""
    events = read_events(run)
    starts = [index for index, event in enumerate(events) if event["event"] in ("submitted", "restarting")]
    return events[starts[-1] :] if starts else events


def last_failure(run: RunDirectory) -> dict[str, Any] | None:
    """The `failed` event of the last attempt that counts: the launcher's, or else the first that a rank wrote.

    On several hosts each may have one, and all but the first are echoes of it.
    """
    failures = [event for event in this_attempt(run) if event["event"] == "failed"]
    from_launcher = [event for event in failures if event.get("by") == LAUNCHER]
    if from_launcher:
        return from_launcher[-1]
    return min(failures, key=lambda event: str(event["time"]), default=None)


def log_ends(run: RunDirectory) -> LogStarts:
    """Where every launcher's log ends now: that is where the next attempt begins."""
    return {path.name: path.stat().st_size for path in launcher_logs(run)}


def launcher_logs(run: RunDirectory) -> list[Path]:
    """The logs of the launchers, one for each host."""
    return sorted(run.logs.glob("launcher*.log"))


def close_attempt(run: RunDirectory, ending: Ending, log_starts: LogStarts, killed: bool = False) -> int:
    """After the processes have ended: add the last event where they left none, or could not know the cause.

    Args:
        run: the run.
        ending: how the executor saw it end.
        log_starts: where this attempt begins in the launchers' logs, bytes.
        killed: whether somebody killed the processes on purpose.

    Returns:
        The exit code for the shell: 0 finished, 2 the user's error, 1 anything else.
    """
    events = this_attempt(run)
    state = state_of(run)
    exit_code = ending.exit_code
    found = [death for log in launcher_logs(run) for death in read_deaths(log, log_starts.get(log.name, 0))]
    deaths = sorted(found, key=lambda death: death.rank)
    asked = any(event["event"] == "stop_requested" for event in events)
    if ending.lost and state != RunState.FINISHED and not (asked and state == RunState.STOPPED):
        append_event(run, "failed", by=LAUNCHER, **_vanished(run, ending.lost))
    elif state in UNFINISHED and asked and not killed:
        append_event(run, "stopped", step=None, reason="stopped before the work had begun")
    elif state in UNFINISHED and killed:
        append_event(run, "failed", by=LAUNCHER, **_killed(run))
    elif state in UNFINISHED or (_hides_a_death(state, asked) and _signalled(deaths) and not killed):
        append_event(run, "failed", by=LAUNCHER, **_blame(run, deaths, exit_code))
    final = state_of(run)
    if final == RunState.FINISHED:
        return 0
    failure = last_failure(run) or {}
    wrong_input = failure.get("exit_code") == 2 or exit_code == 2 or any(death.exit_code == 2 for death in deaths)
    return 2 if final == RunState.FAILED and wrong_input else 1


def read_deaths(log: Path, start: int = 0) -> list[Death]:
    """The ranks that torchrun's closing words blame, in the order of their ranks; empty where there are none."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    text = text[text.rfind("FAILED\n") + 1 :]
    return sorted({Death(int(rank), int(code)) for rank, code, _ in _DEATH.findall(text)}, key=lambda death: death.rank)


def describe_exit(exit_code: int | None) -> str:
    """An exit code in words, as in `killed by SIGKILL`."""
    if exit_code is None:
        return "gone without a word"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def log_tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _hides_a_death(state: RunState, asked: bool) -> bool:
    """Whether the last event of rank 0 may be an after-effect of another rank's death.

    It may have failed on a connection that was gone, or have stopped because torchrun ended it.
    """
    return state == RunState.FAILED or (state == RunState.STOPPED and not asked)


def _signalled(deaths: list[Death]) -> list[Death]:
    """Ranks that the system ended. The others then fail too, on a connection that is gone, and may blame that."""
    return [death for death in deaths if death.exit_code < 0 and death.exit_code != -signal.SIGTERM]


def _blame(run: RunDirectory, deaths: list[Death], exit_code: int | None) -> dict[str, Any]:
    """The three parts of a `failed` event that the launcher writes, with the rank that went first."""
    memory = " (often the system's out-of-memory killer: see `dmesg`)"
    if not deaths:
        found = f"the job of {run.id} ended without a last word: {describe_exit(exit_code)}"
        details: dict[str, Any] = {"tail": log_tail(run.logs / "launcher.log", TAIL_LINES)}
    else:
        first = (_signalled(deaths) or deaths)[0]
        log = run.logs / f"rank-{first.rank:05d}.log"
        hint = memory if first.exit_code == -signal.SIGKILL else ""
        found = f"rank {first.rank} of {run.id} ended: {first.words}{hint}"
        details = {"rank": first.rank, "rank_exit_code": first.exit_code, "tail": log_tail(log, TAIL_LINES)}
    return {
        "found": found,
        "expected": "every rank to finish",
        "action": f"read `slipway logs {run.id}`, mend the cause, then `slipway resume {run.id}`",
        **details,
    }


def _vanished(run: RunDirectory, hosts: Sequence[str]) -> dict[str, Any]:
    which = f"host {hosts[0]}" if len(hosts) == 1 else f"hosts {', '.join(hosts)}"
    return {
        "found": f"{which} vanished while {run.id} ran: no answer any more",
        "expected": "every host to answer until the end",
        "action": f"see what happened there; when it is back, `slipway resume {run.id}` goes on from the newest whole "
        "checkpoint (restarts: 1 in the target does it by itself)",
        "hosts": list(hosts),
    }


def _killed(run: RunDirectory) -> dict[str, Any]:
    return {
        "found": f"{run.id} was killed before it could write a last checkpoint",
        "expected": "a stop that waits for the last checkpoint",
        "action": f"`slipway resume {run.id}` goes on from the newest whole checkpoint",
    }
