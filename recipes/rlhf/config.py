"""Configuration of the rlhf stage. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from recipes.instructions.config import InstructionDataConfig
from recipes.rewards.config import RuleConfig
from recipes.rlhf.ppo.config import PpoConfig
from recipes.sft.config import LoraConfig
from recipes.training.config import TrainingConfig

DEMO_RULES = [RuleConfig(name="contains_reference"), RuleConfig(name="direct")]


class RewardSourceConfig(Config):
    """What an answer is worth to PPO and GRPO. The rules also measure every algorithm before and after."""

    kind: Literal["rules", "model", "both"] = "rules"
    rules: list[RuleConfig] = Field(default=DEMO_RULES, min_length=1)
    model_weight: float = Field(default=1.0, gt=0, description="of the reward model beside the rules, for `both`")


class GenerationConfig(Config):
    """How answers are sampled while training, and for the sampled half of the measurement."""

    new_tokens: int = Field(default=40, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0, description="0: the whole vocabulary")


class MeasureConfig(Config):
    """The comparison with the parent, before and after: every held-out prompt answered greedily and sampled."""

    samples: int = Field(default=256, ge=1, description="at most so many held-out prompts")


class DpoConfig(Config):
    """Direct preference optimisation (Rafailov et al. 2023). A sample of the batch is a pair."""

    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to its parent")
    lora: LoraConfig | None = Field(
        default=None, description="low-rank adapters instead of all weights, merged at the end"
    )


class GrpoConfig(Config):
    """Group relative policy optimisation (Shao et al. 2024). A sample of the batch is an answer."""

    group_samples: int = Field(default=8, ge=2, description="answers to one prompt, whose mean reward is the baseline")
    beta: float = Field(default=0.04, ge=0, description="weight of the KL penalty in the loss")
    clip: float = Field(default=0.2, gt=0, lt=1, description="of the probability ratio, both ways")


class RlhfConfig(TrainingConfig):
    """Aligning a fine-tuned model with a reward or with preferences.

    Parents: `model`, and `reward` where preference pairs (dpo) or a reward model (reward.kind) are needed.
    """

    stage: Literal["rlhf"] = "rlhf"
    parents: dict[str, str] = {"model": "last:sft", "reward": "last:reward"}
    engine: Literal["accelerate"] = "accelerate"
    algorithm: Literal["ppo", "dpo", "grpo"]
    data: InstructionDataConfig
    reward: RewardSourceConfig = RewardSourceConfig()
    generation: GenerationConfig = GenerationConfig()
    measure: MeasureConfig = MeasureConfig()
    ppo: PpoConfig = PpoConfig()
    dpo: DpoConfig = DpoConfig()
    grpo: GrpoConfig = GrpoConfig()

    @property
    def reads_reward_parent(self) -> bool:
        """Whether anything of the parent `reward` is used."""
        return self.algorithm == "dpo" or self.reward.kind != "rules"

    @model_validator(mode="after")
    def _parents_are_named(self) -> Self:
        if "model" not in self.parents:
            raise ValueError("parents.model is missing: the run whose model is aligned, such as last:sft")
        if self.reads_reward_parent and "reward" not in self.parents:
            what = "algorithm dpo" if self.algorithm == "dpo" else f"reward.kind {self.reward.kind}"
            raise ValueError(f"parents.reward is missing, and {what} needs one, such as last:reward")
        return self

    @model_validator(mode="after")
    def _layout_is_data_parallel(self) -> Self:
        if self.layout.world_size != self.layout.data:
            raise ValueError(
                f"layout {self.layout.describe()}: stage rlhf runs data-parallel only; set layout.data alone"
            )
        return self

    @model_validator(mode="after")
    def _groups_multiply_out(self) -> Self:
        group = self.grpo.group_samples
        if self.algorithm == "grpo" and self.data.global_batch_samples % group:
            raise ValueError(
                f"data.global_batch_samples {self.data.global_batch_samples} must be a multiple of "
                f"grpo.group_samples {group}: a step holds whole groups of answers"
            )
        return self

    @model_validator(mode="after")
    def _mini_batches_multiply_out(self) -> Self:
        pieces = self.layout.data * self.ppo.mini_batches
        if self.algorithm == "ppo" and self.data.global_batch_samples % pieces:
            raise ValueError(
                f"data.global_batch_samples {self.data.global_batch_samples} must be a multiple of layout.data "
                f"{self.layout.data} x ppo.mini_batches {self.ppo.mini_batches} = {pieces}: every rank learns from "
                "equally many answers at once"
            )
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        if self.generation.new_tokens >= self.data.sequence_length:
            raise ValueError(
                f"generation.new_tokens {self.generation.new_tokens} must be less than data.sequence_length "
                f"{self.data.sequence_length}: the prompt needs room too"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> Self:
        if self.validation.every_steps is not None:
            raise ValueError("validation.every_steps: stage rlhf measures before and after training, not in between")
        if self.algorithm == "ppo" and self.generation.top_k:
            raise ValueError("generation.top_k: ppo samples from the whole vocabulary; leave it 0")
        return self
