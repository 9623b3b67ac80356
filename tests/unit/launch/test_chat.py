"""`slipway chat`: which model is meant, before anything is started."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.manifest import ChainStage
from launch.verbs.chat import find_model

from .conftest import Command, FinishedRun


def asked(run: str | None, last: bool = False) -> argparse.Namespace:
    return argparse.Namespace(run=run, last=last, runs=Path("runs"))


def with_model(run: RunDirectory) -> RunDirectory:
    (run.artifacts / "model").mkdir()
    (run.artifacts / "model" / "config.json").write_text("{}")
    return run


def test_a_run_by_its_stage_its_id_and_its_path(past_run: FinishedRun) -> None:
    run = with_model(past_run("rlhf"))
    for reference in ("last:rlhf", run.id, run.id[:24], str(run.path)):
        found, model = find_model(asked(reference))
        assert found is not None
        assert (found.id, model) == (run.id, run.artifacts / "model")


def test_a_model_by_its_path(folder: Path) -> None:
    (folder / "gpt").mkdir()
    (folder / "gpt" / "config.json").write_text("{}")
    assert find_model(asked("gpt")) == (None, (folder / "gpt").resolve())


def test_of_a_chain_the_last_model_is_meant(past_run: FinishedRun) -> None:
    base, tuned, judged = with_model(past_run("pretrain")), with_model(past_run("sft")), past_run("evaluate")
    scaling = with_model(past_run("pretrain"))
    entries: list[dict[str, Any]] = [
        {"id": run.manifest().stage, "stage": run.manifest().stage, "run_id": run.id, "path": str(run.path)}
        for run in (base, tuned, judged, scaling)
    ]
    entries[-1]["role"] = "scaling"
    past_run("chain", stages=[ChainStage(**entry, reused=False) for entry in entries])
    found, _ = find_model(asked(None, last=True))
    assert found is not None
    assert found.id == tuned.id


def test_a_run_without_a_model_is_refused_with_its_state(past_run: FinishedRun) -> None:
    run = past_run("reward", "submitted", "started", "stopped")
    with pytest.raises(UserError, match=f"{run.id}: stage reward, stopped, without artifacts/model"):
        find_model(asked(run.id))


def test_a_folder_that_is_neither_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither manifest\.json nor config\.json"):
        find_model(asked("empty"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("last:rlhf",), "no run fits 'last:rlhf'"),
        ((), "no RUN"),
        (("x", "--temperature", "-1"), "--temperature -1.0"),
        (("x", "--temperature", "nan"), "--temperature nan"),
        (("x", "--new-tokens", "0"), "--new-tokens 0"),
        (("x", "--top-k", "few"), "invalid int value"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    slipway: Command, words: tuple[str, ...], said: str
) -> None:
    code, out, err = slipway("chat", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Expected:" in err
