"""The Kubernetes backend: the job is an Indexed Job, found again by its labels from any machine with the kubeconfig."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import atomic_write
from launch.executors.kubernetes import gang, names
from launch.executors.kubernetes.api import Cluster
from launch.executors.kubernetes.checks import check
from launch.executors.kubernetes.logs import JobLogs
from launch.executors.kubernetes.names import host_name
from launch.executors.kubernetes.pods import KILLED, view
from launch.executors.kubernetes.render import STOP_MARGIN_SECONDS, settings_of
from launch.executors.kubernetes.transfer import bring_inputs, fetch_folders
from launch.executors.kubernetes.verdict import Pods, Verdict
from launch.executors.kubernetes.watch import PodWatch
from launch.executors.protocol import Ending, OnPoll, Say, Status, nothing
from launch.job import JobDescription

POLL_SECONDS = 0.1
DRAIN_SECONDS = 20.0
CONNECT_SECONDS = 3.0
SILENT_SECONDS = 18.0  # of a pod that gives signs of life; then its node is asked, twice
RECORD = "kubernetes.json"


class KubernetesExecutor:
    """Runs jobs in a namespace of a cluster. What is known of a job is there; here is only its attempt's number."""

    def prepare(self, job: JobDescription, say: Say) -> None:
        """Check what can be checked before anything starts, and bring parents and inputs to the volume."""
        cluster = Cluster(settings_of(job))
        check(cluster, job, say)
        bring_inputs(cluster, job, say)

    def submit(self, job: JobDescription) -> None:
        """Start all pods or none."""
        cluster = Cluster(settings_of(job))
        jobs = _jobs(cluster, job)
        for item in jobs:
            if not _finished(item):
                name = item["metadata"]["name"]
                raise UserError(
                    f"{job.id} is still running: Job {name} in namespace {cluster.namespace} of {cluster.host}",
                    expected="a run whose pods have ended",
                    action=f"watch it with `slipway attach {job.id}`, or end it with `slipway stop {job.id}`",
                )
            gang.remove(cluster, job.id, item["metadata"]["name"])
        attempt = 1 + max([_recorded(job.run), *(_attempt(item) for item in jobs)])
        _record(job.run, attempt)
        gang.start(cluster, job, attempt)

    def wait(self, job: JobDescription, on_poll: OnPoll = nothing) -> Ending:
        """Bring logs, events and metrics until the job has ended, was deleted, or a pod is lost."""
        cluster = Cluster(settings_of(job))
        found = _newest(cluster, job)
        if found is None:
            return Ending({host_name(index): None for index in range(job.work.hosts)})
        name, deliberate = found["metadata"]["name"], False
        verdict = Verdict(job.work.hosts, _patience(job))
        logs = JobLogs(cluster, job.run)
        try:
            with PodWatch(cluster, _selector(job, found)) as watch:
                while True:
                    pods = _follow(watch, logs)
                    on_poll()
                    now = time.monotonic()
                    ending = verdict.stopped(pods, now) if deliberate else verdict.ending(pods, now)
                    if ending is None and not deliberate:
                        silent = _silent(cluster, pods, logs)
                        ending = verdict.ending(pods, now, silent) if silent else None
                    if ending is not None and ending.lost and not deliberate and _deleted(cluster, name):
                        deliberate, ending = True, None
                    elif not pods and _deleted(cluster, name):
                        deliberate = True
                    if ending is not None:
                        _say_last_words(logs, pods)
                        logs.drain(DRAIN_SECONDS if not ending.lost else 1.0)
                        on_poll()
                        return ending
                    time.sleep(POLL_SECONDS)
        finally:
            logs.close()

    def stop(self, job: JobDescription, on_poll: OnPoll = nothing) -> bool:
        """Delete the Job politely: every pod gets SIGTERM and its grace, and the objects go after the pods."""
        cluster = Cluster(settings_of(job))
        found = _newest(cluster, job)
        if found is None:
            return True
        name = found["metadata"]["name"]
        logs = JobLogs(cluster, job.run)
        deadline = time.monotonic() + _patience(job)
        pods: Pods = {}
        try:
            with PodWatch(cluster, _selector(job, found)) as watch:
                _follow(watch, logs)
                logs.connected(CONNECT_SECONDS)
                cluster.delete("Job", name, "Foreground")
                while time.monotonic() < deadline:
                    pods = _follow(watch, logs)
                    if _all_gone(pods):
                        break
                    on_poll()
                    time.sleep(POLL_SECONDS)
                logs.drain(CONNECT_SECONDS)
        finally:
            logs.close()
        overdue = not _all_gone(pods)
        gang.remove(cluster, job.id, name)
        return not overdue and all(pod.exit_code != KILLED for pod, _ in pods.values())

    def kill(self, job: JobDescription) -> None:
        """Remove every Job of the run with its pods."""
        cluster = Cluster(settings_of(job))
        for item in _jobs(cluster, job):
            gang.remove(cluster, job.id, item["metadata"]["name"])

    def recover(self, job: JobDescription, ending: Ending, on_poll: OnPoll = nothing) -> None:
        """Remove what the attempt left. Which nodes take the next one is the scheduler's choice, and its time is
        `start_seconds`.
        """
        self.kill(job)
        on_poll()

    def status(self, job: JobDescription) -> Status:
        """What the pods do now."""
        cluster = Cluster(settings_of(job))
        found = _newest(cluster, job)
        if found is None:
            return Status(live=False)
        items, _ = cluster.list("Pod", _selector(job, found))
        pods = [view(item) for item in items]
        live = any(not pod.ended for pod in pods) or not (pods or _finished(found))
        return Status(live=live, hosts={host_name(pod.index): pod.words() for pod in pods})

    def fetch(self, job: JobDescription, say: Say, folders: Sequence[str] = ("artifacts",)) -> None:
        """Copy folders of the run from the volume, through a pod that mounts it."""
        fetch_folders(Cluster(settings_of(job)), job, say, folders)


