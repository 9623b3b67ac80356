"""Checkpoints of the deepspeed engine, in DeepSpeed's own format: one file of the model, one of each rank's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

from kit.errors import RunFailure

TAG = "deepspeed"


def save(engine: Any, folder: Path) -> None:
    """Writes weights and optimizer. *Collective*: every rank.

    Raises:
        Exception: What this rank's writing failed with, after every rank has tried.
    """
    failures: list[Exception] = []
    writer = engine.checkpoint_engine
    write = writer.save

    def write_or_remember(state_dict: Any, path: str) -> None:
        # Raised at once it would leave the other ranks waiting at DeepSpeed's next barrier.
        try:
            write(state_dict, path)
        except Exception as error:
            failures.append(error)

    writer.save = write_or_remember
    # Scripts that DeepSpeed copies into every checkpoint: they come with its package.
    engine._copy_recovery_script = lambda save_path: None
    try:
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    finally:
        del writer.save
    if failures:
        raise failures[0]


def load(engine: Any, folder: Path) -> None:
    """Reads weights and optimizer into the layout that wrote them. *Collective*: every rank.

    Raises:
        RunFailure: If another number of ranks wrote it.
    """
    path, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if path is None:
        raise RunFailure(
            f"no checkpoint of DeepSpeed in {folder}",
            expected="what the deepspeed engine wrote",
            action="resume the run with the engine that it was started with",
        )
    if isinstance(engine.basic_optimizer, DeepSpeedCPUAdam):
        _repeat_powers(engine.basic_optimizer)


def _repeat_powers(optimizer: DeepSpeedCPUAdam) -> None:
    """Brings the powers of beta that CPUAdam multiplies up from step to step to where they were, bit for bit.

    They are no part of its state: after a load it would take them from `pow`, which rounds otherwise.
    """
    nothing = torch.empty(0)
    steps = max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    for step in range(1, steps + 1):
        optimizer.ds_opt_adam.adam_update(
            optimizer.opt_id, step, 0.0, beta1, beta2, 1.0, 0.0, True, nothing, nothing, nothing, nothing
        )
