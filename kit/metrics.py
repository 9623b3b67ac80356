"""Typed step records and the file that keeps them. The JSONL file is the truth; everything else is a view of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

import pydantic

from kit.config import Config
from kit.files import disk_full_as_failure


class StepRecord(Config):
    """What one optimizer step did, over the whole job. Units are in the names; None is left out of the file.

    Attributes:
        step: Counted from 1: the state after this many optimizer steps.
        loss: Mean negative log likelihood per token, nats.
        grad_norm: Norm before clipping.
        tokens: Tokens of this step's global batch.
        samples: Samples of this step's global batch.
        step_seconds: Wall time from the record before to this one.
        model_flops_per_second: Tokens per second times FLOPs per token by the run's convention.
        skipped_steps: Optimizer steps left out so far because their numbers were bad.
        mfu: model_flops_per_second over the job's peak, 0 to 1.
        hfu: The same with what is computed a second time instead of kept (recomputation).
        data_seconds, checkpoint_seconds, evaluation_seconds: Parts of the time. Of a checkpoint that is written
            meanwhile it is only what training waited for.
        communication_seconds: Part of the time: blocked in collectives (CPU), or in NCCL kernels beside which nothing
            else ran (CUDA), the mean over the ranks. Waiting for a slower rank is in it, so imbalance is too. None
            where it can't be measured, and in steps that weren't profiled (CUDA).
        compute_seconds: The rest of the optimizer step; with communication in it where that is None.
        idle_seconds: What no part accounts for: the loop itself, and writing the record before. The parts and it add
            up to step_seconds.
        peak_memory_gib: Largest resident (CPU) or allocated (CUDA) memory of any rank so far.
        extra: Further numbers, written flat beside the others.
    """

    step: int
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    samples: int | None = None
    tokens_total: int | None = None
    skipped_steps: int | None = None
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    model_flops_per_second: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    data_seconds: float | None = None
    compute_seconds: float | None = None
    communication_seconds: float | None = None
    checkpoint_seconds: float | None = None
    evaluation_seconds: float | None = None
    idle_seconds: float | None = None
    peak_memory_gib: float | None = None
    validation_loss: float | None = None
    time: str | None = None
    extra: dict[str, float] = pydantic.Field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """Returns the record as one flat mapping without empty fields; a number that is not finite becomes a string."""
        fields = self.model_dump(exclude={"extra"}, exclude_none=True)
        clash = fields.keys() & self.extra.keys()
        assert not clash, f"extra metrics hide fields: {clash}"
        return {key: _jsonable(value) for key, value in {**fields, **self.extra}.items()}


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class JsonlSink:
    """Appends records to a file, one JSON line each, flushed line by line.

    Raises:
        RunFailure: If the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        with disk_full_as_failure(self._path):
            self._file = self._path.open("a", encoding="utf-8")
            if self._path.stat().st_size and not _ends_with_newline(self._path):
                # The last writer was killed in the middle of a line: keep its rest from swallowing the next record.
                self._file.write("\n")

    def write(self, record: StepRecord) -> None:
        """Appends one record."""
        with disk_full_as_failure(self._path):
            self._file.write(json.dumps(record.flat(), allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        # Closing writes what a failed write left behind, and on a full disk fails once more.
        with disk_full_as_failure(self._path):
            self._file.close()

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the records by ascending step.

    A line that was cut off is left out; of a step that was done twice (a resume from an older checkpoint) the last
    record counts.
    """
    if not Path(path).exists():
        return []
    records: dict[int, dict[str, Any]] = {}
    for line in Path(path).read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
            records[int(record["step"])] = record
        except (KeyError, TypeError, ValueError):
            continue
    return [records[step] for step in sorted(records)]
