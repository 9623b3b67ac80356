"""Kubernetes as a place for the contract suite of tests/launch: an EMULATED cluster whose pods really run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from emulator.cluster import NAMESPACE, EmulatedCluster, reason_it_cannot_run

from kit.config import dump
from kit.run.directory import RunDirectory
from launch.job import JobDescription


class KubernetesBackend:
    """Two pods, one rank in each."""

    name = "kubernetes"

    def __init__(self, folder: Path, cluster: EmulatedCluster) -> None:
        self._folder, self.cluster = folder, cluster
        self._made = 0

    def target(self, **changes: Any) -> str:
        """A target file of this cluster."""
        self._made += 1
        path = self._folder / f"kubernetes-{self._made}.yaml"
        settings = {
            "kubeconfig": str(self.cluster.kubeconfig),
            "namespace": NAMESPACE,
            "claim": "runs",
            "start_seconds": 60,
        }
        data = {"kind": "kubernetes", "devices_per_host": 1, "device": "cpu", "kubernetes": settings, **changes}
        path.write_text(dump(data))
        return str(path)

    def processes_left(self, run: RunDirectory) -> list[str]:
        """Processes in containers, objects in the cluster that still work, and commands of ours."""
        inside = [" ".join(process.cmdline()) for process in self._inside()]
        pods = [
            pod["metadata"]["name"] for pod in self.cluster.pods() if pod["status"]["phase"] in ("Pending", "Running")
        ]
        return [*inside, *pods]

    def kill_rank(self, run: RunDirectory, rank: int) -> None:
        """SIGKILL to a rank inside its container."""
        for process in self._inside():
            if "recipes" in process.cmdline() and process.environ().get("RANK") == str(rank):
                os.kill(process.pid, signal.SIGKILL)
                return
        raise AssertionError(f"no rank {rank} among {self.processes_left(run)}")

    @contextmanager
    def spoilt(self, job: JobDescription) -> Iterator[JobDescription]:
        """A node without room for the second pod."""
        assert job.target.kubernetes is not None
        soon = job.target.kubernetes.model_copy(update={"start_seconds": 3.0})
        self.cluster.faults.unschedulable = {1}
        try:
            yield replace(job, target=job.target.model_copy(update={"kubernetes": soon}))
        finally:
            self.cluster.faults.unschedulable = set()

    def _inside(self) -> list[psutil.Process]:
        found = []
        for pid in self.cluster.call(lambda: [c.pid for c in self.cluster.kubelet.containers.values() if not c.ended]):
            if pid and psutil.pid_exists(pid):
                process = psutil.Process(pid)
                found += [process, *process.children(recursive=True)]
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def kubernetes_backend(folder: Path) -> Iterator[KubernetesBackend]:
    """For the table of backends."""
    reason = reason_it_cannot_run()
    if reason:
        pytest.skip(reason)
    cluster = EmulatedCluster(folder / "emulated")
    cluster.add("PersistentVolumeClaim", "runs", spec={"accessModes": ["ReadWriteMany"]}, status={"phase": "Bound"})
    try:
        yield KubernetesBackend(folder, cluster)
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
