"""All pods of a job at once, or none: the start of an attempt, and its removal."""

from __future__ import annotations

import logging
import time
from typing import Any

from kit.errors import RunFailure
from launch.executors.kubernetes import names
from launch.executors.kubernetes.api import Cluster
from launch.executors.kubernetes.pods import PodView, refusal
from launch.executors.kubernetes.render import manifests
from launch.executors.kubernetes.watch import PodWatch
from launch.job import JobDescription

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
PULL_SECONDS = 15.0  # a registry may stumble once
SPEAK_SECONDS = 30.0
FORCE_SECONDS = 30.0
GONE_SECONDS = 60.0
LOG = logging.getLogger(__name__)


def start(cluster: Cluster, job: JobDescription, attempt: int) -> str:
    """Create an attempt's objects and wait until every pod runs. Returns the Job's name.

    The Job comes first and suspended: it then owns the two objects that its pods need before there is any pod, and
    whatever ends this process in between, deleting the Job (or its time to live) leaves nothing.

    Raises:
        UserError, RunFailure: A pod doesn't start; names it, or the object that was refused. Nothing is left.
    """
    config_map, service, body = manifests(job, attempt)
    body["spec"]["suspend"] = True
    name = body["metadata"]["name"]
    created = cluster.create(body)
    try:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": created["metadata"]["uid"]}
        for item in (config_map, service):
            item["metadata"]["ownerReferences"] = [{**owner, "blockOwnerDeletion": False, "controller": False}]
            cluster.create(item)
        cluster.change("Job", name, _let_go)
        _await_all(cluster, job, name, attempt)
    except BaseException:
        remove(cluster, job.id, name)
        raise
    return name


def remove(cluster: Cluster, run_id: str, name: str) -> None:
    """Delete an attempt at once, and wait until none of its pods is left; by force where a node doesn't answer.

    Raises:
        RunFailure: Something stays.
    """
    cluster.delete("Job", name, "Foreground")
    began = time.monotonic()
    asked: dict[str, int] = {}
    while time.monotonic() - began < FORCE_SECONDS + GONE_SECONDS:
        pods = _pods_of(cluster, run_id, name)
        if not pods and cluster.get("Job", name) is None:
            return
        # One second, not zero: zero forgets the pod without waiting for its node to say that it has ended.
        grace = 1 if time.monotonic() - began < FORCE_SECONDS else 0
        for pod in pods:
            if asked.get(pod["metadata"]["uid"]) != grace:
                asked[pod["metadata"]["uid"]] = grace
                cluster.delete("Pod", pod["metadata"]["name"], grace=grace)
        time.sleep(POLL_SECONDS)
    left = [pod["metadata"]["name"] for pod in _pods_of(cluster, run_id, name)]
    raise RunFailure(
        f"Job {name} in namespace {cluster.namespace} does not go away{': ' + ', '.join(left) if left else ''}",
        expected=f"that it is gone after {FORCE_SECONDS + GONE_SECONDS:.0f} s",
        action=f"look for finalizers with `kubectl get job {name} -n {cluster.namespace} -o yaml`",
    )


def _pods_of(cluster: Cluster, run_id: str, name: str) -> list[dict[str, Any]]:
    """The pods of one Job."""
    items, _ = cluster.list("Pod", names.selector(run_id))
    return [
        item
        for item in items
        if any(owner.get("name") == name for owner in item["metadata"].get("ownerReferences") or ())
    ]


def _let_go(body: dict[str, Any]) -> None:
    body["spec"]["suspend"] = False


def _await_all(cluster: Cluster, job: JobDescription, name: str, attempt: int) -> None:
    """Wait until every pod's container has begun, or one has failed already, which is for the watcher to tell."""
    deadline = time.monotonic() + cluster.settings.start_seconds
    pulling: dict[str, float] = {}
    looked = spoke = time.monotonic()
    with PodWatch(cluster, f"{names.selector(job.id)},{names.ATTEMPT_LABEL}={attempt}") as watch:
        while True:
            now = time.monotonic()
            pods = [pod for pod, gone in watch.pods().values() if not gone]
            failed = any(pod.ended and pod.phase != "Succeeded" and pod.exit_code != 0 for pod in pods)
            if failed or sum(pod.started for pod in pods) == job.work.hosts:
                return
            for pod in pods:
                since = pulling.setdefault(pod.uid, now) if pod.pull_fails else now
                if pod.hopeless or now - since > PULL_SECONDS:
                    raise _does_not_start(cluster, pod, "mend what the reason names, then try again")
            if len(pods) < job.work.hosts and now - looked > LOOK_SECONDS:
                looked = now
                _see_refusal(cluster, job, name, len(pods))
            if now > deadline:
                raise _too_late(cluster, job, name, pods)
            if now - spoke > SPEAK_SECONDS:
                spoke = now
                LOG.warning("waiting for pods: %s", _waiting(job, pods))
            time.sleep(POLL_SECONDS)


def _see_refusal(cluster: Cluster, job: JobDescription, name: str, there: int) -> None:
    """Why pods are missing: the Job is gone, or its controller is not allowed to create them."""
    if cluster.get("Job", name) is None:
        raise RunFailure(
            f"Job {name} in namespace {cluster.namespace} was deleted while its pods were starting",
            expected="that nobody deletes it",
            action=f"start again with `slipway resume {job.id}`",
        )
    events, _ = cluster.list("Event", field_selector=f"involvedObject.kind=Job,involvedObject.name={name}")
    said = refusal(events)
    if said is not None:
        raise RunFailure(
            f"pod {name}-{there} can't be created in namespace {cluster.namespace}: {said}",
            expected=f"{job.work.hosts} pods, as a quota, limits and admission policies allow them",
            action="ask for less (kubernetes.cpu, memory, hosts) or another namespace, or ask its owner",
        )


def _does_not_start(cluster: Cluster, pod: PodView, action: str) -> RunFailure:
    return RunFailure(
        f"pod {pod.name} in namespace {cluster.namespace} does not start: {pod.reason or pod.phase}",
        expected="a running container",
        action=action,
    )


def _too_late(cluster: Cluster, job: JobDescription, name: str, pods: list[PodView]) -> RunFailure:
    waiting = [pod for pod in pods if not pod.started]
    seconds = cluster.settings.start_seconds
    if not waiting:
        return RunFailure(
            f"{len(pods)} of {job.work.hosts} pods of Job {name} were there after {seconds:.0f} s",
            expected="that all run by then",
            action=f"see `kubectl describe job {name} -n {cluster.namespace}`; is a Job controller at work?",
        )
    error = _does_not_start(
        cluster,
        waiting[0],
        "free or add nodes that fit, ask for less, or wait longer with kubernetes.start_seconds",
    )
    return RunFailure(
        f"{error.found} ({job.work.hosts - len(waiting)} of {job.work.hosts} pods ran after {seconds:.0f} s; all were "
        "removed)",
        expected="that all pods run by then: a job starts as a whole or not at all",
        action=error.action,
    )


def _waiting(job: JobDescription, pods: list[PodView]) -> str:
    missing = job.work.hosts - len(pods)
    words = [pod.words() for pod in pods if not pod.started]
    return "; ".join([*words, *([f"{missing} not created yet"] if missing > 0 else [])])
