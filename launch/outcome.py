"""How a run stands, and why it ended: the events, checked against the processes that are really there."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.run.directory import RunDirectory
from kit.run.events import RunState, append_event, read_events, state_of
from launch.executors.processes import is_live

UNFINISHED = (RunState.SUBMITTED, RunState.PREPARING, RunState.RUNNING, RunState.RESTARTING)
TAIL_LINES = 8
_DEATH = re.compile(r"^\s*rank\s*: (\d+) \(local_rank.*\n\s*exitcode\s*: (-?\d+) \(pid: (\d+)\)", re.MULTILINE)


@dataclass(frozen=True)
class Standing:
    """A run's state as people see it. `lost`: the processes vanished without a last word."""

    state: RunState
    lost: bool = False

    @property
    def words(self) -> str:
        """The state for a table."""
        return f"{self.state} (lost)" if self.lost else str(self.state)

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
            return Standing(RunState.FAILED, lost=True)
    return Standing(state)


def this_attempt(run: RunDirectory) -> list[dict[str, Any]]:
    """The events since the run was last submitted."""
    events = read_events(run)
    starts = [index for index, event in enumerate(events) if event["event"] == "submitted"]
    return events[starts[-1] :] if starts else events


def last_failure(run: RunDirectory) -> dict[str, Any] | None:
    """The newest `failed` event of the last attempt."""
    return next((event for event in reversed(this_attempt(run)) if event["event"] == "failed"), None)


def close_attempt(run: RunDirectory, exit_code: int | None, log_start: int, killed: bool = False) -> int:
    """After the processes have ended: add the last event where they left none, or could not know the cause.

    Args:
        run: the run.
        exit_code: the launcher process's exit code; None where it is not known.
        log_start: where this attempt begins in launcher.log, bytes.
        killed: whether somebody killed the processes on purpose.

    Returns:
        The exit code for the shell: 0 finished, 2 the user's error, 1 anything else.
    """
    events = this_attempt(run)
    state = state_of(run)
    deaths = read_deaths(run.logs / "launcher.log", log_start)
    asked = any(event["event"] == "stop_requested" for event in events)
    if state in UNFINISHED and asked and not killed:
        append_event(run, "stopped", step=None, reason="stopped before the work had begun")
    elif state in UNFINISHED and killed:
        append_event(run, "failed", **_killed(run))
    elif state in UNFINISHED or (_hides_a_death(state, asked) and _signalled(deaths) and not killed):
        append_event(run, "failed", **_blame(run, deaths, exit_code))
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


def _killed(run: RunDirectory) -> dict[str, Any]:
    return {
        "found": f"{run.id} was killed before it could write a last checkpoint",
        "expected": "a stop that waits for the last checkpoint",
        "action": f"`slipway resume {run.id}` goes on from the newest whole checkpoint",
    }
