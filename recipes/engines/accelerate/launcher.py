"""An `Accelerator` for the processes that are there, and proof that it sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch.nn.parallel import DistributedDataParallel

from kit.errors import RunFailure
from recipes.distributed.processes import Processes

MPI_NAMES = ("PMI_", "OMPI_COMM_", "MV2_COMM_")


@contextmanager
def accelerate_environment(processes: Processes) -> Iterator[None]:
    """accelerate learns everything from the environment; inside, it says what our processes are and nothing else.

    A user's ACCELERATE_* or FSDP_* settings would change the run and stand in no recipe. Without OMP_NUM_THREADS
    accelerate would change the number of threads.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("ACCELERATE_", "FSDP_", *MPI_NAMES)):
            del os.environ[name]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = str(processes.threads)
    if processes.world_size > 1:
        os.environ |= {
            "RANK": str(processes.rank),
            "WORLD_SIZE": str(processes.world_size),
            "LOCAL_RANK": str(processes.device.index or 0),
            # The process group exists already: accelerate only wants an address if it thinks of several hosts.
            "LOCAL_WORLD_SIZE": str(processes.world_size),
        }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def build_accelerator(processes: Processes, dtype: torch.dtype) -> Accelerator:
    """Makes the accelerator; the process group must be joined. *Collective*: every rank.

    With bf16, parameters and optimizer stay fp32 and autocast computes in bf16. DDP looks for parameters without a
    gradient (`find_unused_parameters`), because frozen or conditional parts are ordinary in fine-tuning; the search is
    one walk over the graph a step.

    Raises:
        RunFailure: If accelerate sees other processes than there are.
    """
    settings = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        cpu=processes.device.type == "cpu",
        mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
        kwargs_handlers=[settings],
    )
    several = DistributedType.MULTI_GPU if processes.device.type == "cuda" else DistributedType.MULTI_CPU
    wanted = (several if processes.world_size > 1 else DistributedType.NO, processes.world_size, processes.rank)
    seen = (accelerator.distributed_type, accelerator.num_processes, accelerator.process_index)
    if seen != wanted or accelerator.device.type != processes.device.type:
        raise RunFailure(
            f"accelerate sees {_words(*seen)} on {accelerator.device}",
            expected=f"{_words(*wanted)} on {processes.device}",
            action="train in a process in which nothing else has started accelerate",
        )
    return accelerator


def check_wrapped(wrapped: torch.nn.Module, processes: Processes) -> None:
    """Refuses a module whose gradients nobody would average.

    Raises:
        RunFailure: If several processes would each train a model of their own.
    """
    if isinstance(wrapped, DistributedDataParallel) != (processes.world_size > 1):
        raise RunFailure(
            f"{processes.world_size} processes and a model wrapped as {type(wrapped).__name__}",
            expected="DistributedDataParallel for several processes, the bare model for one",
            action="don't use this run: report it with its config.yaml and the versions of torch and accelerate",
        )


def _words(kind: DistributedType, count: int, rank: int) -> str:
    return f"{kind.value}, rank {rank} of {count}"
