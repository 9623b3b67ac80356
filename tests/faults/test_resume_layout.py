"""A run on four ranks is told to end, and goes on in one process: the same losses as if nothing had been."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np

from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events, state_of

RECIPE = "recipes/pretrain/tiny.yaml"
STEPS = 20  # the recipe's own
SETS = ("--set", "data.micro_batch_samples=1", "--set", "export=false")
FOUR = ("--set", "layout.tensor=2", "--set", "layout.pipeline=2")
ONE = ("--set", "layout.tensor=1", "--set", "layout.pipeline=1")


def losses(run: RunDirectory) -> dict[int, tuple[float, float | None]]:
    return {
        record["step"]: (record["loss"], record.get("validation_loss")) for record in read_metrics(run.metrics_path)
    }


def last_json(output: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def test_four_ranks_are_stopped_and_one_goes_on(world: Path, slipway) -> None:
    recipe = str(Path(__file__).resolve().parents[2] / RECIPE)
    code, output = slipway.run("run", recipe, "--on", "laptop", *SETS, "--json", timeout=300)
    assert code == 0, output
    uninterrupted = losses(slipway.newest())

    known = slipway.count()
    process = slipway.start("run", recipe, "--on", "laptop", *SETS, *FOUR, "--json")
    run = slipway.wait_for(lambda run: slipway.steps(run) >= 2, known, seconds=240)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert state_of(run) == "stopped"
    done = slipway.steps(run)
    assert 2 <= done < STEPS
    manifest = json.loads((run.checkpoints / f"step-{done:08d}" / "COMPLETE").read_text())
    assert (manifest["layout"]["tensor"], manifest["layout"]["pipeline"]) == (2, 2)

    code, output = slipway.run("resume", run.id, *ONE, "--set", "optimizer.learning_rate=1", "--json")
    assert code == 2, output
    assert "optimizer.learning_rate" in output

    code, output = slipway.run("resume", run.id, *ONE, "--json", timeout=300)
    assert code == 0, output
    assert last_json(output)["reconfigured"]["layout.pipeline"] == [2, 1]
    assert state_of(run) == "finished"
    events = [event["event"] for event in read_events(run)]
    assert events.count("started") == 2
    assert [event["world_size"] for event in read_events(run) if event["event"] == "started"] == [4, 1]
    assert next(event for event in read_events(run) if event["event"] == "resumed")["step"] == done
    after = losses(run)
    assert list(after) == list(uninterrupted) == list(range(1, STEPS + 1))
    # Another sample anywhere would show: one sample's loss is far from another's.
    differences = np.array([after[step][0] - uninterrupted[step][0] for step in after])
    assert np.abs(differences).max() < 1e-5
    assert abs(after[10][1] - uninterrupted[10][1]) < 1e-5
    assert json.loads((run.artifacts / "training.json").read_text())["layout"]["tensor"] == 1

    code, output = slipway.run("resume", run.id, "--set", "budget.steps=60", "--json")
    assert code == 2, output
    assert "nothing left to do" in output
