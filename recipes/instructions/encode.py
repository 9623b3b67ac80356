"""Conversations as token ids, and the batches that every step trains on: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.errors import UserError
from recipes.chat.template import ChatTemplate
from recipes.data import IGNORED, Batch, sample_numbers
from recipes.instructions.read import Conversation

LARGEST_DROPPED_SHARE = 0.5


@dataclass(frozen=True)
class Encoded:
    """A conversation's ids, which of them are counted, and where it comes from."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]
    conversation: Conversation


def encode_conversations(
    template: ChatTemplate, conversations: Sequence[Conversation], sequence_length: int
) -> tuple[list[Encoded], list[Conversation]]:
    """Encodes conversations; those of more than sequence_length + 1 tokens are left out and returned second.

    An answer is never cut: a model that learns half answers learns not to end them.

    Raises:
        UserError: If a conversation has no answer, or more than half of them are too long.
    """
    kept: list[Encoded] = []
    dropped: list[Conversation] = []
    silent = next((conversation for conversation in conversations if not conversation.answer.strip()), None)
    if silent is not None:
        raise UserError(
            f"{silent.id}: no answer", expected="an answer to learn from", action="write one, or take it out"
        )
    encoded = template.encode_all([conversation.messages for conversation in conversations])
    for conversation, (ids, counted) in zip(conversations, encoded, strict=True):
        if len(ids) > sequence_length + 1:
            dropped.append(conversation)
        else:
            kept.append(Encoded(tuple(ids), tuple(counted), conversation))
    if len(dropped) > LARGEST_DROPPED_SHARE * len(conversations):
        raise UserError(
            f"{len(dropped)} of {len(conversations)} conversations have more than {sequence_length} tokens, "
            f"the first at {dropped[0].id}",
            expected=f"at most {LARGEST_DROPPED_SHARE:.0%} that don't fit; these are left out",
            action="raise data.sequence_length (up to the model's context), or give shorter conversations",
        )
    return kept, dropped


@dataclass(frozen=True)
class ConversationBatch(Batch):
    """A batch of conversations; real_tokens are its tokens without padding."""

    real_tokens: int


def padded_batch(step: int, rows: Sequence[Encoded], pad_id: int) -> ConversationBatch:
    """Rows as one batch, padded on the right to the longest; padding and what isn't counted are IGNORED labels.

    Causal attention never looks at what lies to the right, so the padding needs no mask.
    """
    length = max(len(row.ids) for row in rows) - 1
    tokens = np.full((len(rows), length), pad_id, dtype=np.int64)
    labels = np.full((len(rows), length), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        ids, counted = np.array(row.ids), np.array(row.counted)
        tokens[index, : len(ids) - 1] = ids[:-1]
        labels[index, : len(ids) - 1] = np.where(counted[1:], ids[1:], IGNORED)
    return ConversationBatch(step, tokens, labels, sum(len(row.ids) - 1 for row in rows))


@dataclass(frozen=True)
class ConversationStream:
    """Encoded conversations in the endless order of their epochs; see recipes.data."""

    rows: Sequence[Encoded]
    seed: int
    pad_id: int
    shuffle: bool = True

    def __len__(self) -> int:
        """Conversations in one epoch."""
        return len(self.rows)

    def batch(self, step: int, start: int, stop: int) -> ConversationBatch:
        """The conversations at the places start..stop-1."""
        numbers = sample_numbers(self.seed, len(self), start, stop, shuffle=self.shuffle)
        return padded_batch(step, [self.rows[number] for number in numbers], self.pad_id)


def rank_batches(rows: Sequence[Encoded], samples: int, pad_id: int, rank: int, degree: int) -> list[ConversationBatch]:
    """Every row once: the batches of one of `degree` ranks, at most `samples` rows each.

    A rank without a row gets one that counts nothing.
    """
    mine = rows[rank::degree] or [Encoded(rows[0].ids, (False,) * len(rows[0].ids), rows[0].conversation)]
    return [padded_batch(0, mine[start : start + samples], pad_id) for start in range(0, len(mine), samples)]
