"""What training changed: the same held-out prompts answered before and after, judged by the same rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from recipes.chat.generation import generate_answers, load_model
from recipes.chat.template import ChatTemplate, Message
from recipes.distributed.processes import Processes
from recipes.evaluate.compare import compare_scores
from recipes.instructions.read import Conversation
from recipes.rewards.rules import score_answer
from recipes.rlhf.config import RlhfConfig

ATTAINABLE = 1.0
"""The rules' highest score."""

COLUMNS = ("prompt", "reference", "before", "after", "reward_before", "reward_after")


@dataclass(frozen=True)
class Answers:
    """What one model answered to the held-out prompts, in their order, and what the rules give for it.

    `greedy` is the likeliest token every time; `sampled` is drawn as in training.
    """

    greedy: list[str]
    sampled: list[str]
    greedy_scores: list[float]
    sampled_scores: list[float]


def measure(
    config: RlhfConfig, before: Path, after: Path, held_out: list[Conversation], processes: Processes
) -> dict[str, Any]:
    """The content of rlhf.json that every algorithm shares. *Collective*: every rank, which shares the prompts.

    Args:
        config: The recipe.
        before: Directory of the parent's model.
        after: Directory of the trained one.
        held_out: Prompts that no stage has trained on.
        processes: The job.
    """
    mine = held_out[processes.rank :: processes.world_size]
    old, tokenizer = load_model(before, processes.device)
    new, _ = load_model(after, processes.device)
    first, second = (_answer(config, model, tokenizer, mine) for model in (old, new))
    template, drawn = ChatTemplate.of(tokenizer), zip(mine, second.sampled, strict=True)
    kl = [answer_kl(old, new, template, one.prompt, answer) for one, answer in drawn]
    pieces = {"first": vars(first), "second": vars(second), "kl": kl}
    shares = [json.loads(words) for words in processes.gather_words(json.dumps(pieces)) if words is not None]
    before_all, after_all = (_together([share[name] for share in shares]) for name in ("first", "second"))
    return _told(held_out, before_all, after_all, _interleaved([share["kl"] for share in shares]))


def _answer(config: RlhfConfig, model: Any, tokenizer: Any, prompts: Sequence[Conversation]) -> Answers:
    settings = config.generation

    def answers(temperature: float) -> list[str]:
        return generate_answers(
            model,
            tokenizer,
            [one.prompt for one in prompts],
            new_tokens=settings.new_tokens,
            temperature=temperature,
            top_k=settings.top_k,
            seed=config.seed,
            batch_samples=64,
        )

    greedy, sampled = answers(0.0), answers(settings.temperature)
    scores = [
        [score_answer(config.reward.rules, text, one) for text, one in zip(texts, prompts, strict=True)]
        for texts in (greedy, sampled)
    ]
    return Answers(greedy, sampled, *scores)


@torch.no_grad()
def answer_kl(old: Any, new: Any, template: ChatTemplate, prompt: Sequence[Message], answer: str) -> float:
    """KL(new || old) of one answer in nats: over the whole vocabulary at each of its tokens, summed.

    With answers drawn from `new` at temperature 1 its mean is the divergence of the two models' answers.
    """
    start = len(template.prompt_ids(prompt)) - 1
    ids = template.encode([*prompt, Message("assistant", answer)])[0]
    tokens = torch.tensor([ids[:-1]], device=next(new.parameters()).device)
    logs = [model(tokens, use_cache=False).logits[0, start:].double().log_softmax(-1) for model in (new, old)]
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


def _together(shares: Sequence[dict[str, list[Any]]]) -> Answers:
    return Answers(**{name: _interleaved([share[name] for share in shares]) for name in Answers.__dataclass_fields__})


def _interleaved(shares: Sequence[Sequence[Any]]) -> list[Any]:
    """Undoes `held_out[rank::ranks]`."""
    whole: list[Any] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole


def _told(held_out: Sequence[Conversation], old: Answers, new: Answers, kl: Sequence[float]) -> dict[str, Any]:
    wins = compare_scores(old.greedy_scores, new.greedy_scores)
    before, after = fmean(old.greedy_scores), fmean(new.greedy_scores)
    sampled_before, sampled_after = fmean(old.sampled_scores), fmean(new.sampled_scores)
    rows = zip(held_out, old.greedy, new.greedy, old.greedy_scores, new.greedy_scores, strict=True)
    return {
        "prompts": len(held_out),
        "rule_reward_before": before,
        "rule_reward_after": after,
        "rule_reward_attainable": ATTAINABLE,
        "share_of_attainable": share_of_attainable(before, after),
        "rule_reward_sampled_before": sampled_before,
        "rule_reward_sampled_after": sampled_after,
        "share_of_attainable_sampled": share_of_attainable(sampled_before, sampled_after),
        "kl_nats_per_answer": fmean(kl),
        **vars(wins),
        "answers": [dict(zip(COLUMNS, (one.prompt_text, one.reference, *rest), strict=True)) for one, *rest in rows],
    }


def share_of_attainable(before: float, after: float) -> float | None:
    """How much of what could be gained was gained; None where nothing could."""
    return (after - before) / (ATTAINABLE - before) if before < ATTAINABLE else None
