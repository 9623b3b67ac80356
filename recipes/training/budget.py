"""How many optimizer steps a budget means. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from kit.config import parse
from kit.errors import UserError
from kit.flops import ModelShape, parameter_count
from recipes.training.config import BudgetConfig, TokenBudgetConfig, TrainingConfig

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. (2022), table 3: about 20 at every size. They count embeddings as parameters (appendix F)."""

TrainingConfigT = TypeVar("TrainingConfigT", bound=TrainingConfig)


def steps_of(budget: BudgetConfig | Mapping[str, Any] | str, tokens_per_step: int, shape: ModelShape) -> int:
    """The steps that a budget means: its own, or as many as its tokens need, the last one whole.

    Args:
        budget: As the recipe has it, or as plain data.
        tokens_per_step: Of one global batch.
        shape: Of the model, vocabulary and kind of embedding included.

    Raises:
        UserError: If plain data is no budget.
    """
    if not isinstance(budget, BudgetConfig):
        budget = parse(TokenBudgetConfig, {"tokens": budget} if isinstance(budget, str) else budget, "budget")
    if budget.steps or not isinstance(budget, TokenBudgetConfig):
        return budget.steps
    assert budget.tokens is not None, "a budget without steps has tokens"
    wanted = CHINCHILLA_TOKENS_PER_PARAMETER * parameter_count(shape)
    tokens = wanted if budget.tokens == "chinchilla" else budget.tokens
    return math.ceil(tokens / tokens_per_step)


def with_steps(config: TrainingConfigT, shape: ModelShape) -> TrainingConfigT:
    """The recipe with its budget in steps: what everything that trains reads.

    Raises:
        UserError: If the warm-up is longer than that.
    """
    steps = steps_of(config.budget, config.data.global_batch_tokens, shape)
    if config.schedule.warmup_steps > steps:
        raise UserError(
            f"schedule.warmup_steps is {config.schedule.warmup_steps}, and the budget is {steps} steps",
            expected="a warm-up that fits into the run",
            action="set schedule.warmup_ratio, a share of the run, instead of warmup_steps, or raise the budget",
        )
    return config.model_copy(update={"budget": BudgetConfig(steps=steps)})
