"""Processes of this machine, or of each of several hosts; dead workers are noticed, and a stop is heard."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datatrove.pipeline.base import PipelineStep

from data_prep.executors.hosts import Hosts
from data_prep.executors.tasks import Progress, completed, run_task
from data_prep.processes import StopRequest, die_with_parent, listen_for_stop
from kit.errors import RunFailure

_LOOK_SECONDS = 1.0


class _Step(NamedTuple):
    """The tasks of a step."""

    blocks: Sequence[PipelineStep]
    tasks: int
    folder: Path

    def run(self, rank: int) -> None:
        run_task(self.blocks, rank, self.tasks, self.folder)


class LocalExecutor:
    """Runs the tasks of steps, several at a time, skipping those that finished before.

    datatrove's own executor waits for ever when a worker is killed (by the system's memory guard, say), starts a
    manager process a step, and cannot be stopped politely.

    Args:
        workers: how many tasks run at a time on this host; the result does not depend on it.
        hosts: those that work on the run; each takes the next task that nobody has taken.
    """

    def __init__(self, workers: int, hosts: Hosts) -> None:
        self.workers, self.hosts = workers, hosts

    def execute(self, blocks: Sequence[PipelineStep], tasks: int, folder: Path, progress: Progress) -> None:
        """Run what is not finished yet, here and on the other hosts; returns when all of it is.

        Raises:
            RunFailure: a worker was killed, the disk is full, or another host has failed.
            SlipwayError: what a block raised.
            StopRequest: this process was asked to stop; finished tasks stay finished.
        """
        step = _Step(blocks, tasks, folder)
        done = completed(folder)
        count = _Count(tasks, folder, progress, self.hosts)
        count.show(len(done))
        left = [rank for rank in range(tasks) if rank not in done]
        ranks = self._taken(left, folder.name)
        if min(self.workers, len(left)) <= 1:
            for rank in ranks:
                step.run(rank)
                count.add(1)
        else:
            self._several(step, ranks, count)
        if not self.hosts.alone:
            self.hosts.wait(count.all_done)

    def _taken(self, left: list[int], step: str) -> Iterator[int]:
        """The tasks of this host, each taken when it is asked for. Hosts begin at different places of the list."""
        start = len(left) * self.hosts.index // self.hosts.count
        for rank in left[start:] + left[:start]:
            self.hosts.check()
            if self.hosts.claim(step, rank):
                yield rank

    def _several(self, step: _Step, ranks: Iterator[int], count: _Count) -> None:
        """Fork a pool (the blocks reach the workers without pickling) and keep it busy."""
        _current[:] = [step]
        pool = ProcessPoolExecutor(
            self.workers, multiprocessing.get_context("fork"), initializer=_start_worker, initargs=(os.getpid(),)
        )
        try:
            running = {pool.submit(_run_in_worker, rank) for rank in islice(ranks, self.workers)}
            while running:
                ended, running = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                    running |= {pool.submit(_run_in_worker, rank) for rank in islice(ranks, 1)}
                count.add(len(ended))
                self.hosts.check()
        except BrokenProcessPool as error:
            _end_workers(pool)
            raise RunFailure(
                "a worker process was killed from outside (most often: the machine ran out of memory)",
                expected="every worker to live until its task is done",
                action="set a smaller `workers`, then `slipway resume` the run: finished tasks are not repeated",
            ) from error
        except BaseException:
            _end_workers(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            _current.clear()


class _Count:
    """How many tasks of a step are done; the first host tells."""

    def __init__(self, tasks: int, folder: Path, progress: Progress, hosts: Hosts) -> None:
        self.tasks, self.folder, self.progress, self.hosts = tasks, folder, progress, hosts
        self.done = -1

    def show(self, done: int) -> None:
        if done != self.done:
            self.done = done
            if self.hosts.first:
                self.progress(done, self.tasks)

    def add(self, count: int) -> None:
        """Some more of this host's are done; of the others' their marks tell."""
        if self.hosts.alone:
            self.show(self.done + count)
        elif count:
            self.all_done()

    def all_done(self) -> bool:
        self.show(len(completed(self.folder)))
        return self.done == self.tasks


_current: list[_Step] = []  # what forked workers find; empty in between


def _start_worker(parent: int) -> None:
    die_with_parent(parent)
    listen_for_stop()


def _run_in_worker(rank: int) -> None:
    try:
        _current[0].run(rank)
    except StopRequest:
        os._exit(0)  # the parent is stopping too and waits for no result; a task that was cut is run again


def _end_workers(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        with suppress(ProcessLookupError):  # it may be the one that died
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
