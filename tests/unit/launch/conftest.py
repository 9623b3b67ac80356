"""What the tests of the launcher share: a folder with recipes, runs that look finished, and the command in-process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.run.directory import RunDirectory
from kit.run.events import append_event, now
from kit.run.manifest import Manifest, write_manifest
from launch.cli import main

MODEL_RECIPE = """
stage: pretrain
name: small
engine: reference
model: {layers: 2, hidden: 32, heads: 4, kv_heads: 2, ffn: 64, vocab: 512}
data: {sequence_length: 32, global_batch_samples: 4, micro_batch_samples: 1}
optimizer: {learning_rate: 1e-3}
schedule: {warmup_steps: 2}
budget: {steps: 30}
"""

DATA_RECIPE = """
stage: data_prep
name: small
input: {paths: [pages.jsonl]}
"""

Command = Callable[..., tuple[int, str, str]]
FinishedRun = Callable[..., RunDirectory]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with two recipes and an input."""
    (tmp_path / "model.yaml").write_text(MODEL_RECIPE)
    (tmp_path / "data.yaml").write_text(DATA_RECIPE)
    (tmp_path / "pages.jsonl").write_text(json.dumps({"text": "one page"}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slipway(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """One command line: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def past_run(folder: Path) -> FinishedRun:
    """A run directory as an earlier command left it."""

    def make(stage: str, *events: str, key: str = "sha256:0", **fields: Any) -> RunDirectory:
        run = RunDirectory.create(folder / "runs", stage, "small")
        data = {"run_id": run.id, "stage": stage, "name": "small", "created": now(), "config_digest": "", "key": key}
        write_manifest(run, Manifest.model_validate(data | fields))
        run.config_path.write_text(f"stage: {stage}\nname: small\n")
        run.target_path.write_text("kind: local\n")
        for event in events or ("submitted", "started", "finished"):
            append_event(run, event)
        return run

    return make
