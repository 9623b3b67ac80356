"""metrics.jsonl is the truth; Weights & Biases is a view that may fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import wandb_file

from kit.metrics import StepRecord, read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import now, read_events
from kit.run.manifest import Manifest, Parent, write_manifest
from recipes.training import wandb_view
from recipes.training.config import LoggingConfig, WandbConfig
from recipes.training.sinks import Sinks, open_sinks

OFFLINE = LoggingConfig(wandb=WandbConfig(tags=["test"]))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path, "pretrain", "test")
    run.config_path.write_text("stage: pretrain\nname: test\noptimizer: {learning_rate: 3e-4}\n")
    parents = {"data": Parent(run_id="some-data", path="/gone", digest="sha256:da7a")}
    write_manifest(
        run,
        Manifest(
            run_id=run.id,
            stage="pretrain",
            name="test",
            created=now(),
            parents=parents,
            config_digest="sha256:c0",
            key="sha256:4e",
        ),
    )
    return run


def write_steps(run: RunDirectory, first: int, last: int) -> None:
    with open_sinks(run, OFFLINE, first=True) as sinks:
        for step in range(first, last + 1):
            sinks.write(StepRecord(step=step, loss=5.0 / step, tokens=512, mfu=0.25, extra={"reward": step / 7}))
        sinks.table("answers", ["prompt", "after"], [["Hello", "Hi"], ["ünï", "code"]])
        (run.artifacts / "training.json").write_text("{}")


def files(run: RunDirectory) -> list[Path]:
    return sorted(run.path.glob("wandb/offline-run-*/*.wandb"))


def test_the_wandb_file_holds_everything(run: RunDirectory) -> None:
    write_steps(run, 1, 6)
    assert [event for event in read_events(run) if event["event"] == "sink_failed"] == []
    (file,) = files(run)
    logged = {entry["step"]: entry for entry in wandb_file.history(file) if "loss" in entry}
    metrics = read_metrics(run.metrics_path)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]
    for record in metrics:
        assert {key: logged[record["step"]][key] for key in record} == record
    kinds: dict[str, list[Any]] = {}
    for record in wandb_file.records(file):
        kinds.setdefault(str(record.WhichOneof("record_type")), []).append(record)
    (started,) = kinds["run"]
    assert started.run.run_id == run.id
    config = {item.key: json.loads(item.value_json) for item in started.run.config.update}
    assert config["optimizer"] == {"learning_rate": 3e-4}
    assert any("answers" in key for entry in wandb_file.history(file) for key in entry)
    artifacts = {record.artifact.name: record.artifact for record in kinds["artifact"]}
    origin, result = (json.loads(artifacts[f"{run.id}-{kind}"].metadata) for kind in ("origin", "result"))
    assert origin["parents"] == {"data": {"run_id": "some-data", "digest": "sha256:da7a"}}
    assert origin["key"] == "sha256:4e"
    assert result["artifacts"]["training.json"].startswith("sha256:44136fa355b3678a")
    assert kinds["stats"], "system metrics"


def test_a_resumed_run_is_the_same_run_there(run: RunDirectory) -> None:
    write_steps(run, 1, 3)
    write_steps(run, 3, 5)
    assert len(files(run)) == 2
    ids = {record.run.run_id for file in files(run) for record in wandb_file.records(file) if record.HasField("run")}
    assert ids == {run.id}
    steps = [entry["step"] for file in files(run) for entry in wandb_file.history(file) if "loss" in entry]
    assert steps == [1, 2, 3, 3, 4, 5]


def test_an_unreachable_server_is_left_out_and_the_run_goes_on(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_view, "INIT_SECONDS", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with open_sinks(run, LoggingConfig(wandb=WandbConfig(mode="online")), first=True) as sinks:
        sinks.write(StepRecord(step=1, loss=2.0))
    (event,) = [event for event in read_events(run) if event["event"] == "sink_failed"]
    assert event["sink"] == "wandb"
    assert [record["loss"] for record in read_metrics(run.metrics_path)] == [2.0]


class FailsLater:
    name = "fails-later"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def write(self, record: StepRecord) -> None:
        self.seen.append(record.step)
        if record.step == 2:
            raise ConnectionError("gone")

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        raise AssertionError("a view that failed is not asked again")

    def close(self, exit_code: int) -> None:
        raise AssertionError("a view that failed is not asked again")


def test_a_view_that_fails_on_the_way_is_left_out_once(run: RunDirectory) -> None:
    view = FailsLater()
    with Sinks(run, {"fails-later": lambda: view}, first=True) as sinks:
        for step in (1, 2, 3):
            sinks.write(StepRecord(step=step, loss=1.0))
        sinks.table("answers", ["a"], [["b"]])
    assert view.seen == [1, 2]
    assert len(read_metrics(run.metrics_path)) == 3
    (event,) = [event for event in read_events(run) if event["event"] == "sink_failed"]
    assert "gone" in event["words"]


def test_other_ranks_write_nothing(run: RunDirectory) -> None:
    with open_sinks(run, OFFLINE, first=False) as sinks:
        sinks.write(StepRecord(step=1, loss=2.0))
    assert not run.metrics_path.exists()
    assert files(run) == []
