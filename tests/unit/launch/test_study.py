"""Which points a scaling study measures, in which order, and which it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from launch import chain
from launch.study import Study, StudyConfig, named_points, plan_study

MEGATRON = """
stage: pretrain
name: small
engine: megatron
model: {layers: 4, hidden: 32, heads: 4, kv_heads: 2, ffn: 64, vocab: 512}
data: {sequence_length: 32, global_batch_samples: 8, micro_batch_samples: 2}
optimizer: {learning_rate: 1e-3}
schedule: {warmup_steps: 2}
budget: {steps: 30}
checkpoint: {every_steps: 10}
"""
ZERO = MEGATRON.replace("stage: pretrain", "stage: zero").replace(
    "engine: megatron", "engine: deepspeed\nzero: {stage: 2}"
)
CLUSTER = """
kind: ssh
hosts: [a, b, c, d]
devices_per_host: 2
device: cpu
link: {name: NAME, gigabits_per_second: RATE}
"""


@pytest.fixture
def place(folder: Path, past_run: Callable[..., RunDirectory]) -> Path:
    (folder / "large.yaml").write_text(MEGATRON)
    (folder / "shared.yaml").write_text(ZERO)
    for name, rate in (("slow", "0.2"), ("fast", "1")):
        (folder / f"{name}.yaml").write_text(CLUSTER.replace("NAME", name).replace("RATE", rate))
    past_run("data_prep")
    return folder


def config(**changes: Any) -> StudyConfig:
    usual = {
        "recipes": ["large.yaml"],
        "targets": ["slow.yaml"],
        "ranks": [1, 2, 4],
        "modes": ["strong"],
        "splits": ["data", "tensor", "pipeline"],
        "repeats": 1,
    }
    return StudyConfig.model_validate(usual | changes)


def planned(place: Path, **changes: Any) -> Study:
    return plan_study(config(**changes), place / "runs")


def test_one_rank_is_one_point_and_the_others_are_one_for_each_axis(place: Path) -> None:
    points, names = named_points(config())
    assert names == ["one", "data-2", "tensor-2", "pipeline-2", "data-4", "tensor-4", "pipeline-4"]
    assert {point.batch_samples for point in points} == {8}


def test_weak_scaling_grows_the_batch_from_the_smallest_number_of_ranks(place: Path) -> None:
    points, names = named_points(config(modes=["weak"], ranks=[2, 4, 8], splits=["data"]))
    assert names == ["data-2", "data-4", "data-8"]
    assert [point.batch_samples for point in points] == [8, 16, 32]


def test_both_modes_share_the_smallest_point(place: Path) -> None:
    points, names = named_points(config(modes=["strong", "weak"], ranks=[1, 2], splits=["data"]))
    assert names == ["one", "data-2-strong", "data-2-weak"]
    assert [point.batch_samples for point in points] == [8, 8, 16]


def test_zero_has_the_data_axis_alone_and_its_name_says_its_stage(place: Path) -> None:
    found = planned(place, recipes=["large.yaml", "shared.yaml"], ranks=[1, 2])
    assert [stage.id for stage in found.stages] == [
        *("large-one", "shared-zero2-one", "large-data-2", "large-tensor-2", "large-pipeline-2", "shared-zero2-data-2"),
    ]
    assert not found.left_out


def test_points_take_turns_and_a_measurement_does_nothing_else(place: Path) -> None:
    found = planned(place, ranks=[1, 2], splits=["data"], repeats=3, steps=6)
    assert [stage.id for stage in found.stages] == ["one-1", "data-2-1", "one-2", "data-2-2", "one-3", "data-2-3"]
    assert len({stage.key for stage in found.stages}) == 6
    for stage in found.stages:
        told = stage.plan.config
        assert stage.role == "scaling"
        assert (told["budget"]["steps"], told["schedule"]["warmup_steps"], told["export"]) == (6, 0, False)
        assert told["checkpoint"]["every_steps"] is None
        assert stage.plan.target.threads_per_process == 1
    assert found.stages[1].plan.layout is not None
    assert found.stages[1].plan.layout.model_dump(include={"data", "tensor"}) == {"data": 2, "tensor": 1}


def test_ranks_fill_hosts(place: Path) -> None:
    stages = planned(place, splits=["data"]).stages
    assert [stage.plan.target.hosts_for(stage.plan.processes) for stage in stages] == [1, 1, 2]


def test_links_join_in_one_study_with_keys_of_their_own(place: Path) -> None:
    found = planned(place, targets=["slow.yaml", "fast.yaml"], ranks=[1, 2], splits=["tensor"])
    assert [stage.id for stage in found.stages] == ["one-slow", "tensor-2-slow", "one-fast", "tensor-2-fast"]
    assert len({stage.key for stage in found.stages}) == 4
    assert [stage.plan.target.link.name for stage in found.stages if stage.plan.target.link] == [
        *["slow"] * 2,
        *["fast"] * 2,
    ]
    again = planned(place, targets=["fast.yaml"], ranks=[1, 2], splits=["tensor"])
    assert [stage.key for stage in again.stages] == [stage.key for stage in found.stages[2:]], "names don't count"


def test_what_no_legal_layout_fits_is_left_out_with_the_reason(place: Path) -> None:
    found = planned(place, ranks=[1, 4, 16])
    assert [stage.id for stage in found.stages] == ["one", "data-4", "pipeline-4"]
    reasons = {point.point: point.reason for point in found.left_out}
    assert list(reasons) == ["tensor-4", "data-16", "tensor-16", "pipeline-16"]
    assert "model.kv_heads is 2" in reasons["tensor-4"]
    assert "at most 8 ranks" in planned(place, ranks=[1, 16], sets=["data.global_batch_samples=32"]).left_out[0].reason


def test_wrong_studies_are_refused_whole(place: Path) -> None:
    with pytest.raises(UserError, match="no point of the study can be measured"):
        planned(place, ranks=[3], splits=["tensor"])
    with pytest.raises(UserError, match="of stage data_prep"):
        planned(place, recipes=["data.yaml"])
    with pytest.raises(UserError, match="typo"):
        planned(place, sets=["model.typo=1"])
    with pytest.raises(UserError, match="weak scaling from 3 to 4 ranks"):
        planned(place, modes=["weak"], ranks=[3, 4])
    with pytest.raises(ValueError, match="names 2 twice"):
        config(ranks=[1, 2, 2])


def test_a_missing_parent_is_named_with_what_makes_it(folder: Path) -> None:
    (folder / "large.yaml").write_text(MEGATRON)
    with pytest.raises(UserError) as caught:
        plan_study(config(targets=["laptop"]), folder / "runs")
    assert "slipway run data_prep/" in caught.value.action


def test_a_study_that_stopped_goes_on_where_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.console import Console

    ran: list[str] = []

    def play(run: RunDirectory, console: Any, resumed: bool = False, debug: bool = False) -> int:
        ran.append(run.id)
        append_event(run, "submitted")
        append_event(run, "stopped" if len(ran) == 2 else "finished")
        return 130 if len(ran) == 2 else 0

    monkeypatch.setattr(chain, "execute_run", play)
    monkeypatch.setattr(chain, "build_report", lambda run: {})
    console = Console(as_json=False)
    code, result = chain.start_study(
        config(ranks=[1, 2, 16], splits=["data"]), place / "runs", False, ["slipway", "scale"], console
    )
    assert code == 130
    study = RunDirectory.open(Path(result["path"]))
    assert [row["point"] for row in study.manifest().plan["left_out"]] == ["data-16"]
    code, _ = chain.resume_chain(study, console)
    assert code == 0
    assert len(ran) == 3, "the first point is used again, the interrupted measurement is made anew"
    stages = study.manifest().stages
    assert [(stage.id, stage.role, stage.reused) for stage in stages] == [
        ("one", "scaling", False),
        ("data-2", "scaling", False),
    ]
    assert [stage.run_id for stage in stages] == [ran[0], ran[2]]
