"""The steps of a stage: resume, the loop, checkpoints, sinks. Every stage with its own loop goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from kit.config import digest
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.distributed.memory import peak_memory_gib
from recipes.distributed.processes import Processes
from recipes.loop import Course, Numbered, Speed, Trainable, train
from recipes.stop import STOP, Stopped
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
        self._store = CheckpointStore(run.checkpoints, processes, config.checkpoint.keep)
        self._last = 0
        self.sinks: Sinks = open_sinks(run, config.logging, processes.first)

    def resume(self) -> dict[str, float] | None:
        """Loads the newest intact checkpoint and returns the notes kept with it; None without one. *Collective*."""
        folder, manifest = self._store.newest_intact()
        for complaint in self._store.complaints:
            print(f"warning: {complaint}", flush=True)
            append_event(self._run, "checkpoint_damaged", words=complaint)
        if folder is None or manifest is None:
            return None
        self._engine.load_state(folder)
        if self._processes.first:
            append_event(self._run, "resumed", step=manifest.step)
        print(f"goes on after step {manifest.step}", flush=True)
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
        records = train(
            self._engine,
            feed(range(course.first_step, course.steps + 1)),
            course,
            self._speed,
            validate=validate,
            checkpoint=partial(self._checkpoint, dict(notes)),
            stop_agreed=lambda: self._processes.agree_any(STOP.requested),
            peak_memory_gib=lambda: self._processes.largest(peak_memory_gib(self._processes.device)),
        )
        for record in records:
            print(f"step {record.step} loss {record.loss:.6f} norm {record.grad_norm:.4f}", flush=True)
            self.sinks.write(record)
            self._last = record.step
        if self._last < course.steps:
            raise Stopped

    def _checkpoint(self, notes: dict[str, float], step: int) -> None:
        config = self._config
        manifest = CheckpointManifest(
            step=step,
            samples_seen=step * config.data.global_batch_samples,
            engine=config.engine,
            layout=config.layout.model_dump(),
            config_digest=digest(config),
            notes=notes,
        )
        self._store.save(manifest, self._engine.save_state)
        if self._processes.first:
            append_event(self._run, "checkpointed", step=step)
