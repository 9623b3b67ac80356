"""Configuration of the evaluate stage. Torch-free."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from kit.config import Config
from recipes.rewards.config import RuleConfig

MODEL, DATA = "model", "data"
"""Names of the parents with a meaning of their own; every other parent is one more model to compare."""


class SamplesConfig(Config):
    """Texts that the model writes, so that a reader sees what the numbers mean."""

    prompts: list[str] = ["", "The", "In order to"]
    new_tokens: int = Field(default=80, ge=1)
    temperature: float = Field(default=0.8, gt=0)
    top_k: int = Field(default=50, ge=1)
    seed: int = Field(default=1234, ge=0)


class TasksConfig(Config):
    """Tasks of lm-evaluation-harness in local folders; a data file is looked for beside its task's YAML file."""

    folders: list[str] = Field(min_length=1)
    names: list[str] = Field(default=[], description="tasks, groups or tags; empty: every task of the folders")
    limit: int | None = Field(default=None, ge=1, description="the first questions of every task; empty: all")
    few_shot: int | None = Field(default=None, ge=0, description="examples before a question; empty: as the task says")
    chat_format: bool = Field(default=False, description="ask in the chat format, as a user's message")


class InstructionsConfig(Config):
    """Prompts that every model answers, greedily, in the chat format."""

    files: list[str] = Field(min_length=1, description="as data.files of stage sft")
    format: Literal["auto", "alpaca", "messages"] = "auto"
    part: Literal["held_out", "all"] = Field(default="held_out", description="all: also what models were trained on")
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1, description="as data.held_out_fraction of stage sft")
    seed: int = Field(default=1234, ge=0, description="as the seed of stage sft")
    prompts: int = Field(default=100, ge=1, description="at most so many, the first of the part")
    shown: int = Field(default=8, ge=0, description="prompts whose answers are kept")
    new_tokens: int = Field(default=48, ge=1)
    batch_samples: int = Field(default=64, ge=1)


def _default_parents(data: dict[str, Any]) -> dict[str, str]:
    # A configuration without parents comes back from its run directory without the key.
    return {} if data.get("model_path") else {MODEL: "last:pretrain", DATA: "last:data_prep"}


class EvaluateConfig(Config):
    """What is measured of one or several models.

    Perplexity and bits per byte on a held-out split (parent `data`), beside the first weights of `model` and a unigram
    model, and on any text; tasks; answers to prompts, with their reward by the rules.
    """

    stage: Literal["evaluate"] = "evaluate"
    name: str
    model_path: str | None = Field(default=None, description="a Hugging Face directory in place of the parent `model`")
    parents: dict[str, str] = Field(default_factory=_default_parents)
    split: str = "validation"
    text: list[str] = Field(default=[], description="UTF-8 text files, each a document")
    batch_samples: int = Field(default=8, ge=1)
    window_tokens: int | None = Field(default=None, ge=2, description="empty: the model's context, at most 2048")
    unequal_tokenizers: Literal["refuse", "compare_bytes"] = Field(
        default="refuse",
        description="compare_bytes: every model reads the text with its own; perplexities don't compare",
    )
    samples: SamplesConfig = SamplesConfig()
    tasks: TasksConfig | None = None
    instructions: InstructionsConfig | None = None
    rules: list[RuleConfig] = Field(default=[], description="score the answers to `instructions`; empty: no reward")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (MODEL in self.parents) == (self.model_path is not None):
            many = "parents.model and model_path" if self.model_path else "neither parents.model nor model_path"
            raise ValueError(f"{many}: name the model to evaluate once")
        return self

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if DATA not in self.parents and not (self.text or self.tasks or self.instructions):
            raise ValueError("nothing to measure on: name parents.data, text, tasks or instructions")
        if self.rules and self.instructions is None:
            raise ValueError("rules without instructions: they score the answers to these")
        return self
