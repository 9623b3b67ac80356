"""Bytes of parameters, gradients and optimizer state that a rank really holds, counted from DeepSpeed's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from recipes.distributed.processes import Processes

KINDS = ("parameter", "gradient", "optimizer")
MOST_RANKS = 16
"""Jobs of more ranks get the total and the largest share only: three numbers a rank would drown the others."""


class Owned:
    """What this rank's engine holds.

    Parameters and optimizer state (moments, and fp32 master weights where DeepSpeed keeps them) are counted after a
    step; gradients are what outlives a backward pass, the largest of the step's. Buffers of messages don't count.
    """

    def __init__(self, engine: Any) -> None:
        self._engine, self._gradients = engine, 0

    def count_gradients(self) -> None:
        """To be called after every backward pass."""
        self._gradients = max(self._gradients, held_bytes(_gradients(self._engine)))

    def of_this_rank(self) -> dict[str, int]:
        """Bytes by kind; begins a new step."""
        gradients, self._gradients = self._gradients, 0
        parameters = held_bytes(_parameters(self._engine))
        return dict(zip(KINDS, (parameters, gradients, held_bytes(_optimizer(self._engine))), strict=True))

    def of_every_rank(self, processes: Processes) -> dict[str, float]:
        """Bytes by kind and rank, flat, for the step's record. *Collective*: every rank."""
        mine = torch.tensor(list(self.of_this_rank().values()), dtype=torch.int64, device=processes.device)
        shares = [torch.empty_like(mine) for _ in range(processes.world_size)]
        dist.all_gather(shares, mine)
        table = torch.stack(shares).tolist()
        told: dict[str, float] = {}
        for column, kind in enumerate(KINDS):
            of_ranks = [row[column] for row in table]
            told[f"owned_{kind}_bytes_total"] = sum(of_ranks)
            told[f"owned_{kind}_bytes_largest"] = max(of_ranks)
            if len(of_ranks) <= MOST_RANKS:
                told |= {f"owned_{kind}_bytes_rank_{rank}": share for rank, share in enumerate(of_ranks)}
        return told


def held_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes of memory under some tensors; what several of them share counts once."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors if t is not None and t.nbytes)
    held, end = 0, 0
    for start, stop in spans:
        held += max(0, stop - max(start, end))
        end = max(end, stop)
    return held


def _parameters(engine: Any) -> Iterator[torch.Tensor | None]:
    for parameter in engine.module.parameters():
        yield parameter.data
        # Stage 3: this rank's part; the parameter itself is empty unless it stays whole.
        yield getattr(parameter, "ds_tensor", None)


def _gradients(engine: Any) -> Iterator[torch.Tensor | None]:
    for parameter in engine.module.parameters():
        yield parameter.grad
        yield getattr(parameter, "grad_accum", None)
    optimizer = engine.optimizer
    for name in (
        "all_grad_tensors",  # stage 2, between micro-batches
        "averaged_gradients",  # stages 1 and 2, before the step
        "accumulated_grads_in_cpu",  # stages 1 and 2, offloaded
        "fp32_groups_gradients_flat",  # stage 1 in bf16
        "grad_partitions_flat_buffer",  # stage 3
    ):
        yield from _tensors(getattr(optimizer, name, None))
    for master in _masters(optimizer):
        yield master.grad


def _optimizer(engine: Any) -> Iterator[torch.Tensor | None]:
    yield from _masters(engine.optimizer)
    yield from _tensors(engine.basic_optimizer.state)


def _masters(optimizer: Any) -> Iterator[torch.Tensor]:
    """The fp32 weights that the inner optimizer updates, where they aren't the model's own parameters."""
    for name in (
        "single_partition_of_fp32_groups",  # stages 1 and 2
        "fp32_groups_flat_partition",  # stage 1 in bf16
        "fp32_partitioned_groups_flat",  # stage 3
    ):
        yield from _tensors(getattr(optimizer, name, None))


def _tensors(nested: Any) -> Iterator[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        for value in nested.values():
            yield from _tensors(value)
    elif isinstance(nested, list | tuple):
        for value in nested:
            yield from _tensors(value)
