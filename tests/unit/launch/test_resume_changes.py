"""`slipway resume --set`: what may change, what is refused, and that the change is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kit.config import dump, load, parse, resolve, to_data
from kit.layout import Layout
from kit.run.directory import RunDirectory
from kit.run.events import read_events
from kit.target import Target
from launch.executors.pieces import run_archive
from launch.executors.ssh import PLACES, _remotes
from launch.executors.table import executor_for
from launch.job import Place
from launch.prepare import job_of_run
from launch.reconfigure import differences
from recipes.pretrain.config import PretrainConfig

RECIPE = """
stage: pretrain
name: small
engine: megatron
model: {layers: 4, hidden: 32, heads: 4, kv_heads: 2, ffn: 64, vocab: 512}
layout: {tensor: 2, pipeline: 2}
data: {sequence_length: 32, global_batch_samples: 8, micro_batch_samples: 2}
optimizer: {learning_rate: 1e-3}
schedule: {warmup_steps: 2}
budget: {steps: 30}
checkpoint: {every_steps: 10}
"""

Stopped = Callable[..., RunDirectory]


@pytest.fixture
def stopped(past_run, folder: Path) -> Stopped:
    """A run of four ranks that was stopped."""

    def make(*sets: str, events: tuple[str, ...] = ("submitted", "started", "stopped"), **target: Any) -> RunDirectory:
        (folder / "four.yaml").write_text(RECIPE)
        config = parse(PretrainConfig, resolve(folder / "four.yaml", sets), "four.yaml")
        layout = config.layout.model_dump()
        run = past_run("pretrain", *events, plan={"recipe": "four.yaml", "processes": 4}, layout=layout)
        run.config_path.write_text(dump({**to_data(config), "parents": {}}))
        settings = {"kind": "local", "device": "cpu", "devices_per_host": 4, "threads_per_process": 1} | target
        run.target_path.write_text(dump(Target.model_validate(settings)))
        return run

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ranks every run had that `resume` started; nothing really starts."""
    ranks: list[int] = []

    def execute(run: RunDirectory, *_: Any, **__: Any) -> int:
        ranks.append(job_of_run(run).work.processes)
        return 0

    monkeypatch.setattr("launch.verbs.resume.execute_run", execute)
    return ranks


ONE_RANK = ("--set", "layout.tensor=1", "--set", "layout.pipeline=1")


def test_a_run_goes_on_under_another_layout_and_the_change_is_kept(slipway, stopped: Stopped, started) -> None:
    run = stopped()
    before = run.config_path.read_bytes()
    code, out, err = slipway("resume", run.id, *ONE_RANK, "--json")
    assert code == 0, err
    assert started == [1]
    assert load(PretrainConfig, run.config_path).layout == Layout()
    assert (run.path / "config-before-1.yaml").read_bytes() == before
    event = next(event for event in read_events(run) if event["event"] == "reconfigured")
    assert event["changes"]["layout.tensor"] == [2, 1]
    assert event["changes"]["layout.pipeline"] == [2, 1]
    assert event["predicted"]["memory_gib_per_device"] > 0
    assert event["kept"] == {"config": "config-before-1.yaml", "target": "target-before-1.yaml"}
    assert json.loads(out.splitlines()[-1])["reconfigured"] == event["changes"]
    assert "layout.tensor 2 -> 1" in err
    assert json.loads(slipway("status", run.id, "--json")[1].splitlines()[-1])["layout"] == Layout().model_dump()


def test_a_second_change_keeps_the_first_ones_files(slipway, stopped: Stopped, started) -> None:
    run = stopped()
    assert slipway("resume", run.id, *ONE_RANK)[0] == 0
    assert slipway("resume", run.id, "--set", "layout.data=2")[0] == 0
    assert started == [1, 2]
    assert [path.name for path in sorted(run.path.glob("config-before-*"))] == [
        "config-before-1.yaml",
        "config-before-2.yaml",
    ]
    assert load(PretrainConfig, run.path / "config-before-2.yaml").layout == Layout()


def test_a_value_that_is_there_already_changes_nothing(slipway, stopped: Stopped, started) -> None:
    run = stopped()
    assert slipway("resume", run.id, "--set", "layout.tensor=2", "--set", "seed=1234")[0] == 0
    assert started == [4]
    assert not list(run.path.glob("*-before-*"))
    assert all(event["event"] != "reconfigured" for event in read_events(run))


@pytest.mark.parametrize(
    "key",
    ["data.micro_batch_samples=1", "recompute=full", "checkpoint.keep=5", "validation.every_steps=5"],
)
def test_what_does_not_change_the_learning_may_change(slipway, stopped: Stopped, started, key: str) -> None:
    run = stopped()
    code, _, err = slipway("resume", run.id, "--set", key)
    assert (code, started) == (0, [4]), err


