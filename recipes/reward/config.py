"""Configuration of the reward stage. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from recipes.rewards.config import RuleConfig
from recipes.training.config import DataConfig, TrainingConfig


class PreferenceDataConfig(DataConfig):
    """Where pairs come from; a sample of the batch is a pair.

    Attributes:
        files: Conversations, JSONL or JSON lists: their prompts are answered and the answers ranked by the rules.
        format: Of these files.
        preferences: Files of pairs instead.
        held_out_fraction: Of the distinct prompts, chosen by their hash, as stage sft does.
    """

    files: list[str] = []
    format: Literal["auto", "alpaca", "messages"] = "auto"
    preferences: list[str] = []
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.files) == bool(self.preferences):
            raise ValueError(
                "give either data.files (prompts, whose answers the rules rank) or data.preferences (pairs)"
            )
        return self


class PairSamplingConfig(Config):
    """How the two answers to a prompt are sampled: one at each temperature."""

    temperatures: tuple[float, float] = (0.7, 1.3)
    rounds: int = Field(default=1, ge=1, description="pairs sampled for every prompt; equal ones are kept once")
    new_tokens: int = Field(default=40, ge=1)
    top_k: int = Field(default=0, ge=0, description="0: the whole vocabulary")
    batch_samples: int = Field(default=64, ge=1, description="prompts that one rank answers at once")
    prompts: int | None = Field(default=None, ge=2, description="at most so many training prompts; empty: all")

    @model_validator(mode="after")
    def _warm_enough(self) -> Self:
        if min(self.temperatures) < 0 or max(self.temperatures) == 0:
            raise ValueError(f"temperatures {self.temperatures} must not be negative, and not both 0")
        return self


class RewardConfig(TrainingConfig):
    """A reward model from pairs of answers, of which one is better."""

    stage: Literal["reward"] = "reward"
    parents: dict[str, str] = {"model": "last:sft"}
    engine: Literal["accelerate"] = "accelerate"
    data: PreferenceDataConfig
    sampling: PairSamplingConfig = PairSamplingConfig()
    rules: list[RuleConfig] = Field(
        default=[RuleConfig(name="contains_reference"), RuleConfig(name="direct")], min_length=1
    )
    shown: int = Field(default=12, ge=1, description="so many held-out pairs are kept in reward.json")

    @model_validator(mode="after")
    def _data_parallel_only(self) -> Self:
        if self.layout.world_size != self.layout.data:
            raise ValueError(
                f"layout {self.layout.describe()}: stage reward divides over layout.data alone; "
                "set the other degrees to 1"
            )
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        if self.sampling.new_tokens >= self.data.sequence_length:
            raise ValueError(
                f"sampling.new_tokens {self.sampling.new_tokens} must be less than data.sequence_length "
                f"{self.data.sequence_length}: the prompt needs room too"
            )
        return self
