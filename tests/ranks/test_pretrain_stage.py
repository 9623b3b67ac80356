"""`python -m recipes` as torchrun starts it: stopped, killed, resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import real_text
from stage_run import write_run

from kit.config import load
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import RunState, read_events, state_of
from recipes.pretrain.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    real_text.write_dataset(folder / "artifacts")
    return folder


def make_run(root: Path, data: Path, *sets: str) -> RunDirectory:
    config = load(PretrainConfig, ROOT / "recipes" / "pretrain" / "tiny.yaml", sets)
    return write_run(root, config, {"data": data})


def start(run: RunDirectory, processes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--nnodes", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--max-restarts", "0"]
    command += ["-m", "recipes", str(run.path)]
    with (run.logs / "launcher.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


def finish(run: RunDirectory, processes: int) -> int:
    return start(run, processes).wait(timeout=240)


def wait_for_step(run: RunDirectory, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not any(record["step"] >= step for record in read_metrics(run.metrics_path)):
        assert process.poll() is None, (run.logs / "rank-00000.log").read_text()[-3000:]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)


def wait_for_checkpoint(run: RunDirectory, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not (run.checkpoints / f"step-{step:08d}").is_dir():
        assert process.poll() is None, (run.logs / "rank-00000.log").read_text()[-3000:]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


def rank_pids(run: RunDirectory) -> list[int]:
    return [json.loads(path.read_text())["pid"] for path in sorted(run.processes.glob("rank-*.json"))]


def losses(run: RunDirectory) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(run.metrics_path)}


def training(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.artifacts / "training.json").read_text())


SETS = ("layout.tensor=2", "budget.steps=40", "checkpoint.every_steps=5", "validation.every_steps=20")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("runs"), data, *SETS)
    assert finish(run, 2) == 0, (run.logs / "rank-00000.log").read_text()[-3000:]
    return run


def test_a_run_leaves_what_the_next_stage_reads(undisturbed: RunDirectory) -> None:
    from transformers import AutoModelForCausalLM

    told = training(undisturbed)
    assert told["export_max_logit_difference"] < 1e-5
    assert told["validation_loss_after"] < told["validation_loss_before"] - 0.5
    assert told["tokens"] == 40 * 8 * 64
    assert told["resumed_from"] == []
    assert told["world_size"] == 2
    for name in ("model", "untrained"):
        model = AutoModelForCausalLM.from_pretrained(undisturbed.artifacts / name)
        assert sum(p.numel() for p in model.parameters()) == told["parameters"]
        assert (undisturbed.artifacts / name / "tokenizer.model").is_file()
    assert state_of(undisturbed) is RunState.FINISHED
    kinds = [event["event"] for event in read_events(undisturbed)]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert sorted(p.name for p in undisturbed.checkpoints.iterdir()) == ["step-00000035", "step-00000040"]
    assert losses(undisturbed).keys() == set(range(1, 41))


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path: Path, data: Path, undisturbed: RunDirectory) -> None:
    run = make_run(tmp_path, data, *SETS)
    process = start(run, 2)
    wait_for_step(run, 7, process)
    for pid in rank_pids(run):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    assert state_of(run) is RunState.STOPPED
    assert not (run.artifacts / "model").exists()
    stopped_at = max(losses(run))
    assert finish(run, 2) == 0
    assert losses(run) == losses(undisturbed)
    assert training(run)["resumed_from"] == [stopped_at]
    assert training(run)["validation_loss_after"] == training(undisturbed)["validation_loss_after"]
    assert training(run)["validation_loss_before"] == training(undisturbed)["validation_loss_before"]


def test_a_killed_run_goes_on_from_the_newest_intact_checkpoint(
    tmp_path: Path, data: Path, undisturbed: RunDirectory
) -> None:
    run = make_run(tmp_path, data, *SETS)
    process = start(run, 2)
    wait_for_checkpoint(run, 10, process)
    for pid in rank_pids(run):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    intact = sorted(path for path in run.checkpoints.iterdir() if path.suffix != ".partial")
    damaged = next(path for path in intact[-1].iterdir() if path.suffix == ".distcp" and path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-10])
    assert finish(run, 2) == 0
    assert losses(run) == losses(undisturbed)
    assert training(run)["resumed_from"] == [int(intact[-2].name.removeprefix("step-"))]
    words = [event["words"] for event in read_events(run) if event["event"] == "checkpoint_damaged"]
    assert len(words) == 1
    assert intact[-1].name in words[0]


def failure(run: RunDirectory) -> dict[str, Any]:
    failed = [event for event in read_events(run) if event["event"] == "failed"]
    assert len(failed) == 1
    return failed[0]


def test_a_layout_that_does_not_fill_the_processes_is_refused(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path, data, "layout.tensor=2")
    done = subprocess.run([sys.executable, "-m", "recipes", str(run.path)], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == (b"", b"")
    told = failure(run)
    assert "tensor 2" in told["found"]
    assert told["expected"]
    assert told["action"]


def test_another_tokenizer_is_refused_on_every_rank_and_told_once(tmp_path: Path) -> None:
    other = tmp_path / "data"
    real_text.write_dataset(other / "artifacts")
    with (other / "artifacts" / "tokenizer" / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    run = make_run(tmp_path / "runs", other, "layout.data=2")
    assert finish(run, 2) != 0
    assert "fingerprint" in failure(run)["found"]
    assert not list(run.checkpoints.iterdir())


def test_the_reference_engine_runs_the_whole_stage(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path, data, "engine=reference", "validation.every_steps=null")
    done = subprocess.run([sys.executable, "-m", "recipes", str(run.path)], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, (run.logs / "rank-00000.log").read_text()[-3000:]
    assert training(run)["engine"] == "reference"
    assert training(run)["export_max_logit_difference"] < 1e-5


def test_other_data_under_the_same_path_is_refused_by_a_resume(tmp_path: Path) -> None:
    data = tmp_path / "data"
    real_text.write_dataset(data / "artifacts")
    sets = ("engine=reference", "validation.every_steps=null", "export=false", "budget.steps=4")
    run = make_run(tmp_path / "runs", data, *sets, "schedule.warmup_steps=1", "checkpoint.every_steps=2")
    command = [sys.executable, "-m", "recipes", str(run.path)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == 0
    shutil.rmtree(data)
    real_text.write_dataset(data / "artifacts", vocab_size=448)
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == 2
    told = failure(run)
    assert "step-00000004 belongs to something else" in told["found"]
    for part in (
        "data of parent `data` was sha256:",
        "tokenizer of parent `data` was ",
        "model was ",
        "parameters was ",
    ):
        assert part in told["found"]
    assert "new run" in told["action"]
