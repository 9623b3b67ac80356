"""Files to and from the volume of runs, through a small pod that mounts it; every file is checked by its sha256."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from kit.errors import RunFailure, UserError
from kit.units import format_bytes
from launch.executors.kubernetes import names
from launch.executors.kubernetes.api import Cluster
from launch.executors.kubernetes.exec import execute
from launch.executors.kubernetes.inputs import brought_inputs
from launch.executors.kubernetes.names import RUNS
from launch.executors.kubernetes.pods import view
from launch.executors.kubernetes.render import WORK, metadata, pod_spec, runs_volume, settings_of
from launch.executors.protocol import Say
from launch.host.files import digests
from launch.job import JobDescription

PARENT_PARTS = ("manifest.json", "config.yaml", "target.yaml", "events.jsonl", "artifacts")
LIFE_SECONDS = 6 * 3600  # of the pod, should nobody delete it
PULL_SECONDS = 15.0
PROGRAM = "launch.executors.kubernetes.volume"


class VolumePod:
    """A pod that only waits, with the volume of runs mounted; gone when the block ends."""

    def __init__(self, cluster: Cluster, job: JobDescription) -> None:
        self._cluster, self._job = cluster, job
        self.name = f"slipway-files-{names.slug(job.id, 40)}-{secrets.token_hex(3)}"

    def __enter__(self) -> VolumePod:
        self._sweep()
        self._cluster.create(files_pod(self._job, self.name))
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.delete("Pod", self.name, grace=0)

    def digests(self, root: str, paths: Sequence[str]) -> dict[str, str]:
        """File -> sha256 of what lies there."""
        said = self._run("digests", root, lambda: [_line(paths)])
        return dict(json.loads(said))

    def put(self, root: str, files: dict[str, Path]) -> None:
        """Copy files: name under the root -> file here."""
        written = json.loads(self._run("put", root, lambda: _packed(files)))
        wanted = {name: digests(path.parent, [path.name])[path.name] for name, path in files.items()}
        wrong = [name for name in wanted if written.get(name) != wanted[name]]
        if wrong:
            raise _changed(wrong[0], f"{root} in pod {self.name}")

    def get(self, root: str, wanted: dict[str, str], target: Path) -> None:
        """Copy files here: name -> sha256; each comes to its place only when it is whole."""
        incoming = target / f".incoming-{secrets.token_hex(4)}"
        incoming.mkdir(parents=True)
        try:
            archive = incoming / "archive.tar"
            with archive.open("wb") as file:

                def fresh() -> Callable[[bytes], None]:
                    file.seek(0)
                    file.truncate()
                    return lambda data: _write(file, data)

                command = ["python", "-m", PROGRAM, "get", root]
                execute(self._cluster, self.name, command, lambda: [_line(sorted(wanted))], fresh)
            with tarfile.open(archive) as packed:
                packed.extractall(incoming / "files", filter="data")
            found = digests(incoming / "files", ["."])
            wrong = [name for name in wanted if found.get(name) != wanted[name]]
            if wrong:
                raise _changed(wrong[0], str(target))
            for name in wanted:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(incoming / "files" / name, target / name)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _run(self, verb: str, root: str, feed: Callable[[], Any]) -> str:
        parts: list[bytes] = []

        def fresh() -> Callable[[bytes], None]:
            parts.clear()
            return parts.append

        execute(self._cluster, self.name, ["python", "-m", PROGRAM, verb, root], feed, fresh)
        return b"".join(parts).decode()

    def _await(self) -> None:
        """Wait until the pod runs."""
        began = time.monotonic()
        failing: float | None = None
        while True:
            found = self._cluster.get("Pod", self.name)
            if found is None:
                raise self._failure("it was deleted")
            pod, now = view(found), time.monotonic()
            if pod.phase == "Running" and pod.ready:
                return
            failing = (failing or now) if pod.pull_fails else None
            hopeless = pod.hopeless or pod.ended or (failing is not None and now - failing > PULL_SECONDS)
            if hopeless or now - began > self._cluster.settings.start_seconds:
                raise self._failure(pod.reason or pod.phase)
            time.sleep(0.2)

    def _failure(self, why: str) -> RunFailure:
        return RunFailure(
            f"pod {self.name} in namespace {self._cluster.namespace}, which copies files, does not start: {why}",
            expected="a running container with the image and the volume of the target",
            action="mend what the reason names (kubernetes.image, claim, a quota), then try again",
        )

    def _sweep(self) -> None:
        """Forget pods of this kind that have ended: somebody's machine went away while they worked."""
        items, _ = self._cluster.list("Pod", names.selector(self._job.id, "files"))
        for item in items:
            if view(item).ended:
                self._cluster.delete("Pod", item["metadata"]["name"], grace=0)


