"""The checkpoints of one run: where it goes on, and what is kept with its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kit.config import digest
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore, WriteState
from recipes.distributed.processes import Processes
from recipes.training.config import TrainingConfig
from recipes.training.origin import check_origin, origin_of, package_versions


class Checkpoints:
    """The checkpoints of a stage that trains, with the events that tell of them.

    Args:
        config: The recipe.
        run: Where checkpoints and events go.
        processes: The job.
    """

    def __init__(self, config: TrainingConfig, run: RunDirectory, processes: Processes) -> None:
        self._config, self._run, self._processes = config, run, processes
        policy = config.checkpoint
        self._store = CheckpointStore(run.checkpoints, processes, policy.keep, policy.keep_every)
        self._origin = origin_of(config, run)

    def resume(self, load_state: Callable[[Path], None]) -> CheckpointManifest | None:
        """Loads the newest intact checkpoint and returns what it says of itself; None without one. *Collective*.

        Raises:
            UserError: If it belongs to other data, another tokenizer or model, or was written in another schema.
        """
        folder, manifest = self._store.newest_intact()
        for complaint in self._store.complaints:
            print(f"warning: {complaint}", flush=True)
            append_event(self._run, "checkpoint_damaged", words=complaint)
        if folder is None or manifest is None:
            return None
        check_origin(folder.name, manifest, self._origin)
        load_state(folder)
        if self._processes.first:
            append_event(self._run, "resumed", step=manifest.step)
        print(f"goes on after step {manifest.step}", flush=True)
        return manifest

    def save(self, step: int, notes: Mapping[str, float], save_state: WriteState) -> None:
        """Keeps the state after a step, and numbers that a restart wants back. *Collective*: every rank.

        With `checkpoint.asynchronous` and an engine that can, the state has been copied when this returns, and is
        written meanwhile; one that is still being written is waited for first.

        Raises:
            RunFailure: If any rank couldn't write; older checkpoints are as they were.
        """
        self.finish()
        config = self._config
        manifest = CheckpointManifest(
            step=step,
            samples_seen=step * config.data.global_batch_samples,
            engine=config.engine,
            layout=config.layout.model_dump(),
            config_digest=digest(config),
            notes=dict(notes),
            origin=self._origin,
            versions=package_versions(),
        )
        self._store.start(manifest, save_state, background=config.checkpoint.asynchronous)
        if not self._store.under_way:
            self._tell(step)

    def settle(self) -> None:
        """Completes a checkpoint that every rank has written by now. *Collective*: every rank, after every step.

        Raises:
            RunFailure: On every rank, if any rank couldn't write.
        """
        self._tell(self._store.settle())

    def finish(self) -> None:
        """Waits for the checkpoint that is being written, if one is. *Collective*: every rank.

        Raises:
            RunFailure: On every rank, if any rank couldn't write.
        """
        self._tell(self._store.settle(wait=True))

    def _tell(self, step: int | None) -> None:
        if step is not None and self._processes.first:
            append_event(self._run, "checkpointed", step=step)
