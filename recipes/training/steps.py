"""The steps of a stage: resume, the loop, checkpoints, sinks. Every stage with its own loop goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kit.run.directory import RunDirectory
from recipes.distributed.memory import peak_memory_gib
from recipes.distributed.processes import Processes
from recipes.loop import Course, Numbered, Speed, Trainable, train
from recipes.stop import STOP, Stopped
from recipes.training.checkpoints import Checkpoints
from recipes.training.communication import communication_clock
from recipes.training.config import TrainingConfig
from recipes.training.sinks import Sinks, open_sinks

Feed = Callable[[range], Iterator[Numbered]]


class Steps:
    """The optimizer steps of one run.

    Args:
        config: The recipe.
        run: Where checkpoints, metrics and events go.
        processes: The job.
        engine: What does a step, and keeps its state.
        speed: What turns tokens per second into FLOP/s.
    """

    def __init__(
        self, config: TrainingConfig, run: RunDirectory, processes: Processes, engine: Trainable, speed: Speed
    ) -> None:
        self._config, self._run, self._processes, self._engine, self._speed = config, run, processes, engine, speed
        self._checkpoints = Checkpoints(config, run, processes)
        self._last = 0
        self.sinks: Sinks = open_sinks(run, config.logging, processes.first)

    def resume(self) -> dict[str, float] | None:
        """Loads the newest intact checkpoint and returns the notes kept with it; None without one. *Collective*."""
        manifest = self._checkpoints.resume(self._engine.load_state)
        if manifest is None:
            return None
        self._last = manifest.step
        return manifest.notes

    def go(self, feed: Feed, validate: Callable[[], float], notes: Mapping[str, float]) -> None:
        """Does the steps that are left. *Collective*: every rank.

        Args:
            feed: Gives this rank's batches of a range of steps.
            validate: The validation loss now.
            notes: Numbers that a restart wants back.

        Raises:
            Stopped: If it was asked to stop; the state is checkpointed.
            RunFailure: If the loss isn't a number, or the disk is full.
        """
        config = self._config
        course = Course(
            first_step=self._last + 1,
            steps=config.budget.steps,
            global_batch_samples=config.data.global_batch_samples,
            global_batch_tokens=config.data.global_batch_tokens,
            highest_rate=config.optimizer.learning_rate,
            schedule=config.schedule,
            validate_every=config.validation.every_steps,
            checkpoint_every=config.checkpoint.every_steps,
        )
        left = range(course.first_step, course.steps + 1)
        with communication_clock(config.engine, self._processes, len(left)) as clock:
            records = train(
                self._engine,
                feed(left),
                course,
                self._speed,
                validate=validate,
                checkpoint=lambda step: self._checkpoints.save(step, notes, self._engine.save_state),
                clock=clock,
                stop_agreed=lambda: self._processes.agree_any(STOP.requested),
                peak_memory_gib=lambda: self._processes.largest(peak_memory_gib(self._processes.device)),
            )
            for record in records:
                print(f"step {record.step} loss {record.loss:.6f} norm {record.grad_norm:.4f}", flush=True)
                self.sinks.write(record)
                self._last = record.step
        if self._last < course.steps:
            raise Stopped
