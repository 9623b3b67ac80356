"""Pairs from a model itself: two answers to each prompt, sampled at two temperatures and ranked by rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from recipes.chat.generation import generate_answers
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation
from recipes.reward.config import PairSamplingConfig
from recipes.reward.preferences import Preference
from recipes.rewards.config import RuleConfig
from recipes.rewards.rules import score_answer


def sample_pairs(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    rules: Sequence[RuleConfig],
    config: PairSamplingConfig,
    seed: int,
    processes: Processes,
) -> tuple[list[Preference], int]:
    """Pairs, round by round, and how many were dropped because the rules found both answers equally good.

    *Collective*: every rank answers a share of the prompts, and gets all pairs.
    """
    kept: dict[Preference, None] = {}
    ties = 0
    for number in range(config.rounds):
        first, second = (
            _answers(model, tokenizer, conversations, config, temperature, (seed, number, place), processes)
            for place, temperature in enumerate(config.temperatures)
        )
        for conversation, *answers in zip(conversations, first, second, strict=True):
            pair = ranked(rules, conversation, *answers)
            ties += pair is None
            if pair is not None:
                kept[pair] = None
    return list(kept), ties


def _answers(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    config: PairSamplingConfig,
    temperature: float,
    seeds: tuple[int, ...],
    processes: Processes,
) -> list[str]:
    """One answer to every prompt. *Collective*: every rank."""
    # A stream of draws of its own for every round, temperature and rank.
    seed = int(np.random.SeedSequence((*seeds, processes.rank)).generate_state(1)[0])
    mine = generate_answers(
        model,
        tokenizer,
        [conversation.prompt for conversation in conversations[processes.rank :: processes.world_size]],
        new_tokens=config.new_tokens,
        temperature=temperature,
        top_k=config.top_k,
        seed=seed,
        batch_samples=config.batch_samples,
    )
    answers = [""] * len(conversations)
    for rank, words in enumerate(processes.gather_words(json.dumps(mine))):
        answers[rank :: processes.world_size] = json.loads(words or "[]")
    return answers


def ranked(rules: Sequence[RuleConfig], conversation: Conversation, first: str, second: str) -> Preference | None:
    """The answer with the higher score as the chosen one; None if they are equally good."""
    scores = [score_answer(rules, answer, conversation) for answer in (first, second)]
    if scores[0] == scores[1]:
        return None
    chosen, rejected = (first, second) if scores[0] > scores[1] else (second, first)
    return Preference(conversation.prompt, chosen, rejected, conversation.reference)
