"""The rlhf stage on real ranks: every algorithm learns, two ranks are as one, stopped, killed, and no NaN."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tuned_model
from rank_processes import run_on_ranks

from kit.config import digest, dump, load, to_data
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import now, read_events
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from recipes.chat.generation import generate_answers, load_model
from recipes.distributed.processes import Processes
from recipes.rlhf.config import RlhfConfig
from recipes.stop import STOP, Stopped

STEPS = 12
SETS = (
    f"seed={tuned_model.SEED}",
    f"budget.steps={STEPS}",
    "schedule.warmup_steps=2",
    "checkpoint.every_steps=4",
    "checkpoint.keep=2",
    f"data.held_out_fraction={tuned_model.FRACTION}",
    f"data.sequence_length={tuned_model.CONTEXT}",
    "data.global_batch_samples=16",
    "data.micro_batch_samples=4",
    "generation.new_tokens=24",
    "grpo.group_samples=4",
    "logging.peak_seconds=0.01",
)
RATES = {"dpo": "5e-4", "grpo": "1e-3", "ppo": "1e-3"}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned_model.write_parents(tmp_path_factory.mktemp("parents"))


def make_run(root: Path, parents: Path, algorithm: str, *sets: str) -> RunDirectory:
    recipe = tuned_model.ROOT / "recipes" / "rlhf" / "tiny-dpo.yaml"
    data = f"data.files={json.dumps([str(parents / 'data.jsonl')])}"
    own = (f"algorithm={algorithm}", f"optimizer.learning_rate={RATES[algorithm]}", data)
    config = load(RlhfConfig, recipe, [*SETS, *own, *sets])
    run = RunDirectory.create(root, "rlhf", config.name)
    run.config_path.write_text(dump(config))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1).settle(config.layout.world_size, 0)))
    named = {
        name: Parent(run_id=folder, path=str(parents / folder), digest="sha256:0")
        for name, folder in (("model", "sft"), ("reward", "reward"))
    }
    facts: dict[str, Any] = {"stage": "rlhf", "name": config.name, "created": now(), "key": "sha256:0"}
    write_manifest(run, Manifest(run_id=run.id, parents=named, config_digest=digest(to_data(config)), **facts))
    return run


def align(processes: Processes, path: str, signal_at: int = 0, signal_number: int = signal.SIGTERM) -> bool:
    """Runs the stage on these ranks; the last of them gets a signal in a step. Returns whether it came to the end."""
    from transformers import TrainerCallback

    from kit.config import parse
    from recipes.rlhf.alignment import Alignment

    class Signal(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step + 1 == signal_at and processes.rank == processes.world_size - 1:
                os.kill(os.getpid(), signal_number)

    STOP.listen()
    run = RunDirectory.open(Path(path))
    alignment = Alignment(parse(RlhfConfig, run.config(), path), run, processes)
    if signal_at:
        alignment.training.training.trainer.add_callback(Signal())
    try:
        alignment.go()
    except Stopped:
        return False
    return True


def finish(root: Path, parents: Path, algorithm: str, ranks: int, *sets: str) -> RunDirectory:
    run = make_run(root, parents, algorithm, f"layout.data={ranks}", *sets)
    assert run_on_ranks(align, ranks, str(run.path)) == [True] * ranks
    return run


def told(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.artifacts / "rlhf.json").read_text())


def series(run: RunDirectory, name: str = "loss") -> list[float]:
    return [record[name] for record in read_metrics(run.metrics_path)]


def weights(run: RunDirectory) -> bytes:
    return (run.artifacts / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("one"), parents, "dpo", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("two"), parents, "dpo", 2)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("grouped"), parents, "grpo", 1)


def test_preferences_are_learnt_and_measured(one: RunDirectory, parents: Path) -> None:
    result = told(one)
    assert result["algorithm"] == "dpo"
    assert result["rule_reward_after"] > result["rule_reward_before"] + 0.2
    assert result["win_rate"] > 0.8
    assert result["wins"] + result["losses"] + result["ties"] == result["prompts"] == 6
    assert result["p_value"] == pytest.approx(2 * 0.5**6)
    assert result["kl_nats_per_answer"] > 0.1
    assert (result["pairs"], result["held_out_pairs"]) == (18, 6)
    assert result["held_out_pair_accuracy"] == 1.0
    assert result["export_max_logit_difference"] == 0.0
    assert result["resumed_from"] == []
    assert series(one)[-1] < series(one)[0] == pytest.approx(0.693147, abs=1e-5)
    model, tokenizer = load_model(one.artifacts / "model")
    _, held_out = tuned_model.split(parents / "data.jsonl")
    answers = generate_answers(model, tokenizer, [c.prompt for c in held_out], new_tokens=24, temperature=0, seed=0)
    assert answers == [row["after"] for row in result["answers"]]
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        assert (one.artifacts / "model" / name).read_bytes() == (
            parents / "sft" / "artifacts" / "model" / name
        ).read_bytes()
    assert {"chat_template.jinja", "config.json"} <= {path.name for path in (one.artifacts / "model").iterdir()}
    ids = json.loads((parents / "sft" / "artifacts" / "model" / "config.json").read_text())["bos_token_id"]
    assert model.config.bos_token_id == ids


def test_its_steps_are_records_like_any_others(one: RunDirectory) -> None:
    records = read_metrics(one.metrics_path)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    for record in records:
        assert record["samples"] == 16
        assert 16 * 2 * 15 < record["tokens"] < 16 * 2 * 40
        assert 0 < record["tokens_per_second"] <= record["tokens"] / record["compute_seconds"] * 1.001
        assert record["step_seconds"] >= record["compute_seconds"] + record["checkpoint_seconds"] - 1e-6
        assert record["peak_memory_gib"] > 0
    rate = float(RATES["dpo"])
    assert series(one, "learning_rate")[:2] == pytest.approx([rate / 2, rate])
    assert series(one, "learning_rate")[-1] == pytest.approx(rate / 10)
    assert series(one, "reward_margin")[0] == pytest.approx(0.0, abs=1e-4)
    assert series(one, "reward_margin")[-1] > 0.05
    assert series(one, "reward_accuracy")[-1] == 1.0
    assert [event["step"] for event in read_events(one) if event["event"] == "checkpointed"] == [4, 8, 12]
    assert sorted(path.name for path in one.checkpoints.iterdir()) == ["step-00000008", "step-00000012"]


def test_adapters_are_merged(tmp_path: Path, parents: Path) -> None:
    sets = ("dpo.lora={rank: 4}", "optimizer.learning_rate=1e-2", "budget.steps=4", "checkpoint.every_steps=2")
    run = finish(tmp_path, parents, "dpo", 1, *sets)
    assert 0 <= told(run)["merge_max_logit_difference"] < 1e-4
    assert series(run)[-1] < series(run)[0]
    # What went on from its checkpoint went on with the adapter.
    stopped = make_run(tmp_path, parents, "dpo", *sets)
    assert run_on_ranks(align, 1, str(stopped.path), 3) == [False]
    assert run_on_ranks(align, 1, str(stopped.path)) == [True]
    assert series(stopped) == series(run)
    assert weights(stopped) == weights(run)


def test_two_ranks_are_as_one(one: RunDirectory, two: RunDirectory) -> None:
    assert series(two) == pytest.approx(series(one), abs=1e-5)
    assert series(two, "grad_norm") == pytest.approx(series(one, "grad_norm"), rel=1e-3)
    assert series(two, "tokens") == series(one, "tokens")
    assert [row["after"] for row in told(two)["answers"]] == [row["after"] for row in told(one)["answers"]]


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path: Path, parents: Path, two: RunDirectory) -> None:
    run = make_run(tmp_path, parents, "dpo", "layout.data=2")
    assert run_on_ranks(align, 2, str(run.path), 6) == [False, False]
    assert len(series(run)) == 6
    assert not (run.artifacts / "model").exists()
    assert run_on_ranks(align, 2, str(run.path)) == [True, True]
    assert told(run)["resumed_from"] == [6]
    assert series(run) == series(two)
    assert weights(run) == weights(two)


def test_groups_raise_the_reward(grouped: RunDirectory) -> None:
    result = told(grouped)
    assert result["share_of_attainable"] > 0.5
    assert result["rule_reward_sampled_after"] > result["rule_reward_sampled_before"]
    rewards = series(grouped, "rule_reward")
    assert rewards == pytest.approx(series(grouped, "reward"))
    assert sum(rewards[-4:]) > sum(rewards[:4])
    for record in read_metrics(grouped.metrics_path):
        assert record["kl_nats_per_answer"] == pytest.approx(record["kl_nats_per_token"] * record["answer_tokens"])
        assert 0 <= record["ended_fraction"] <= 1
        assert record["entropy"] > 0


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, parents: Path, grouped: RunDirectory) -> None:
    run = make_run(tmp_path, parents, "grpo")
    with pytest.raises(AssertionError, match="died without a word"):
        run_on_ranks(align, 1, str(run.path), 7, signal.SIGKILL)
    assert len(series(run)) == 6
    assert run_on_ranks(align, 1, str(run.path)) == [True]
    assert told(run)["resumed_from"] == [4]
    assert series(run) == series(grouped)
    assert series(run, "tokens") == series(grouped, "tokens")
    assert weights(run) == weights(grouped)


def test_groups_are_judged_together_across_ranks(tmp_path: Path, parents: Path) -> None:
    run = finish(tmp_path, parents, "grpo", 2, "grpo.group_samples=16", "budget.steps=4")
    assert told(run)["world_size"] == 2
    assert series(run, "samples") == [16] * 4


def test_ppo_goes_through_the_same_stage(tmp_path: Path, parents: Path) -> None:
    run = finish(tmp_path, parents, "ppo", 1)
    rewards = series(run, "rule_reward")
    assert sum(rewards[-4:]) > sum(rewards[:4])
    assert told(run)["rule_reward_after"] > told(run)["rule_reward_before"]
    assert told(run)["kl_nats_per_answer"] > 0


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, parents: Path) -> None:
    run = make_run(tmp_path, parents, "dpo", "optimizer.learning_rate=1e30", "checkpoint.every_steps=1")
    with pytest.raises(AssertionError, match="step 2: loss nan"):
        run_on_ranks(align, 1, str(run.path))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    assert not (run.artifacts / "model").exists()
