"""The reward stage on real ranks: pairs sampled and given, learnt, stopped, exported, refused."""

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
from kit.errors import UserError
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import now, read_events
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from recipes.chat.template import Message
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation
from recipes.reward.config import RewardConfig
from recipes.reward.preferences import read_preferences
from recipes.rewards.model import model_reward
from recipes.rewards.rules import score_answer
from recipes.stop import STOP, Stopped

STEPS = 16
SETS = (
    f"seed={tuned_model.SEED}",
    f"budget.steps={STEPS}",
    "checkpoint.every_steps=4",
    f"data.held_out_fraction={tuned_model.FRACTION}",
    "data.global_batch_samples=8",
    "data.micro_batch_samples=4",
    "sampling={temperatures: [0.8, 1.2], new_tokens: 24, rounds: 3}",
    "optimizer.learning_rate=3e-3",
    "validation.every_steps=8",
    "logging.peak_seconds=0.01",
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned_model.write_parents(tmp_path_factory.mktemp("parents"), steps=100)


def make_run(root: Path, parents: Path, *sets: str) -> RunDirectory:
    data = f"data.files={json.dumps([str(parents / 'data.jsonl')])}"
    config = load(RewardConfig, tuned_model.ROOT / "recipes" / "reward" / "tiny.yaml", [*SETS, data, *sets])
    run = RunDirectory.create(root, "reward", config.name)
    run.config_path.write_text(dump(config))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1).settle(config.layout.world_size, 0)))
    facts: dict[str, Any] = {"stage": "reward", "name": config.name, "created": now(), "key": "sha256:0"}
    named = {"model": Parent(run_id="sft", path=str(parents / "sft"), digest="sha256:0")}
    write_manifest(run, Manifest(run_id=run.id, parents=named, config_digest=digest(to_data(config)), **facts))
    return run


def learn(processes: Processes, path: str, stop_at: int = 0) -> bool:
    """Runs the stage on these ranks; returns whether it came to the end. The last rank is asked to stop in a step."""
    from recipes.reward.training import RewardTraining

    STOP.listen()
    run = RunDirectory.open(Path(path))
    training = RewardTraining(parse(RewardConfig, run.config(), path), run, processes)
    step = training.learner.train_step

    def watched(batch: Any, rate: float) -> Any:
        if batch.step == stop_at and processes.rank == processes.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch, rate)

    training.learner.train_step = watched  # type: ignore[method-assign]
    try:
        training.go()
    except Stopped:
        return False
    return True


def finish(root: Path, parents: Path, ranks: int, *sets: str) -> RunDirectory:
    run = make_run(root, parents, f"layout.data={ranks}", *sets)
    assert run_on_ranks(learn, ranks, str(run.path)) == [True] * ranks
    return run


def told(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.artifacts / "reward.json").read_text())


def series(run: RunDirectory, name: str = "loss") -> list[float]:
    return [record[name] for record in read_metrics(run.metrics_path)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, parents: Path) -> RunDirectory:
    return finish(tmp_path_factory.mktemp("two"), parents, 2)


def test_pairs_are_sampled_ranked_and_learnt(two: RunDirectory, parents: Path) -> None:
    result = told(two)
    assert result["source"] == "sampled"
    assert result["temperatures"] == [0.8, 1.2]
    assert result["accuracy"] > 0.8
    assert result["loss_after"] < result["loss_before"]
    assert result["margin"] > 0.5
    assert result["ties_dropped"] > 0
    assert result["export_max_score_difference"] == 0.0
    train, held_out = (
        read_preferences([two.artifacts / name])[0] for name in ("preferences.jsonl", "held_out_preferences.jsonl")
    )
    assert (len(train), len(held_out)) == (result["pairs"], result["held_out_pairs"])
    prompts = [{one.prompt for one in side} for side in tuned_model.split(parents / "data.jsonl")]
    assert {pair.prompt for pair in train} <= prompts[0]
    assert {pair.prompt for pair in held_out} <= prompts[1]
    assert len(set(train)) == len(train)
    rules = parse(RewardConfig, two.config(), "").rules
    for pair in train + held_out:
        chosen, rejected = (score_answer(rules, text, pair.conversation) for text in (pair.chosen, pair.rejected))
        assert chosen > rejected


