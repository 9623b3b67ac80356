"""Rules that score an answer between 0 and 1. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from kit.errors import UserError
from recipes.instructions.read import Conversation
from recipes.rewards.config import RuleConfig

RewardFunction = Callable[[list[Conversation], list[str]], list[float]]
"""Scores each answer to each conversation's prompt; higher is better."""

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


def contains_reference(rule: RuleConfig, answer: str, reference: str) -> float:
    """1 if the answer holds the conversation's reference, else half the share of the reference's words that it holds.

    Case and the width of spaces don't matter; `1` is not found in `11`.
    """
    text, wanted = _plain(answer), _plain(reference)
    if _holds(text, wanted):
        return 1.0
    words = set(wanted.split())
    return 0.5 * sum(_holds(text, word) for word in words) / len(words)


def direct(rule: RuleConfig, answer: str, reference: str) -> float:
    """1 for one sentence that ends with a full stop and holds no filler.

    Each fault costs a factor: n sentences 1/n, k phrases of filler 1/(1+k), another end than a full stop 1/2.
    """
    text = _plain(answer)
    sentences = len([part for part in _SENTENCE_END.split(text) if part.strip()])
    filler = sum(_holds(text, _plain(phrase)) for phrase in rule.filler)
    return (1.0 if text.endswith(".") else 0.5) / max(1, sentences) / (1 + filler)


def length(rule: RuleConfig, answer: str, reference: str) -> float:
    """1 between the fewest and the most words; outside the ratio to the nearer of the two."""
    words = len(answer.split())
    return min(1.0, words / rule.shortest_words, rule.longest_words / words)


def no_repetition(rule: RuleConfig, answer: str, reference: str) -> float:
    """The share of the answer's phrases of some words that are distinct; 1 for an answer too short to have two."""
    words = _plain(answer).split()
    phrases = [tuple(words[i : i + rule.phrase_words]) for i in range(len(words) - rule.phrase_words + 1)]
    return len(set(phrases)) / len(phrases) if phrases else 1.0


def matches(rule: RuleConfig, answer: str, reference: str) -> float:
    """1 if the regular expression is found anywhere in the answer."""
    return float(re.search(rule.pattern, answer) is not None)


RULES: dict[str, Callable[[RuleConfig, str, str], float]] = {
    "contains_reference": contains_reference,
    "direct": direct,
    "length": length,
    "no_repetition": no_repetition,
    "matches": matches,
}


def score_answer(rules: Sequence[RuleConfig], answer: str, conversation: Conversation) -> float:
    """The weighted mean of what the rules say, 0 to 1. An answer without words scores 0 by every rule.

    Raises:
        UserError: If a rule needs a reference and the conversation has none.
    """
    check_rules(rules, [conversation])
    if not answer.strip():
        return 0.0
    total = sum(rule.weight * RULES[rule.name](rule, answer, conversation.reference) for rule in rules)
    return total / sum(rule.weight for rule in rules)


def check_rules(rules: Sequence[RuleConfig], conversations: Sequence[Conversation]) -> None:
    """Refuses rules that can't score these conversations.

    Raises:
        UserError: Naming the first conversation without a reference, where a rule needs one.
    """
    if not any(rule.name == "contains_reference" for rule in rules):
        return
    for conversation in conversations:
        if not conversation.reference.strip():
            raise UserError(
                f"{conversation.id or 'a conversation'}: no `reference`, and the rule contains_reference looks for it",
                expected="`reference`: the words that a right answer holds, in every row",
                action="add it to the rows, or leave the rule out",
            )


def rule_reward(rules: Sequence[RuleConfig]) -> RewardFunction:
    """The rules as a reward function."""

    def reward(conversations: list[Conversation], answers: list[str]) -> list[float]:
        return [score_answer(rules, answer, one) for one, answer in zip(conversations, answers, strict=True)]

    return reward


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _holds(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words."""
    before = r"(?<!\w)" if phrase[:1].isalnum() else ""
    after = r"(?!\w)" if phrase[-1:].isalnum() else ""
    return re.search(before + re.escape(phrase) + after, text) is not None
