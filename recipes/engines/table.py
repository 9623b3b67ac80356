"""The engines by name. They are imported only when chosen: each brings a large library of its own."""

from __future__ import annotations

import torch

from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.model.config import ModelConfig
from recipes.stages import load_object
from recipes.training.config import TrainingConfig

ENGINES = {
    "reference": "recipes.engines.reference:ReferenceEngine",
    "megatron": "recipes.engines.megatron.engine:MegatronEngine",
}


def build_engine(config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> Engine:
    """Makes the engine that a recipe names, with weights still to be loaded. *Collective*: every rank."""
    engine: Engine = load_object(ENGINES[config.engine])(config, model, processes, dtype)
    return engine
