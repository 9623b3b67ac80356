"""Checkpoints of the megatron engine, in megatron's own sharded format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint import CheckpointException

from recipes.engines.megatron import cpu_shim, in_process_writer

# Every tensor is stored whole-model, so that another layout can read it.
SHARDING = {"distrib_optim_sharding_type": "fully_reshardable"}


def save(folder: Path, chunks: list[GPTModel], optimizer: MegatronOptimizer) -> None:
    """Writes weights and optimizer. *Collective*: every rank."""
    in_process_writer.install()
    with cpu_shim.cuda_names(), _ordinary_errors():
        dist_checkpointing.save(_sharded(chunks, optimizer, loading=False), str(folder))


def load(folder: Path, chunks: list[GPTModel], optimizer: MegatronOptimizer) -> None:
    """Reads weights and optimizer. *Collective*: every rank."""
    with cpu_shim.cuda_names(), _ordinary_errors():
        state = dist_checkpointing.load(_sharded(chunks, optimizer, loading=True), str(folder))
        for key, chunk in zip(_keys(chunks), chunks, strict=True):
            chunk.load_state_dict(state[key])
        optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _ordinary_errors() -> Iterator[None]:
    # torch's CheckpointException is no Exception, so ordinary handlers would let it pass.
    try:
        yield
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise RuntimeError(f"rank {rank}: {reason}") from reason


def _sharded(chunks: list[GPTModel], optimizer: MegatronOptimizer, *, loading: bool) -> dict[str, Any]:
    _fill_moments(optimizer)
    state: dict[str, Any] = {key: chunk.sharded_state_dict() for key, chunk in zip(_keys(chunks), chunks, strict=True)}
    # The optimizer finds its parameters among the model's entries, so it wants them by the same keys.
    models = dict(state) if len(chunks) > 1 else state
    state["optimizer"] = optimizer.sharded_state_dict(models, is_loading=loading, metadata=SHARDING)
    return state


def _keys(chunks: list[GPTModel]) -> list[str]:
    return ["model"] if len(chunks) == 1 else [f"model{number}" for number in range(len(chunks))]


def _fill_moments(optimizer: MegatronOptimizer) -> None:
    # Before the first step Adam has no moments, and megatron wants their shapes to save or to load into.
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        part.init_state_fn(part.optimizer)
