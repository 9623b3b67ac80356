"""The engines by name. They are imported only when chosen: each brings a large library of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kit.config import to_data
from kit.errors import UserError
from recipes.distributed.processes import Processes
from recipes.engines.abilities import check_abilities, wanted_of
from recipes.engines.protocol import Engine
from recipes.model.config import ModelConfig
from recipes.stages import load_object
from recipes.training.config import TrainingConfig

ENGINES = {
    "reference": "recipes.engines.reference:ReferenceEngine",
    "megatron": "recipes.engines.megatron.engine:MegatronEngine",
    "accelerate": "recipes.engines.accelerate.engine:AccelerateEngine",
    "deepspeed": "recipes.engines.deepspeed.engine:DeepSpeedEngine",
}

ROOMS = ("kit", "recipes")


def build_engine(
    config: TrainingConfig, model: ModelConfig | nn.Module, processes: Processes, dtype: torch.dtype
) -> Engine:
    """Makes the engine that a recipe names, with weights still to be loaded. *Collective*: every rank.

    Args:
        config: The recipe.
        model: What to build; or, for engine accelerate, a causal language model of transformers with its weights.
        processes: The job.
        dtype: What to compute in.

    Raises:
        UserError: If the engine can't do what the recipe asks, or its package isn't installed.
    """
    if isinstance(model, nn.Module) and config.engine != "accelerate":
        raise UserError(
            f"engine {config.engine} for a model that exists already, a {type(model).__name__}",
            expected="engine accelerate: the others build the model themselves",
            action="set engine=accelerate",
        )
    asked = to_data(config) | ({} if isinstance(model, nn.Module) else {"model": to_data(model)})
    check_abilities(wanted_of(asked, config.layout), processes.device.type)
    engine: Engine = engine_class(config.engine)(config, model, processes, dtype)
    return engine


def engine_class(name: str) -> Any:
    """The class of an engine.

    Raises:
        UserError: If a package that it needs is missing or broken.
    """
    try:
        return load_object(ENGINES[name])
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ROOMS:
            raise
        missing = isinstance(error, ModuleNotFoundError)
        others = ", ".join(other for other in ENGINES if other != name)
        raise UserError(
            f"engine {name} needs the Python package {package or name}, "
            + ("which is not installed" if missing else f"which does not import: {error}"),
            expected="the packages of requirements/lock.txt",
            action=f"`make setup` installs them; or choose another engine: {others}",
        ) from error
