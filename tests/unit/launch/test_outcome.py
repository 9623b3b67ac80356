"""How a run ended: the events against the processes, and which rank is to blame."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.errors import UserError
from kit.run.events import append_event, read_events, state_of
from kit.run.process import record_process
from launch.executors.protocol import Ending
from launch.host import processes
from launch.host.group import HostProcesses, launcher_log, refuse_live
from launch.job import HostJob
from launch.outcome import Death, close_attempt, describe_exit, read_deaths, standing

REPORT = """
============================================================
recipes FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-01-01_00:00:00
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 102) (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 102
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 101)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_deaths_are_read_from_the_closing_words(tmp_path: Path) -> None:
    log = tmp_path / "launcher.log"
    assert read_deaths(log) == []
    log.write_text("earlier\n" + REPORT)
    assert read_deaths(log) == [Death(0, 1), Death(1, -9)]
    assert read_deaths(log, start=log.stat().st_size) == []


def test_a_signal_is_blamed_before_the_rank_that_only_lost_its_peer(past_run) -> None:
    run = past_run("pretrain", "submitted", "started")
    append_event(run, "failed", found="rank 0: connection closed", expected="", action="")
    (run.logs / "launcher.log").write_text(REPORT)
    (run.logs / "rank-00001.log").write_text("its last words\n")
    assert close_attempt(run, Ending({"localhost": 1}), {}) == 1
    failure = read_events(run)[-1]
    assert failure["rank"] == 1
    assert "SIGKILL" in failure["found"]
    assert failure["tail"] == ["its last words"]


def test_a_rank_that_stopped_because_another_died_has_not_stopped(past_run) -> None:
    run = past_run("pretrain", "submitted", "started", "stopped")
    (run.logs / "launcher.log").write_text(REPORT)
    assert close_attempt(run, Ending({"localhost": 1}), {}) == 1
    assert state_of(run) == "failed"


@pytest.mark.parametrize(
    ("events", "exit_code", "killed", "state", "code"),
    [
        (["started", "finished"], 0, False, "finished", 0),
        (["started", "stop_requested", "stopped"], 0, False, "stopped", 1),
        (["stop_requested"], -15, False, "stopped", 1),
        (["started", "stop_requested"], -9, True, "failed", 1),
        (["started"], -9, False, "failed", 1),
        (["started", "failed"], 2, False, "failed", 2),
        (["started", "failed"], 1, False, "failed", 1),
    ],
)
def test_every_end(past_run, events: list[str], exit_code: int, killed: bool, state: str, code: int) -> None:
    run = past_run("data_prep", "submitted", *events)
    assert close_attempt(run, Ending({"localhost": exit_code}), {}, killed) == code
    assert state_of(run) == state


def test_exit_codes_in_words() -> None:
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(None) == "gone without a word"


def test_a_run_without_processes_is_lost(past_run, sleeper) -> None:
    run = past_run("pretrain", "submitted", "started")
    assert standing(run).words == "failed (lost)"
    assert standing(run).resumable
    record_process(run.processes / processes.LAUNCHER, sleeper.pid)
    assert standing(run).words == "running"
    with pytest.raises(UserError, match="still running"):
        refuse_live(run.path)


def test_a_pid_that_was_given_to_somebody_else_is_not_ours(past_run, sleeper) -> None:
    run = past_run("pretrain", "submitted", "started")
    record = record_process(run.processes / "rank-00000.json", sleeper.pid)
    assert record is not None
    assert processes.live_process(record) is not None
    assert processes.live_process(processes.ProcessRecord(record.pid, record.start_time - 100, record.host)) is None
    assert processes.live_process(processes.ProcessRecord(record.pid, record.start_time, "elsewhere")) is None
    (run.processes / "rank-00001.json").write_text("{ half")
    assert list(processes.rank_records(run.path)) == [0]


def test_the_executor_starts_waits_and_keeps_the_output(past_run) -> None:
    run = past_run("data_prep", "submitted")
    job = HostJob(run.path, (sys.executable, "-c", "import os; print(os.environ['WORD'])"), {"WORD": "said"})
    executor = HostProcesses()
    executor.submit(job)
    assert executor.wait(job) == 0
    assert launcher_log(run.path).read_text() == "said\n"
    assert not executor.is_live(run.path)


def test_the_executor_stops_politely_and_kills_what_does_not_listen(past_run) -> None:
    run = past_run("data_prep", "submitted")
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    job = HostJob(run.path, (sys.executable, "-c", deaf), stop_grace_seconds=0.5)
    executor = HostProcesses()
    executor.submit(job)
    while not (run.logs / "launcher.log").read_text():
        assert executor.is_live(run.path)
    assert not executor.stop(job)
    assert executor.wait(job) == -signal.SIGKILL

    polite = HostJob(run.path, (sys.executable, "-c", "import time; time.sleep(60)"), stop_grace_seconds=20)
    executor.submit(polite)
    assert executor.stop(polite)
    assert executor.wait(polite) == -signal.SIGTERM
