"""The parts of a recipe that every stage that trains understands alike. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from kit.layout import Layout
from recipes.schedule import ScheduleConfig


class DataConfig(Config):
    """How samples become batches. A global batch is one optimizer step over the whole job."""

    sequence_length: int = Field(ge=8)
    global_batch_samples: int = Field(ge=1)
    micro_batch_samples: int = Field(default=1, ge=1, description="samples that one rank computes at once")

    @property
    def global_batch_tokens(self) -> int:
        """Tokens of one optimizer step, padding included."""
        return self.global_batch_samples * self.sequence_length


class TokenDataConfig(DataConfig):
    """Batches of token shards: one dataset, or several blended by weight.

    `blend` names parents (data_prep runs) with their weights; empty: the parent `data` alone. With `reset_attention`
    a document sees itself alone and its positions count from its own beginning (packed sequences).
    """

    blend: dict[str, float] = {}
    reset_attention: bool = False


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
    """The validation loss during training: the first samples of the held-out part, in order."""

    every_steps: int | None = Field(default=None, ge=1, description="empty: only before and after")
    samples: int = Field(default=32, ge=1)


class CheckpointConfig(Config):
    """When to keep what is needed to go on after a stop or a failure."""

    every_steps: int | None = Field(default=None, ge=1, description="empty: only when stopped")
    keep: int = Field(default=2, ge=1, description="how many of the newest stay")
    keep_every: int | None = Field(default=None, ge=1, description="those of every so many steps stay too, for good")
    asynchronous: bool = Field(default=True, description="training goes on while a checkpoint is written")


class InstabilityConfig(Config):
    """What becomes of a step whose loss or gradient is not a number, or far above what came before.

    `skip`: the optimizer leaves the step out, and it is counted; after `most_skips` in a row the run stops. `stop`: the
    run ends with its last checkpoint, which holds no such step. A loss is a spike above `spike_factor` times the
    median of the last `window` steps' losses; empty: only what is not a number counts.
    """

    action: Literal["stop", "skip"] = "stop"
    spike_factor: float | None = Field(default=None, gt=1)
    window: int = Field(default=32, ge=4)
    most_skips: int = Field(default=10, ge=1)


class WandbConfig(Config):
    """Weights & Biases beside metrics.jsonl. The key for `online` is read by wandb itself, never kept in a recipe."""

    mode: Literal["offline", "online"] = "offline"
    project: str = "slipway"
    entity: str | None = None
    tags: list[str] = []


class LoggingConfig(Config):
    """How speed is reported, and where metrics go beside metrics.jsonl."""

    flops_convention: str = "megatron"
    peak_seconds: float = Field(default=0.3, gt=0)
    wandb: WandbConfig | None = None


class TrainingConfig(Config):
    """What engines and the loop need to know of a recipe; each stage's configuration adds its own."""

    stage: str
    name: str
    parents: dict[str, str] = {}
    engine: str
    seed: int = Field(default=1234, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    recompute: Literal["none", "selective", "full"] = "none"
    layout: Layout = Layout()
    data: DataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    budget: BudgetConfig
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    instability: InstabilityConfig = InstabilityConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        portion = self.layout.data * self.data.micro_batch_samples
        if self.data.global_batch_samples % portion:
            below = self.data.global_batch_samples // portion * portion
            raise ValueError(
                f"data.global_batch_samples {self.data.global_batch_samples} must be a multiple of layout.data "
                f"{self.layout.data} x data.micro_batch_samples {self.data.micro_batch_samples} = {portion}; "
                f"the nearest: {f'{below} or ' if below else ''}{below + portion}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.schedule.warmup_steps > self.budget.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is more than budget.steps {self.budget.steps}"
            )
        return self