def files_pod(job: JobDescription, name: str) -> dict[str, Any]:
    """The pod as an object of the API. Pure."""
    container = {
        "name": names.CONTAINER,
        "command": ["sleep", str(LIFE_SECONDS)],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "volumeMounts": [{"name": "runs", "mountPath": RUNS}],
    }
    spec = pod_spec(job, container, [runs_volume(job)])
    spec["activeDeadlineSeconds"] = LIFE_SECONDS
    spec["terminationGracePeriodSeconds"] = 1
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata(job, name, "files"), "spec": spec}


def bring_inputs(cluster: Cluster, job: JobDescription, say: Say) -> None:
    """Bring parents and input files to the volume, as far as they aren't there.

    Raises:
        UserError: There is something to bring, and no volume; or an input can't be brought.
        RunFailure: A copy fails.
    """
    inputs = brought_inputs(job)
    if not job.parents and not inputs:
        return
    if not has_volume(job):
        raise UserError(
            f"{job.id} reads {'parents' if job.parents else 'input files'}, and its target has no volume for them",
            expected="kubernetes.claim (or for one node kubernetes.host_path)",
            action="make a PersistentVolumeClaim and name it in the target; docs/kubernetes.md shows one",
        )
    with VolumePod(cluster, job) as pod:
        for parent in job.parents:
            parts = [part for part in PARENT_PARTS if (parent / part).exists()]
            _bring(pod, f"{RUNS}/{parent.name}", parent, digests(parent, parts), say, f"parent {parent.name}")
        if inputs:
            here = {name: digests(path.parent, [path.name])[path.name] for name, path in inputs.items()}
            _send(pod, WORK, inputs, here, say, "input files")


def fetch_folders(cluster: Cluster, job: JobDescription, say: Say, folders: Sequence[str]) -> None:
    """Copy folders of the run here, as far as they differ.

    Raises:
        UserError: The target has no volume, so nothing outlived the pods.
        RunFailure: A copy fails or arrives changed.
    """
    if not has_volume(job):
        raise UserError(
            f"the target of {job.id} has no volume, so its {', '.join(folders)} ended with its pods",
            expected="kubernetes.claim or kubernetes.host_path",
            action="name one in the target and run again",
        )
    root = f"{RUNS}/{job.id}"
    with VolumePod(cluster, job) as pod:
        there = pod.digests(root, folders)
        here = digests(job.run, [folder for folder in folders if (job.run / folder).exists()])
        wanted = {name: digest for name, digest in there.items() if here.get(name) != digest}
        if wanted:
            pod.get(root, wanted, job.run)
            size = sum((job.run / name).stat().st_size for name in wanted)
            say(f"Fetched {len(wanted)} files ({format_bytes(size)}) of {', '.join(folders)}.")


def has_volume(job: JobDescription) -> bool:
    """Whether something outlives the pods."""
    settings = settings_of(job)
    return bool(settings.claim or settings.host_path)


def _bring(pod: VolumePod, root: str, folder: Path, here: dict[str, str], say: Say, what: str) -> None:
    _send(pod, root, {name: folder / name for name in here}, here, say, what)


def _send(pod: VolumePod, root: str, files: dict[str, Path], here: dict[str, str], say: Say, what: str) -> None:
    """Copy the files that aren't there as they are here."""
    there = pod.digests(root, sorted(files))
    missing = {name: path for name, path in files.items() if there.get(name) != here[name]}
    if missing:
        size = sum(path.stat().st_size for path in missing.values())
        say(f"Bringing {what} to the volume: {len(missing)} files, {format_bytes(size)}.")
        pod.put(root, missing)


def _packed(files: dict[str, Path]) -> Iterator[bytes]:
    """A tar stream of files, piece by piece."""
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as packed:
            for name, path in files.items():
                packed.add(path.resolve(), arcname=name, filter=_nobodys)
        archive.seek(0)
        while data := archive.read(1 << 20):
            yield data


def _nobodys(item: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner that a file has here."""
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    return item


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _line(paths: Sequence[str]) -> bytes:
    return json.dumps(list(paths)).encode() + b"\n"


def _changed(name: str, where: str) -> RunFailure:
    return RunFailure(
        f"{name} did not arrive whole at {where}",
        expected="the same sha256 on both sides",
        action="try again; if it happens again, look at the volume's room and health",
    )
