"""The Megatron engine, told when to do its steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from benchmarks.pretrain.turns import Pace
from recipes.data import Batch
from recipes.distributed.processes import Processes
from recipes.engines.megatron.engine import MegatronEngine
from recipes.engines.protocol import StepResult
from recipes.model.config import ModelConfig
from recipes.training.config import TrainingConfig


class PacedEngine(MegatronEngine):
    """Waits before every step; nothing else is different."""

    pace: Pace

    def __init__(self, config: TrainingConfig, model: ModelConfig, processes: Processes, dtype: torch.dtype) -> None:
        super().__init__(config, model, processes, dtype)
        self.pace.start(config.data.global_batch_tokens, _shared if processes.world_size > 1 else int)

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """A step when its turn has come."""
        self.pace.wait()
        result = super().train_step(batch, learning_rate)
        self.pace.tell(result.loss)
        return result


def _shared(number: int) -> int:
    told: list[Any] = [number]
    dist.broadcast_object_list(told, src=0)
    return int(told[0])
