"""What a run costs: the processor time of every task of every step, whatever the step does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kit.files import atomic_write


class TaskClock(PipelineStep):
    """Stands at both ends of a step's row, one object twice, and notes the processor time in between.

    It sees the whole task: steps without documents, what reads and stores text, and processes that were waited for.

    Args:
        folder: of all steps' times.
        step: the name of this one.
    """

    type = "CLOCK"
    name = "clock"

    def __init__(self, folder: Path, step: str) -> None:
        super().__init__()
        self.folder, self.step = folder, step
        self._began: float | None = None

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document] | None:
        """Begin at the first call, before any other block is asked; end when the second one has no more documents."""
        if self._began is None:
            self._began = cpu_seconds()
            return data
        return self._until_end(data, rank, self._began)

    def _until_end(self, data: Iterator[Document] | None, rank: int, began: float) -> Iterator[Document]:
        self._began = None
        yield from data or ()
        _note(self.folder / self.step / f"{rank:05d}.json", began)


@contextmanager
def timed(folder: Path, step: str) -> Iterator[None]:
    """Notes the processor time of a part of the run that one process does, as a step of its own."""
    began = cpu_seconds()
    yield
    _note(folder / step / "00000.json", began)


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def read_clock(folder: Path) -> dict[str, float]:
    """Seconds of every step over its tasks, by name."""
    found = sorted(path for path in folder.glob("*") if path.is_dir())
    return {step.name: round(sum(map(_seconds, sorted(step.glob("*.json")))), 3) for step in found}


def _note(path: Path, began: float) -> None:
    atomic_write(path, json.dumps({"cpu_seconds": round(cpu_seconds() - began, 4)}))


def _seconds(path: Path) -> float:
    return float(json.loads(path.read_text("utf-8"))["cpu_seconds"])
