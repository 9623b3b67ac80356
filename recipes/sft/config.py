"""Configuration of the sft stage. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from recipes.instructions.config import InstructionDataConfig
from recipes.training.config import TrainingConfig


class LoraConfig(Config):
    """Low-rank updates beside frozen matrices (Hu et al. 2021, section 4.1); the update is scaled by alpha / rank."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] = Field(default=[], description="names of linear layers; empty: all but the output")


class TemplateConfig(Config):
    """What to do about the chat template's reserved tokens."""

    add_tokens: bool = Field(default=False, description="give a tokenizer without them new ids, and the model new rows")


class AnswersConfig(Config):
    """How held-out prompts are answered, before and after: always the likeliest token."""

    new_tokens: int = Field(default=48, ge=1)
    samples: int = Field(default=128, ge=1, description="at most so many held-out prompts are answered")
    shown: int = Field(default=16, ge=1, description="so many of them are kept in sft.json, spread evenly")


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on conversations.

    Attributes:
        parents: `model`, a run whose exported model is tuned.
        model_path: Any Hugging Face directory of a causal language model, instead of a parent.
        method: All weights, or LoRA: low-rank updates that are merged into the weights at the end.
    """

    stage: Literal["sft"] = "sft"
    parents: dict[str, str] = {"model": "last:pretrain"}
    model_path: str | None = None
    engine: Literal["accelerate"] = "accelerate"
    data: InstructionDataConfig
    method: Literal["full", "lora"] = "full"
    lora: LoraConfig = LoraConfig()
    template: TemplateConfig = TemplateConfig()
    answers: AnswersConfig = AnswersConfig()

    @model_validator(mode="before")
    @classmethod
    def _path_instead_of_parent(cls, data: Any) -> Any:
        """A model named by its path has no parent run, also where the recipe that it changes names one."""
        return {**data, "parents": {}} if isinstance(data, Mapping) and data.get("model_path") else data

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.model_path is None and "model" not in self.parents:
            raise ValueError("neither model_path nor parents.model says which model is tuned")
        return self

    @model_validator(mode="after")
    def _data_parallel_only(self) -> Self:
        if self.layout.world_size != self.layout.data:
            raise ValueError(
                f"layout {self.layout.describe()} with stage sft, which divides over layout.data alone; "
                "set the other degrees to 1"
            )
        return self
