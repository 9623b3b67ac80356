"""What a tuned model is measured by: its answers to held-out prompts, before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from recipes.chat.generation import generate_answers
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation

Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, evenly over all of them: files are often ordered by topic."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def answer_all(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    processes: Processes,
    *,
    new_tokens: int,
    seed: int,
) -> list[str]:
    """The likeliest answers to the conversations' prompts, in their order. *Collective*: every rank answers a share."""
    share = [conversation.prompt for conversation in conversations[processes.rank :: processes.world_size]]
    mine = generate_answers(model, tokenizer, share, new_tokens=new_tokens, temperature=0.0, seed=seed)
    answers = [""] * len(conversations)
    for rank, words in enumerate(processes.gather_words(json.dumps(mine))):
        answers[rank :: processes.world_size] = json.loads(words or "[]")
    return answers


def contains_reference(answer: str, reference: str) -> bool:
    """Whether an answer holds the reference as whole words; case and the width of spaces don't matter."""
    text, wanted = (" ".join(words.casefold().split()) for words in (answer, reference))
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None


def contained_share(answers: Sequence[str], conversations: Sequence[Conversation]) -> float | None:
    """The share of answers that hold their reference, of those that have one; None where none has."""
    pairs = [
        contains_reference(answer, conversation.reference)
        for answer, conversation in zip(answers, conversations, strict=True)
        if conversation.reference
    ]
    return sum(pairs) / len(pairs) if pairs else None


def answer_rows(
    conversations: Sequence[Conversation], before: Sequence[str], after: Sequence[str], shown: int
) -> list[dict[str, str]]:
    """At most `shown` rows of the table of answers, spread evenly over the held-out conversations."""
    return [
        {
            "prompt": conversations[number].prompt_text,
            "reference": conversations[number].reference or conversations[number].answer,
            "before": before[number],
            "after": after[number],
        }
        for number in spread(range(len(conversations)), shown)
    ]
