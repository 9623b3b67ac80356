"""The one training loop: a generator of step records. It knows no engine, no file and no stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kit.errors import RunFailure
from kit.metrics import StepRecord
from recipes.engines.protocol import StepResult
from recipes.schedule import ScheduleConfig, learning_rate


@dataclass(frozen=True)
class Speed:
    """What turns tokens per second into model FLOP/s and MFU, both of the whole job."""

    flops_per_token: float
    peak_flops_per_second: float

    def rates(self, tokens_per_second: float) -> dict[str, Any]:
        """The rates of a step record, by its names."""
        flops = tokens_per_second * self.flops_per_token
        return {
            "tokens_per_second": tokens_per_second,
            "model_flops_per_second": flops,
            "mfu": flops / self.peak_flops_per_second,
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

    def save_state(self, folder: Path) -> None:
        """Writes everything that training needs to go on. *Collective*: every rank."""
        ...

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote. *Collective*: every rank."""
        ...


class Clock(Protocol):
    """Measures the communication of one optimizer step after another."""

    def start(self) -> None:
        """A step begins now."""
        ...

    def seconds(self) -> float | None:
        """Communication since `start`, the mean over the ranks; None where it isn't measured. *Collective*."""
        ...


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


def train(
    engine: Trainable,
    batches: Iterator[Numbered],
    course: Course,
    speed: Speed,
    *,
    validate: Callable[[], float],
    checkpoint: Callable[[int], None],
    stop_agreed: Callable[[], bool],
    clock: Clock,
    peak_memory_gib: Callable[[], float],
) -> Iterator[StepRecord]:
    """Trains and yields one record a step, the same on every rank. *Collective*: every rank iterates alike.

    Ends after the last step, or after the step in which the ranks agreed to stop (which is checkpointed then).

    Raises:
        RunFailure: If the loss is not a number; nothing is checkpointed after that.
    """
    for step in range(course.first_step, course.steps + 1):
        watch = Stopwatch()
        batch = next(batches)
        assert batch.step == step, f"the data stands at step {batch.step}, the loop at {step}"
        data_seconds = watch.lap()
        rate = learning_rate(course.schedule, course.highest_rate, step, course.steps)
        result, training_seconds, communication_seconds = _timed_step(engine, batch, rate, clock, watch)
        check_finite(step, result.loss, result.grad_norm)
        validation_loss = validate() if _due(step, course.validate_every) and step < course.steps else None
        evaluation_seconds = watch.lap()
        stop = stop_agreed() and step < course.steps
        if stop or _due(step, course.checkpoint_every):
            checkpoint(step)
        checkpoint_seconds = watch.lap()
        tokens = course.global_batch_tokens if result.tokens is None else result.tokens
        yield StepRecord(
            step=step,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=rate,
            tokens=tokens,
            samples=course.global_batch_samples,
            tokens_total=step * course.global_batch_tokens if result.tokens is None else None,
            step_seconds=watch.total(),
            # Speed is of training alone: checkpoints and validation have columns of their own.
            **speed.rates(tokens / (data_seconds + training_seconds)),
            data_seconds=data_seconds,
            compute_seconds=max(0.0, training_seconds - (communication_seconds or 0.0)),
            communication_seconds=communication_seconds,
            checkpoint_seconds=checkpoint_seconds,
            evaluation_seconds=evaluation_seconds,
            peak_memory_gib=peak_memory_gib(),
            validation_loss=validation_loss,
            extra=dict(result.extra),
        )
        if stop:
            return


def _timed_step(
    engine: Trainable, batch: Numbered, rate: float, clock: Clock, watch: Stopwatch
) -> tuple[StepResult, float, float | None]:
    """One optimizer step: its result, its seconds, and how many of them were communication."""
    clock.start()
    watch.lap()  # a profiler takes its time to start, and to tell what it saw
    result = engine.train_step(batch, rate)
    seconds = watch.lap()
    communication_seconds = clock.seconds()
    watch.lap()
    return result, seconds, communication_seconds


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def check_finite(step: int, loss: float, grad_norm: float) -> None:
    """The policy for a loss that is not a number: stop.

    Raises:
        RunFailure: If one of the two is infinite or not a number.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    raise RunFailure(
        f"step {step}: loss {loss}, gradient norm {grad_norm}",
        expected="finite numbers",
        action="lower optimizer.learning_rate or raise schedule.warmup_steps; resuming repeats the steps since the "
        "last checkpoint",
    )
