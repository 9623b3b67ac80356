"""The parts of supervised fine-tuning: configuration, masks, batches, what an answer is measured by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_model
import numpy as np
import pytest

from kit.config import load, parse
from kit.errors import UserError
from recipes.chat.generation import load_model, load_tokenizer
from recipes.chat.template import ChatTemplate, Message
from recipes.data import IGNORED, batches
from recipes.instructions.encode import ConversationStream, Encoded, encode_conversations, padded_batch, rank_batches
from recipes.instructions.read import Conversation, read_instructions
from recipes.instructions.sample import make_sample
from recipes.sft.config import SftConfig
from recipes.sft.model import Source, count_flops
from recipes.sft.outcome import answer_rows, contained_share, contains_reference
from recipes.sft.tuning import encode_data

RECIPE = chat_model.ROOT / "recipes" / "sft" / "tiny.yaml"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    return ChatTemplate.of(load_tokenizer(chat_model.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def row(length: int, counted: int, first: int = 10) -> Encoded:
    ids = tuple(range(first, first + length))
    marks = (False,) * (length - counted) + (True,) * counted
    return Encoded(ids, marks, Conversation((Message("user", "a"), Message("assistant", "b"))))


def test_a_batch_place_by_place() -> None:
    batch = padded_batch(7, [row(4, 2), row(6, 3, first=20)], pad_id=3)
    assert batch.step == 7
    assert batch.tokens.tolist() == [[10, 11, 12, 3, 3], [20, 21, 22, 23, 24]]
    no = IGNORED
    assert batch.labels.tolist() == [[no, 12, 13, no, no], [no, no, 23, 24, 25]]
    assert batch.real_tokens == 3 + 5


def test_the_first_counted_label_is_the_answers_first_token(template: ChatTemplate) -> None:
    conversation = read_instructions([chat_model.DEMO])[0]
    kept, dropped = encode_conversations(template, [conversation], 128)
    batch = padded_batch(1, kept, template.pad_id)
    labels = batch.labels[0][batch.labels[0] != IGNORED]
    assert not dropped
    assert template.text_of(labels.tolist()) == conversation.answer
    assert labels[-1] == template.stop_id
    first = int(np.argmax(batch.labels[0] != IGNORED))
    assert batch.tokens[0, first] == template.role_ids["assistant"]
    assert template.text_of(batch.tokens[0, 2 : first - 1].tolist()) == conversation.prompt_text


def test_slices_of_ranks_are_the_step_of_one_and_orders_repeat() -> None:
    stream = ConversationStream([row(4 + i % 3, 2, first=10 * i) for i in range(7)], seed=3, pad_id=0)
    whole = list(batches(stream, range(1, 6), 4))
    parts = [list(batches(stream, range(1, 6), 4, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        firsts = batch.tokens[:, 0].tolist()
        assert firsts == [first for part in parts for first in part[step].tokens[:, 0].tolist()]
    assert next(batches(stream, range(4, 5), 4)).tokens.tolist() == whole[3].tokens.tolist()
    seen = [first for batch in whole for first in batch.tokens[:, 0].tolist()]
    assert sorted(seen[:7]) == sorted(seen[7:14]) == [10 * i for i in range(7)]
    assert seen[:7] != seen[7:14]


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_every_held_out_row_is_scored_once(degree: int) -> None:
    rows = [row(4, 2, first=10 * i) for i in range(3)]
    parts = [rank_batches(rows, 2, 0, rank, degree) for rank in range(degree)]
    counted = [batch.tokens[i, 0] for part in parts for batch in part for i in np.where(batch.labels[:, -1] >= 0)[0]]
    assert sorted(counted) == [0, 10, 20]
    assert all(len(batch.tokens) <= 2 for part in parts for batch in part)
    assert all(parts)


def conversation(answer: str, prompt: str = "Hi?", line: int = 1) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)), id=f"a.jsonl:{line}")


def test_long_conversations_are_left_out_up_to_half(template: ChatTemplate) -> None:
    short, long = conversation("Yes."), conversation("yes " * 60, line=2)
    length = len(template.encode(short.messages)[0]) - 1
    kept, dropped = encode_conversations(template, [short, long], length)
    assert [item.conversation for item in kept] == [short]
    assert dropped == [long]
    with pytest.raises(UserError) as caught:
        encode_conversations(template, [short, long, long], length)
    assert f"2 of 3 conversations have more than {length} tokens, the first at a.jsonl:2" in caught.value.found
    with pytest.raises(UserError, match="1 of 1 conversations"):
        encode_conversations(template, [short], length - 1)


def test_a_conversation_without_an_answer_cannot_be_learnt(template: ChatTemplate) -> None:
    with pytest.raises(UserError, match=r"a\.jsonl:4: no answer"):
        encode_conversations(template, [conversation("Yes."), conversation(" ", line=4)], 64)


def test_which_are_held_out_does_not_depend_on_the_length(template: ChatTemplate) -> None:
    everything = [conversation("Yes. " * (1 + number % 8), f"Question {number}?") for number in range(40)]

    def held(length: int) -> set[str]:
        config = config_with({"data": {"sequence_length": length, "held_out_fraction": 0.2}})
        return {item.conversation.prompt_text for item in encode_data(config, everything, template).held_out}

    assert held(30) < held(64)
    with pytest.raises(UserError, match="held out"):
        encode_data(config_with({}), [conversation("a", "x"), conversation("b " * 100, "y")], template)


def config_with(changes: dict[str, Any]) -> SftConfig:
    sets = [f"{key}.{inner}={value}" for key, inside in changes.items() for inner, value in inside.items()]
    return load(SftConfig, RECIPE, sets)


def test_a_model_by_its_path_takes_the_parents_place() -> None:
    config = load(SftConfig, RECIPE, ["model_path=/some/model"])
    assert config.parents == {}
    assert config.model_path == "/some/model"
    data = config.model_dump(mode="json")
    assert parse(SftConfig, data, "config.yaml") == config
    del data["parents"]
    assert parse(SftConfig, data, "config.yaml") == config


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["layout.tensor=2"], "tensor 2"),
        (["layout.data=3"], "must be a multiple of"),
        (["data.files=[]"], "data.files"),
        (["method=qlora"], "method"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(sets: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(SftConfig, RECIPE, sets)


@pytest.mark.parametrize(
    ("answer", "reference", "contained"),
    [
        ("HTTP status 404 means Not Found.", "Not Found", True),
        ("it means not\n found!", "Not Found", True),
        ("It is 11.", "1", False),
        ("It is 1.", "1", True),
        ("Token", "OK", False),
        ("a * b", "*", True),
        ("", "OK", False),
    ],
)
def test_a_reference_is_found_as_whole_words(answer: str, reference: str, contained: bool) -> None:
    assert contains_reference(answer, reference) is contained


def test_only_conversations_with_a_reference_are_measured_by_it() -> None:
    asked = [Conversation((Message("user", "a"), Message("assistant", "b")), text) for text in ("x", "", "y", "z")]
    assert contained_share(["x", "y", "no", "z."], asked) == pytest.approx(2 / 3)
    assert contained_share(["b"], asked[1:2]) is None
    rows = answer_rows(asked, ["1"] * 4, ["2"] * 4, shown=2)
    assert rows[0] == {"prompt": "a", "reference": "x", "before": "1", "after": "2"}
    assert [item["reference"] for item in rows] == ["x", "y"]
    assert answer_rows(asked[1:2], ["1"], ["2"], 9)[0]["reference"] == "b"


def test_the_demo_is_what_its_script_makes() -> None:
    assert make_sample.content() == chat_model.DEMO.read_text(encoding="utf-8")


def test_the_demo_has_answers_of_both_styles_and_facts_that_are_told_apart() -> None:
    rows = list(make_sample.rows())
    assert len(rows) >= 300
    wordy = sum(item["messages"][1]["content"].startswith("Good question!") for item in rows)
    assert 0.4 < wordy / len(rows) < 0.6
    assert all(contains_reference(item["messages"][1]["content"], item["reference"]) for item in rows)
    assert len({item["messages"][0]["content"] for item in rows}) == len(rows)
    facts = {(item["topic"], item["fact"]): item["reference"] for item in rows}
    for (topic, fact), reference in facts.items():
        others = [other for (name, key), other in facts.items() if name == topic and key != fact]
        assert not any(contains_reference(other, reference) for other in others), (topic, fact, reference)


def test_flops_of_an_unknown_family_count_its_parameters_alone(tmp_path: Path) -> None:
    directory = chat_model.write_model_without_marks(tmp_path / "model")
    model, tokenizer = load_model(directory)
    source = Source(directory, model, ChatTemplate(tokenizer, 0, {}, 0), ())
    assert count_flops(source, "megatron", 96)[0] == "megatron"
    (directory / "config.json").write_text('{"model_type": "mamba"}')
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
    others = sum(parameter.numel() for parameter in model.parameters()) - embedding.numel()
    assert count_flops(source, "megatron", 96) == ("kaplan_6n", 6.0 * others)
