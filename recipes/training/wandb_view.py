"""Weights & Biases as a view of a run: configuration, metrics, machine, tables of samples, and the lineage's digests.

Offline by default: everything lies in RUN_DIR/wandb until `wandb sync` sends it. A run that is resumed keeps its W&B
id, so that W&B shows one run. Steps are a metric of their own (`step`), because a resume may do some of them twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit.config import digest
from kit.errors import RunFailure
from kit.files import sha256_file
from kit.metrics import StepRecord
from kit.run.directory import RunDirectory
from recipes.training.config import WandbConfig

INIT_SECONDS = 20.0
CLOSE_SECONDS = 60.0
"""How long a server may keep a stage waiting at its start and at its end."""


class WandbView:
    """See `recipes.training.sinks.View`.

    Raises:
        Exception: Whatever wandb raises when it can't start; the caller leaves the view out then.
    """

    name = "wandb"

    def __init__(self, run: RunDirectory, config: WandbConfig) -> None:
        import wandb

        manifest = run.manifest()
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            init_timeout=INIT_SECONDS,
            x_stats_sampling_interval=5.0,
        )
        self._directory, self._wandb = run, wandb
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            id=run.id,
            name=run.id,
            group=manifest.name,
            job_type=manifest.stage,
            tags=[manifest.stage, *config.tags],
            config=run.config(),
            mode=config.mode,
            # Offline, wandb writes a second file for the same id and joins them when they are synchronised.
            resume="allow" if config.mode == "online" else None,
            dir=str(run.path),
            settings=settings,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        origin = {"run": run.id, "key": manifest.key, "config": manifest.config_digest, "commit": manifest.git_commit}
        parents = {name: parent.model_dump(include={"run_id", "digest"}) for name, parent in manifest.parents.items()}
        self._lineage("origin", {**origin, "parents": parents})

    def write(self, record: StepRecord) -> None:
        """Logs every number of the record under the name that it has in metrics.jsonl."""
        self._run.log(record.flat())

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table."""
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def close(self, exit_code: int) -> None:
        """Adds the digests of what the run made, and ends the W&B run.

        Raises:
            RunFailure: If W&B doesn't answer in time.
        """
        if exit_code == 0:
            self._lineage("result", {"run": self._directory.id, "artifacts": _digests(self._directory.artifacts)})
        _in_time(lambda: self._run.finish(exit_code=exit_code), CLOSE_SECONDS)

    def _lineage(self, kind: str, content: dict[str, Any]) -> None:
        # Digests only: the files themselves stay in the run directory, which may hold many gigabytes.
        artifact = self._wandb.Artifact(f"{self._directory.id}-{kind}", type="lineage", metadata=content)
        with artifact.new_file("lineage.json", mode="w") as file:
            json.dump({**content, "digest": digest(content)}, file, indent=1)
        self._run.log_artifact(artifact)


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): f"sha256:{sha256_file(path)}" for path in files}


def _in_time(action: Callable[[], Any], seconds: float) -> None:
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            action()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if thread.is_alive():
        raise RunFailure(
            f"W&B has not taken the last metrics after {seconds:.0f} s",
            expected="a server that answers",
            action="see the network; metrics.jsonl has every record, and `wandb sync` can send the run's wandb folder",
        )
