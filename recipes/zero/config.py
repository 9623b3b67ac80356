"""Configuration of the zero stage. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from kit.config import parse
from recipes.engines.deepspeed.settings import ZeroTrainingConfig, deepspeed_config
from recipes.model.config import ModelConfig

DIVIDED_BY_MEGATRON = ("tensor", "pipeline", "context")


class ZeroConfig(ZeroTrainingConfig):
    """A run with ZeRO. The model is exactly one of three: made from scratch, of a directory, or of a parent run.

    Attributes:
        model: Shape of a model that begins with first weights.
        model_path: Hugging Face directory of a Llama model to go on with.
        parents: `data`, and `model` for a run whose exported model goes on here.
        export: Whether to write Hugging Face directories, before and after.
    """

    stage: Literal["zero"] = "zero"
    parents: dict[str, str] = {"data": "last:data_prep"}
    model: ModelConfig | None = None
    model_path: str | None = None
    export: bool = True

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        given = {"model": self.model, "model_path": self.model_path, "parents.model": self.parents.get("model")}
        named = [key for key, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(
                f"the model comes from {' and '.join(named) or 'nowhere'}; exactly one of {', '.join(given)} is wanted"
            )
        return self

    @model_validator(mode="after")
    def _data_parallel_only(self) -> Self:
        divided = [f"{axis} {self.layout.degree(axis)}" for axis in DIVIDED_BY_MEGATRON if self.layout.degree(axis) > 1]
        if divided:
            raise ValueError(
                f"layout {' x '.join(divided)} with engine deepspeed, which divides over layout.data alone; "
                "set the other degrees to 1, or use stage pretrain with engine megatron"
            )
        return self


def shown_with_plan(config: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """What a plan of this stage shows beside its configuration: title -> data.

    Args:
        config: A valid configuration as plain data; its parents don't matter here.
        device: Where it will run, "cpu" or "cuda".
    """
    known = {key: value for key, value in config.items() if key in ZeroTrainingConfig.model_fields}
    return {"DeepSpeed configuration": deepspeed_config(parse(ZeroTrainingConfig, known, "the recipe"), device)}
