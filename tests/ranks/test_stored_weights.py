"""The weights in a checkpoint, read by one process, are those that the ranks held, whichever engine wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_programs
import pytest
import torch
import zero_programs
from rank_processes import run_on_ranks

from recipes.checkpoint.writing import write_at_once
from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.engines.stored import stored_weights
from recipes.model.config import ModelConfig


def save(processes: Processes, made: Engine, folder: str) -> dict[str, Any]:
    """Trains two steps and saves; the weights as the engine exports them."""
    engine_programs.steps_of(made, 1, 2)
    write_at_once(made.save_state(Path(folder)))
    return engine_programs.weights_of(made)


def with_layout(processes: Processes, engine: str, layout: dict[str, Any], model: dict[str, Any], folder: str) -> Any:
    made, sized = engine_programs.started_engine(processes, engine, layout, **model)
    return save(processes, made, folder), sized


def with_zero(processes: Processes, stage: int, folder: str) -> Any:
    made, sized = zero_programs.started(processes, {"stage": stage})
    return save(processes, made, folder), sized


def check(engine: str, folder: Path, told: tuple[dict[str, Any], ModelConfig]) -> None:
    weights, model = told
    read = dict(stored_weights(engine, folder, model))
    assert list(read) == list(weights) == list(model.tensor_shapes())
    for name, tensor in read.items():
        assert torch.equal(tensor.float(), torch.from_numpy(weights[name])), name


@pytest.mark.parametrize(
    ("engine", "layout", "model"),
    [
        ("megatron", {"pipeline": 2, "interleave": 2}, {"tied": True}),
        ("megatron", {"data": 2}, {"family": "gpt2", "tied": False}),
        ("accelerate", {"data": 2}, {}),
    ],
)
def test_the_weights_of_a_checkpoint(
    tmp_path: Path, engine: str, layout: dict[str, Any], model: dict[str, Any]
) -> None:
    check(engine, tmp_path, run_on_ranks(with_layout, 2, engine, layout, model, str(tmp_path))[0])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_weights_of_a_zero_checkpoint(tmp_path: Path, stage: int) -> None:
    check("deepspeed", tmp_path, run_on_ranks(with_zero, 2, stage, str(tmp_path))[0])
