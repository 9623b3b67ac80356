"""Configuration of the pretrain stage. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kit.config import Config
from kit.layout import Layout
from recipes.model.config import ModelConfig
from recipes.schedule import ScheduleConfig


class DataConfig(Config):
    """How tokens become batches. A global batch is one optimizer step over the whole job."""

    sequence_length: int = Field(ge=8)
    global_batch_samples: int = Field(ge=1)
    micro_batch_samples: int = Field(default=1, ge=1, description="samples that one rank computes at once")

    @property
    def global_batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.global_batch_samples * self.sequence_length


class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019). `distributed` shards its state over the data axis (ZeRO-1)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.1, ge=0, description="of matrices; norms have none")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    clip_grad: float = Field(default=1.0, gt=0)
    distributed: bool = True


class BudgetConfig(Config):
    """When training ends."""

    steps: int = Field(ge=1)


class ValidationConfig(Config):
    """The validation loss during training: the first samples of the validation split, in order."""

    every_steps: int | None = Field(default=None, ge=1, description="empty: only before and after")
    samples: int = Field(default=32, ge=1)


class CheckpointConfig(Config):
    """When to keep what is needed to go on after a stop or a failure."""

    every_steps: int | None = Field(default=None, ge=1, description="empty: only when stopped")
    keep: int = Field(default=2, ge=1)


class LoggingConfig(Config):
    """How speed is reported."""

    flops_convention: str = "megatron"
    peak_seconds: float = Field(default=0.3, gt=0)


class PretrainConfig(Config):
    """A pretraining run from first weights to an exported model."""

    stage: Literal["pretrain"] = "pretrain"
    name: str
    parents: dict[str, str] = {"data": "last:data_prep"}
    engine: Literal["megatron", "reference"] = "megatron"
    seed: int = Field(default=1234, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    model: ModelConfig
    layout: Layout = Layout()
    data: DataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    budget: BudgetConfig
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    export: bool = True

    @model_validator(mode="after")
    def _batch_divides(self) -> PretrainConfig:
        portion = self.layout.data * self.data.micro_batch_samples
        if self.data.global_batch_samples % portion:
            raise ValueError(
                f"data.global_batch_samples {self.data.global_batch_samples} must be a multiple of layout.data "
                f"{self.layout.data} x data.micro_batch_samples {self.data.micro_batch_samples} = {portion}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> PretrainConfig:
        if self.schedule.warmup_steps > self.budget.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is more than budget.steps {self.budget.steps}"
            )
        return self