def test_its_steps_are_records_like_any_others(two: RunDirectory) -> None:
    records = read_metrics(two.metrics_path)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert records[7]["validation_loss"] > 0
    assert all(0 <= record["accuracy"] <= 1 for record in records)
    assert series(two, "margin")[-1] > series(two, "margin")[0]
    assert sum(series(two)[-4:]) < sum(series(two)[:4])


def test_the_export_scores_as_the_stage_did(two: RunDirectory) -> None:
    reward = model_reward(two.artifacts / "reward_model", "cpu")
    rows = told(two)["examples"]
    asked = [Conversation((Message("user", row["prompt"]), Message("assistant", ""))) for row in rows]
    for name in ("chosen", "rejected"):
        together = reward(asked, [row[name] for row in rows])
        assert together == pytest.approx([row[f"score_{name}"] for row in rows], abs=1e-4)
        assert [reward([one], [row[name]])[0] for one, row in zip(asked, rows, strict=True)] == pytest.approx(
            together, abs=1e-4
        )


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path: Path, parents: Path, two: RunDirectory) -> None:
    run = make_run(tmp_path, parents, "layout.data=2")
    assert run_on_ranks(learn, 2, str(run.path), 6) == [False, False]
    assert len(series(run)) == 6
    assert not (run.artifacts / "reward.json").exists()
    assert run_on_ranks(learn, 2, str(run.path)) == [True, True]
    assert series(run) == series(two)
    result = told(run)
    assert [event["step"] for event in read_events(run) if event["event"] == "resumed"] == [6]
    assert result.pop("resumed_from") == [6]
    for measured in ("peak_flops_per_second", "resumed_from"):
        result.pop(measured, None)
    assert result == {key: told(two)[key] for key in result}
    weights = [(one.artifacts / "reward_model" / "model.safetensors").read_bytes() for one in (run, two)]
    assert weights[0] == weights[1]


def given(parents: Path, *sets: str) -> tuple[str, ...]:
    pairs = parents / "reward" / "artifacts" / "preferences.jsonl"
    return ("data.files=[]", f"data.preferences={json.dumps([str(pairs)])}", *sets)


def test_two_ranks_learn_from_given_pairs_as_one_does(tmp_path: Path, parents: Path) -> None:
    one, both = (finish(tmp_path / str(ranks), parents, ranks, *given(parents)) for ranks in (1, 2))
    assert series(both) == pytest.approx(series(one), abs=1e-5)
    assert series(both, "grad_norm") == pytest.approx(series(one, "grad_norm"), rel=1e-3)
    assert series(both, "tokens") == series(one, "tokens")
    for key in ("loss_before", "loss_after", "accuracy", "margin", "reward_mean", "reward_std"):
        assert told(both)[key] == pytest.approx(told(one)[key], rel=1e-3, abs=1e-5)
    assert told(one)["source"] == "files"
    assert told(one)["temperatures"] is None
    assert told(one)["accuracy"] == 1.0


def refusal(processes: Processes, path: str) -> str:
    try:
        learn(processes, path)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("sampling={temperatures: [0, 0.001], new_tokens: 24}",), "both answers equally good"),
        (("data.sequence_length=25",), "beyond 25 tokens"),
        (("data.sequence_length=128",), "a context of 64"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, parents: Path, sets: tuple[str, ...], words: str) -> None:
    run = make_run(tmp_path, parents, *sets)
    (found,) = run_on_ranks(refusal, 1, str(run.path))
    assert words in found
    assert found.count("\n") >= 2
    assert not list(run.checkpoints.iterdir())


def test_a_language_model_is_no_reward_model(parents: Path) -> None:
    with pytest.raises(UserError, match="LlamaForCausalLM") as caught:
        model_reward(parents / "sft" / "artifacts" / "model", "cpu")
    assert "reward=RUN" in caught.value.action
