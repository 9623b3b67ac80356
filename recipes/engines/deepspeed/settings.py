"""What a recipe says about ZeRO, and the DeepSpeed JSON that follows from a whole recipe. Torch-free."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from recipes.training.config import TokenBudgetConfig, TokenDataConfig, TrainingConfig


class ZeroSettings(Config):
    """What is divided over the data-parallel ranks (Rajbhandari et al. 2020, "ZeRO", section 5).

    Stage 0 divides nothing, 1 the optimizer's state, 2 the gradients too, 3 the parameters too. What is offloaded lies
    in the host's memory, and its optimizer steps run on the host's processors.
    """

    stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "optimizer_and_parameters"] = "none"
    whole_below_elements: int = Field(
        default=0, ge=0, description="stage 3: smaller parameters stay whole on every rank, which saves messages"
    )
    bucket_elements: int = Field(
        default=20_000_000, ge=1024, description="elements that one message of gradients or weights holds at most"
    )

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        needed = {"none": 0, "optimizer": 1, "optimizer_and_parameters": 3}[self.offload]
        if self.stage < needed:
            raise ValueError(f"offload {self.offload} needs stage {needed} or more, and stage is {self.stage}")
        return self


class ZeroTrainingConfig(TrainingConfig):
    """A recipe that the DeepSpeed engine can train."""

    engine: Literal["deepspeed"] = "deepspeed"
    data: TokenDataConfig
    budget: TokenBudgetConfig
    zero: ZeroSettings = ZeroSettings()

    @model_validator(mode="after")
    def _precision_fits(self) -> Self:
        if self.precision == "bf16" and self.zero.stage == 0:
            # Without ZeRO DeepSpeed adds up gradients in bf16, and its losses leave those of the other stages.
            raise ValueError("precision bf16 needs zero.stage 1 or more; set zero.stage=1, or precision=fp32")
        return self


def deepspeed_config(config: ZeroTrainingConfig, device: str) -> dict[str, Any]:
    """The whole configuration that DeepSpeed gets; nothing is left to its command line or to other files.

    Args:
        config: The recipe.
        device: "cpu" or "cuda"; pinned memory belongs to the latter.
    """
    data, optimizer, zero = config.data, config.optimizer, config.zero
    offloaded = zero.offload != "none"
    made: dict[str, Any] = {
        "train_batch_size": data.global_batch_samples,
        "train_micro_batch_size_per_gpu": data.micro_batch_samples,
        "gradient_accumulation_steps": data.global_batch_samples // (config.layout.data * data.micro_batch_samples),
        "gradient_clipping": optimizer.clip_grad,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.learning_rate,
                "betas": [optimizer.beta1, optimizer.beta2],
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
                # torch's AdamW, or DeepSpeed's own for the CPU where the state is offloaded.
                "torch_adam": not offloaded,
            },
        },
        "zero_optimization": _zero_optimization(zero, device),
        "wall_clock_breakdown": False,
        "log_level": "warning",
    }
    if config.precision == "bf16":
        made["bf16"] = {"enabled": True}
        # Sums over micro-batches keep their small parts.
        made["data_types"] = {"grad_accum_dtype": "fp32"}
    return made


def _zero_optimization(zero: ZeroSettings, device: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "stage": zero.stage,
        "reduce_bucket_size": zero.bucket_elements,
        "allgather_bucket_size": zero.bucket_elements,
    }
    if zero.stage == 3:
        made |= {
            "stage3_param_persistence_threshold": zero.whole_below_elements,
            "stage3_prefetch_bucket_size": zero.bucket_elements,
        }
    place = {"device": "cpu", "pin_memory": device == "cuda"}
    if zero.offload != "none":
        made["offload_optimizer"] = dict(place)
    if zero.offload == "optimizer_and_parameters":
        made["offload_param"] = dict(place)
    return made
