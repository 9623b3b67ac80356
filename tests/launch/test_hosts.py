"""Training across two hosts that share nothing, and a host that goes away in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from backends import SshBackend
from command import EVERY, Command, events, losses, newest_checkpoint_before, reach, until

from kit.run.directory import list_runs
from kit.run.events import read_events, state_of

pytestmark = [pytest.mark.hosts, pytest.mark.slow]


def test_zero_2_across_hosts_is_the_same_training(
    hosts: SshBackend, command: Command, uninterrupted: Callable[[str], list[tuple[int, float]]]
) -> None:
    code, output = command.run("run", command.recipe("zero"), "--on", hosts.target())
    assert code == 0, output
    run = list_runs(command.runs)[-1]
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in uninterrupted("zero")], abs=1e-5)
    assert (run.artifacts / "training.json").is_file()
    assert hosts.processes_left(run) == []


def test_a_host_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    hosts: SshBackend, command: Command, uninterrupted: Callable[[str], list[tuple[int, float]]]
) -> None:
    expected = uninterrupted("tensor")
    target = hosts.target(restarts=1, ssh={"return_seconds": 120})
    process, run = command.begin(command.recipe("tensor"), "--on", target)
    reach(run, EVERY + 3, process, 180)
    hosts.lab.poweroff("n2")
    gone = time.monotonic()
    until(lambda: events(run, "restarting"), 60, lambda: read_events(run))
    named_after = time.monotonic() - gone
    hosts.lab.boot("n2")
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert named_after < 30
    assert events(run, "restarting")[0]["hosts"] == ["n2"]
    assert "n2" in output
    assert [int(event["step"]) for event in events(run, "resumed")] == [newest_checkpoint_before(run, "restarting")]
    assert [step for step, _ in losses(run)] == [step for step, _ in expected]
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in expected], abs=1e-5)
    assert state_of(run) == "finished"
    assert hosts.processes_left(run) == []
