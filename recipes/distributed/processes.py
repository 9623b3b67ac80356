"""The one place that decides device, backend and dtype, and that joins and leaves the job's process group."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from kit.config import load
from kit.errors import UserError
from kit.target import Target

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""What weights are in by a recipe's precision. fp8 is for the factors of matrix products alone."""

CUDA_ONLY = {"fp16": "half-precision units", "fp8": "Transformer Engine on a device of compute capability 8.9 or more"}
"""What the precisions need that a CPU doesn't have."""


@dataclass(frozen=True)
class Processes:
    """This process among the job's.

    Attributes:
        rank: This process, from 0.
        world_size: How many processes the job has.
        device: Where this process computes.
        threads: CPU threads of this process.
    """

    rank: int
    world_size: int
    device: torch.device
    threads: int

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that writes metrics, events and artifacts."""
        return self.rank == 0

    @property
    def device_words(self) -> str:
        """The device as a report names it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def agree_any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. *Collective*: every rank."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def gather_words(self, words: str | None) -> list[str | None]:
        """Every rank's words, by rank. *Collective*: every rank."""
        if self.world_size == 1:
            return [words]
        gathered: list[str | None] = [None] * self.world_size
        dist.all_gather_object(gathered, words)
        return gathered

    def largest(self, number: float) -> float:
        """The largest of the ranks' numbers. *Collective*: every rank."""
        return float(self._reduce(number, dist.ReduceOp.MAX))

    def total(self, number: float) -> float:
        """The sum of the ranks' numbers. *Collective*: every rank."""
        return float(self._reduce(number, dist.ReduceOp.SUM))

    def barrier(self) -> None:
        """Waits for every rank. *Collective*: every rank."""
        if self.world_size > 1:
            dist.barrier()

    def _reduce(self, number: float, operation: dist.ReduceOp.RedOpType) -> float:
        if self.world_size == 1:
            return number
        # NCCL has no float64 reductions on every device generation's fast path, but it has them; precision wins here.
        value = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.all_reduce(value, op=operation)
        return float(value.item())


def choose_device(target: Target, local_rank: int) -> torch.device:
    """The device that a target means for a process of this machine.

    Raises:
        UserError: If the target asks for CUDA and this machine has none, or too few devices.
    """
    wanted = target.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"target device cuda, and this machine shows {torch.cuda.device_count()} CUDA devices",
            expected=f"at least {local_rank + 1}",
            action="start fewer processes, or choose a target with device: cpu",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a recipe's precision.

    Raises:
        UserError: If the device can't compute in it.
    """
    if precision in CUDA_ONLY and device.type != "cuda":
        raise UserError(
            f"precision {precision} on device {device.type}",
            expected=f"a CUDA device: {precision} needs {CUDA_ONLY[precision]}",
            action="set precision=fp32 or bf16, or choose a target with device: cuda",
        )
    if precision == "fp8":
        _check_fp8(device)
    return DTYPES[precision]


def _check_fp8(device: torch.device) -> None:
    installed = importlib.util.find_spec("transformer_engine") is not None
    capability = torch.cuda.get_device_capability(device)
    if not installed or capability < (8, 9):
        found = "no Transformer Engine" if not installed else f"compute capability {'.'.join(map(str, capability))}"
        raise UserError(
            f"precision fp8, and this machine has {found}",
            expected=CUDA_ONLY["fp8"],
            action="set precision=bf16, or choose a machine that has both",
        )


def join(target_path: Path, timeout_minutes: float = 30.0) -> Processes:
    """Joins the job that torchrun (or nobody: one process) started. *Collective*: every rank.

    The store's keys carry the number of the attempt: addresses of dead workers stay behind in a store that torchrun
    uses again after a restart, and new ranks would try to reach them.
    """
    target = load(Target, target_path) if target_path.exists() else Target()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    threads = target.threads_per_process
    if isinstance(threads, int):
        torch.set_num_threads(threads)
    device = choose_device(target, int(os.environ.get("LOCAL_RANK", "0")))
    timeout = timedelta(minutes=timeout_minutes)
    store: dist.Store = dist.HashStore()
    if world_size > 1:
        store = dist.PrefixStore(
            "attempt" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), _job_store(rank, timeout)
        )
    return join_store(store, rank, world_size, device, timeout)


def join_store(
    store: dist.Store, rank: int, world_size: int, device: torch.device, timeout: timedelta | None = None
) -> Processes:
    """Joins a process group over a given store. *Collective*: every rank.

    One process has a group too: megatron-core wants groups of one.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    # DeepSpeed settles its accelerator when it is imported, and other libraries import it to see whether it is there.
    os.environ["DS_ACCELERATOR"] = device.type
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    return Processes(rank, world_size, device, torch.get_num_threads())


def leave() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _job_store(rank: int, timeout: timedelta) -> dist.Store:
    # torchrun's agent may already serve the store at this address; then no rank does.
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not agent_serves,
        timeout=timeout,
        wait_for_workers=False,
    )
