"""The one training loop: a generator of step records. It knows no engine, no file and no stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kit.metrics import StepRecord
from recipes.engines.protocol import StepResult
from recipes.instability import Watch
from recipes.schedule import ScheduleConfig, learning_rate


@dataclass(frozen=True)
class Speed:
    """What turns tokens per second into model FLOP/s, MFU and HFU, all of the whole job.

    hardware_flops_per_token is with what is computed again; None where that isn't known: there is no HFU then.
    """

    flops_per_token: float
    peak_flops_per_second: float
    hardware_flops_per_token: float | None = None

    def rates(self, tokens_per_second: float) -> dict[str, Any]:
        """The rates of a step record, by its names."""
        flops, hardware = tokens_per_second * self.flops_per_token, self.hardware_flops_per_token
        return {
            "tokens_per_second": tokens_per_second,
            "model_flops_per_second": flops,
            "mfu": flops / self.peak_flops_per_second,
            "hfu": hardware and tokens_per_second * hardware / self.peak_flops_per_second,
        }


@dataclass(frozen=True)
class Course:
    """How long and how fast to train.

    Attributes:
        first_step: The next step to do, from 1; more after a resume.
        steps: The last step.
        global_batch_samples, global_batch_tokens: What one step of the whole job consumes; a result may say it better.
        highest_rate: Learning rate at the end of warm-up.
        schedule: Its course.
        validate_every, checkpoint_every: In steps; None for never.
    """

    first_step: int
    steps: int
    global_batch_samples: int
    global_batch_tokens: int
    highest_rate: float
    schedule: ScheduleConfig
    validate_every: int | None
    checkpoint_every: int | None


class Numbered(Protocol):
    """A batch of whatever kind; it knows the step that it belongs to."""

    @property
    def step(self) -> int:
        """The optimizer step, from 1."""
        ...


class Trainable(Protocol):
    """What the loop and the checkpoints ask of whatever learns: an engine, a reward model, a policy."""

    def train_step(self, batch: Any, learning_rate: float) -> StepResult:
        """One optimizer step on this data rank's batch. *Collective*: every rank."""
        ...

    def save_state(self, folder: Path) -> Callable[[], None] | None:
        """Writes everything that training needs to go on. *Collective*: every rank.

        None: it is written. Else a function that writes what has been copied meanwhile, in another thread.
        """
        ...

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote. *Collective*: every rank."""
        ...


class Clock(Protocol):
    """Measures this rank's communication in one optimizer step after another."""

    def start(self) -> None:
        """A step begins now."""
        ...

    def seconds(self) -> float | None:
        """Communication since `start`; None where it isn't measured, on every rank alike."""
        ...


class Validation(NamedTuple):
    """A validation loss, and that of every source of a blend by its name."""

    loss: float
    by_source: Mapping[str, float] = {}

    def fields(self) -> dict[str, float]:
        """The losses by source as a step record names them."""
        return {f"validation_loss_{name}": loss for name, loss in self.by_source.items()}


class StepEnd(NamedTuple):
    """A step as the whole job saw it; the same on every rank.

    Attributes:
        stop: Whether somebody asked any rank to stop.
        communication_seconds: The mean over the ranks; None where it isn't measured.
        peak_memory_gib: The largest of any rank.
    """

    stop: bool
    communication_seconds: float | None
    peak_memory_gib: float


class Stopwatch:
    """Seconds by part of a step."""

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self._last = self._last, time.perf_counter()
        return self._last - last

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


class Parts(NamedTuple):
    """What the time of a step went into, seconds; communication, the mean over the ranks, is a part of training."""

    data: float
    training: float
    communication: float | None
    checkpoint: float
    evaluation: float

    def of(self, total: float) -> dict[str, float | None]:
        """The times of a step record: parts that add up to the total."""
        # A rank that waits less than the mean has less to compute than it seems: its parts may not be negative.
        communication = None if self.communication is None else min(self.communication, self.training)
        return {
            "step_seconds": total,
            "data_seconds": self.data,
            "compute_seconds": self.training - (communication or 0.0),
            "communication_seconds": communication,
            "checkpoint_seconds": self.checkpoint,
            "evaluation_seconds": self.evaluation,
            "idle_seconds": total - math.fsum((self.data, self.training, self.checkpoint, self.evaluation)),
        }


