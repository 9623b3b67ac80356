"""A tiny scaling study through the command line: two points, two rounds, on real ranks; once again costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real_text

from kit.config import dump
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import append_event, now
from kit.run.manifest import Manifest, write_manifest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STUDY = ["pretrain/tiny", "--ranks", "1,2,16", "--split", "data", "--repeats", "2", "--steps", "6"]


def write_data(runs: Path) -> None:
    """A finished data_prep run with real shards."""
    run = RunDirectory.create(runs, "data_prep", "text")
    fields = {"run_id": run.id, "stage": "data_prep", "name": "text", "created": now(), "config_digest": "", "key": "d"}
    write_manifest(run, Manifest.model_validate(fields))
    run.config_path.write_text(dump({"stage": "data_prep", "name": "text"}))
    real_text.write_dataset(run.artifacts)
    append_event(run, "finished")


def scale(runs: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "launch.cli", "scale", *STUDY, "--runs", str(runs), "--json", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"CI": "true"}, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_small_study(tmp_path: Path) -> None:
    write_data(tmp_path)
    told = scale(tmp_path, "--wandb", "offline")
    base, point = told["scaling"]
    assert (base["label"], base["mode"], base["rounds"], base["communication_seconds"]) == (
        "one process",
        "baseline",
        2,
        0,
    )
    assert (point["label"], point["mode"], point["rounds"]) == ("data parallel 2", "strong", 2)
    assert 0 < point["communication_seconds"] < point["step_seconds"]
    parts = ("compute_seconds", "communication_seconds", "data_seconds", "other_seconds")
    assert sum(point[part] for part in parts) == pytest.approx(point["step_seconds"])
    assert point["interval_low"] < point["efficiency"] < point["interval_high"]
    (left_out,) = told["scaling_left_out"]
    assert left_out["point"] == "data-16"
    assert [run["id"] for run in told["runs"]] == ["one-1", "data-2-1", "one-2", "data-2-2"]
    assert len(told["wandb_runs"]) == 3
    for run in told["runs"]:
        records = read_metrics(tmp_path / run["run_id"] / "metrics.jsonl")
        assert all(("communication_seconds" in record) for record in records)
    page = (Path(told["path"]) / "report" / "report.html").read_text()
    assert "all on one machine" in page
    assert "Left out, data-16" in page

    again = scale(tmp_path)
    assert [(run["run_id"], run["reused"]) for run in again["runs"]] == [(run["run_id"], True) for run in told["runs"]]
    assert again["scaling"] == told["scaling"]
