"""The checkpoints of one run: where it goes on, and what is kept with its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kit.config import digest
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.distributed.processes import Processes
from recipes.training.config import TrainingConfig


class Checkpoints:
    """The checkpoints of a stage that trains, with the events that tell of them.

    Args:
        config: The recipe.
        run: Where checkpoints and events go.
        processes: The job.
    """

    def __init__(self, config: TrainingConfig, run: RunDirectory, processes: Processes) -> None:
        self._config, self._run, self._processes = config, run, processes
        self._store = CheckpointStore(run.checkpoints, processes, config.checkpoint.keep)

    def resume(self, load_state: Callable[[Path], None]) -> CheckpointManifest | None:
        """Loads the newest intact checkpoint and returns what it says of itself; None without one. *Collective*."""
        folder, manifest = self._store.newest_intact()
        for complaint in self._store.complaints:
            print(f"warning: {complaint}", flush=True)
            append_event(self._run, "checkpoint_damaged", words=complaint)
        if folder is None or manifest is None:
            return None
        load_state(folder)
        if self._processes.first:
            append_event(self._run, "resumed", step=manifest.step)
        print(f"goes on after step {manifest.step}", flush=True)
        return manifest

    def save(self, step: int, notes: Mapping[str, float], save_state: Callable[[Path], None]) -> None:
        """Keeps the state after a step, and numbers that a restart wants back. *Collective*: every rank.

        Raises:
            RunFailure: If any rank couldn't write; older checkpoints are as they were.
        """
        config = self._config
        manifest = CheckpointManifest(
            step=step,
            samples_seen=step * config.data.global_batch_samples,
            engine=config.engine,
            layout=config.layout.model_dump(),
            config_digest=digest(config),
            notes=dict(notes),
        )
        self._store.save(manifest, save_state)
        if self._processes.first:
            append_event(self._run, "checkpointed", step=step)
