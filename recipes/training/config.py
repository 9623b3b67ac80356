"""The parts of a recipe that every stage that trains understands alike. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TokenDataConfig(DataConfig):
    """Batches of token shards: one dataset, or several blended by weight.

    `blend` names parents (data_prep runs) with their weights; empty: the parent `data` alone. With `reset_attention`
    a document sees itself alone and its positions count from its own beginning (packed sequences).
    """

    blend: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], Weight] = {}
    reset_attention: bool = False

    def check_parents(self, parents: Mapping[str, str], others: Collection[str] = ("model",)) -> None:
        """Holds the blend against a recipe's parents.

        Args:
            parents: The recipe's.
            others: Parents that are no data.

        Raises:
            ValueError: If a source is no parent, or a parent is no source.
        """
        named = [name for name in parents if name not in others]
        unknown = [name for name in self.blend if name not in named]
        if unknown:
            raise ValueError(
                f"data.blend weighs {', '.join(unknown)}, and the data among parents are "
                f"{', '.join(named) or '(none)'}; name a run of data_prep under parents.{unknown[0]}, or take it out "
                "of the blend"
            )
        left_out = [name for name in named if name not in self.blend]
        if self.blend and left_out:
            raise ValueError(
                f"data.blend gives no weight to the parents {', '.join(left_out)}; weigh every one, or take what the "
                "run shall not read out of parents"
            )


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


class TokenBudgetConfig(BudgetConfig):
    """When training ends: after `steps`, or after so many `tokens`, exactly one of the two.

    `tokens: chinchilla`, or `budget: chinchilla`, means 20 tokens a parameter (Hoffmann et al. 2022). What is left out
    stays out when this is written. `recipes.training.budget` makes steps of tokens; until then `steps` is 0.
    """

    steps: int = Field(default=0, ge=0)
    tokens: int | Literal["chinchilla"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"tokens": data}
        # `--set` lays one key over another: null takes away what the recipe has.
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.steps) == (self.tokens is not None):
            given = "both steps and tokens" if self.steps else "neither steps nor tokens"
            raise ValueError(f"{given}; exactly one is wanted (with --set, budget.tokens=null takes one away)")
        if isinstance(self.tokens, int) and self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}; at least 1 is wanted")
        return self

    @model_serializer(mode="wrap")
    def _what_was_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if value}


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
    median of the last `window` losses that were none, as soon as there are so many; empty: only what is not a number
    counts.
    """

    action: Literal["stop", "skip"] = "stop"
    spike_factor: float | None = Field(default=None, gt=1)
    window: int = Field(default=32, ge=4)
    most_skips: int = Field(default=10, ge=1)


class CudaConfig(Config):
    """How engine megatron uses CUDA; a CPU's numbers know none of it.

    `overlap`: gradients are reduced and parameters gathered while others are computed. `tensor_overlap`: sequence
    parallelism's messages travel so too, in Transformer Engine's user buffers (NVLink; one sample a micro-batch).
    `fusions`: fused kernels.
    """

    overlap: bool = True
    tensor_overlap: bool = False
    fusions: bool = True


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


MASKED_ENGINES = ("megatron", "reference")
"""The engines that can keep the documents of a sample apart."""


class TrainingConfig(Config):
    """What engines and the loop need to know of a recipe; each stage's configuration adds its own."""

    stage: str
    name: str
    parents: dict[str, str] = {}
    engine: str
    seed: int = Field(default=1234, ge=0)
    precision: Literal["fp32", "bf16", "fp16", "fp8"] = "fp32"
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
    cuda: CudaConfig = CudaConfig()

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
    def _data_fits(self) -> Self:
        if not isinstance(self.data, TokenDataConfig):
            return self
        if self.parents:
            self.data.check_parents(self.parents)
        if self.data.reset_attention and self.engine not in MASKED_ENGINES:
            raise ValueError(
                f"data.reset_attention with engine {self.engine}, which lets a sample see all of itself; "
                f"set engine to one of {', '.join(MASKED_ENGINES)}, or data.reset_attention to false"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.budget.steps and self.schedule.warmup_steps > self.budget.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is more than budget.steps {self.budget.steps}"
            )
        return self
