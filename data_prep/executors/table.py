"""Every executor that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from datatrove.pipeline.base import PipelineStep

from data_prep.config import DataPrepConfig, ExecuteConfig
from data_prep.executors.hosts import Hosts
from data_prep.executors.local import LocalExecutor
from data_prep.executors.ray_cluster import RayExecutor
from data_prep.executors.slurm import SlurmExecutor
from data_prep.executors.tasks import Progress
from kit.hardware import available_cores


class Executor(Protocol):
    """What the pipeline asks of an executor."""

    def execute(self, blocks: Sequence[PipelineStep], tasks: int, folder: Path, progress: Progress) -> None:
        """Run the tasks of a step that are not finished yet; returns when all are.

        Args:
            blocks: what every task runs.
            tasks: how many there are; the result depends on this number, and on nothing else here.
            folder: where the marks of finished tasks and the logs of the step lie; its name is the step's.
            progress: called with the number of finished tasks and of all tasks, on the first host only.
        """


EXECUTORS: dict[str, Callable[[ExecuteConfig, int | None, Hosts], Executor]] = {
    "local": lambda config, workers, hosts: LocalExecutor(workers or available_cores(), hosts),
    "ray": lambda config, workers, hosts: RayExecutor(config, workers),
    "slurm": lambda config, workers, hosts: SlurmExecutor(config, workers),
}


def build_executor(config: DataPrepConfig, hosts: Hosts) -> Executor:
    """The executor that a recipe names; `workers: auto` is every core of a host, or all that a cluster gives.

    Raises:
        UserError: what it needs is not installed here.
    """
    workers = None if config.workers == "auto" else config.workers
    return EXECUTORS[config.execute.kind](config.execute, workers, hosts)