def train(
    engine: Trainable,
    batches: Iterator[Numbered],
    course: Course,
    speed: Speed,
    *,
    watch: Watch,
    validate: Callable[[], float | Validation],
    checkpoint: Callable[[int], None],
    settle: Callable[[], None],
    agree: Callable[[float | None], StepEnd],
    clock: Clock,
) -> Iterator[StepRecord]:
    """Trains and yields one record a step, the same on every rank but for times. *Collective*: every rank iterates.

    Ends after the last step, or after the step in which the ranks agreed to stop (which is checkpointed then).

    Args:
        engine, course, speed: Who does the steps, which, and what they are worth.
        batches: This rank's, from the course's first step on.
        watch: What becomes of steps that go wrong.
        validate: The validation loss now.
        checkpoint: Keeps the state after a step, or begins to.
        settle: Called at the end of every step: completes a checkpoint that was being written meanwhile.
        agree: Given this rank's communication, what all ranks say of the step.
        clock: Measures that communication.

    Raises:
        Unstable: As the watch's policy wants it; nothing is checkpointed after that.
    """
    time_of = Stopwatch()
    for step in range(course.first_step, course.steps + 1):
        time_of.lap()  # since the last record, whoever takes them had the time
        batch = next(batches)
        assert batch.step == step, f"the data stands at step {batch.step}, the loop at {step}"
        data_seconds = time_of.lap()
        rate = learning_rate(course.schedule, course.highest_rate, step, course.steps)
        result, training_seconds, communication_seconds = _timed_step(engine, batch, rate, clock, time_of)
        watch.judge(step, result)
        time_of.lap()
        validated = validate() if _due(step, course.validate_every) and step < course.steps else None
        evaluation_seconds = time_of.lap()
        end = agree(communication_seconds)
        stop = end.stop and step < course.steps
        time_of.lap()
        if stop or _due(step, course.checkpoint_every):
            checkpoint(step)
        settle()
        parts = Parts(data_seconds, training_seconds, end.communication_seconds, time_of.lap(), evaluation_seconds)
        known = {"learning_rate": rate, "skipped_steps": watch.skipped_steps, "peak_memory_gib": end.peak_memory_gib}
        record = _record(course, step, result, validated, speed, parts.of(time_of.total()), known)
        time_of = Stopwatch()
        yield record
        if stop:
            return


def _timed_step(
    engine: Trainable, batch: Numbered, rate: float, clock: Clock, time_of: Stopwatch
) -> tuple[StepResult, float, float | None]:
    """One optimizer step: its result, its seconds, and how many of them this rank waited for others."""
    clock.start()
    time_of.lap()  # a profiler takes its time to start, and to tell what it saw
    result = engine.train_step(batch, rate)
    seconds = time_of.lap()
    return result, seconds, clock.seconds()


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _record(
    course: Course,
    step: int,
    result: StepResult,
    validated: float | Validation | None,
    speed: Speed,
    times: Mapping[str, Any],
    known: Mapping[str, Any],
) -> StepRecord:
    """What the engine and the validation said of a step, with its times, its rates and what the loop knows."""
    tokens = course.global_batch_tokens if result.tokens is None else result.tokens
    # Speed is of training alone: checkpoints and validation have columns of their own.
    working = math.fsum(times[f"{part}_seconds"] or 0.0 for part in ("data", "compute", "communication"))
    return StepRecord(
        step=step,
        loss=result.loss,
        grad_norm=result.grad_norm,
        tokens=tokens,
        samples=course.global_batch_samples,
        tokens_total=step * course.global_batch_tokens if result.tokens is None else None,
        **speed.rates(tokens / working),
        **times,
        **known,
        validation_loss=validated.loss if isinstance(validated, Validation) else validated,
        extra={**result.extra, **(validated.fields() if isinstance(validated, Validation) else {})},
    )
