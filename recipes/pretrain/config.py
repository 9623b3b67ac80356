"""Configuration of the pretrain stage. Torch-free."""

from __future__ import annotations

from typing import Literal

from recipes.model.config import ModelConfig
from recipes.training.config import TokenDataConfig, TrainingConfig


class PretrainConfig(TrainingConfig):
    """A pretraining run from first weights to an exported model."""

    stage: Literal["pretrain"] = "pretrain"
    parents: dict[str, str] = {"data": "last:data_prep"}
    engine: Literal["megatron", "accelerate", "reference"] = "megatron"
    data: TokenDataConfig
    model: ModelConfig
    export: bool = True
