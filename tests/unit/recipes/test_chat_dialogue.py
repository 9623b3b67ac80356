"""A conversation: what streams, what the model is asked, what it forgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_model
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kit.errors import UserError
from recipes.chat.dialogue import Decoding, Dialogue, choose_format
from recipes.chat.generation import generate_ids, load_model, load_tokenizer
from recipes.chat.streaming import TextStream
from recipes.chat.template import ChatTemplate, Message

CONTEXT = 96
GREEDY = Decoding(temperature=0.0, top_k=0, new_tokens=12, seed=1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    directory = chat_model.write_model(tmp_path_factory.mktemp("chat") / "model", context=CONTEXT)
    model, tokenizer = load_model(directory)
    tokenizer.chat_template = ChatTemplate.of(tokenizer).jinja()
    return model, tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return load_tokenizer(chat_model.write_tokenizer(tmp_path_factory.mktemp("chat") / "tokenizer"))


TOKENIZERS: list[Any] = []


@pytest.fixture(autouse=True)
def _one_tokenizer(tokenizer: Any) -> None:
    TOKENIZERS[:] = [tokenizer]


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30))
def test_a_stream_says_every_text_exactly_and_never_takes_a_word_back(text: str) -> None:
    (tokenizer,) = TOKENIZERS
    stream, said = TextStream(tokenizer), ""
    for token in tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True):
        said += stream.add(token)
        assert text.startswith(said)
    assert said + stream.end() == text


def test_half_a_character_waits_for_its_other_half(tokenizer: Any) -> None:
    ids = tokenizer.encode("a🙂b", add_special_tokens=False)
    assert len(ids) == 6
    stream = TextStream(tokenizer)
    assert [stream.add(token) for token in ids] == ["a", "", "", "", "🙂", "b"]


def test_bytes_that_never_become_a_character_are_marked(tokenizer: Any) -> None:
    first, *_ = tokenizer.encode("🙂", add_special_tokens=False)
    letter, *_ = tokenizer.encode("a", add_special_tokens=False)
    stream = TextStream(tokenizer)
    assert [stream.add(first), stream.add(letter), stream.add(first)] == ["", "\ufffda", ""]
    assert stream.text == "\ufffda\ufffd"
    assert stream.end() == "\ufffd"


def test_what_was_said_stays_said_when_bad_bytes_follow(tokenizer: Any) -> None:
    whole = tokenizer.encode("🙂", add_special_tokens=False)
    letter = tokenizer.encode("a", add_special_tokens=False)
    stream = TextStream(tokenizer)
    said = "".join(stream.add(token) for token in [*whole, whole[0], *letter])
    assert said == stream.text == "🙂\ufffda"


def test_spaces_between_words_survive_a_decoder_that_takes_off_the_first() -> None:
    made = Tokenizer(models.WordLevel({"▁a": 0, "▁Hello": 1, "▁you": 2, "!": 3}, unk_token="!"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    stream = TextStream(PreTrainedTokenizerFast(tokenizer_object=made))
    assert [stream.add(token) for token in (1, 2, 3)] == ["Hello", " you", "!"]


def ask(dialogue: Dialogue, prompt: str) -> str:
    return "".join(dialogue.ask(prompt))


def test_the_pieces_are_the_answer_of_batched_decoding(loaded: tuple[Any, Any]) -> None:
    dialogue = Dialogue(*loaded, GREEDY)
    answer = ask(dialogue, "What is HTTP 404?")
    model, tokenizer = loaded
    template = ChatTemplate.of(tokenizer)
    ids = template.prompt_ids([Message("user", "What is HTTP 404?")])
    stops = {"stop_ids": template.stop_ids, "pad_id": template.pad_id}
    (expected,) = generate_ids(model, [ids], new_tokens=12, temperature=0.0, **stops)
    stream = TextStream(tokenizer)
    said = [stream.add(token) for token in expected if token not in template.stop_ids]
    assert answer == "".join(said) + stream.end()
    (turn,) = dialogue.turns
    assert (turn.prompt, turn.answer, turn.forgotten) == ("What is HTTP 404?", answer, 0)
    assert turn.tokens == len(said) > 0


def test_the_same_seed_says_the_same(loaded: tuple[Any, Any]) -> None:
    def talk(seed: int) -> list[str]:
        dialogue = Dialogue(*loaded, Decoding(temperature=1.0, top_k=50, new_tokens=8, seed=seed))
        return [ask(dialogue, words) for words in ("One?", "Two?")]

    assert talk(5) == talk(5)
    assert talk(5) != talk(6)


def test_the_model_sees_the_turns_before_and_forgets_the_oldest(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    dialogue = Dialogue(model, tokenizer, GREEDY, system="Be brief.")
    template, seen = ChatTemplate.of(tokenizer), []
    handle = model.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(named["input_ids"][0].tolist()), with_kwargs=True
    )
    turns: list[Message] = []
    forgotten = []
    try:
        for number in range(6):
            start = len(seen)
            turns.append(Message("user", f"Question {number}?"))
            answer = ask(dialogue, turns[-1].content)
            forgotten.append(dialogue.forgotten)
            turns = turns[2 * dialogue.forgotten :]
            assert seen[start] == template.prompt_ids([Message("system", "Be brief."), *turns])
            assert len(seen[start]) + GREEDY.new_tokens <= CONTEXT
            turns.append(Message("assistant", answer))
    finally:
        handle.remove()
    assert forgotten[0] == 0
    assert sum(forgotten) >= 2


def test_a_message_that_fills_the_context_is_refused_and_the_conversation_goes_on(loaded: tuple[Any, Any]) -> None:
    dialogue = Dialogue(*loaded, GREEDY)
    with pytest.raises(UserError, match="the model's context has 96"):
        ask(dialogue, "word " * CONTEXT)
    assert dialogue.turns == []
    assert ask(dialogue, "Hello")


def test_a_message_that_nearly_fills_the_context_gets_a_short_answer(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    dialogue = Dialogue(model, tokenizer, GREEDY)
    words = "a" * next(
        count for count in range(1, 400) if len(dialogue.format.encode([Message("user", "a" * count)])) == CONTEXT - 3
    )
    ask(dialogue, words)
    assert dialogue.turns[0].tokens <= 3


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(loaded: tuple[Any, Any]) -> None:
    dialogue = Dialogue(*loaded, GREEDY)
    pieces = dialogue.ask("Hello")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert dialogue.turns[0].tokens == 2
    assert dialogue.turns[0].answer.startswith(said)


def test_a_model_without_a_template_continues_each_text_by_itself(tmp_path: Path) -> None:
    model, tokenizer = load_model(chat_model.write_model_without_marks(tmp_path / "gpt"))
    dialogue = Dialogue(model, tokenizer, GREEDY)
    assert not dialogue.format.chat
    first = ask(dialogue, "import os")
    ids = torch.tensor([[0, *tokenizer.encode("import os")]])
    expected = model.generate(ids, max_new_tokens=12, do_sample=False)[0][ids.shape[1] :]
    assert first == tokenizer.decode(expected, skip_special_tokens=True)
    assert ask(dialogue, "import os") == first
    with pytest.raises(UserError, match="no chat template"):
        Dialogue(model, tokenizer, GREEDY, system="Be brief.")


def test_a_template_of_another_family_is_used_as_it_is(tmp_path: Path) -> None:
    model, tokenizer = load_model(chat_model.write_model_without_marks(tmp_path / "gpt"))
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    found = choose_format(model, tokenizer)
    assert found.chat
    assert tokenizer.decode(found.encode([Message("user", "Hi")])) == "[user] Hi\n[assistant]"
    assert found.stop_ids == (0,)
