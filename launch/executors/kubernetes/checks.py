"""What can be known to be wrong before anything starts: cluster, namespace, permissions, what the target names."""

from __future__ import annotations

from kubernetes.client.exceptions import ApiException

from kit.errors import SlipwayError, UserError
from launch.executors.kubernetes import names
from launch.executors.kubernetes.api import Cluster
from launch.executors.kubernetes.render import manifests, warnings_of
from launch.executors.protocol import Say
from launch.job import JobDescription

OLDEST = (1, 28)
# What the backend does: verb, resource, group, subresource. docs/kubernetes.md has the same list as a Role.
NEEDED = (
    ("create", "jobs", "batch", ""),
    ("get", "jobs", "batch", ""),
    ("list", "jobs", "batch", ""),
    ("update", "jobs", "batch", ""),
    ("delete", "jobs", "batch", ""),
    ("create", "configmaps", "", ""),
    ("create", "services", "", ""),
    ("create", "pods", "", ""),
    ("get", "pods", "", ""),
    ("list", "pods", "", ""),
    ("watch", "pods", "", ""),
    ("delete", "pods", "", ""),
    ("get", "pods", "", "log"),
    ("get", "pods", "", "exec"),
    ("create", "pods", "", "exec"),
    ("list", "events", "", ""),
)


def check(cluster: Cluster, job: JobDescription, say: Say) -> None:
    """Raises a UserError that names the object; says what is only doubtful."""
    version = cluster.version()
    if version < OLDEST:
        say(f"Kubernetes {version[0]}.{version[1]} at {cluster.host} is older than {OLDEST[0]}.{OLDEST[1]}: untried.")
    if cluster.namespace_is_there() is False:
        raise UserError(
            f"no namespace {cluster.namespace} in the cluster at {cluster.host}",
            expected="the namespace that the target names",
            action=f"`kubectl create namespace {cluster.namespace}`, or name another with kubernetes.namespace",
        )
    _check_permissions(cluster)
    manifests(job)  # a ConfigMap too large, a secret misnamed
    _check_volume(cluster, job, say)
    _check_secrets(cluster)
    account = cluster.settings.service_account
    if account and _is_missing(cluster, "ServiceAccount", account):
        raise _missing(cluster, "ServiceAccount", account, "service_account")
    for warning in warnings_of(job):
        say(f"Note: {warning}.")


def _check_permissions(cluster: Cluster) -> None:
    refused = []
    for verb, resource, group, subresource in NEEDED:
        if cluster.may(verb, resource, group, subresource) is False:
            refused.append(f"{verb} {'/'.join(filter(None, (resource, subresource)))}")
    if refused:
        raise UserError(
            f"no permission in namespace {cluster.namespace} of {cluster.host} to {', '.join(refused)}",
            expected="the role that docs/kubernetes.md lists",
            action=f"ask the namespace's owner for it, and see `kubectl auth can-i --list -n {cluster.namespace}`",
        )


def _check_volume(cluster: Cluster, job: JobDescription, say: Say) -> None:
    claim = cluster.settings.claim
    if not claim:
        return
    try:
        found = cluster.get("PersistentVolumeClaim", claim)
    except SlipwayError as error:
        if isinstance(error.__cause__, ApiException) and error.__cause__.status == 403:
            return  # we may not look; the pods will say
        raise
    if found is None:
        raise _missing(cluster, "PersistentVolumeClaim", claim, "claim")
    if found.get("status", {}).get("phase") == "Lost":
        raise UserError(
            f"the claim {claim} in namespace {cluster.namespace} has lost its volume",
            expected="a claim that is Bound, or Pending until its first pod",
            action="make another claim, or ask who keeps the cluster's storage",
        )
    modes = found["spec"].get("accessModes") or []
    if job.work.hosts > 1 and not {"ReadWriteMany"} & set(modes):
        say(f"Note: the claim {claim} is {', '.join(modes)}: all {job.work.hosts} pods will have to fit on one node.")


def _check_secrets(cluster: Cluster) -> None:
    for variable, reference in sorted(cluster.settings.secrets.items()):
        name, key = names.check_secret(variable, reference)
        if not cluster.may("get", "secrets"):
            return  # as it should be: only the pods have to read them
        found = cluster.get("Secret", name)
        if found is None:
            raise _missing(cluster, "Secret", name, f"secrets.{variable}")
        if key not in (found.get("data") or {}):
            raise UserError(
                f"Secret {name} in namespace {cluster.namespace} has no key {key}",
                expected=f"one of: {', '.join(sorted(found.get('data') or {})) or '(it is empty)'}",
                action=f"mend kubernetes.secrets.{variable}, or add the key",
            )


def _is_missing(cluster: Cluster, kind: str, name: str) -> bool:
    try:
        return cluster.get(kind, name) is None
    except SlipwayError:
        return False  # we may not look; the pods will say


def _missing(cluster: Cluster, kind: str, name: str, key: str) -> UserError:
    return UserError(
        f"no {kind} {name} in namespace {cluster.namespace} of {cluster.host}",
        expected=f"the {kind} that kubernetes.{key} names",
        action="make it, or mend the target; docs/kubernetes.md shows an example",
    )
