"""Lets megatron's checkpoint writer write in the training process itself, in whichever thread calls it.

Its own way, even for a save that everybody waits for, is a manager process started with `spawn` and writers that are
forked: seconds for every job, processes that a stop signal to the job's group kills before the last checkpoint is
written, and a fork beside the threads of a process group.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

from recipes.checkpoint.writing import Writing, await_copies, host_copy


def install() -> None:
    """From now on checkpoints are written in process. Safe to call again."""
    filesystem_async._get_write_results_queue = queue.Queue
    FileSystemWriterAsync.write_preloaded_data_multiproc = staticmethod(_write)


def writing(request: AsyncRequest, finish: Callable[[list[Callable[[], None]]], None]) -> Writing:
    """Copies what megatron would write, so that training may go on; what it returns writes the copy."""
    files: tuple[Path, ...] = ()
    write: Callable[[], None] = _nothing
    if request.async_fn is not None:
        rank, buckets, results = request.async_fn_args
        # The request keeps the live tensors of its buckets; the writer must see the copies alone.
        copied = [_copy(bucket) for bucket in buckets]
        await_copies()
        files = tuple(Path(path) for path, _, _ in copied)
        function = request.async_fn

        def write() -> None:
            function(rank, copied, results)

    return Writing(write, files, lambda: finish(request.finalize_fns))


def _copy(bucket: Any) -> Any:
    path, key, (objects, tensors) = bucket
    return path, key, (objects, [(item, host_copy(tensor)) for item, tensor in tensors])


def _nothing() -> None:
    """This rank has no part in the checkpoint."""


def _write(transforms: list[Any], use_msc: bool, rank: int, buckets: list[Any], results: queue.Queue[Any]) -> None:
    """Has the signature of what it replaces: writes every bucket, puts {number: results}.

    Raises:
        Exception: What writing failed with.
    """
    # Without the pause of the garbage collector around it, which is meant for a forked process.
    write_bucket = FileSystemWriterAsync.write_preloaded_data.__wrapped__
    written: dict[int, Any] = {}
    for number, bucket in enumerate(buckets):
        answers: queue.Queue[Any] = queue.Queue()
        pending: queue.Queue[int] = queue.Queue()
        pending.put(number)
        write_bucket(transforms, number, bucket, answers, pending, use_fsync=True, use_msc=use_msc)
        _, answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        written[number] = answer
    results.put(written)
