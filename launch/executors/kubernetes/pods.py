"""What a pod's status says, in the terms of a job: waiting and why, running, ended with a code, lost. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launch.executors.kubernetes.names import CONTAINER

INDEX = "batch.kubernetes.io/job-completion-index"
NEVER_STARTS = {
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ImageInspectError",
}
PULLING_FAILS = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
LOST_REASONS = {"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Preempting", "Terminated", "NodeAffinity"}
KILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True)
class PodView:
    """One pod.

    Attributes:
        index: its completion index, which is its host's number; -1 where it has none.
        phase: as Kubernetes has it.
        reason: why it doesn't run (yet), or how it ended; in Kubernetes' words, with the message.
        exit_code: of its container; None while it runs, and where nobody knows.
        hopeless: that it can't start as it is: no time mends it.
        pull_fails: that its image doesn't come (which may be the registry's mood).
        lost: that it ended by its node's end, an eviction or a preemption.
        deleting: that somebody has deleted it.
        ready: that its container runs and its node answers for it.
        silenced: that the cluster calls it not ready although its container was: its node has stopped answering.
    """

    name: str
    uid: str
    index: int
    phase: str
    node: str = ""
    reason: str = ""
    exit_code: int | None = None
    hopeless: bool = False
    pull_fails: bool = False
    lost: bool = False
    deleting: bool = False
    ready: bool = False
    silenced: bool = False

    @property
    def started(self) -> bool:
        """Whether its container has begun."""
        return self.phase in ("Running", "Succeeded", "Failed") or self.exit_code is not None

    @property
    def ended(self) -> bool:
        """Whether its container has ended."""
        return self.phase in ("Succeeded", "Failed") or self.exit_code is not None

    def words(self) -> str:
        """For a person: how it is, and where."""
        how = f"{self.phase}, {self.reason}" if self.reason else self.phase
        return f"{how} (pod {self.name}{f' on node {self.node}' if self.node else ''})"


def view(pod: dict[str, Any]) -> PodView:
    """A pod of the API."""
    meta, status = pod["metadata"], pod.get("status", {})
    state = _container_state(status)
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    disrupted = conditions.get("DisruptionTarget", {})
    word = waiting.get("reason", "")
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    code = ended.get("exitCode")
    return PodView(
        name=meta["name"],
        uid=meta["uid"],
        index=int(labels.get(INDEX, annotations.get(INDEX, -1))),
        phase=status.get("phase", "Pending"),
        node=pod.get("spec", {}).get("nodeName", ""),
        reason=_reason(status, waiting, ended, conditions),
        exit_code=code,
        hopeless=word in NEVER_STARTS,
        pull_fails=word in PULLING_FAILS,
        lost=disrupted.get("status") == "True"
        or status.get("reason") in LOST_REASONS
        or (status.get("phase") in ("Failed", "Unknown") and code is None),
        deleting="deletionTimestamp" in meta,
        ready=conditions.get("Ready", {}).get("status") == "True",
        silenced=conditions.get("Ready", {}).get("status") == "False"
        and conditions.get("ContainersReady", {}).get("status") == "True"
        and not pod.get("spec", {}).get("readinessGates"),
    )


def refusal(events: list[dict[str, Any]]) -> str | None:
    """Why the Job's controller may not create pods: a quota, an admission policy, a limit; from the Job's events."""
    for event in reversed(events):
        if event.get("reason") == "FailedCreate":
            return str(event.get("message", "")).strip()
    return None


def _container_state(status: dict[str, Any]) -> dict[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            return dict(container.get("state") or {})
    return {}


def _reason(
    status: dict[str, Any], waiting: dict[str, Any], ended: dict[str, Any], conditions: dict[str, dict[str, Any]]
) -> str:
    """The most telling of the reasons that a status has."""
    scheduled = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    if status.get("reason"):
        return _joined(status)
    if disrupted.get("status") == "True":
        return _joined(disrupted)
    if ended:
        return "" if ended.get("reason") in (None, "Completed") else _joined(ended)
    if waiting:
        return _joined(waiting)
    if scheduled.get("status") == "False":
        return _joined(scheduled)
    return ""


def _joined(item: dict[str, Any]) -> str:
    words = [str(item[key]).strip() for key in ("reason", "message") if item.get(key)]
    return ": ".join(words)
