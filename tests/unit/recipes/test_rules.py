"""Rules that score answers: what is right, what is half right, what a recipe may not say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import dump, parse, read_yaml
from kit.errors import UserError
from recipes.chat.template import Message
from recipes.instructions.read import Conversation
from recipes.rewards.config import PARAMETERS, RewardRules, RuleConfig
from recipes.rewards.rules import RULES, check_rules, rule_reward, score_answer

ASKED = Conversation((Message("user", "What is 404?"), Message("assistant", "")), "Not Found", "facts.jsonl:7")


def score(name: str, answer: str, **parameters: Any) -> float:
    return score_answer([RuleConfig(name=name, **parameters)], answer, ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("It means Not Found.", 1.0),
        ("it means NOT\n found", 1.0),
        ("It was not there.", 0.25),
        ("Found? Not!", 0.5),
        ("Nothing foundational.", 0.0),
    ],
)
def test_contains_reference(answer: str, worth: float) -> None:
    assert score("contains_reference", answer) == worth


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("It means Not Found.", 1.0),
        ("Python 3.11 has it.", 1.0),
        ("It means Not Found", 1 / 2),
        ("It means Not Found. Yes.", 1 / 2),
        ("Well, it means Not Found.", 1 / 2),
        ("Good question! Well, it means Not Found. I hope that this helps you.", 1 / 12),
        ("Stairwell, it is.", 1.0),
    ],
)
def test_direct(answer: str, worth: float) -> None:
    assert score("direct", answer) == pytest.approx(worth)


def test_direct_takes_its_filler_from_the_recipe() -> None:
    assert score("direct", "Frankly it is so.", filler=["frankly"]) == 0.5
    assert score("direct", "Well, it is so.", filler=["frankly"]) == 1.0


def test_length() -> None:
    bounds = {"shortest_words": 4, "longest_words": 8}
    worth = [score("length", "word " * words, **bounds) for words in (1, 2, 4, 8, 16)]
    assert worth == [0.25, 0.5, 1.0, 1.0, 0.5]


def test_no_repetition() -> None:
    assert score("no_repetition", "one two three four five") == 1.0
    assert score("no_repetition", "so it is so it is so it is") == pytest.approx(3 / 7)
    assert score("no_repetition", "no no", phrase_words=1) == 0.5
    assert score("no_repetition", "two words") == 1.0


def test_matches() -> None:
    assert score("matches", "Code 404.", pattern=r"\d{3}") == 1.0
    assert score("matches", "No code.", pattern=r"\d{3}") == 0.0


def test_a_score_is_the_weighted_mean() -> None:
    rules = [RuleConfig(name="contains_reference", weight=3), RuleConfig(name="direct")]
    assert score_answer(rules, "It means Not Found", ASKED) == pytest.approx((3 * 1.0 + 0.5) / 4)
    assert rule_reward(rules)([ASKED, ASKED], ["Not Found.", ""]) == [1.0, 0.0]


@given(st.text(max_size=60), st.sampled_from(sorted(RULES)))
def test_every_answer_is_worth_between_nothing_and_one(answer: str, name: str) -> None:
    worth = score(name, answer, **({"pattern": "a"} if name == "matches" else {}))
    assert 0 <= worth <= 1
    if not answer.strip():
        assert worth == 0


def test_every_rule_has_its_parameters() -> None:
    assert set(PARAMETERS) == set(RULES)


def test_a_rule_that_needs_a_reference_refuses_data_without() -> None:
    bare = Conversation(ASKED.messages, "", "facts.jsonl:9")
    with pytest.raises(UserError, match=r"facts\.jsonl:9") as caught:
        check_rules([RuleConfig(name="contains_reference")], [ASKED, bare])
    assert "reference" in caught.value.expected
    check_rules([RuleConfig(name="direct")], [bare])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"name": "polite"}, "contains_reference"),
        ({"name": "direct", "longest_words": 4}, "no parameter longest_words"),
        ({"name": "length", "shortest_words": 9, "longest_words": 8}, "more than longest_words"),
        ({"name": "matches"}, "needs a pattern"),
        ({"name": "matches", "pattern": "("}, "no regular expression"),
        ({"name": "direct", "weight": 0}, "greater than 0"),
        ({"name": "direct", "filler": [""]}, "at least 1 character"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(RewardRules, {"rules": [rule]}, "recipe.yaml")
    assert words in str(caught.value)


def test_rules_come_back_from_their_dump(tmp_path: Any) -> None:
    rules = RewardRules(rules=[RuleConfig(name="direct"), RuleConfig(name="matches", pattern="x+")])
    (tmp_path / "rules.yaml").write_text(dump(rules))
    assert parse(RewardRules, read_yaml(tmp_path / "rules.yaml"), "rules.yaml") == rules
