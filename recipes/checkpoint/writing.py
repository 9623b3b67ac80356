"""What is left to do of a checkpoint once the live tensors have been copied."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Writing:
    """Writes this rank's part of a checkpoint; called once, in any thread.

    Attributes:
        write: Does it. It holds no collective and looks at no live tensor.
        files: What it writes, so that the rank that wrote a file also hashes it.
        complete: What the ranks do together once all of them have written. *Collective*: every rank, or none has one.
    """

    write: Callable[[], None]
    files: tuple[Path, ...] = ()
    complete: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Writes."""
        self.write()


def write_at_once(writing: Callable[[], None] | None) -> None:
    """Does what `save_state` left to do, here and now. *Collective*: every rank."""
    if writing is not None:
        writing()
    complete = getattr(writing, "complete", None)
    if complete is not None:
        if dist.is_initialized():
            dist.barrier()
        complete()


def host_copy(state: Any) -> Any:
    """A state whose tensors are copies in the host's memory; whole only after `await_copies`."""
    if isinstance(state, torch.Tensor):
        if state.device.type == "cpu":
            return state.detach().clone()
        room = torch.empty(state.shape, dtype=state.dtype, pin_memory=True)
        return room.copy_(state.detach(), non_blocking=True)
    if isinstance(state, Mapping):
        return {key: host_copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(host_copy(value) for value in state)
    return copy.deepcopy(state)


def await_copies() -> None:
    """Waits for what `host_copy` has begun on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_later(contents: dict[Path, Any]) -> Writing:
    """Copies what `torch.save` can write, so that training may change the originals; what it returns writes the copies.

    Args:
        contents: File -> state: mappings and sequences of tensors and plain values.
    """
    copies = {path: host_copy(state) for path, state in contents.items()}
    await_copies()

    def write() -> None:
        for path, state in copies.items():
            with path.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())

    return Writing(write, tuple(copies))
