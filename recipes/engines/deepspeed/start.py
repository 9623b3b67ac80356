"""DeepSpeed started inside the process group that exists: its accelerator, its compiled operators, its engine."""

from __future__ import annotations

import logging
import os
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import nn

from kit.errors import RunFailure
from recipes.distributed.processes import Processes
from recipes.engines.deepspeed.settings import ZeroSettings, ZeroTrainingConfig, deepspeed_config
from recipes.extensions import portable
from recipes.model.config import ModelConfig
from recipes.model.gpt import Gpt


def start_engine(config: ZeroTrainingConfig, model: ModelConfig, processes: Processes) -> Any:
    """The reference model inside a DeepSpeedEngine, weights still to be loaded. *Collective*: every rank.

    Raises:
        RunFailure: If DeepSpeed didn't do what the recipe says.
    """
    _prepare(processes)
    settings = deepspeed_config(config, processes.device.type)
    with portable():
        deepspeed.init_distributed()
        # Inside Init every parameter is divided as soon as it is made, so that no rank ever holds the whole model.
        with deepspeed.zero.Init(config_dict_or_path=settings, enabled=config.zero.stage == 3):
            module = Gpt(model)
        if config.zero.stage == 3:
            # The output projection is a matrix of another module: the forward pass multiplies by it without calling it.
            deepspeed.zero.register_external_parameter(module, module.output.weight)
        engine, *_ = deepspeed.initialize(
            model=module, model_parameters=_groups(module, config.optimizer.weight_decay), config=settings
        )
    check_in_force(engine, config.zero, processes)
    return engine


def _prepare(processes: Processes) -> None:
    # DeepSpeed wants to know the local rank even where no launcher has told it.
    os.environ.setdefault("LOCAL_RANK", str(processes.device.index or 0))
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    chosen = torch.device(get_accelerator().device_name()).type
    if chosen != processes.device.type:
        raise RunFailure(
            f"DeepSpeed computes on {chosen}, and this job on {processes.device.type}",
            expected="DeepSpeed imported after the device is known",
            action=f"set DS_ACCELERATOR={processes.device.type} in the environment of the run",
        )


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms don't. A divided parameter is flat, so its whole shape is asked for."""
    parameters = list(module.parameters())
    vectors = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) == 1]
    matrices = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) > 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def check_in_force(engine: Any, zero: ZeroSettings, processes: Processes) -> None:
    """Holds what DeepSpeed made against the recipe: a model that is silently not wrapped trains all the same.

    Raises:
        RunFailure: If engine, stage, ranks, device or offloading aren't the recipe's.
    """
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        stage = 3 if all(hasattr(p, "ds_tensor") for p in engine.module.parameters()) else None
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        stage = 2 if optimizer.partition_gradients else 1
    else:
        stage = 1 if isinstance(optimizer, BF16_Optimizer) else 0
    facts = {
        "engine": (type(engine), deepspeed.DeepSpeedEngine),
        "stage": (stage, zero.stage),
        "data-parallel ranks": (engine.dp_world_size, processes.world_size),
        "device": (torch.device(engine.device).type, processes.device.type),
        "optimizer on the CPU": (isinstance(engine.basic_optimizer, DeepSpeedCPUAdam), zero.offload != "none"),
        "parameters on the CPU": (
            bool(getattr(optimizer, "offload_param", False)),
            zero.offload.endswith("parameters"),
        ),
    }
    wrong = [f"{name} {found} instead of {wanted}" for name, (found, wanted) in facts.items() if found != wanted]
    if wrong:
        raise RunFailure(
            f"DeepSpeed made something else than the recipe says: {'; '.join(wrong)}",
            expected=f"ZeRO stage {zero.stage}, offload {zero.offload}, over {processes.world_size} ranks",
            action="don't use this run: report it with its config.yaml and logs",
        )
