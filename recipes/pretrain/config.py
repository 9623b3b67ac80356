"""Configuration of the pretrain stage. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kit.layout import Layout
from recipes.model.config import ModelConfig
from recipes.training.config import TokenBudgetConfig, TokenDataConfig, TrainingConfig


class PretrainConfig(TrainingConfig):
    """A pretraining run from first weights, or from a model that exists, to an exported model.

    `start_from` is a Hugging Face directory of a Llama or a GPT-2. `model` may be left out then; if it is there, the
    two must agree.
    """

    stage: Literal["pretrain"] = "pretrain"
    parents: dict[str, str] = {"data": "last:data_prep"}
    engine: Literal["megatron", "accelerate", "reference"] = "megatron"
    data: TokenDataConfig
    budget: TokenBudgetConfig
    model: ModelConfig | None = None
    start_from: str | None = Field(default=None, description="Hugging Face directory whose weights are the first")
    layouts: dict[int, Layout] = Field(default={}, description="`--ranks N` takes the N-th in place of `layout`")
    export: bool = True

    @model_validator(mode="after")
    def _some_model(self) -> Self:
        if self.model is None and self.start_from is None:
            raise ValueError("neither model nor start_from says which model is trained")
        return self

    @model_validator(mode="after")
    def _layouts_fill(self) -> Self:
        for ranks, layout in self.layouts.items():
            if layout.world_size != ranks:
                raise ValueError(f"layouts.{ranks} is {layout.describe()}, which is {layout.world_size} ranks")
        return self
