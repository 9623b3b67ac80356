"""Starting a run, watching it, starting it again, stopping it on Ctrl-C, and saying how it ended: on every backend."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from kit.errors import RunFailure, SlipwayError, UserError
from kit.run.directory import RunDirectory
from kit.run.events import RunState, append_event, read_events, state_of
from kit.run.process import record_process
from kit.units import format_duration
from launch.console import Console
from launch.executors.aws_hosts import cluster_limit
from launch.executors.protocol import Ending, Executor
from launch.executors.table import executor_for
from launch.host import processes
from launch.host.processes import LAUNCHER, processes_dir
from launch.job import JobDescription, StopTo
from launch.outcome import close_attempt, last_failure, log_ends, log_tail, this_attempt
from launch.prepare import job_of_run
from launch.progress import Progress

DEBUG_LINES = 60
INTERRUPTED = 130  # the shell's convention for "ended by Ctrl-C"
FOLLOW_SECONDS = 0.3
LIMIT_SECONDS = 5.0


def execute(
    run: RunDirectory, console: Console, resumed: bool = False, debug: bool = False, detach: bool = False
) -> int:
    """Run the job of a run directory to its end, or with `detach` only start it.

    Returns:
        The exit code: 0 finished (or started), 2 the user's error, 1 another failure, 130 stopped by Ctrl-C.

    Raises:
        UserError: its processes are still there.
        RunFailure: it can't be started, or its last event can't be written.
    """
    job = job_of_run(run, debug)
    executor = executor_for(job.target)
    refuse_live(job, executor, resumed)
    watch = Watch(run, job, executor, console, debug)
    return watch.start(resumed, detach)


def attach(run: RunDirectory, console: Console, debug: bool = False) -> int:
    """Watch a run that somebody else started, to its end; the exit codes of `execute`.

    Raises:
        UserError: it doesn't run.
    """
    job = job_of_run(run, debug)
    executor = executor_for(job.target)
    if job.target.remote and processes.is_live(run.path):
        return _follow(run, console, debug)
    if not executor.status(job).live and state_of(run) in (RunState.FINISHED, RunState.FAILED, RunState.STOPPED):
        raise UserError(
            f"{run.id} does not run: it is {state_of(run)}",
            expected="a run whose processes are there",
            action="see the runs with `slipway status`",
        )
    return Watch(run, job, executor, console, debug).attach()


def refuse_live(job: JobDescription, executor: Executor, started_before: bool = True) -> None:
    """Raise a UserError where the processes of a run are still there, here or on its hosts."""
    here = processes.live_processes(job.run)
    where = f"process {here[0].pid}" if here else ""
    if not here and job.target.remote and started_before:
        status = executor.status(job)
        where = ", ".join(host for host, words in status.hosts.items() if words == "running") if status.live else ""
    if where:
        raise UserError(
            f"{job.id} is still running ({where})",
            expected="a run whose processes have ended",
            action=f"wait for it (`slipway attach {job.id}`), or stop it with `slipway stop {job.id}`",
        )


class Watch:
    """One process's watch over one run: submitted, prepared, started, started again, ended, fetched."""

    def __init__(
        self, run: RunDirectory, job: JobDescription, executor: Executor, console: Console, debug: bool
    ) -> None:
        self._run, self._job, self._executor, self._console, self._debug = run, job, executor, console, debug
        self._progress = Progress(run, console)
        self._log_starts = log_ends(run)
        self._ending = Ending()
        self._submitted = False
        self._limit_seen = time.monotonic()

    def start(self, resumed: bool, detach: bool) -> int:
        """Submit the job and watch it."""
        self._claim()
        append_event(self._run, "submitted", **({"resumed": True} if resumed else {}))
        return self._guarded(lambda: self._begin(detach))

    def attach(self) -> int:
        """Watch a job that runs already."""
        if self._job.target.remote:
            self._claim()
        self._log_starts = {}
        self._submitted = True
        return self._guarded(self._to_the_end)

    def _begin(self, detach: bool) -> bool:
        append_event(self._run, "preparing")
        self._submit()
        if detach:
            self._console.end_live()
            self._console.say(f"Started {self._run.id}. Watch it with: slipway attach {self._run.id}")
            self._release()
            return True
        return self._to_the_end()

    def _to_the_end(self) -> bool:
        """Wait for the end, and begin again as often as the target allows. Returns False: nothing was detached."""
        left = self._job.target.restarts - self._restarts_so_far()
        while True:
            self._ending = self._executor.wait(self._job, self._poll)
            if left <= 0 or not self._worth_another(self._ending):
                return False
            left -= 1
            self._console.end_live()
            self._restart()

    def _restart(self) -> None:
        close_attempt(self._run, self._ending, self._log_starts)
        failure = last_failure(self._run) or {}
        missing = f" Waiting for {', '.join(self._ending.lost)} to come back." if self._ending.lost else ""
        self._console.say(f"{failure.get('found', 'the job ended')}: starting it again.{missing}")
        self._log_starts = log_ends(self._run)
        append_event(self._run, "restarting", reason=failure.get("found"), hosts=list(self._ending.lost))
        self._submitted = False
        self._submit(self._ending)

    def _submit(self, after: Ending | None = None) -> None:
        """Make ready and start, after clearing away an attempt that ended so. An error becomes the last event."""
        try:
            if after is not None:
                self._executor.recover(self._job, after, self._poll)
            self._executor.prepare(self._job, self._say)
            self._executor.submit(self._job)
        except SlipwayError as error:
            append_event(self._run, "failed", by="launcher", exit_code=error.exit_code, **error.parts())
            raise
        self._submitted = True

    def _worth_another(self, ending: Ending) -> bool:
        """Whether an ending is one that may pass: a host or rank that died, not wrong input, a stop or the end."""
        events = this_attempt(self._run)
        state = state_of(self._run)
        if any(event["event"] == "stop_requested" for event in events) or state == RunState.FINISHED:
            return False
        wrong_input = (last_failure(self._run) or {}).get("exit_code") == 2 or ending.exit_code == 2
        return not wrong_input and (bool(ending.lost) or ending.exit_code != 0)

    def _restarts_so_far(self) -> int:
        events = read_events(self._run)
        starts = [index for index, event in enumerate(events) if event["event"] == "submitted"]
        return sum(event["event"] == "restarting" for event in events[starts[-1] if starts else 0 :])

    def _guarded(self, action: Callable[[], bool]) -> int:
        """Run the watch; whatever ends it, the job ends in order and the run says how."""
        killed, interrupted = False, False
        try:
            if action():
                return 0
        except KeyboardInterrupt:
            interrupted = True
            killed = not self._stop()
        except BaseException:
            self._console.end_live()
            if self._submitted:
                # Our own trouble (a reader of our output that has gone, say) must not leave a job that nobody watches.
                append_event(self._run, "stop_requested")
                close_attempt(self._run, self._ending, self._log_starts, killed=not self._executor.stop(self._job))
            self._release()
            raise
        self._console.end_live()
        code = close_attempt(self._run, self._ending, self._log_starts, killed)
        self._release()
        explain(self._run, self._console, self._debug)
        if state_of(self._run) == RunState.FINISHED:
            self._executor.fetch(self._job, self._say)
        return INTERRUPTED if interrupted and code != 0 else code

    def _stop(self) -> bool:
        """Stop cleanly; kill on a second Ctrl-C. Returns False where something was killed.

        Raises:
            RunFailure: a host doesn't answer, so that its processes may still be there.
        """
        if not self._submitted:
            append_event(self._run, "stop_requested")
            return True
        ranks_hear = self._job.work.stop_to is StopTo.RANKS
        keeps = "the ranks finish their step and write a checkpoint" if ranks_hear else "what is done is kept"
        self._console.say(f"\nStopping: {keeps}. Ctrl-C again kills the processes.")
        append_event(self._run, "stop_requested")
        try:
            clean = self._executor.stop(self._job, self._progress.poll)
            if not clean:
                self._console.say(f"Not stopped after {self._job.work.stop_grace_seconds:.0f} s: killed.")
            drain(self._job, self._executor)
            return clean
        except KeyboardInterrupt:
            self._executor.kill(self._job)
            self._console.say("\nKilled.")
            return False
        except SlipwayError as error:
            append_event(self._run, "failed", by="launcher", exit_code=error.exit_code, **error.parts())
            self._release()
            raise

    def _poll(self) -> None:
        """Several times a second: the live line, and for rented hosts whether a limit of time or money is near."""
        self._progress.poll()
        if self._job.target.kind != "aws" or time.monotonic() - self._limit_seen < LIMIT_SECONDS:
            return
        self._limit_seen = time.monotonic()
        reason = cluster_limit(self._job.target, self._run.path.parent)
        if reason:
            self._console.end_live()
            self._console.say(reason)
            append_event(self._run, "limit_reached", reason=reason)
            raise KeyboardInterrupt

    def _claim(self) -> None:
        """Until the job has its own processes here, ours stand for it: nobody then sees it as lost, or starts it too.

        A job that runs elsewhere has none here, so that the claim says who watches it.
        """
        record_process(processes_dir(self._run.path) / LAUNCHER, os.getpid())

    def _release(self) -> None:
        """Give up the claim, where it is still ours."""
        record = processes.launcher_record(self._run.path)
        if record is not None and record.pid == os.getpid():
            (processes_dir(self._run.path) / LAUNCHER).unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        self._console.say(text)


def drain(job: JobDescription, executor: Executor) -> Ending:
    """After a stop: bring home what the ranks of other machines wrote last."""
    return executor.wait(job) if job.target.remote else Ending()


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


def _follow(run: RunDirectory, console: Console, debug: bool) -> int:
    """Read along with another process that watches the run."""
    progress = Progress(run, console)
    while processes.is_live(run.path):
        progress.poll()
        time.sleep(FOLLOW_SECONDS)
    console.end_live()
    explain(run, console, debug)
    return 0 if state_of(run) == RunState.FINISHED else 1


def _seconds(run: RunDirectory) -> float:
    """How long the last attempt took."""
    times = [datetime.fromisoformat(str(event["time"])) for event in this_attempt(run)]
    return (times[-1] - times[0]).total_seconds() if times else 0.0
