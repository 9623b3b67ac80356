"""What ranks do in the tests of ZeRO: a training run under one setting of it, cut and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import engine_programs
import torch
from engine_programs import RATE, STEPS

from kit.config import parse
from kit.errors import RunFailure
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.distributed.processes import DTYPES, Processes
from recipes.engines.deepspeed.engine import DeepSpeedEngine
from recipes.engines.deepspeed.settings import ZeroSettings
from recipes.engines.deepspeed.start import check_in_force
from recipes.engines.table import build_engine
from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor
from recipes.zero.config import ZeroConfig

CUT = 12
"""The step after which the state is written."""


def started(processes: Processes, zero: dict[str, Any], **changes: Any) -> tuple[DeepSpeedEngine, ModelConfig]:
    tied = changes.pop("tied", False)
    plain, _ = engine_programs.configuration("deepspeed", {"data": processes.world_size}, tied=tied)
    # The rate of every step comes from outside; an engine that kept the recipe's would be found out.
    own = {"zero": zero, "optimizer": plain.optimizer.model_dump() | {"learning_rate": 300 * RATE}}
    config = parse(ZeroConfig, plain.model_dump() | own | changes, "test")
    assert config.model is not None
    sized = config.model.with_vocab(engine_programs.VOCAB)
    made = build_engine(config, sized, processes, DTYPES[config.precision])
    assert isinstance(made, DeepSpeedEngine)
    made.load_weights(partial(first_tensor, sized, 1234))
    return made, sized


def first_life(processes: Processes, zero: dict[str, Any], tied: bool, folder: str) -> dict[str, Any]:
    made, sized = started(processes, zero, tied=tied)
    results = [made.train_step(engine_programs.batch_of(made, step), RATE) for step in range(1, CUT + 1)]
    made.save_state(Path(folder))
    made.mean_loss([engine_programs.batch_of(made, 1)])
    results += [made.train_step(engine_programs.batch_of(made, step), RATE) for step in range(CUT + 1, STEPS + 1)]
    told: dict[str, Any] = {"curve": [(result.loss, result.grad_norm) for result in results]}
    told |= {"owned": dict(results[-1].extra), "parameters": sum(map(_size, sized.tensor_shapes().values()))}
    told |= engine_programs.tell(processes, made, sized)
    with endless_gradients():
        told["endless"] = made.train_step(engine_programs.batch_of(made, 1), RATE)[:2]
    return told


def second_life(processes: Processes, zero: dict[str, Any], tied: bool, folder: str) -> list[tuple[float, float]]:
    made, sized = started(processes, zero, tied=tied)
    made.load_weights(lambda name: torch.zeros(sized.tensor_shapes()[name]))
    made.load_state(Path(folder))
    return engine_programs.steps_of(made, CUT + 1, STEPS)


def short_run(processes: Processes, zero: dict[str, Any], precision: str) -> list[tuple[float, float]]:
    made, _ = started(processes, zero, precision=precision)
    return engine_programs.steps_of(made, 1, 8)


def told_something_else(processes: Processes) -> str:
    """Holds an engine of stage 1 against a recipe of stage 3."""
    made, _ = started(processes, {"stage": 1})
    try:
        check_in_force(made._engine, ZeroSettings(stage=3, offload="optimizer"), processes)
    except RunFailure as failure:
        return failure.found
    return ""


def unequal_weights(processes: Processes, stage: int) -> str:
    """Every rank brings weights of its own."""
    made, sized = started(processes, {"stage": stage})
    try:
        made.load_weights(partial(first_tensor, sized, processes.rank))
    except RunFailure as failure:
        return failure.found
    return ""


def save_with_one_place_taken(processes: Processes, folder: str) -> str:
    """A folder lies where rank 1 wants to write its part."""
    made, _ = started(processes, {"stage": 2})
    store = CheckpointStore(Path(folder), processes, keep=1)

    def write(partial_folder: Path) -> None:
        taken = partial_folder / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        taken.mkdir(parents=True, exist_ok=True)
        made.save_state(partial_folder)

    try:
        store.save(CheckpointManifest(step=1, samples_seen=0, engine="x", layout={}, config_digest="x"), write)
    except RunFailure as failure:
        return failure.found
    return ""


@contextmanager
def endless_gradients() -> Iterator[None]:
    """Makes gradients infinite on their way back, while the loss stays a number."""

    kept, torch.nn.functional.silu = torch.nn.functional.silu, _Endless.apply
    try:
        yield
    finally:
        torch.nn.functional.silu = kept


class _Endless(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x) * x

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * torch.inf


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