@pytest.mark.parametrize(
    "key", ["optimizer.learning_rate=2e-3", "seed=7", "data.global_batch_samples=16", "budget.steps=60", "model.ffn=96"]
)
def test_what_changes_the_learning_is_refused_with_the_keys_that_may(
    slipway, stopped: Stopped, started, key: str
) -> None:
    run = stopped()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    code, _, err = slipway("resume", run.id, "--set", key)
    assert code == 2
    assert f"--set {key.partition('=')[0]}=" in err
    assert "layout" in err.split("Expected:")[1]
    assert "slipway run four.yaml --set" in err
    assert started == []
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("layout.tensor=4",), "model.kv_heads"),
        (("layout.pipeline=3",), "model.layers"),
        (("layout.data=2",), "8 processes"),
        (("layout.tensro=1",), "unknown key `layout.tensro`"),
        (("data.micro_batch_samples=3",), "must be a multiple"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_anything_is_touched(
    slipway, stopped: Stopped, started, sets: tuple[str, ...], words: str
) -> None:
    run = stopped()
    before = run.config_path.read_bytes()
    code, _, err = slipway("resume", run.id, *(word for key in sets for word in ("--set", key)))
    assert code == 2
    assert words in err
    assert run.config_path.read_bytes() == before
    assert started == []


def test_more_ranks_need_places_which_the_command_can_give(slipway, stopped: Stopped, started) -> None:
    run = stopped()
    more = ("resume", run.id, "--set", "layout.data=2")
    assert "devices_per_host=8" in slipway(*more)[2]
    assert slipway(*more, "--target-set", "devices_per_host=8")[0] == 0
    assert started == [8]
    assert load(Target, run.target_path).devices_per_host == 8
    code, _, err = slipway("resume", run.id, "--target-set", "workdir=/elsewhere")
    assert code == 2
    assert "keeps its place" in err


def test_ranks_that_share_a_machine_get_one_thread_again(slipway, stopped: Stopped, started) -> None:
    run = stopped("layout.tensor=1", "layout.pipeline=1", threads_per_process=4)
    assert slipway("resume", run.id, "--set", "layout.data=2")[0] == 0
    assert load(Target, run.target_path).threads_per_process == 1


def test_with_fewer_devices_the_run_falls_back_to_the_largest_layout_that_fits(
    slipway, stopped: Stopped, started
) -> None:
    run = stopped()
    code, out, err = slipway("resume", run.id, "--target-set", "devices_per_host=2", "--fallback")
    assert code == 0, err
    assert started == [2]
    assert "Fallback: " in out
    assert load(PretrainConfig, run.config_path).layout.world_size == 2


def test_checkpoints_of_other_engines_keep_their_ranks(slipway, stopped: Stopped, started) -> None:
    run = stopped("engine=accelerate", "layout.tensor=1", "layout.pipeline=1", "layout.data=2")
    code, _, err = slipway("resume", run.id, "--set", "layout.data=1")
    assert code == 2
    assert "engine accelerate" in err
    assert slipway("resume", run.id, "--set", "checkpoint.keep=3")[0] == 0
    assert started == [2]


def test_a_finished_run_has_nothing_to_do_and_a_larger_budget_is_a_new_run(slipway, stopped: Stopped, started) -> None:
    run = stopped(events=("submitted", "started", "finished"))
    code, _, err = slipway("resume", run.id, "--set", "budget.steps=40")
    assert code == 2
    assert "has finished: there is nothing left to do" in err
    assert "slipway run four.yaml --set budget.steps=40" in err
    assert started == []


def test_a_chain_is_told_to_change_the_stages_run(slipway, past_run, started) -> None:
    stage = {"id": "model", "stage": "pretrain", "run_id": "the-stage", "path": "runs/the-stage", "reused": False}
    chain = past_run("chain", "submitted", "started", "stopped", stages=[stage])
    code, _, err = slipway("resume", chain.id, *ONE_RANK)
    assert code == 2
    assert "slipway resume the-stage --set" in err


def test_hosts_are_told_the_new_configuration_and_fewer_of_them_start(slipway, stopped: Stopped, started) -> None:
    run = stopped(kind="ssh", hosts=["one", "two"], devices_per_host=2, ssh={})
    assert job_of_run(run).work.hosts == 2
    assert slipway("resume", run.id, "--set", "layout.pipeline=1")[0] == 0
    job = job_of_run(run)
    assert (job.work.processes, job.work.hosts) == (2, 1)
    # What every host gets in the connection that asks it whether it is ready.
    assert run.config_path.read_bytes() in run_archive(run.path)
    assert b"tensor: 2\n  pipeline: 1\n" in run_archive(run.path)


def test_a_host_that_is_gone_for_good_is_left_out(slipway, stopped: Stopped, started) -> None:
    run = stopped(kind="ssh", hosts=["one", "two"], devices_per_host=2, ssh={})
    one_host = ("--set", "layout.pipeline=1", "--target-set", "hosts=[two]")
    assert slipway("resume", run.id, *one_host)[0] == 0
    job = job_of_run(run)
    assert [host.name for host in job.target.hosts] == ["two"]
    places = {name: asdict(Place(python="/p", run="/r", node=node)) for node, name in enumerate(("one", "two"))}
    (run.processes / PLACES).write_text(json.dumps(places))
    assert [remote.name for remote in _remotes(job)] == ["two"]
    del places["two"]
    (run.processes / PLACES).write_text(json.dumps(places))
    assert executor_for(job.target).status(job).hosts == {"two": "not prepared"}


def test_differences_name_every_value_by_its_dotted_key() -> None:
    before = {"a": 1, "b": {"c": 2, "d": {"e": None}}, "gone": 0}
    after = {"a": 1, "b": {"c": 3, "d": {"e": {"x": 1}}}, "new": 5}
    assert differences(before, after) == {
        "b.c": (2, 3),
        "b.d.e": (None, {"x": 1}),
        "gone": (0, None),
        "new": (None, 5),
    }
