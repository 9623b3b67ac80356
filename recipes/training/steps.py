"""The steps of a stage: resume, the loop, checkpoints, sinks. Every stage with its own loop goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kit.metrics import StepRecord
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.distributed.memory import peak_memory_gib
from recipes.distributed.processes import Processes
from recipes.instability import Unstable, Watch, set_gate
from recipes.loop import Clock, Course, Numbered, Speed, StepEnd, Trainable, Validation, train
from recipes.stop import STOP, Stopped
from recipes.training.agreement import agree
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

    Raises:
        UserError: If bad steps are to be skipped, and the engine can't leave one out.
    """

    def __init__(
        self, config: TrainingConfig, run: RunDirectory, processes: Processes, engine: Trainable, speed: Speed
    ) -> None:
        self._config, self._run, self._processes, self._engine, self._speed = config, run, processes, engine, speed
        self._checkpoints = Checkpoints(config, run, processes)
        self._watch = Watch(config.instability)
        set_gate(self._watch, config.instability, engine, f"engine {config.engine} in stage {config.stage}")
        self._last = 0
        self.sinks: Sinks = open_sinks(run, config.logging, processes.first)

    def resume(self) -> dict[str, float] | None:
        """Loads the newest intact checkpoint and returns the notes kept with it; None without one. *Collective*."""
        manifest = self._checkpoints.resume(self._engine.load_state)
        if manifest is None:
            return None
        self._last = manifest.step
        return self._watch.take_back(manifest.notes)

    def go(self, feed: Feed, validate: Callable[[], float | Validation], notes: Mapping[str, float]) -> None:
        """Does the steps that are left. *Collective*: every rank.

        Args:
            feed: Gives this rank's batches of a range of steps.
            validate: The validation loss now.
            notes: Numbers that a restart wants back.

        Raises:
            Stopped: If it was asked to stop; the state is checkpointed.
            Unstable: As `config.instability` wants it: the run ends with its last checkpoint.
            RunFailure: If the disk is full.
        """
        course = self._course()
        left = range(course.first_step, course.steps + 1)
        if self._processes.first:
            append_event(self._run, "training_began", first_step=course.first_step, steps=course.steps)
        with communication_clock(self._config.engine, self._processes, len(left)) as clock:
            try:
                for record in self._records(feed(left), course, validate, notes, clock):
                    self._keep(record)
            except Unstable:
                # Every rank ends here in the same step. A checkpoint that is still being written is of good steps.
                self._checkpoints.finish()
                raise
        self._checkpoints.finish()
        if self._last < course.steps:
            raise Stopped

    def _course(self) -> Course:
        config = self._config
        return Course(
            first_step=self._last + 1,
            steps=config.budget.steps,
            global_batch_samples=config.data.global_batch_samples,
            global_batch_tokens=config.data.global_batch_tokens,
            highest_rate=config.optimizer.learning_rate,
            schedule=config.schedule,
            validate_every=config.validation.every_steps,
            checkpoint_every=config.checkpoint.every_steps,
        )

    def _records(
        self,
        batches: Iterator[Numbered],
        course: Course,
        validate: Callable[[], float | Validation],
        notes: Mapping[str, float],
        clock: Clock,
    ) -> Iterator[StepRecord]:
        return train(
            self._engine,
            batches,
            course,
            self._speed,
            watch=self._watch,
            validate=validate,
            checkpoint=lambda step: self._checkpoints.save(
                step, {**notes, **self._watch.notes()}, self._engine.save_state
            ),
            settle=self._checkpoints.settle,
            agree=self._agree,
            clock=clock,
        )

    def _agree(self, communication_seconds: float | None) -> StepEnd:
        memory = peak_memory_gib(self._processes.device)
        return agree(self._processes, STOP.requested, communication_seconds, memory)

    def _keep(self, record: StepRecord) -> None:
        """Writes down a step, and what went wrong in it."""
        print(f"step {record.step} loss {record.loss:.6f} norm {record.grad_norm:.4f}", flush=True)
        self.sinks.write(record)
        self._last = record.step
        fault = self._watch.fault
        if fault is not None and self._processes.first:
            told, samples = record.flat(), self._config.data.global_batch_samples
            append_event(
                self._run,
                "step_skipped",
                step=record.step,
                reason=str(fault),
                loss=told["loss"],
                grad_norm=told["grad_norm"],
                first_sample=(record.step - 1) * samples,
                samples=samples,
            )
