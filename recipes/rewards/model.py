"""Scores of answers by a reward model: a Hugging Face sequence classifier with one label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.files import require_file
from recipes.chat.generation import load_tokenizer
from recipes.chat.template import ChatTemplate, Message
from recipes.instructions.read import Conversation
from recipes.rewards.rules import RewardFunction

BATCH_SAMPLES = 32


def load_reward_model(directory: Path, device: torch.device | str) -> tuple[Any, ChatTemplate]:
    """A reward model in evaluation mode, fp32, and the template of its tokenizer.

    Raises:
        UserError: If the directory holds no classifier with one label, or its tokenizer lacks the template's tokens.
    """
    # Imported here: it takes seconds.
    from transformers import AutoConfig, AutoModelForSequenceClassification

    require_file(directory / "config.json", "the config.json of a reward model")
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        classifies = any("SequenceClassification" in name for name in config.architectures or ())
        if config.num_labels != 1 or not classifies:
            raise ValueError(f"{config.architectures} with {config.num_labels} labels")
        model = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{directory}: {(str(error).splitlines() or [type(error).__name__])[0]}",
            expected="the directory of a sequence classifier with one label",
            action="give the run of a reward stage: --parent reward=RUN",
        ) from error
    return model.to(device).eval(), ChatTemplate.of(load_tokenizer(directory))


def answer_ids(template: ChatTemplate, prompt: Sequence[Message], answer: str) -> list[int]:
    """The ids that a reward model reads: the prompt, the answer and its `<|end|>`, on which the score is read."""
    return template.encode([*prompt, Message("assistant", answer)])[0]


def scores(
    model: Any, rows: Sequence[Sequence[int]], pad_id: int, forward: Callable[..., Any] | None = None
) -> torch.Tensor:
    """The scores [rows] of id rows of unequal length: padded on the right, scored on the last id that isn't padding.

    Keeps the newest ids of a row that is longer than the model's context. `forward` is called in the model's place,
    where a wrapper of it is trained.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    rows = [list(row)[-context:] if context else list(row) for row in rows]
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    device = next(model.parameters()).device
    found: torch.Tensor = (forward or model)(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
    return found[:, 0].float()


def model_reward(directory: Path, device: torch.device | str) -> RewardFunction:
    """A reward model as a reward function. Scores are moved and scaled as its config.json says.

    The reward stage writes `reward_mean` and `reward_std` there, measured on its training pairs, so that scores are
    near 0 and of size 1 and can be weighed against rules; without them scores are as they are.

    Raises:
        UserError: If the directory holds no reward model.
    """
    model, template = load_reward_model(directory, device)
    mean, std = float(getattr(model.config, "reward_mean", 0.0)), float(getattr(model.config, "reward_std", 1.0))

    @torch.no_grad()
    def reward(conversations: list[Conversation], answers: list[str]) -> list[float]:
        rows = [answer_ids(template, one.prompt, answer) for one, answer in zip(conversations, answers, strict=True)]
        # Rows of like length share a batch, so that little is padding.
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found = [0.0] * len(rows)
        for start in range(0, len(order), BATCH_SAMPLES):
            chosen = order[start : start + BATCH_SAMPLES]
            values = scores(model, [rows[number] for number in chosen], template.pad_id).tolist()
            for number, value in zip(chosen, values, strict=True):
                found[number] = (value - mean) / std
        return found

    return reward
