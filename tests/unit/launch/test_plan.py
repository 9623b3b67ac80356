"""Plans are pure: what they say, what they refuse, and that they touch nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.errors import UserError
from kit.target import Target
from launch.job import StopTo
from launch.plan import make_plan, shown_command, work_of_stage
from launch.stages import STAGES


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_plan_touches_nothing(slipway, folder: Path) -> None:
    before = listing(folder)
    for words in (["model.yaml"], ["data.yaml"], ["model.yaml", "--json"]):
        assert slipway("plan", *words)[0] == 0
    assert listing(folder) == before


def test_plan_says_configuration_layout_size_and_command(slipway) -> None:
    sets = [
        word
        for key in ("layout.data=2", "engine=accelerate", "optimizer.learning_rate=2e-3")
        for word in ("--set", key)
    ]
    code, out, _ = slipway("plan", "model.yaml", *sets)
    assert code == 0
    assert "learning_rate: 0.002" in out
    assert "data 2: 2 ranks, 1 thread(s) each" in out
    assert "Parameters: " in out
    assert "by convention megatron" in out
    assert "--nproc-per-node 2" in out
    assert "no finished data_prep run" in out


def test_plan_as_json_is_one_object_in_the_last_line(slipway) -> None:
    code, out, err = slipway("plan", "model.yaml", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    plan = json.loads(out)
    assert plan["processes"] == 1
    assert plan["config"]["budget"] == {"steps": 30}
    # 2 x (32 x (32 + 2 x 16) + 32 x 32 + 3 x 32 x 64) + 5 x 32 norms, and 2 x 512 x 32 embeddings
    assert plan["model"]["parameters_non_embedding"] == 2 * (32 * 64 + 32 * 32 + 3 * 32 * 64) + 5 * 32
    assert plan["model"]["parameters"] == plan["model"]["parameters_non_embedding"] + 2 * 512 * 32
    assert plan["parents"] == {"data": {"reference": "last:data_prep", "run_id": None}}
    assert "Command:" in err


def test_the_command_of_a_parallel_stage() -> None:
    target = Target().settle(processes=2, accelerators=0)
    job = shown_command(work_of_stage(STAGES["pretrain"], target, 2), "/runs/r", target)
    assert job.command[1:] == (
        *("-u", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--nnodes", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "127.0.0.1"),
        *("--max-restarts", "0", "-m", "recipes", "/runs/r"),
    )
    assert job.environment["OMP_NUM_THREADS"] == "1"
    assert job.stop_to is StopTo.RANKS
    assert job.stop_grace_seconds == target.stop_grace_seconds


def test_the_command_of_a_stage_that_is_one_process() -> None:
    target = Target(threads_per_process=3).settle(processes=1, accelerators=0)
    job = shown_command(work_of_stage(STAGES["data_prep"], target, 1, debug=True), "/runs/r", target)
    assert job.command[1:] == ("-u", "-m", "data_prep", "/runs/r")
    assert job.environment["OMP_NUM_THREADS"] == "3"
    assert job.environment["SLIPWAY_DEBUG"] == "1"
    assert job.stop_to is StopTo.GROUP


def test_parents_leave_the_configuration_and_can_be_named(folder: Path) -> None:
    plan = make_plan("model.yaml", parents={"data": "some-run"})
    assert "parents" not in plan.config
    assert plan.parents == {"data": "some-run"}


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["model.layer=3"], "did you mean `layers`"),
        (["budget.steps=none"], "budget.steps"),
        (["layout.tensor=4"], "model.kv_heads is 2"),
        (["layout.pipeline=3"], "model.layers is 2"),
        (["layout.data=4", "engine=accelerate"], "at most 2 ranks"),
        (["stage=pretrian"], "did you mean `pretrain`"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(folder: Path, sets: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan("model.yaml", sets=sets, target_sets=["devices_per_host=2", "device=cpu"])
    assert told in str(caught.value)


def test_unknown_parents_and_names_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no parent called 'dta'"):
        make_plan("model.yaml", parents={"dta": "x"})
    with pytest.raises(UserError) as caught:
        make_plan("pretrain/dmeo")
    assert "did you mean `pretrain/demo`" in caught.value.action
    with pytest.raises(UserError, match="no target called 'laptpo'"):
        make_plan("model.yaml", "laptpo")
