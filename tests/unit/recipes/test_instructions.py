"""Instruction files: formats, and errors that name the line."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UserError
from recipes.chat.template import Message
from recipes.instructions.read import Conversation, read_instructions, split_held_out

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "instruct"
MESSAGES = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path, **options: Any) -> list[Conversation]:
    return read_instructions([str(path)], **options)


def test_both_formats_in_one_file_and_what_is_read_beside_them(tmp_path: Path) -> None:
    shared = {
        "conversations": [
            {"from": "human", "value": "One?"},
            {"from": "gpt", "value": "Yes."},
            {"from": "human", "value": "Two?"},
            {"from": "gpt", "value": "No."},
        ],
        "system": "Be brief.",
    }
    whole = {**ALPACA, "input": "", "system": "Count.", "history": [["Hm?", "Hm."]], "id": 7}
    path = write(tmp_path / "a.jsonl", {**MESSAGES, "reference": "So"}, "", ALPACA, shared, whole)
    first, second, third, fourth = read(path)
    assert first == Conversation((Message("user", "Why?"), Message("assistant", "So.")), "So", "a.jsonl:1")
    assert second.messages == (Message("user", "Add.\n1 and 2"), Message("assistant", "3"))
    assert second.id == "a.jsonl:3"
    assert [m.role for m in third.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert third.answer == "No."
    assert third.prompt[-1] == Message("user", "Two?")
    assert [m.content for m in fourth.messages] == ["Count.", "Hm?", "Hm.", "Add.", "3"]


def test_a_prompt_without_an_answer_has_an_empty_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": MESSAGES["messages"][:1]})
    assert read(path)[0].answer == ""
    assert read(path)[0].prompt == (Message("user", "Why?"),)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("pack", [None, gzip.compress, lzma.compress])
def test_a_list_in_whatever_wrapping_is_the_same_as_lines(tmp_path: Path, indent: int | None, pack: Any) -> None:
    text = "\ufeff" + json.dumps([MESSAGES, ALPACA], indent=indent, ensure_ascii=False)
    path = tmp_path / "a.json"
    path.write_bytes(pack(text.encode()) if pack else text.encode())
    assert [c.messages for c in read(path)] == [c.messages for c in read(write(tmp_path / "b.jsonl", MESSAGES, ALPACA))]


def test_patterns_and_several_files(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", ALPACA)
    write(tmp_path / "a.jsonl", MESSAGES)
    found = read_instructions([str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl")])
    assert [c.id for c in found] == ["a.jsonl:1", "b.jsonl:1", "a.jsonl:1"]


def test_the_demo_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_instructions(["recipes/instructions/sample/demo.jsonl"])) >= 300


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "broken": ('{"instruction": "a", ', "not JSON"),
    "number": (3, "int instead of an object"),
    "keys": ({"text": "a", "role": "prompter"}, "keys text, role"),
    "no output": ({"instruction": "a"}, "`output` is missing"),
    "null output": ({"instruction": "a", "output": None}, "`output` is None"),
    "empty": ({"instruction": " ", "output": "b"}, "`instruction` is empty"),
    "list content": ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "`messages[0].content` is"),
    "role": ({"messages": [{"role": "tool", "content": "a"}]}, "`messages[0].role` is 'tool'"),
    "no messages": ({"messages": []}, "`messages` is []"),
    "entry": ({"messages": ["hello"]}, "`messages[0]` is 'hello'"),
    "turns": ({"messages": [*MESSAGES["messages"][::-1]]}, "turns assistant, user"),
    "only system": ({"messages": [{"role": "system", "content": "a"}]}, "turns system"),
    "surrogate": ('{"instruction": "\\ud800", "output": "b"}', "surrogates not allowed"),
    "reference": ({**MESSAGES, "reference": 4}, "`reference` is 4"),
    "history": ({**ALPACA, "history": [["a"]]}, "`history[0]` is ['a']"),
    "deep": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    row, words = BAD_ROWS[name]
    path = write(tmp_path / "bad.jsonl", MESSAGES, "", row, ALPACA)
    with pytest.raises(UserError) as caught:
        read(path)
    assert f"{path}, line 3: " in caught.value.found
    assert words in caught.value.found
    assert caught.value.expected
    assert caught.value.action


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[\n{"instruction": "a", "output": "b"},\n\n  {"instruction":\n "a"}]', 4, "`output` is missing"),
        ('[\n{"instruction": "a", "output": "b"}\n{"instruction": "a"}]', 3, "after an item"),
        ('[\n{"instruction": "a", "output": "b"},\n{"instruction": \n"a" "b"}]', 4, "not JSON"),
        ('[\n{"instruction": "a", "output": "b"}\n', 4, "the end of the file after an item"),
        ('[\n{"instruction": "a", "output": "b"}]\n{}', 3, "after the list"),
    ],
)
def test_an_error_in_a_list_names_the_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path / "bad.json", text)
    with pytest.raises(UserError) as caught:
        read(path)
    assert f"{path}, line {line}: " in caught.value.found
    assert words in caught.value.found


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(ALPACA).encode() + b"\n\xff\n")
    with pytest.raises(UserError, match="line 2: byte 0xff"):
        read(path)


def test_missing_damaged_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file at"):
        read(tmp_path / "nowhere.jsonl")
    for pack in (gzip.compress, lzma.compress):
        (tmp_path / "cut").write_bytes(pack(json.dumps(ALPACA).encode() * 50)[:-12])
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / "cut")
    with pytest.raises(UserError, match="no row in"):
        read(write(tmp_path / "empty.jsonl", ""))


def test_a_format_that_is_asked_for_is_the_only_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", MESSAGES)
    assert len(read(path, format="messages")) == 1
    with pytest.raises(UserError, match="line 1: keys messages"):
        read(path, format="alpaca")
    with pytest.raises(UserError, match="line 1: keys instruction, input, output"):
        read(write(path, ALPACA), format="messages")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder {SHARED} beside the checkout")
def test_real_files() -> None:
    alpaca = read(SHARED / "alpaca_en_demo.json.xz")
    assert len(alpaca) == 999
    assert all(len(c.messages) == 2 and c.answer for c in alpaca)
    assert alpaca[1].id == "alpaca_en_demo.json.xz:7"
    assert len(read(SHARED / "identity.json.xz")) == 91
    for name in ("oasst_en_100_message.jsonl.xz", "self_instruct_seed_tasks.jsonl.xz"):
        with pytest.raises(UserError, match=rf"{name}, line 1: "):
            read(SHARED / name)


def conversations(prompts: list[str]) -> list[Conversation]:
    return [Conversation((Message("user", text), Message("assistant", "x"))) for text in prompts]


@given(st.lists(st.text(max_size=3), min_size=2, max_size=40), st.floats(0.01, 0.99), st.integers(0, 3))
def test_the_split_keeps_equal_prompts_together_and_loses_none(prompts: list[str], fraction: float, seed: int) -> None:
    if len(set(prompts)) < 2:
        return
    everything = conversations(prompts)
    train, held = split_held_out(everything, fraction, seed)
    assert sorted(c.prompt_text for c in [*train, *held]) == sorted(prompts)
    assert train
    assert held
    assert not {c.prompt_text for c in train} & {c.prompt_text for c in held}
    assert split_held_out(everything[::-1], fraction, seed)[1] == held[::-1]


def test_the_split_has_its_share_and_another_seed_another_part() -> None:
    everything = conversations([f"question {number}" for number in range(200)])
    first, second = (split_held_out(everything, 0.1, seed)[1] for seed in (1, 2))
    assert len(first) == len(second) == 20
    assert first != second
    more = split_held_out([*everything, *conversations(["one more"])], 0.1, 1)[1]
    assert len(set(first) - set(more)) <= 1


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(UserError, match="1 different prompts"):
        split_held_out(conversations(["a", "a"]), 0.5, 1)
