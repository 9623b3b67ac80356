"""What every backend promises, told as the life of one run: started, hurt, resumed, left alone, stopped, finished."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from backends import Backend
from command import EVERY, Command, delay_of, events, losses, newest_checkpoint_before, reach, steps, until

from kit.errors import RunFailure
from kit.run.directory import RunDirectory
from kit.run.events import read_events, state_of
from launch.executors.table import executor_for
from launch.prepare import job_of_run

pytestmark = pytest.mark.slow


@dataclass
class Life:
    """What was seen in one run's life."""

    run: RunDirectory
    backend: Backend
    delays: dict[str, float] = field(default_factory=dict)
    after_death: tuple[int, str] = (0, "")
    left: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    resumed_at: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def note(self, moment: str) -> None:
        """Look for processes, and at the state."""
        self.states[moment] = str(state_of(self.run))
        try:
            until(lambda: not self.backend.processes_left(self.run), seconds=5)
        except AssertionError:
            self.left[moment] = self.backend.processes_left(self.run)


@pytest.fixture(scope="module")
def life(backend: Backend, command: Command) -> Life:
    process, run = command.begin(command.recipe("data"), "--on", backend.target())
    seen = Life(run, backend)
    seen.delays["started"] = delay_of(run, "started")
    seen.delays["checkpointed"] = delay_of(run, "checkpointed")
    reach(run, EVERY + 2, process)
    backend.kill_rank(run, 1)
    output, _ = process.communicate(timeout=90)
    seen.after_death = (process.returncode, output)
    seen.note("death")

    # The command that watches dies, as with the laptop it runs on; another one goes on watching, a third one stops.
    known = steps(run)
    process = command.start("resume", run.id)
    reach(run, known + 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seen.states["left alone"] = str(state_of(run))
    watcher = command.start("attach", run.id)
    reach(run, known + 8, watcher)
    seen.outputs["refused"] = command.run("resume", run.id)[1]
    code, seen.outputs["stop"] = command.run("stop", run.id, "--json")
    assert code == 0, seen.outputs["stop"]
    seen.outputs["attach"], _ = watcher.communicate(timeout=60)
    seen.note("stop")

    code, seen.outputs["resume"] = command.run("resume", run.id)
    assert code == 0, seen.outputs["resume"]
    seen.note("end")
    return seen


def test_lines_appear_at_once_and_every_rank_has_a_log(life: Life) -> None:
    assert max(life.delays.values()) < 5, "two seconds are promised; a busy machine is given five"
    for rank in range(2):
        assert (life.run.logs / f"rank-{rank:05d}.log").is_file()
    assert list(life.run.logs.glob("launcher*.log"))


def test_the_death_of_a_rank_is_named_and_ends_the_others(life: Life) -> None:
    code, output = life.after_death
    assert code == 1, output
    assert "rank 1" in output
    assert "Traceback" not in output.split("Last lines")[0]
    assert any(event.get("rank") == 1 and "SIGKILL" in event["found"] for event in events(life.run, "failed"))


def test_no_process_is_left_after_death_stop_and_end(life: Life) -> None:
    assert life.left == {}
    assert life.states["death"] == "failed"
    assert life.states["stop"] == "stopped"
    assert life.states["end"] == "finished"


def test_a_job_outlives_the_command_that_watches_it(life: Life) -> None:
    assert life.states["left alone"] == "running"
    assert "still running" in life.outputs["refused"]
    assert json.loads(life.outputs["stop"].splitlines()[-1])["state"] == "stopped"


def test_it_goes_on_from_the_newest_checkpoint_with_the_same_samples(
    life: Life, uninterrupted: Callable[[str], list[tuple[int, float]]]
) -> None:
    first, second = (int(event["step"]) for event in events(life.run, "resumed"))
    assert first == newest_checkpoint_before(life.run, "failed")
    assert second >= first + 3, "a stop saves the step at which it happens"
    expected = uninterrupted("data")
    got = losses(life.run)
    assert [step for step, _ in got] == [step for step, _ in expected]
    assert [loss for _, loss in got] == pytest.approx([loss for _, loss in expected], abs=1e-5)


def test_what_it_made_is_fetched(life: Life, command: Command) -> None:
    made = life.run.artifacts / "training.json"
    assert made.is_file(), sorted(life.run.artifacts.rglob("*"))
    content = made.read_bytes()
    if life.backend.name != "local":
        made.write_text("changed")
    code, output = command.run("fetch", life.run.id)
    assert code == 0, output
    assert made.read_bytes() == content


def test_all_start_or_none(backend: Backend, command: Command, life: Life) -> None:
    job = job_of_run(life.run)
    executor = executor_for(job.target)
    executor.prepare(job, lambda line: None)
    before = len(read_events(life.run))
    with backend.spoilt(job) as spoilt:
        with pytest.raises(RunFailure) as caught:
            executor.submit(spoilt)
    if backend.name == "ssh":
        assert "n2" in caught.value.found
    until(lambda: not backend.processes_left(life.run), 5, lambda: backend.processes_left(life.run))
    assert len(read_events(life.run)) == before
