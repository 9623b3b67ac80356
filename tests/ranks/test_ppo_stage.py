"""PPO as the rlhf stage runs it: it learns, two ranks are as one, and a stopped run goes on bit by bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tuned_model
from rank_processes import run_on_ranks

from kit.config import digest, dump, load, parse, to_data
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from recipes.distributed.processes import Processes
from recipes.rlhf.config import RlhfConfig
from recipes.stop import STOP, Stopped

STEPS = 8
SETS = (
    f"seed={tuned_model.SEED}",
    f"budget.steps={STEPS}",
    "checkpoint.every_steps=null",
    f"data.held_out_fraction={tuned_model.FRACTION}",
    f"data.sequence_length={tuned_model.CONTEXT}",
    "data.global_batch_samples=16",
    "data.micro_batch_samples=4",
    "generation={new_tokens: 24, temperature: 1.0}",
    "optimizer.learning_rate=2e-3",
    "ppo={epochs: 2, mini_batches: 2, lam: 1.0, target_kl: 2.0, entropy_coefficient: 0.001}",
    "logging.peak_seconds=0.01",
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned_model.write_parents(tmp_path_factory.mktemp("parents"))


def make_run(root: Path, parents: Path, ranks: int) -> RunDirectory:
    data = f"data.files={json.dumps([str(parents / 'data.jsonl')])}"
    recipe = tuned_model.ROOT / "recipes" / "rlhf" / "demo.yaml"
    config = load(RlhfConfig, recipe, [*SETS, data, f"layout.data={ranks}"])
    run = RunDirectory.create(root, "rlhf", config.name)
    run.config_path.write_text(dump(config))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1).settle(ranks, 0)))
    facts: dict[str, Any] = {"stage": "rlhf", "name": config.name, "created": now(), "key": "sha256:0"}
    named = {"model": Parent(run_id="sft", path=str(parents / "sft"), digest="sha256:0")}
    write_manifest(run, Manifest(run_id=run.id, parents=named, config_digest=digest(to_data(config)), **facts))
    return run


def align(processes: Processes, path: str, stop_at: int = 0) -> bool:
    """Runs the stage on these ranks; returns whether it came to the end. The last rank is asked to stop in a step."""
    from recipes.rlhf.alignment import Alignment
    from recipes.rlhf.ppo.engine import PpoEngine

    class Watched(PpoEngine):
        def train_step(self, batch: Any, learning_rate: float) -> Any:
            if batch.step == stop_at and processes.rank == processes.world_size - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().train_step(batch, learning_rate)

    STOP.listen()
    run = RunDirectory.open(Path(path))
    alignment = Alignment(parse(RlhfConfig, run.config(), path), run, processes)
    alignment.training._engine.__class__ = Watched  # type: ignore[attr-defined]
    try:
        alignment.go()
    except Stopped:
        return False
    return True


def finish(root: Path, parents: Path, ranks: int) -> RunDirectory:
    run = make_run(root, parents, ranks)
    assert run_on_ranks(align, ranks, str(run.path)) == [True] * ranks
    return run


def told(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.artifacts / "rlhf.json").read_text())


def series(run: RunDirectory, name: str = "loss") -> list[float]:
    return [record[name] for record in read_metrics(run.metrics_path)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("one"), parents, 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("two"), parents, 2)


def test_the_reward_rises_by_more_than_half_of_what_can_be_gained(one: RunDirectory) -> None:
    result = told(one)
    assert result["algorithm"] == "ppo"
    assert result["share_of_attainable"] > 0.5
    assert result["rule_reward_sampled_after"] > result["rule_reward_sampled_before"] + 0.1
    assert result["kl_nats_per_answer"] > 0.1
    assert sum(series(one, "rule_reward")[-3:]) > sum(series(one, "rule_reward")[:3]) + 0.3
    assert series(one, "rule_reward") == pytest.approx(series(one, "reward"))


def test_its_records_say_what_ppo_did(one: RunDirectory) -> None:
    records = read_metrics(one.metrics_path)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert records[0]["kl_nats_per_answer"] == pytest.approx(0.0, abs=1e-4), "the first answers are the reference's"
    assert records[-1]["kl_nats_per_answer"] > 0.05
    for record in records:
        assert record["kl_nats_per_answer"] == pytest.approx(record["kl_nats_per_token"] * record["answer_tokens"])
        assert all(0 <= record[key] <= 1 for key in ("clip_fraction", "value_clip_fraction", "ended_fraction"))
        assert record["entropy"] > 0
        assert 1 <= record["answer_tokens"] <= 24
        assert record["tokens"] > 16 * record["answer_tokens"]
        assert record["value_loss"] >= 0
    assert series(one, "kl_coefficient")[1] == pytest.approx(0.05 * 0.98)
    assert told(one)["kl_coefficient"] != series(one, "kl_coefficient")[-1]


def test_two_ranks_are_as_one(one: RunDirectory, two: RunDirectory) -> None:
    """The same draws, so the same answers, as long as rounding doesn't tip one of them: that is why it's four steps."""
    for name, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3), ("kl_nats_per_answer", 1e-3), ("value_loss", 1e-4)):
        assert series(two, name)[:4] == pytest.approx(series(one, name)[:4], rel=1e-3, abs=tolerance)
    assert series(two, "answer_tokens")[:4] == series(one, "answer_tokens")[:4]
    assert series(two, "reward")[:4] == pytest.approx(series(one, "reward")[:4])
    assert told(two)["share_of_attainable"] > 0.5


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path: Path, parents: Path, two: RunDirectory) -> None:
    run = make_run(tmp_path, parents, 2)
    assert run_on_ranks(align, 2, str(run.path), 5) == [False, False]
    assert len(series(run)) == 5
    assert run_on_ranks(align, 2, str(run.path)) == [True, True]
    assert told(run)["resumed_from"] == [5]
    for name in ("loss", "grad_norm", "reward", "kl_coefficient", "entropy"):
        assert series(run, name) == series(two, name)
    weights = [(each.artifacts / "model" / "model.safetensors").read_bytes() for each in (run, two)]
    assert weights[0] == weights[1]
