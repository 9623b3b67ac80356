"""A cluster for the tests: an EMULATED one, or with SLIPWAY_KUBECONFIG a real one.

For a real one set also SLIPWAY_IMAGE (an image of this checkout that its nodes can pull), SLIPWAY_CLAIM (a claim that
all its nodes can write), and where they aren't the defaults SLIPWAY_CONTEXT and SLIPWAY_NAMESPACE.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from kit.config import dump
from kit.run.directory import RunDirectory
from kit.run.events import append_event, read_events
from kit.run.manifest import Manifest, write_manifest
from kit.target import KubernetesSettings, Target
from launch.executors.kubernetes.api import Cluster as Connection
from launch.executors.kubernetes.executor import KubernetesExecutor
from launch.executors.kubernetes.names import RUNS
from launch.executors.kubernetes.transfer import VolumePod
from launch.job import JobDescription, StopTo, Work

from .emulator.cluster import NAMESPACE, EmulatedCluster, reason_it_cannot_run

STAND_IN = Path(__file__).with_name("stand_in.py")
ROOT = Path(__file__).resolve().parents[2]
CODE = f"{RUNS}/.stand-in"


@dataclass
class Cluster:
    """Where the tests run: its settings, and for an emulated one its insides."""

    settings: dict[str, Any]
    emulated: EmulatedCluster | None = None

    def target(self, **changes: Any) -> Target:
        """A settled target of two CPU pods on this cluster; `kubernetes` settings by keyword."""
        settings = KubernetesSettings(**{**self.settings, **changes})
        return Target(
            kind="kubernetes",
            device="cpu",
            devices_per_host=1,
            threads_per_process=1,
            stop_grace_seconds=20,
            kubernetes=settings,
        )

    @property
    def inside(self) -> EmulatedCluster:
        """The emulated cluster; skips where the cluster is a real one."""
        if self.emulated is None:
            pytest.skip("only an emulated cluster can be made to do this")
        return self.emulated


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    real = os.environ.get("SLIPWAY_KUBECONFIG")
    if real:
        yield Cluster(
            {
                "kubeconfig": real,
                "context": os.environ.get("SLIPWAY_CONTEXT"),
                "namespace": os.environ.get("SLIPWAY_NAMESPACE", "default"),
                "image": os.environ.get("SLIPWAY_IMAGE", "slipway:cpu"),
                "claim": os.environ.get("SLIPWAY_CLAIM", "slipway-runs"),
                "cpu": "500m",
                "memory": "2Gi",
                "start_seconds": 180,
            }
        )
        return
    reason = reason_it_cannot_run()
    if reason:
        pytest.skip(reason)
    emulated = EmulatedCluster(tmp_path / "emulated")
    emulated.add("PersistentVolumeClaim", "runs", spec={"accessModes": ["ReadWriteMany"]}, status={"phase": "Bound"})
    settings = {"kubeconfig": str(emulated.kubeconfig), "namespace": NAMESPACE, "claim": "runs", "start_seconds": 20}
    yield Cluster(settings, emulated)
    emulated.close()


@dataclass
class Trial:
    """A run of the stand-in for training, and the executor that runs it."""

    run: RunDirectory
    job: JobDescription
    executor: KubernetesExecutor = field(default_factory=KubernetesExecutor)

    def log(self, rank: int) -> str:
        """A rank's log here."""
        path = self.run.logs / f"rank-{rank:05d}.log"
        return path.read_text() if path.exists() else ""

    def events(self) -> list[str]:
        """What happened, as it is known here."""
        return [str(event["event"]) for event in read_events(self.run)]

    def until(self, condition: Callable[[Trial], Any], seconds: float = 20.0) -> Callable[[], None]:
        """A poll that raises Reached as soon as a condition holds."""
        deadline = time.monotonic() + seconds

        def poll() -> None:
            if condition(self):
                raise Reached
            assert time.monotonic() < deadline, (self.events(), self.log(0), self.log(1))

        return poll

    def wait_until(self, condition: Callable[[Trial], Any], seconds: float = 20.0) -> None:
        """Watch until a condition holds, then look away: the job goes on."""
        try:
            ending = self.executor.wait(self.job, self.until(condition, seconds))
        except Reached:
            return
        raise AssertionError(f"it ended: {ending}; {self.log(0)}")


class Reached(Exception):
    """What a test waited for."""


@pytest.fixture
def trial(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    """Makes a run of the stand-in; whatever is left of it is removed."""
    made: list[Trial] = []

    def make(target: Target | None = None, steps: int = 8, grace: float = 20, **config: Any) -> Trial:
        made.append(new_trial(tmp_path / "runs", target or cluster.target(), steps, grace, **config))
        bring_stand_in(cluster, made[-1].job)
        return made[-1]

    yield make
    if cluster.emulated is None:
        for each in made:
            each.executor.kill(each.job)


def new_trial(root: Path, target: Target, steps: int = 8, grace: float = 20, **config: Any) -> Trial:
    """A run directory and its job."""
    run = RunDirectory.create(root, "pretrain", "stand-in")
    run.config_path.write_text(dump({"stage": "pretrain", "steps": steps, **config}))
    run.target_path.write_text(dump(target))
    write_manifest(
        run, Manifest(run_id=run.id, stage="pretrain", name="stand-in", created="now", config_digest="0", key="0")
    )
    append_event(run, "submitted")
    work = Work(
        module="stand_in",
        environment={"PYTHONPATH": f"{CODE}:/slipway/source:{ROOT}"},
        processes=2,
        hosts=2,
        parallel=False,
        stop_to=StopTo.RANKS,
        stop_grace_seconds=grace,
    )
    return Trial(run, JobDescription(run.path, target, work))


def bring_stand_in(cluster: Cluster, job: JobDescription) -> None:
    """Put the stand-in's module on the volume; the image has only what is shipped."""
    if cluster.emulated is not None:
        folder = cluster.emulated.volume / ".stand-in"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(STAND_IN, folder / STAND_IN.name)
        return
    with VolumePod(Connection(KubernetesSettings(**cluster.settings)), replace(job, target=cluster.target())) as pod:
        pod.put(CODE, {STAND_IN.name: STAND_IN})