def _follow(watch: PodWatch, logs: JobLogs) -> Pods:
    """One look at the pods; their logs are read and written."""
    pods = watch.pods()
    for index, (pod, gone) in pods.items():
        if pod.started:
            logs.follow(host_name(index), pod.name)
        if pod.ended or gone:
            logs.ended(pod.name)
    logs.take()
    return pods


def _all_gone(pods: Pods) -> bool:
    return all(gone for _, gone in pods.values())


def _silent(cluster: Cluster, pods: Pods, logs: JobLogs) -> frozenset[int]:
    """The pods whose signs of life have stopped and whose nodes, asked twice, don't answer either."""
    found = set()
    for index, (pod, gone) in pods.items():
        if not (gone or pod.ended) and logs.silent_seconds(pod.name) > SILENT_SECONDS:
            if [cluster.node_answers(pod.name) for _ in range(2)] == [False, False]:
                found.add(index)
            else:
                logs.heard(pod.name)
    return frozenset(found)


def _say_last_words(logs: JobLogs, pods: Pods) -> None:
    """How a container ended that didn't end by itself goes to its host's log: out of memory, evicted."""
    for index, (pod, _) in pods.items():
        if pod.reason and (pod.exit_code or pod.lost):
            code = f", exit code {pod.exit_code}" if pod.exit_code is not None else ""
            logs.note(host_name(index), f"{pod.words()}{code}")


def _patience(job: JobDescription) -> float:
    return math.ceil(job.work.stop_grace_seconds) + 2 * STOP_MARGIN_SECONDS


def _jobs(cluster: Cluster, job: JobDescription) -> list[dict[str, Any]]:
    """The run's Jobs, the newest attempt last."""
    items, _ = cluster.list("Job", names.selector(job.id))
    return sorted(items, key=_attempt)


def _newest(cluster: Cluster, job: JobDescription) -> dict[str, Any] | None:
    jobs = _jobs(cluster, job)
    return jobs[-1] if jobs else None


def _selector(job: JobDescription, found: dict[str, Any]) -> str:
    return f"{names.selector(job.id)},{names.ATTEMPT_LABEL}={_attempt(found)}"


def _attempt(item: dict[str, Any]) -> int:
    return int(item["metadata"].get("labels", {}).get(names.ATTEMPT_LABEL, 0))


def _finished(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def _deleted(cluster: Cluster, name: str) -> bool:
    """Whether somebody has asked for the Job's end, here or from another terminal."""
    found = cluster.get("Job", name)
    return found is None or "deletionTimestamp" in found["metadata"]


def _recorded(run: Path) -> int:
    try:
        return int(json.loads((run / "processes" / RECORD).read_text(encoding="utf-8"))["attempt"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _record(run: Path, attempt: int) -> None:
    (run / "processes").mkdir(parents=True, exist_ok=True)
    atomic_write(run / "processes" / RECORD, json.dumps({"attempt": attempt}) + "\n")
