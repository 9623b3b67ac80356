"""Starting a run, watching it, stopping it on Ctrl-C, and saying how it ended."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from kit.errors import RunFailure
from kit.run.directory import RunDirectory
from kit.run.events import RunState, append_event, read_events, state_of
from kit.run.process import record_process
from kit.units import format_duration
from launch.console import Console
from launch.executors.local import LocalExecutor, refuse_live
from launch.executors.processes import LAUNCHER, processes_dir
from launch.job import JobDescription, StopTo
from launch.outcome import close_attempt, last_failure, log_tail, this_attempt
from launch.prepare import job_of_run
from launch.progress import Progress

DEBUG_LINES = 60
INTERRUPTED = 130  # the shell's convention for "ended by Ctrl-C"


def execute(run: RunDirectory, console: Console, resumed: bool = False, debug: bool = False) -> int:
    """Run the job of a run directory to its end.

    Returns:
        The exit code: 0 finished, 2 the user's error, 1 another failure, 130 stopped by Ctrl-C.

    Raises:
        UserError: its processes are still there.
        RunFailure: it can't be started, or its last event can't be written.
    """
    refuse_live(run.path)
    job = job_of_run(run, debug)
    executor = LocalExecutor()
    log = run.logs / "launcher.log"
    log_start = log.stat().st_size if log.exists() else 0
    _claim(run)
    append_event(run, "submitted", **({"resumed": True} if resumed else {}))
    progress = Progress(run, console)
    killed, interrupted, exit_code = False, False, None
    try:
        executor.submit(job)
        exit_code = executor.wait(job, progress.poll)
    except KeyboardInterrupt:
        interrupted = True
        killed = not _stop(executor, job, run, console, progress)
    except BaseException:
        # Our own trouble (a reader of our output that has gone, say) must not leave a job that nobody watches.
        append_event(run, "stop_requested")
        close_attempt(run, exit_code, log_start, killed=not executor.stop(job))
        raise
    console.end_live()
    code = close_attempt(run, exit_code, log_start, killed)
    explain(run, console, debug)
    return INTERRUPTED if interrupted and code != 0 else code


def explain(run: RunDirectory, console: Console, debug: bool = False) -> None:
    """Say how a run ended and what can be done next, and name its directory; with debug, the traceback in its log."""
    state = state_of(run)
    if state == RunState.FINISHED:
        console.say(f"Finished in {format_duration(_seconds(run))}.")
    elif state == RunState.STOPPED:
        step = next((event["step"] for event in reversed(read_events(run)) if event["event"] == "checkpointed"), None)
        console.say(f"Stopped{f' after step {step}' if step else ''}. Go on with: slipway resume {run.id}")
    elif state == RunState.FAILED:
        failure = last_failure(run) or {}
        console.say(str(as_error(failure)))
        tail = failure.get("tail") or []
        if debug:
            tail = log_tail(run.logs / f"rank-{failure.get('rank', 0):05d}.log", DEBUG_LINES) or tail
        if tail:
            console.say("Last lines of its log:\n" + "\n".join(f"  {line}" for line in tail))
    console.say(f"Run directory: {run.path}")


def as_error(failure: dict[str, Any]) -> RunFailure:
    """A `failed` event as the error it was."""
    return RunFailure(
        str(failure.get("found", "the run failed and left no reason")),
        expected=str(failure.get("expected", "a run that finishes")),
        action=str(failure.get("action", "read its logs with `slipway logs RUN`")),
    )


def result_of(run: RunDirectory, code: int) -> dict[str, Any]:
    """What --json says about a run that has ended."""
    state = state_of(run)
    data: dict[str, Any] = {"run_id": run.id, "path": str(run.path), "state": str(state), "exit_code": code}
    if state == RunState.FAILED:
        failure = last_failure(run) or {}
        data["error"] = {key: failure[key] for key in ("found", "expected", "action", "rank") if key in failure}
    return data


def _seconds(run: RunDirectory) -> float:
    """How long the last attempt took."""
    times = [datetime.fromisoformat(str(event["time"])) for event in this_attempt(run)]
    return (times[-1] - times[0]).total_seconds() if times else 0.0


def _claim(run: RunDirectory) -> None:
    """Until the job has its own processes, ours stand for it: nobody then sees the run as lost, or starts it too."""
    record_process(processes_dir(run.path) / LAUNCHER, os.getpid())


def _stop(
    executor: LocalExecutor, job: JobDescription, run: RunDirectory, console: Console, progress: Progress
) -> bool:
    """Stop cleanly; kill on a second Ctrl-C. Returns False where something was killed."""
    keeps = (
        "the ranks finish their step and write a checkpoint" if job.stop_to is StopTo.RANKS else "what is done is kept"
    )
    console.say(f"\nStopping: {keeps}. Ctrl-C again kills the processes.")
    append_event(run, "stop_requested")
    try:
        clean = executor.stop(job, progress.poll)
        if not clean:
            console.say(f"Not stopped after {job.stop_grace_seconds:.0f} s: killed.")
        return clean
    except KeyboardInterrupt:
        executor.kill(job)
        console.say("\nKilled.")
        return False
