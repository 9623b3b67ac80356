"""Lets megatron's checkpoint writer write in the training process itself.

Its own way, even for a save that everybody waits for, is a manager process started with `spawn` and writers that are
forked: seconds for every job, processes that a stop signal to the job's group kills before the last checkpoint is
written, and a fork beside the threads of a process group.
"""

from __future__ import annotations

import queue
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

_RESULTS: queue.Queue[Any] = queue.Queue()


def install() -> None:
    """From now on checkpoints are written in process. Safe to call again."""
    filesystem_async._get_write_results_queue = lambda: _RESULTS
    FileSystemWriterAsync.write_preloaded_data_multiproc = staticmethod(_write)


def _write(transforms: list[Any], use_msc: bool, rank: int, buckets: list[Any], results: queue.Queue[Any]) -> None:
    """Has the signature of what it replaces: writes every bucket, puts {number: results} or the first error."""
    written: dict[int, Any] = {}
    for number, bucket in enumerate(buckets):
        answers: queue.Queue[Any] = queue.Queue()
        pending: queue.Queue[int] = queue.Queue()
        pending.put(number)
        FileSystemWriterAsync.write_preloaded_data(
            transforms, number, bucket, answers, pending, use_fsync=True, use_msc=use_msc
        )
        _, answer = answers.get()
        if isinstance(answer, Exception):
            results.put(answer)
            return
        written[number] = answer
    results.put(written)
