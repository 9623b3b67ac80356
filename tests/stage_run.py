"""A run directory as the launcher leaves it, for tests that start a stage's ranks themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kit.config import digest, dump, to_data
from kit.run.directory import RunDirectory
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from recipes.training.config import TrainingConfig


def write_run(root: Path, config: TrainingConfig, parents: Mapping[str, Path]) -> RunDirectory:
    """A run of a recipe on this machine, one thread a rank; parents are the folders of runs by name."""
    run = RunDirectory.create(root, config.stage, config.name)
    run.config_path.write_text(dump(config))
    run.target_path.write_text(dump(Target(device="cpu", threads_per_process=1).settle(config.layout.world_size, 0)))
    manifest = Manifest(
        run_id=run.id,
        stage=config.stage,
        name=config.name,
        created=now(),
        parents={name: Parent(run_id=name, path=str(path), digest="sha256:0") for name, path in parents.items()},
        config_digest=digest(to_data(config)),
        key="sha256:0",
    )
    write_manifest(run, manifest)
    return run
