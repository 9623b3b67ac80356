"""Stops and deaths: what was done is kept, nothing keeps running, and the run goes on afterwards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from kit.metrics import read_metrics
from kit.run.events import read_events, state_of

LONG = ("--set", "budget.steps=4000")


def test_ctrl_c_leaves_a_resumable_run_and_no_process(world: Path, slipway) -> None:
    known = slipway.count()
    process = slipway.start("run", str(world / "model.yaml"), *LONG)
    run = slipway.wait_for(lambda run: slipway.steps(run) >= 3, known)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"slipway resume {run.id}" in output
    assert "Traceback" not in output
    assert state_of(run) == "stopped"
    assert slipway.processes_of(run) == []
    done = slipway.steps(run)
    assert (run.checkpoints / f"step-{done:08d}" / "COMPLETE").exists()

    process = slipway.start("resume", run.id)
    slipway.wait_for(lambda run: slipway.steps(run) >= done + 3, known)
    code, output = slipway.run("stop", run.id, "--json")
    assert code == 0, output
    assert json.loads(output.splitlines()[-1])["state"] == "stopped"
    process.communicate(timeout=60)
    steps = [record["step"] for record in read_metrics(run.metrics_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert any(event["event"] == "resumed" and event["step"] == done for event in read_events(run))


def test_a_second_ctrl_c_kills(world: Path, slipway) -> None:
    known = slipway.count()
    process = slipway.start("run", str(world / "model.yaml"), *LONG)
    run = slipway.wait_for(lambda run: slipway.steps(run) >= 1, known)
    os.kill(slipway.rank_pid(run, 0), signal.SIGSTOP)  # a rank that hangs and never hears the first one
    process.send_signal(signal.SIGINT)
    slipway.wait_for(lambda run: any(e["event"] == "stop_requested" for e in read_events(run)), known)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert state_of(run) == "failed"
    assert slipway.processes_of(run) == []


def test_the_death_of_a_rank_is_named_and_the_run_goes_on(world: Path, slipway) -> None:
    known = slipway.count()
    sets = ("--set", "layout.data=2", "--set", "engine=megatron", "--set", "budget.steps=120")
    process = slipway.start("run", str(world / "model.yaml"), *sets)
    run = slipway.wait_for(lambda run: slipway.steps(run) >= 22, known)
    os.kill(slipway.rank_pid(run, 1), signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    failure = [event for event in read_events(run) if event["event"] == "failed"][-1]
    assert failure["rank"] == 1
    assert "SIGKILL" in failure["found"]
    assert "rank 1" in output
    assert "Traceback" not in output.split("Last lines")[0]
    assert slipway.processes_of(run) == []

    code, output = slipway.run("resume", run.id)
    assert code == 0, output
    assert state_of(run) == "finished"
    assert [record["step"] for record in read_metrics(run.metrics_path)] == list(range(1, 121))


def test_a_launcher_that_vanished_is_shown_as_lost(world: Path, slipway) -> None:
    known = slipway.count()
    process = slipway.start("run", str(world / "model.yaml"), *LONG)
    run = slipway.wait_for(lambda run: slipway.steps(run) >= 1, known)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert slipway.processes_of(run), "the job goes on without the command that watched it"
    code, output = slipway.run("resume", run.id)
    assert code == 2, output
    assert "still running" in output
    for pid in slipway.processes_of(run):
        os.kill(pid, signal.SIGKILL)
    code, output = slipway.run("status", run.id, "--json")
    assert code == 0
    assert json.loads(output.splitlines()[-1])["state"] == "failed (lost)"


@pytest.mark.parametrize("verb", ["stop", "resume"])
def test_verbs_refuse_a_run_that_has_finished(world: Path, slipway, verb: str) -> None:
    code, output = slipway.run(verb, "last:data_prep")
    assert code == 2
    assert output.count("Found:") == 1
    assert "finished" in output
