"""What an evaluation reads: its configuration, texts, models and prompts; and what it says where they are wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chat_model
import numpy as np
import pytest
import torch

from kit.config import dump, parse
from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from recipes.chat.generation import load_model
from recipes.evaluate.candidates import Candidate, choose_prompts, comparisons, find_candidates
from recipes.evaluate.config import EvaluateConfig
from recipes.evaluate.measure import Measured, check_tokenizers
from recipes.evaluate.text import read_texts, text_stream
from recipes.instructions.read import read_instructions, split_held_out

MakeRun = Callable[..., RunDirectory]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model.write_model(tmp_path_factory.mktemp("models") / "model", context=96)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model.write_model_without_marks(tmp_path_factory.mktemp("models") / "gpt")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(stage: str, config: dict[str, Any] | None = None, **parents: RunDirectory) -> RunDirectory:
        run = RunDirectory.create(tmp_path / "runs", stage, "small")
        known = {name: Parent(run_id=one.id, path=str(one.path), digest="") for name, one in parents.items()}
        fields: dict[str, Any] = {"run_id": run.id, "stage": stage, "name": "small", "created": now()}
        write_manifest(run, Manifest(**fields, parents=known, config_digest="", key="sha256:0"))
        run.config_path.write_text(dump({"stage": stage, "name": "small", **(config or {})}))
        return run

    return make


def with_model(run: RunDirectory) -> RunDirectory:
    (run.artifacts / "model").mkdir()
    (run.artifacts / "model" / "config.json").write_text("{}")
    return run


def config(**fields: Any) -> EvaluateConfig:
    return parse(EvaluateConfig, {"name": "x", **fields}, "x.yaml")


def test_a_model_by_its_path_needs_no_parents_and_comes_back_from_a_run_directory() -> None:
    made = config(model_path="gpt", text=["a.txt"])
    assert made.parents == {}
    without = {key: value for key, value in made.model_dump().items() if key != "parents"}
    assert parse(EvaluateConfig, without, "config.yaml") == made


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_path": "a", "text": ["b"], "parents": {"model": "last:sft"}}, "name the model to evaluate once"),
        ({"parents": {"data": "last:data_prep"}}, "neither parents.model nor model_path"),
        ({"parents": {"model": "last:sft"}}, "nothing to measure on"),
        ({"rules": [{"name": "direct"}]}, "rules without instructions"),
    ],
)
def test_a_configuration_that_measures_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        config(**fields)


def test_text_that_is_not_utf8_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_texts([str(tmp_path / "latin.txt")])
    assert "byte 0xef at position 2" in caught.value.found
    assert "iconv" in caught.value.action


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (None, "no file")])
def test_a_text_that_is_not_there_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_texts([str(tmp_path / "a.txt")])


@pytest.mark.parametrize("which", ["directory", "gpt"])
def test_bits_per_byte_of_a_text_agree_with_a_count_by_hand(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    words = "The naïve reader — of a text — counts every byte: 0123456789.\n" * 20
    (tmp_path / "a.txt").write_text(words, encoding="utf-8")
    measured = Measured(config(model_path="x", text=["a"], window_tokens=50), folder, torch.device("cpu"))
    (row,) = measured.score_texts(read_texts([str(tmp_path / "a.txt")]))
    model, tokenizer = load_model(folder)
    ids = [model.config.bos_token_id, *tokenizer.encode(words, add_special_tokens=False)]
    nats = 0.0
    for start in range(0, len(ids) - 1, 50):
        window = torch.tensor([ids[start : start + 51]])
        with torch.no_grad():
            logs = model(window[:, :-1]).logits.double().log_softmax(-1)
        nats -= logs.gather(2, window[:, 1:, None]).sum().item()
    assert row["tokens"] == len(ids) - 1
    assert row["text_bytes"] == len(words.encode())
    assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(words.encode()), rel=1e-5)
    assert row["perplexity"] == pytest.approx(math.exp(nats / row["tokens"]), rel=1e-5)
    assert row["text_recovered"]


def test_documents_stand_between_end_tokens(directory: Path) -> None:
    model, tokenizer = load_model(directory)
    one, two = (tokenizer.encode(text, add_special_tokens=False) for text in ("One.", "Two"))
    np.testing.assert_array_equal(text_stream(["One.", "Two"], model, tokenizer), [2, *one, 2, *two, 2])
    np.testing.assert_array_equal(text_stream(["One."], model, tokenizer), [2, *one])


def test_a_window_longer_than_the_context_is_refused(directory: Path) -> None:
    with pytest.raises(UserError, match="window_tokens 97"):
        Measured(config(model_path="x", text=["a"], window_tokens=97), directory, torch.device("cpu"))


def test_unequal_tokenizers_are_refused_and_the_way_out_named(directory: Path, gpt: Path) -> None:
    check_tokenizers([directory, directory], ["model", "sft"], None)
    with pytest.raises(UserError, match="model `sft`") as caught:
        check_tokenizers([directory, gpt], ["model", "sft"], None)
    assert "unequal_tokenizers=compare_bytes" in caught.value.action


def test_models_come_in_the_order_of_the_recipe_with_the_headline_first(make_run: MakeRun) -> None:
    data, base = make_run("data_prep"), with_model(make_run("pretrain"))
    tuned = with_model(make_run("sft", model=base))
    run = make_run("evaluate", data=data, tuned=tuned, model=base)
    found = find_candidates(config(parents={"model": "a", "data": "b", "tuned": "c"}), run)
    assert [(one.name, one.stage, one.run_id) for one in found] == [
        ("model", "pretrain", base.id),
        ("tuned", "sft", tuned.id),
    ]


def test_a_parent_without_a_model_is_refused_in_words(make_run: MakeRun) -> None:
    base = with_model(make_run("pretrain"))
    run = make_run("evaluate", model=base, reward=make_run("reward", model=base))
    with pytest.raises(UserError, match=r"parent `reward` is .* its stage reward exports no model"):
        find_candidates(config(text=["a"], parents={"model": "a", "reward": "b"}), run)


def test_every_model_is_compared_with_what_it_was_made_from(make_run: MakeRun) -> None:
    base = with_model(make_run("pretrain"))
    tuned = with_model(make_run("sft", model=base))
    between = with_model(make_run("sft", model=tuned))
    ppo, dpo = with_model(make_run("rlhf", model=between)), with_model(make_run("rlhf", model=tuned))
    runs = {"model": base, "sft": tuned, "ppo": ppo, "dpo": dpo}
    candidates = [Candidate(name, one.artifacts / "model", one) for name, one in runs.items()]
    assert comparisons(candidates) == [(0, 1), (1, 2), (1, 3)]
    foreign = Candidate("foreign", base.artifacts, with_model(make_run("pretrain")))
    assert comparisons([*candidates[:2], foreign]) == [(0, 1), (1, 2)]
    assert comparisons(candidates[:1]) == []
    assert comparisons([Candidate("model", base.path), candidates[1]]) == [(0, 1)]


@pytest.fixture
def instructions(tmp_path: Path) -> str:
    rows = [{"instruction": f"Count to {n}.", "output": str(n), "reference": str(n)} for n in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained_on(path: str, fraction: float, seed: int) -> dict[str, Any]:
    return {"seed": seed, "data": {"files": [path], "format": "auto", "held_out_fraction": fraction}}


def test_held_out_prompts_are_those_that_the_models_were_not_trained_on(make_run: MakeRun, instructions: str) -> None:
    base = with_model(make_run("pretrain"))
    tuned = with_model(make_run("sft", trained_on(instructions, 0.25, 7), model=base))
    aligned = Candidate("rlhf", tuned.path, with_model(make_run("rlhf", model=tuned)))
    wanted = {"files": [instructions], "held_out_fraction": 0.25, "seed": 7}
    found = choose_prompts(config(instructions=wanted), [aligned])
    _, held_out = split_held_out(read_instructions([instructions]), 0.25, 7)
    assert found == held_out
    assert len(found) == 10
    assert choose_prompts(config(instructions={**wanted, "prompts": 3}), [aligned]) == held_out[:3]
    # A smaller part of what was held out was held out too; another seed or a larger part was not.
    assert len(choose_prompts(config(instructions={**wanted, "held_out_fraction": 0.1}), [aligned])) == 4
    for change in ({"seed": 8}, {"held_out_fraction": 0.5}):
        with pytest.raises(UserError, match=rf"`rlhf` was trained on .*{tuned.id}"):
            choose_prompts(config(instructions=wanted | change), [aligned])
    everything = choose_prompts(config(instructions=wanted | {"part": "all", "seed": 8}), [aligned])
    assert len(everything) == 40


def test_a_malformed_row_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    shutil.copy(chat_model.DEMO, path)
    path.write_text("\n".join([*path.read_text().splitlines()[:6], '{"messages": 1}']) + "\n")
    with pytest.raises(UserError, match="line 7"):
        choose_prompts(config(instructions={"files": [str(path)]}), [])
