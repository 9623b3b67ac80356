"""What ranks do in the test of fp16: meet an overflow, lower the loss scale, learn.

The engine is made directly: recipes and plans refuse fp16 on a processor, which is slow at it but computes it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import engine_programs
import torch
from engine_programs import RATE, batch_of, configuration

from recipes.distributed.processes import Processes
from recipes.engines.megatron.engine import MegatronEngine
from recipes.model.init import first_tensor


def overflow_and_learn(processes: Processes, layout: dict[str, Any], family: str) -> dict[str, Any]:
    config, sized = configuration("megatron", layout, recipe={"precision": "fp16"}, family=family)
    made = MegatronEngine(config, sized, processes, torch.float16)
    made.load_weights(partial(first_tensor, sized, 1234))
    asked: list[float] = []

    def gate(loss: float, norm: float) -> bool:
        asked.append(norm)
        return True

    made.gate = gate
    scaler = made._optimizer.chained_optimizers[0].grad_scaler
    first = float(scaler.scale)
    scaler._scale.fill_(2.0**40)
    before = engine_programs.weights_of(made)
    overflows = [made.train_step(batch_of(made, 1), RATE) for _ in range(2)]
    told = {
        "first scale": first,
        "overflows": [(result.loss, result.grad_norm, result.skipped) for result in overflows],
        "asked": list(asked),
        "scale": float(scaler.scale),
        "unchanged": all((before[name] == now).all() for name, now in engine_programs.weights_of(made).items()),
    }
    scaler._scale.fill_(first)
    results = [made.train_step(batch_of(made, step), RATE) for step in range(1, 9)]
    return told | {"curve": [result.loss for result in results], "skipped": sum(r.skipped for r in results)}
