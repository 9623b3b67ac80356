"""The whole stage on tiny models: what evaluation.json holds, and how models compare."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import chat_model
import pytest
import real_text
import sentencepiece

from kit.config import dump, parse, resolve
from kit.errors import UserError
from kit.files import sha256_file
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from kit.tokens.card import DatasetCard, SplitCard, TokenizerCard, write_card
from kit.tokens.shards import ShardWriter, best_dtype
from recipes.distributed.processes import leave
from recipes.evaluate.compare import compare_scores
from recipes.evaluate.config import EvaluateConfig
from recipes.evaluate.run import run as evaluate
from recipes.instructions.read import Conversation, read_instructions, split_held_out
from recipes.rewards.rules import score_answer

SMALL = {"samples": {"prompts": ["The"], "new_tokens": 4}, "batch_samples": 4}
DEMO = resolve(chat_model.ROOT / "recipes" / "evaluate" / "demo.yaml")


def make_run(root: Path, stage: str, config: dict[str, Any] | None = None, **parents: RunDirectory) -> RunDirectory:
    run = RunDirectory.create(root, stage, "small")
    known = {name: Parent(run_id=one.id, path=str(one.path), digest="") for name, one in parents.items()}
    fields: dict[str, Any] = {"run_id": run.id, "stage": stage, "name": "small", "created": now()}
    write_manifest(run, Manifest(**fields, parents=known, config_digest="", key="sha256:0"))
    run.config_path.write_text(dump({"stage": stage, "name": "small", **(config or {})}))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1)))
    return run


def write_shards(artifacts: Path) -> None:
    """A small dataset whose tokenizer is that of the chat models."""
    tokenizer = chat_model.write_tokenizer(artifacts / "tokenizer") / "tokenizer.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    splits = {}
    for name, texts in (("train", real_text.documents(6, 1500)[2:]), ("validation", real_text.documents(2, 1500))):
        with ShardWriter(artifacts / "shards" / name, best_dtype(chat_model.VOCAB)) as writer:
            for text in texts:
                writer.add([*processor.encode(text), 2])
            info = writer.finish()
        text_bytes = sum(len(text.encode()) for text in texts)
        splits[name] = SplitCard(prefix=f"shards/{name}", text_bytes=text_bytes, **info._asdict())
    known = {"kind": "bpe", "vocab_size": chat_model.VOCAB, "fingerprint": sha256_file(tokenizer)}
    card = TokenizerCard(**known, file="tokenizer/tokenizer.model", eod_id=2, pad_id=3)
    counts: dict[str, Any] = {"documents_in": 6, "documents_out": 6, "config_digest": "sha256:0", "blocks": []}
    write_card(
        artifacts / "card.json", DatasetCard(name="x", created_by="tests", splits=splits, tokenizer=card, **counts)
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """A dataset, a pretrained model with its first weights, and two models made from it one after the other."""
    root = tmp_path_factory.mktemp("runs")
    made = {"data": make_run(root, "data_prep")}
    write_shards(made["data"].artifacts)
    for name, stage, parent in (("model", "pretrain", None), ("sft", "sft", "model"), ("rlhf", "rlhf", "sft")):
        parents = {"model": made[parent]} if parent else {"data": made["data"]}
        made[name] = make_run(root, stage, **parents)
        chat_model.write_model(made[name].artifacts / "model", seed=len(made))
    chat_model.write_model(made["model"].artifacts / "untrained", seed=9)
    return made


def evaluated(root: Path, parents: dict[str, RunDirectory], **fields: Any) -> dict[str, Any]:
    config = {"stage": "evaluate", "name": "small", **SMALL, **fields}
    config["parents"] = {name: run.id for name, run in parents.items()}
    run = make_run(root, "evaluate", **parents)
    try:
        evaluate(parse(EvaluateConfig, config, "x.yaml"), run)
    finally:
        leave()
    found: dict[str, Any] = json.loads((run.artifacts / "evaluation.json").read_text(encoding="utf-8"))
    return found


def held_out() -> list[Conversation]:
    return split_held_out(read_instructions([chat_model.DEMO]), 0.1, 1234)[1]


def test_three_models_side_by_side(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text — of any kind.\n" * 9, encoding="utf-8")
    demo = {key: DEMO[key] for key in ("tasks", "instructions", "rules")}
    demo["instructions"] = demo["instructions"] | {"new_tokens": 12, "prompts": 20, "shown": 3}
    demo["tasks"] = demo["tasks"] | {"limit": 6}
    found = evaluated(tmp_path / "runs", runs, text=[str(tmp_path / "a.txt")], **demo)

    rows = {row["name"]: row for row in found["models"]}
    assert list(rows) == ["model", "sft", "rlhf"]
    assert [row["stage"] for row in found["models"]] == ["pretrain", "sft", "rlhf"]
    assert found["bits_per_byte"] == rows["model"]["bits_per_byte"] != rows["sft"]["bits_per_byte"]
    for row in found["models"]:
        assert row["run_id"] == runs[row["name"]].id
        assert row["tasks"]["facts"]["samples"] == 6
        assert row["texts"][0]["text_bytes"] == len("A text — of any kind.\n".encode()) * 9
        assert row["texts"][0]["text_recovered"]
        assert 0 <= row["rule_reward"] < 1
    assert [(entry["first"], entry["second"]) for entry in found["comparisons"]] == [("model", "sft"), ("sft", "rlhf")]
    assert len(found["answers"]) == 3
    assert [entry["prompt"] for entry in found["answers"]] == [held_out()[index].prompt_text for index in (0, 6, 13)]
    assert list(found["answers"][0]["answers"]) == ["model", "sft", "rlhf"]


def test_rewards_and_comparisons_are_those_of_the_shown_answers(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    wanted = {"files": [str(chat_model.DEMO)], "new_tokens": 12, "prompts": 8, "shown": 8}
    parents = {name: runs[name] for name in ("model", "sft")}
    rules = [{"name": "length", "shortest_words": 4}, {"name": "no_repetition", "weight": 2}]
    found = evaluated(tmp_path, parents, instructions=wanted, rules=rules)
    config = parse(EvaluateConfig, {"name": "x", "model_path": "x", "instructions": wanted, "rules": rules}, "x")
    scores = {
        name: [
            score_answer(config.rules, entry["answers"][name], conversation)
            for entry, conversation in zip(found["answers"], held_out(), strict=False)
        ]
        for name in parents
    }
    assert found["models"][1]["rule_reward"] == pytest.approx(sum(scores["sft"]) / 8)
    expected = compare_scores(scores["model"], scores["sft"])
    (entry,) = found["comparisons"]
    assert (entry["wins"], entry["losses"], entry["ties"]) == (expected.wins, expected.losses, expected.ties)
    assert (entry["win_rate"], entry["p_value"]) == (expected.win_rate, expected.p_value)


def test_one_model_and_its_data_alone(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    found = evaluated(tmp_path, {name: runs[name] for name in ("model", "data")})
    figures = {f"{what}{of}" for what in ("bits_per_byte", "perplexity") for of in ("", "_unigram", "_untrained")}
    assert figures | {"split", "tokens", "text_bytes", "convention", "samples"} <= found.keys()
    assert found["comparisons"] == found["answers"] == []
    assert found["models"][0]["rule_reward"] is None


def test_any_model_by_its_path_on_any_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text of any kind.\n" * 30)
    gpt = chat_model.write_model_without_marks(tmp_path / "gpt")
    found = evaluated(tmp_path / "runs", {}, model_path=str(gpt), text=[str(tmp_path / "a.txt")])
    (row,) = found["models"]
    assert row["run_id"] is None
    assert row["bits_per_byte"] is None
    assert row["texts"][0]["bits_per_byte"] > 0
    assert "bits_per_byte" not in found


def test_unequal_tokenizers_are_refused_unless_bytes_are_compared(
    runs: dict[str, RunDirectory], tmp_path: Path
) -> None:
    foreign = make_run(tmp_path, "sft")
    chat_model.write_model_without_marks(foreign.artifacts / "model")
    parents = {"model": runs["model"], "data": runs["data"], "foreign": foreign}
    with pytest.raises(UserError, match="model `foreign`"):
        evaluated(tmp_path, parents)
    rows = evaluated(tmp_path, parents, unequal_tokenizers="compare_bytes")["models"]
    own = evaluated(tmp_path, {name: runs[name] for name in ("model", "data")})["models"][0]
    assert rows[0] == own, "a model that reads the shards as they are is scored as before"
    assert rows[1]["tokens"] != rows[0]["tokens"]
    # Weights just drawn: each of its own tokens costs about the logarithm of its own vocabulary of 400.
    text_bytes = sum(len(text.encode()) for text in real_text.documents(2, 1500))
    assert rows[1]["bits_per_byte"] * text_bytes / rows[1]["tokens"] == pytest.approx(math.log2(400), rel=0.05)


def test_a_model_that_does_not_know_the_marks_cannot_answer(tmp_path: Path) -> None:
    gpt = chat_model.write_model_without_marks(tmp_path / "gpt")
    with pytest.raises(UserError, match="a vocabulary without"):
        evaluated(tmp_path / "runs", {}, model_path=str(gpt), instructions={"files": [str(chat_model.DEMO)]})


def test_reading_the_shards_anew_gives_the_same_score(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    """A tokenizer.json that differs in a remark only makes the split be decoded and encoded again: to the same ids."""
    other = make_run(tmp_path, "pretrain")
    shutil.copytree(runs["model"].artifacts / "model", other.artifacts / "model")
    path = other.artifacts / "model" / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["decoder"]["decoders"].append({"type": "Fuse"})
    path.write_text(json.dumps(data))
    parents = {"model": runs["model"], "data": runs["data"], "other": other}
    first, second = evaluated(tmp_path, parents, unequal_tokenizers="compare_bytes")["models"]
    assert second["bits_per_byte"] == pytest.approx(first["bits_per_byte"], rel=1e-9)
    assert second["tokens"] == first["tokens"]
