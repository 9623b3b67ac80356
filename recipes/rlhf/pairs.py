"""Preference pairs as token ids, and how often a policy prefers what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from kit.errors import UserError
from recipes.chat.template import ChatTemplate, Message
from recipes.instructions.encode import LARGEST_DROPPED_SHARE
from recipes.instructions.read import Conversation
from recipes.reward.preferences import Preference


@dataclass(frozen=True)
class EncodedPair:
    """A prompt with two answers, each with its end."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def encode_pairs(
    template: ChatTemplate, pairs: Sequence[Preference], sequence_length: int
) -> tuple[list[EncodedPair], int]:
    """Encodes pairs; those with an answer that doesn't fit are left out, and their number returned second.

    Raises:
        UserError: If more than half of them are too long.
    """
    encoded = [_encode(template, pair) for pair in pairs]
    kept = [pair for pair in encoded if _length(pair) <= sequence_length]
    dropped = len(encoded) - len(kept)
    if dropped > LARGEST_DROPPED_SHARE * len(encoded):
        raise UserError(
            f"{dropped} of {len(encoded)} preference pairs have an answer beyond {sequence_length} tokens",
            expected=f"at most {LARGEST_DROPPED_SHARE:.0%} that don't fit; these are left out",
            action="raise data.sequence_length (up to the model's context), or give shorter answers",
        )
    return kept, dropped


def check_apart(pairs: Sequence[Preference], held_out: Sequence[Conversation]) -> None:
    """Refuses pairs whose prompts are held out for measuring.

    Raises:
        UserError: If there is one.
    """
    kept = {one.prompt for one in held_out}
    common = [pair for pair in pairs if pair.prompt in kept]
    if common:
        raise UserError(
            f"{len(common)} of {len(pairs)} preference pairs have a held-out prompt, such as "
            f"{common[0].prompt[-1].content!r}",
            expected="pairs of training prompts only: the others are what training is measured by",
            action="give reward and rlhf the same data.files, data.held_out_fraction and seed",
        )


@torch.no_grad()
def preferred_share(new: Any, old: Any, pairs: Sequence[EncodedPair]) -> float:
    """The share of pairs whose chosen answer has gained more log-probability than the rejected one, from old to new.

    It is the accuracy of DPO's implicit reward (Rafailov et al. 2023, section 4).
    """
    new.eval()
    right = 0
    for pair in pairs:
        gains = [
            _log_probability(new, pair.prompt_ids, answer) - _log_probability(old, pair.prompt_ids, answer)
            for answer in (pair.chosen_ids, pair.rejected_ids)
        ]
        right += gains[0] > gains[1]
    return right / len(pairs)


def _log_probability(model: Any, prompt: list[int], answer: list[int]) -> float:
    tokens = torch.tensor([prompt + answer], device=next(model.parameters()).device)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :].float()
    return -float(F.cross_entropy(logits, tokens[0, len(prompt) :], reduction="sum"))


def _encode(template: ChatTemplate, pair: Preference) -> EncodedPair:
    prompt = template.prompt_ids(pair.prompt)
    chosen, rejected = (
        template.encode([*pair.prompt, Message("assistant", answer)])[0][len(prompt) :]
        for answer in (pair.chosen, pair.rejected)
    )
    return EncodedPair(prompt, chosen, rejected)


def _length(pair: EncodedPair) -> int:
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
