"""Configuration of the evaluate stage. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kit.config import Config


class SamplesConfig(Config):
    """Texts that the model writes, so that a reader sees what the numbers mean."""

    prompts: list[str] = ["", "The", "In order to"]
    new_tokens: int = Field(default=80, ge=1)
    temperature: float = Field(default=0.8, gt=0)
    top_k: int = Field(default=50, ge=1)
    seed: int = Field(default=1234, ge=0)


class EvaluateConfig(Config):
    """Perplexity and bits per byte of a model on a held-out split, beside its first weights and a unigram model."""

    stage: Literal["evaluate"] = "evaluate"
    name: str
    parents: dict[str, str] = {"model": "last:pretrain", "data": "last:data_prep"}
    split: str = "validation"
    batch_samples: int = Field(default=8, ge=1)
    samples: SamplesConfig = SamplesConfig()
