"""The stages of this room: name -> configuration model and function, as dotted names: nothing is imported here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Stage(NamedTuple):
    """Where a stage's parts are, written `module:attribute`.

    `inputs` are the dotted keys of its configuration that name input files; they belong to the reuse key of a run.
    """

    config: str
    run: str
    inputs: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "pretrain": Stage("recipes.pretrain.config:PretrainConfig", "recipes.pretrain.run:run", inputs=("start_from",)),
    "zero": Stage("recipes.zero.config:ZeroConfig", "recipes.zero.run:run", inputs=("model_path",)),
    "sft": Stage("recipes.sft.config:SftConfig", "recipes.sft.run:run", inputs=("data.files", "model_path")),
    "reward": Stage(
        "recipes.reward.config:RewardConfig", "recipes.reward.run:run", inputs=("data.files", "data.preferences")
    ),
    "rlhf": Stage("recipes.rlhf.config:RlhfConfig", "recipes.rlhf.run:run", inputs=("data.files",)),
    "evaluate": Stage(
        "recipes.evaluate.config:EvaluateConfig",
        "recipes.evaluate.run:run",
        inputs=("text", "model_path", "tasks.folders", "instructions.files"),
    ),
    "probe": Stage("recipes.probe.config:ProbeConfig", "recipes.probe.run:run"),
}


def load_object(dotted: str) -> Any:
    """The object that `module:attribute` names."""
    module, attribute = dotted.split(":")
    return getattr(import_module(module), attribute)
