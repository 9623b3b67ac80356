"""One task, and the marks that say which tasks of a step are done: the same ones that datatrove's executors leave.

So a run that began under one executor goes on under another.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from kit.errors import RunFailure

Progress = Callable[[int, int], None]
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORTEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.1, 1.0


def completed(folder: Path) -> set[int]:
    """The tasks of a step that are done.

    The marks are listed, never asked for one by one: network file systems remember for a while that a file was not
    there, while opening a folder brings its present content.
    """
    try:
        return {int(name) for name in os.listdir(folder / "completions") if name.isdigit()}
    except FileNotFoundError:
        return set()


def run_task(blocks: Sequence[PipelineStep], rank: int, tasks: int, folder: Path) -> None:
    """Run one task and mark it as done.

    datatrove's own way through a task sets up three loggers for each, which takes as long as several pages do. What a
    block logs goes to the process's log here, and an error's traceback too.

    Args:
        blocks: the blocks; the task works on a copy, for a block's statistics and caches belong to one task.
        rank: the task's number.
        tasks: how many there are.
        folder: where the marks of the step lie.

    Raises:
        RunFailure: the disk is full.
    """
    with disk_full_in_words(folder):
        data: Any = None
        for block in deepcopy(list(blocks)):
            data = block(data, rank, tasks)
        deque(data or (), maxlen=0)
        marks = folder / "completions"
        marks.mkdir(parents=True, exist_ok=True)
        (marks / f"{rank:05d}").touch()


@contextmanager
def disk_full_in_words(folder: Path) -> Iterator[None]:
    """Turn "no space left" into a RunFailure that says what needs the room; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise RunFailure(
            f"no space left on the disk while writing under {folder.parent}",
            expected="room for the intermediate text (about three times the clean text) and the shards",
            action="free some space, then `slipway resume` the run: finished tasks are not repeated",
        ) from error


def looks() -> Iterator[None]:
    """Yields at once, then after pauses that grow from a tenth of a second to a second: for loops that wait."""
    pause = _SHORTEST_WAIT_SECONDS
    while True:
        yield
        time.sleep(pause)
        pause = min(_LONGEST_WAIT_SECONDS, pause * 1.2)
