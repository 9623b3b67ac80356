"""Files of preference pairs: every format that is read, and every way in which a row can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kit.config import load
from kit.errors import UserError
from recipes.chat.template import Message
from recipes.instructions.read import Conversation, split_held_out
from recipes.reward.config import RewardConfig
from recipes.reward.preferences import Preference, read_preferences, split_pairs, write_preferences
from recipes.reward.sampling import ranked
from recipes.rewards.config import RuleConfig

ROOT = Path(__file__).resolve().parents[3]
ASK, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
)
PAIR = Preference((Message("user", "Q"),), "A", "B")
HUMAN = "\n\nHuman: Q\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [ASK], "chosen": "A", "rejected": "B", "score": 3},
        {"prompt": [ASK], "chosen": [GOOD], "rejected": BAD},
        {"prompt": "Q", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        {"chosen": HUMAN + "A", "rejected": HUMAN + "B"},
    ],
)
def test_every_format_is_read(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps([row, row]).encode()))
    assert read_preferences([tmp_path / "pairs.jsonl"]) == ([PAIR], 0)
    assert read_preferences([tmp_path / "*.json*"]) == ([PAIR] * 3, 0)


def test_several_turns_are_kept(tmp_path: Path) -> None:
    text = "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?\n\nAssistant:"
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"chosen": f"{text} Sure.", "rejected": f"{text} No."}))
    (pair,), _ = read_preferences([tmp_path / "pairs.jsonl"])
    assert [message.role for message in pair.prompt] == ["user", "assistant", "user"]
    assert (pair.chosen, pair.rejected) == ("Sure.", "No.")


def test_conversations_that_part_early_are_compared_where_they_part(tmp_path: Path) -> None:
    row = {"chosen": [ASK, GOOD], "rejected": [ASK, BAD, ASK, GOOD]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    assert read_preferences([tmp_path / "pairs.jsonl"]) == ([PAIR], 0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("[1, 2", "not JSON"),
        ("7", "int instead of an object"),
        ('{"prompt": "Q", "chosen": "A"}', "no `rejected`"),
        ('{"prompt": 5, "chosen": "A", "rejected": "B"}', "`prompt[0]` is 5"),
        ('{"prompt": [], "chosen": "A", "rejected": "B"}', "doesn't end with the user's turn"),
        ('{"prompt": [{"role": "assistant", "content": "A"}], "chosen": "A", "rejected": "B"}', "user's turn"),
        ('{"prompt": [{"role": "robot", "content": "Q"}], "chosen": "A", "rejected": "B"}', "`prompt[0]` is"),
        ('{"prompt": "Q", "chosen": ["A"], "rejected": "B"}', "`chosen[0]` is 'A'"),
        ('{"prompt": "Q", "chosen": "A", "rejected": {"role": "user", "content": "B"}}', "`rejected` is"),
        ('{"prompt": "Q", "chosen": "A", "rejected": "B", "reference": 4}', "`reference` is 4"),
        ('{"chosen": "A", "rejected": "B"}', "no `prompt`"),
        (
            '{"chosen": "\\n\\nHuman: Q\\n\\nAssistant: A", "rejected": "\\n\\nHuman: R\\n\\nAssistant: B"}',
            "where the two part",
        ),
        ('{"chosen": "\\n\\nHuman: Q", "rejected": "\\n\\nHuman: R"}', "where the two part"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Q", "chosen": "A", "rejected": "B"}\n\n' + row + "\n")
    with pytest.raises(UserError) as caught:
        read_preferences([path])
    assert f"{path}, line 3: " in caught.value.found
    assert words in caught.value.found
    assert caught.value.expected
    assert caught.value.action


def test_equal_answers_teach_nothing_and_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "A", "rejected": other} for other in "AB"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_preferences([tmp_path / "pairs.jsonl"]) == ([PAIR], 1)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(UserError, match="none with two different answers"):
        read_preferences([tmp_path / "pairs.jsonl"])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pairs = [PAIR, Preference((Message("system", "é\n"), Message("user", "Q")), "", "<|end|>", "é")]
    write_preferences(tmp_path / "pairs.jsonl", pairs)
    assert read_preferences([tmp_path / "pairs.jsonl"]) == (pairs, 0)
    assert set(json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])) == {
        "prompt",
        "chosen",
        "rejected",
        "reference",
    }


def test_pairs_are_held_out_by_their_prompt_as_instructions_are() -> None:
    pairs = [Preference((Message("user", f"Q{number % 10}"),), f"A{number}", "B") for number in range(30)]
    train, held_out = split_pairs(pairs, 0.3, seed=1)
    assert len(train) + len(held_out) == 30
    assert len({pair.prompt for pair in held_out}) == 3
    asked = [Conversation((*pair.prompt, Message("assistant", "x"))) for pair in pairs]
    assert {pair.prompt for pair in held_out} == {one.prompt for one in split_held_out(asked, 0.3, seed=1)[1]}


def test_the_rules_say_which_answer_is_better() -> None:
    asked, rules = Conversation((Message("user", "Q"), Message("assistant", "")), "42"), [RuleConfig(name="direct")]
    good, bad = "It is 42.", "Well, it is 42."
    for first, second in ((good, bad), (bad, good)):
        assert ranked(rules, asked, first, second) == Preference(asked.prompt, good, bad, "42")
    assert ranked(rules, asked, good, "It is 43.") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.preferences=[pairs.jsonl]", "either data.files"),
        ("data.files=[]", "either data.files"),
        ("sampling.new_tokens=64", "sampling.new_tokens 64"),
        ("sampling.temperatures=[0, 0]", "both 0"),
        ("sampling.temperatures=[0.5]", "sampling.temperatures"),
        ("layout.tensor=2", "layout.data alone"),
        ("data.global_batch_samples=7", "must be a multiple"),
        ("rules=[]", "at least 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(RewardConfig, ROOT / "recipes" / "reward" / "tiny.yaml", [change])
    assert words in str(caught.value)
