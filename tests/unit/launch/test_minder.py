"""A detached job on this machine: started, ended while it starts, and what is written of its end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch.host import minder
from launch.host.processes import LAUNCHER, processes_dir
from launch.host.stream import StillRunning
from launch.job import HostJob

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "processes").mkdir()
    return tmp_path / "run"


def job(run: Path, program: str) -> HostJob:
    return HostJob(run, (sys.executable, "-c", program), stop_grace_seconds=10)


def of_run(run: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run) in words or f"# {run}" in " ".join(words):
            found.append(words)
    return found


def test_its_end_is_written_down_and_nothing_is_left(run: Path) -> None:
    minder.start(job(run, f"import time; time.sleep(1); raise SystemExit(3)  # {run}"))
    with pytest.raises(StillRunning):
        minder.has_ended(run, 0)
    assert of_run(run)
    while minder.status(run, 0)["live"]:
        time.sleep(0.05)
    assert minder.has_ended(run, 0) == 3
    assert of_run(run) == []


def test_an_end_that_comes_while_it_starts_ends_it_all_the_same(run: Path) -> None:
    """An earlier attempt's record must not pass for this one's start, and a kill waits for what is being started."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    record = {"pid": gone.pid, "start_time": 1.0, "host": ""}
    for _ in range(3):
        (processes_dir(run) / LAUNCHER).write_text(json.dumps(record))
        minder.start(job(run, f"import time; time.sleep(60)  # {run}"))
        assert minder.end(run, 0, force=True)["live"] is False
        assert of_run(run) == []
        assert minder.has_ended(run, 0) == -9
