"""Answers sampled from a policy, with what it thought while it spoke: log-probabilities, values, entropies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.rlhf.ppo.policy import PolicyWithValue

_OPEN_SHARE = 0.75
"""Once fewer rows than this go on, the others leave the batch; leaving copies the cache, so not at every end."""


@dataclass(frozen=True)
class Rollouts:
    """Prompts padded on the left and their answers padded on the right, side by side.

    Attributes:
        ids: [samples, prompt columns + answer columns].
        mask: Which of them aren't padding.
        answer_mask: Its answer columns. An answer has at least one token; its `<|end|>` is one of them.
        log_probs, values, entropies: [samples, answer columns], as they were before each token was drawn; the
            log-probabilities and entropies are of the distribution that was drawn from, at its temperature.
        ended: [samples], whether the answer came to its end before it was cut off.
    """

    ids: Tensor
    mask: Tensor
    answer_mask: Tensor
    log_probs: Tensor
    values: Tensor
    entropies: Tensor
    ended: Tensor

    @property
    def prompt_columns(self) -> int:
        """How many columns on the left are prompts."""
        return self.ids.shape[1] - self.answer_mask.shape[1]

    def answers(self) -> list[list[int]]:
        """The answers' ids."""
        rows = self.ids[:, self.prompt_columns :].tolist()
        return [row[:length] for row, length in zip(rows, self.answer_mask.sum(1).tolist(), strict=True)]

    def lengths(self) -> list[int]:
        """Tokens of every prompt with its answer."""
        return [int(length) for length in self.mask.sum(1).tolist()]

    def columns_of(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, int]:
        """ids and mask of some rows without columns that all of them leave empty, and how many columns are answers."""
        start = int(self.mask[rows, : self.prompt_columns].long().argmax(1).min())
        tokens = int(self.answer_mask[rows].sum(1).max())
        columns = slice(start, self.prompt_columns + tokens)
        return self.ids[rows, columns], self.mask[rows, columns], tokens


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: What logits are divided by.
        stop_ids: What ends an answer.
        pad_id: What fills rows up.
        context: Most tokens of a prompt with its answer; None for no limit.
        batch_rows: How many prompts are answered at once.
    """

    temperature: float
    stop_ids: tuple[int, ...]
    pad_id: int
    context: int | None
    batch_rows: int


@torch.no_grad()
def roll_out(
    policy: PolicyWithValue, prompts: Sequence[Sequence[int]], draws: npt.NDArray[np.float64], sampling: Sampling
) -> Rollouts:
    """Answers every prompt.

    Args:
        policy: In evaluation mode.
        prompts: Ids; each must leave room for one token at least.
        draws: [samples, new_tokens] in [0, 1): which token is drawn, by the inverse of the cumulated probabilities.
        sampling: How.
    """
    longest = max(len(prompt) for prompt in prompts)
    assert sampling.context is None or longest < sampling.context, "a prompt without room for an answer"
    tape = _blank(prompts, draws.shape[1], sampling, policy.value_head.weight)
    # Rows of like length share a batch, so that little is padding.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), sampling.batch_rows):
        _answer(policy, tape, order[start : start + sampling.batch_rows], draws, sampling)
    tokens = int(tape.answer_mask.sum(1).max())
    columns = tape.prompt_columns + tokens
    return Rollouts(
        ids=tape.ids[:, :columns],
        mask=tape.mask[:, :columns],
        answer_mask=tape.answer_mask[:, :tokens],
        log_probs=tape.log_probs[:, :tokens],
        values=tape.values[:, :tokens],
        entropies=tape.entropies[:, :tokens],
        ended=tape.ended,
    )


def _blank(prompts: Sequence[Sequence[int]], tokens: int, sampling: Sampling, like: Tensor) -> Rollouts:
    """The prompts in their places, and room for the answers."""
    device, dtype = like.device, torch.promote_types(like.dtype, torch.float32)
    columns = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), columns + tokens), sampling.pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, columns - len(prompt) : columns] = torch.tensor(list(prompt), dtype=torch.long)
        mask[row, columns - len(prompt) : columns] = True
    room = torch.zeros(len(prompts), tokens, device=device, dtype=dtype)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    return Rollouts(ids.to(device), mask.to(device), room.bool(), room.clone(), room.clone(), room.clone(), ended)


def _answer(
    policy: PolicyWithValue, tape: Rollouts, chosen: list[int], draws: npt.NDArray[np.float64], sampling: Sampling
) -> None:
    """Answers the prompts of some rows of the tape, and writes everything down there."""
    device = tape.ids.device
    rows = torch.tensor(chosen, device=device)
    first = int(tape.mask[rows, : tape.prompt_columns].long().argmax(1).min())
    ids, mask = tape.ids[rows, first : tape.prompt_columns], tape.mask[rows, first : tape.prompt_columns]
    stops = torch.tensor(sampling.stop_ids, device=device)
    limits = torch.full_like(rows, draws.shape[1])
    if sampling.context is not None:
        limits = limits.clamp(max=sampling.context - mask.long().sum(1))
    lots = torch.from_numpy(draws[chosen]).to(device)
    still_open, cache = torch.ones_like(rows, dtype=torch.bool), None
    for place in range(draws.shape[1]):
        logits, values, cache = policy.step(ids, mask, cache)
        log_probs = F.log_softmax(logits / sampling.temperature, dim=-1)
        tokens = _draw(log_probs.exp(), lots[:, place])
        here = rows[still_open]
        tape.ids[here, tape.prompt_columns + place] = tokens[still_open]
        tape.mask[here, tape.prompt_columns + place] = tape.answer_mask[here, place] = True
        tape.log_probs[here, place] = log_probs.gather(1, tokens[:, None])[still_open, 0]
        tape.values[here, place] = values[still_open]
        tape.entropies[here, place] = -(log_probs.exp() * log_probs).sum(-1)[still_open]
        stopped = torch.isin(tokens, stops)
        tape.ended[rows[still_open & stopped]] = True
        still_open = still_open & ~stopped & (place + 1 < limits)
        share = float(still_open.float().mean())
        if share == 0:
            return
        if share < _OPEN_SHARE:
            cache.batch_select_indices(still_open.nonzero()[:, 0])
            rows, limits, lots, mask = rows[still_open], limits[still_open], lots[still_open], mask[still_open]
            tokens, still_open = tokens[still_open], still_open[still_open]
        ids, mask = tokens[:, None], torch.cat((mask, still_open[:, None]), dim=1)


def _draw(probabilities: Tensor, lots: Tensor) -> Tensor:
    """The token [rows] whose share of the cumulated probabilities [rows, vocab] each lot in [0, 1) falls into."""
    cumulated = probabilities.double().cumsum(-1)
    tokens = torch.searchsorted(cumulated, (lots * cumulated[:, -1])[:, None], right=True)[:, 0]
    return tokens.clamp(max=probabilities.shape[1] - 1)
