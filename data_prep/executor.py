"""datatrove's local executor with a pool that notices dead workers, reports progress, and stops when asked."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from data_prep.processes import StopRequest, die_with_parent, listen_for_stop
from kit.errors import RunFailure

Progress = Callable[[int, int], None]
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalExecutor(LocalPipelineExecutor):
    """Runs the tasks of one step, several at a time, skipping those that finished before.

    datatrove's own `run` waits for ever when a worker is killed (by the system's memory guard, say), starts a manager
    process a step, and cannot be stopped politely; everything else of it (completion marks, logs, statistics of a
    task) is used as it is.

    Args:
        pipeline: the blocks.
        tasks: how many tasks there are; the result depends on this number.
        workers: how many run at a time; the result does not depend on this one.
        folder: where datatrove keeps its logs and completion marks of the step.
        progress: called with the number of finished tasks and of all tasks.
    """

    def __init__(
        self, pipeline: list[PipelineStep], tasks: int, workers: int, folder: Path, progress: Progress
    ) -> None:
        super().__init__(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=str(folder))
        self.folder = folder
        self.progress = progress

    def run(self) -> None:
        """Run what is not finished yet.

        Raises:
            RunFailure: a worker was killed, or the disk is full.
            SlipwayError: what a block raised.
            StopRequest: this process was asked to stop; finished tasks stay finished.
        """
        ranks = self.get_incomplete_ranks(range(self.tasks))
        done = self.tasks - len(ranks)
        self.progress(done, self.tasks)
        if self.workers == 1 or len(ranks) == 1:
            for rank in ranks:
                self._one(rank)
                done += 1
                self.progress(done, self.tasks)
        elif ranks:
            self._several(ranks, done)

    def _one(self, rank: int) -> None:
        _run_rank(LocalExecutor._fresh(self), rank)

    def _fresh(self) -> LocalExecutor:
        """A copy with its own blocks: a block's statistics and caches belong to one task."""
        copy = object.__new__(LocalExecutor)
        copy.__dict__ = {**self.__dict__, "pipeline": deepcopy(self.pipeline)}
        return copy

    def _several(self, ranks: list[int], done: int) -> None:
        """Fork a pool (the blocks reach the workers without pickling) and wait for the tasks as they end."""
        _current[:] = [self]
        pool = ProcessPoolExecutor(
            self.workers, multiprocessing.get_context("fork"), initializer=_start_worker, initargs=(os.getpid(),)
        )
        try:
            for future in as_completed([pool.submit(_run_in_worker, rank) for rank in ranks]):
                _settle(future)
                done += 1
                self.progress(done, self.tasks)
        except BaseException:
            _end_workers(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            _current.clear()


_current: list[LocalExecutor] = []  # what forked workers find; empty in between


def _start_worker(parent: int) -> None:
    die_with_parent(parent)
    listen_for_stop()


def _run_in_worker(rank: int) -> None:
    try:
        _run_rank(_current[0]._fresh(), rank)
    except StopRequest:
        os._exit(0)  # the parent is stopping too and waits for no result; a task that was cut is run again


def _run_rank(executor: LocalExecutor, rank: int) -> None:
    try:
        executor._run_for_rank(rank, local_rank=0 if rank == 0 else 1)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise RunFailure(
                f"no space left on the disk while writing under {executor.folder.parent}",
                expected="room for the intermediate text (about three times the clean text) and the shards",
                action="free some space, then `slipway resume` the run: finished tasks are not repeated",
            ) from error
        raise


def _settle(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise RunFailure(
            "a worker process was killed from outside (most often: the machine ran out of memory)",
            expected="every worker to live until its task is done",
            action="set a smaller `workers`, then `slipway resume` the run: finished tasks are not repeated",
        ) from error


def _end_workers(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        with suppress(ProcessLookupError):  # it may be the one that died
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
