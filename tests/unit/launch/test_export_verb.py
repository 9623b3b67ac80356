"""`slipway export`: which run is meant, what the process is told, and what is refused before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.run.directory import RunDirectory
from kit.run.manifest import ChainStage
from launch.child import Told
from launch.verbs import export

from .conftest import Command, FinishedRun

RESULT = {"directory": "to", "run": "it", "source": "artifacts/model", "dtype": "fp32", "files": ["a"], "bytes": 2**30}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words that processes were started with; none is."""
    words: list[list[str]] = []

    def run_module(module: str, given: list[str], console: Any, what: str) -> Told:
        words.append([module, *given])
        return Told(0, dict(RESULT, max_logit_difference=2e-6, tolerance=1e-4))

    monkeypatch.setattr(export, "run_module", run_module)
    return words


def entry(run: RunDirectory) -> ChainStage:
    stage = run.manifest().stage
    return ChainStage(id=stage, stage=stage, run_id=run.id, path=str(run.path), reused=False)


def test_every_option_reaches_the_process(slipway: Command, past_run: FinishedRun, asked: list[list[str]]) -> None:
    run = past_run("pretrain")
    options = ("--step", "20", "--dtype", "bf16", "--shard-gib", "0.5", "--verify", "--force")
    code, out, _ = slipway("export", "last:pretrain", "--to", "to", *options)
    assert code == 0
    assert asked == [
        [
            "recipes.export",
            str(run.path),
            "--to",
            "to",
            "--dtype",
            "bf16",
            "--shard-gib",
            "0.5",
            *options[:2],
            *options[6:],
        ]
    ]
    assert "Exported artifacts/model of it to to: fp32, 1.00 GiB in 1 file\n" in out
    assert "Largest difference of logits: 2e-06 (allowed: 0.0001)" in out


def test_of_a_chain_the_last_run_that_keeps_a_whole_model_is_meant(
    slipway: Command, past_run: FinishedRun, asked: list[list[str]]
) -> None:
    runs = [past_run(stage) for stage in ("data_prep", "pretrain", "zero", "sft")]
    past_run("chain", stages=[entry(run) for run in runs])
    assert slipway("export", "--last", "--to", "to")[0] == 0
    assert asked[0][1] == str(runs[2].path)


def test_a_chain_without_one_is_refused(slipway: Command, past_run: FinishedRun, asked: list[list[str]]) -> None:
    past_run("chain", stages=[entry(past_run("data_prep"))])
    code, _, err = slipway("export", "--last", "--to", "to")
    assert (code, asked) == (2, [])
    assert "a chain without a stage pretrain or zero" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("last:pretrain", "--to", "x"), "no run fits 'last:pretrain'"),
        (("--to", "x"), "no RUN"),
        (("x",), "--to"),
        (("x", "--to", "y", "--shard-gib", "0"), "--shard-gib 0.0"),
        (("x", "--to", "y", "--shard-gib", "nan"), "--shard-gib nan"),
        (("x", "--to", "y", "--dtype", "fp8"), "fp8"),
        (("x", "--to", "y", "--step", "two"), "invalid int value"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    slipway: Command, asked: list[list[str]], words: tuple[str, ...], said: str
) -> None:
    code, out, err = slipway("export", *words)
    assert (code, out, asked) == (2, "", [])
    assert said in err
    assert "Expected:" in err


def test_what_the_process_refuses_is_the_verbs_error(slipway: Command, past_run: FinishedRun, tmp_path: Path) -> None:
    past_run("pretrain")
    (tmp_path / "mine").mkdir()
    code, out, err = slipway("export", "last:pretrain", "--to", str(tmp_path / "mine"), "--json")
    assert code == 2
    assert f"{tmp_path / 'mine'} exists" in err
    assert '"exit_code": 2' in out
