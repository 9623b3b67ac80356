"""Tasks on a Ray cluster, through datatrove's executor; the run directory must be seen by all its machines."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from data_prep.config import ExecuteConfig
from data_prep.executors.tasks import Progress, completed
from data_prep.processes import StopRequest, listen_for_stop
from kit.errors import RunFailure, UserError

VERSION = "2.60.0"
_LOOK_SECONDS = 0.5
_WORKER_GIB = 1.5
_CODE = Path(__file__).resolve().parents[2]


class RayExecutor:
    """Runs the tasks of steps on a cluster that is there, or on one that lives as long as this process.

    Args:
        config: the address.
        workers: tasks at a time; None: as many as there are cores.

    Raises:
        UserError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, config: ExecuteConfig, workers: int | None) -> None:
        self.workers = workers
        try:
            self.ray: Any = import_module("ray")
        except ImportError:
            raise UserError(
                "execute.kind is ray, and the package ray is not installed",
                expected="Ray here and on every machine of the cluster",
                action=f"`pip install ray=={VERSION}`, or set execute.kind=local",
            ) from None
        if not self.ray.is_initialized():
            self._connect(config.ray_address)

    def execute(self, blocks: Sequence[PipelineStep], tasks: int, folder: Path, progress: Progress) -> None:
        """Run what is not finished yet.

        Raises:
            RunFailure: a task failed; its log says why.
        """
        executor = RayPipelineExecutor(
            list(blocks),
            tasks=tasks,
            workers=min(tasks, self.workers or int(self.ray.cluster_resources().get("CPU", 1))),
            logging_dir=str(folder),
            mem_per_cpu_gb=_WORKER_GIB,
        )
        # In the end datatrove adds up statistics, which tasks that were done under another executor have not left.
        with _told(folder, tasks, progress), _stop_heard(), suppress(FileNotFoundError):
            executor.run()
        left = sorted(set(range(tasks)) - completed(folder))
        if left:
            raise RunFailure(
                f"{len(left)} of {tasks} tasks of the step {folder.name} did not finish on Ray",
                expected="every task to finish",
                action=f"see {folder / 'logs'} (the first is task {left[0]}), then `slipway resume` the run: finished "
                "tasks are not repeated",
            )

    def _connect(self, address: str | None) -> None:
        """Join the cluster; its machines find the code where it is here, or installed."""
        code = os.pathsep.join(filter(None, [str(_CODE), os.environ.get("PYTHONPATH")]))
        options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": code}}, "log_to_driver": False}
        if address is None:
            options |= {"include_dashboard": False, "num_cpus": self.workers}
        try:
            self.ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"execute.ray_address {address!r}: {error}" if address else f"Ray does not start here: {error}",
                expected="a Ray cluster of the same version that answers there",
                action="see `ray status` on its head node, or leave execute.ray_address out to start one here",
            ) from error
        listen_for_stop()  # Ray has put its own answer to SIGTERM in place, which ends the process without a word


@contextmanager
def _stop_heard() -> Iterator[None]:
    """A stop that is raised inside Ray's compiled code comes out of it as a SystemError."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__ or error.__context__, StopRequest):
            raise StopRequest from error
        raise


@contextmanager
def _told(folder: Path, tasks: int, progress: Progress) -> Iterator[None]:
    """Tell the progress from the marks while datatrove's executor, which says nothing, is at work."""
    over = threading.Event()

    first = len(completed(folder))
    progress(first, tasks)

    def tell() -> None:
        told = first
        while True:
            last = over.wait(_LOOK_SECONDS)
            done = len(completed(folder))
            if done != told:
                told = done
                progress(done, tasks)
            if last:
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
