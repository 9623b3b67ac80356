"""Chains: what is used again, what goes on, what is done anew, and what a failure leaves. Stages are played here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import append_event, read_events, state_of
from launch import chain
from launch.chain_plan import plan_chain

CHAIN = """
name: small
stages:
  - {id: data, recipe: data.yaml}
  - {id: train, recipe: model.yaml, parents: {data: data}}
  - {id: point, recipe: model.yaml, parents: {data: data}, role: scaling, repeats: 2,
     set: {budget: {steps: 3}}, target: {threads_per_process: 1}}
"""


class Stage:
    """Plays the processes of a run: what it does with each, by stage and attempt."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, bool]] = []
        self.ends: dict[str, Callable[[RunDirectory], int]] = {}

    def __call__(self, run: RunDirectory, console: Any, resumed: bool = False, debug: bool = False) -> int:
        self.ran.append((run.manifest().stage, resumed))
        append_event(run, "submitted")
        end = self.ends.pop(run.manifest().stage, None)
        if end is not None:
            return end(run)
        append_event(run, "finished")
        return 0


def stop_with_checkpoint(run: RunDirectory) -> int:
    (run.checkpoints / "step-00000004").mkdir()
    (run.checkpoints / "step-00000004" / "COMPLETE").touch()
    append_event(run, "stopped")
    return 130


def fail(run: RunDirectory) -> int:
    append_event(run, "failed", found="it broke", expected="whole", action="mend it")
    return 1


@pytest.fixture
def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    (folder / "chain.yaml").write_text(CHAIN)
    played = Stage()
    monkeypatch.setattr(chain, "execute_run", played)
    monkeypatch.setattr(chain, "build_report", lambda run: {"run_id": run.id, "bits_per_byte": None})
    return played


def chains(folder: Path) -> list[RunDirectory]:
    return [run for run in list_runs(folder / "runs") if run.manifest().stage == "chain"]


def test_a_second_chain_uses_everything_again_and_says_so(slipway, stage: Stage, folder: Path) -> None:
    assert slipway("chain", "chain.yaml")[0] == 0
    assert [name for name, _ in stage.ran] == ["data_prep", "pretrain", "pretrain", "pretrain"]
    stage.ran.clear()
    code, out, _ = slipway("chain", "chain.yaml")
    assert code == 0
    assert stage.ran == []
    first, second = chains(folder)
    for entry in second.manifest().stages:
        assert entry.reused
        assert f"{entry.id}: reused {entry.run_id}, nothing changed" in out
    assert [entry.run_id for entry in first.manifest().stages] == [entry.run_id for entry in second.manifest().stages]
    assert [entry.id for entry in second.manifest().stages] == ["data", "train", "point-1", "point-2"]
    assert [entry.role for entry in second.manifest().stages] == [None, None, "scaling", "scaling"]


def test_only_what_changed_is_done_again(slipway, stage: Stage, folder: Path) -> None:
    slipway("chain", "chain.yaml")
    stage.ran.clear()
    slipway("chain", "chain.yaml", "--set", "train.seed=7")
    assert stage.ran == [("pretrain", False)]
    stage.ran.clear()
    (folder / "pages.jsonl").write_text('{"text": "new"}\n')
    slipway("chain", "chain.yaml")
    assert len(stage.ran) == 4, "a change of the data reaches every descendant"
    stage.ran.clear()
    slipway("chain", "chain.yaml", "--fresh")
    assert len(stage.ran) == 4


def test_children_record_their_parents(slipway, stage: Stage, folder: Path) -> None:
    slipway("chain", "chain.yaml")
    data, train = chains(folder)[0].manifest().stages[:2]
    manifest = RunDirectory(Path(train.path)).manifest()
    assert manifest.parents["data"].run_id == data.run_id
    assert manifest.parents["data"].digest.startswith("sha256:")
    assert RunDirectory(Path(train.path)).config()["parents"] == {"data": data.run_id}


def test_a_failure_says_which_stage_and_passes_its_code_on(slipway, stage: Stage, folder: Path) -> None:
    stage.ends["pretrain"] = fail
    code, out, _ = slipway("chain", "chain.yaml")
    assert code == 1
    (run,) = chains(folder)
    assert "Chain failed in stage train" in out
    assert f"slipway resume {run.id}" in out
    assert state_of(run) == "failed"
    assert "it broke" in read_events(run)[-1]["found"]
    stage.ran.clear()
    assert slipway("resume", run.id)[0] == 0
    assert [name for name, _ in stage.ran] == ["pretrain", "pretrain", "pretrain"], "data is not done again"
    assert state_of(run) == "finished"
    assert [entry.reused for entry in run.manifest().stages] == [False] * 4


def test_an_interrupted_stage_goes_on_in_its_own_directory(slipway, stage: Stage, folder: Path) -> None:
    stage.ends["pretrain"] = stop_with_checkpoint
    assert slipway("chain", "chain.yaml")[0] == 130
    (first,) = chains(folder)
    assert state_of(first) == "stopped"
    interrupted = first.manifest().stages[-1].run_id
    stage.ran.clear()
    code, out, _ = slipway("chain", "chain.yaml", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["run_id"] == chains(folder)[-1].id
    assert stage.ran[0] == ("pretrain", True)
    assert chains(folder)[-1].manifest().stages[1].run_id == interrupted


def test_an_interrupted_measurement_starts_again(slipway, stage: Stage, folder: Path) -> None:
    slipway("chain", "chain.yaml")
    stage.ran.clear()
    stage.ends["pretrain"] = stop_with_checkpoint
    changed = ("--set", "point.seed=9")
    assert slipway("chain", "chain.yaml", *changed)[0] == 130
    stage.ran.clear()
    assert slipway("chain", "chain.yaml", *changed)[0] == 0
    assert stage.ran == [("pretrain", False), ("pretrain", False)]


def test_mistakes_come_before_any_run(slipway, stage: Stage, folder: Path) -> None:
    code, _, err = slipway("chain", "chain.yaml", "--set", "trian.seed=7")
    assert code == 2
    assert "did you mean `train`" in err
    assert slipway("chain", "chain.yaml", "--set", "point.modle.layers=7")[0] == 2
    assert not (folder / "runs").exists()


def test_a_chain_may_take_a_parent_from_outside(folder: Path, past_run) -> None:
    (folder / "one.yaml").write_text("name: one\nstages: [{id: train, recipe: model.yaml}]\n")
    with pytest.raises(UserError, match="no finished data_prep run"):
        plan_chain(folder / "one.yaml", folder / "runs", "laptop", [])
    run = past_run("data_prep")
    _, (planned,) = plan_chain(folder / "one.yaml", folder / "runs", "laptop", [])
    assert planned.runs["data"].id == run.id


def test_a_report_that_breaks_leaves_the_chain_finished(slipway, stage: Stage, folder: Path, monkeypatch) -> None:
    def broken(run: RunDirectory) -> dict[str, Any]:
        raise UserError("no figures", expected="figures", action="draw some")

    monkeypatch.setattr(chain, "build_report", broken)
    assert slipway("chain", "chain.yaml")[0] == 2
    assert state_of(chains(folder)[0]) == "finished"
