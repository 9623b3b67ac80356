"""A job as Kubernetes objects: Indexed Job, headless Service, ConfigMap. Pure, so that golden files can hold it.

Two things of a local run have no place in a pod: ulimits, which belong to the container runtime (a pod cannot raise
them; the entry point raises its soft limits to the hard ones), and a volume that outlives the pods, which the target
has to name.
"""

from __future__ import annotations

import json
import math
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from kit.errors import UserError
from kit.target import KubernetesSettings
from launch.executors.kubernetes import names
from launch.executors.kubernetes.inputs import brought_inputs
from launch.executors.kubernetes.names import RUNS
from launch.job import JobDescription

JOB = "/slipway/job"
WORK = f"{names.RUNS}/.work"  # what relative paths of a configuration start at, where files had to be brought
MASTER_PORT = 29500
STOP_MARGIN_SECONDS = 15  # the entry point kills what is left after the grace, and still has to say so
LOST_NODE_SECONDS = 10
CONFIG_MAP_BYTES = 1_000_000  # the API's limit is 1 MiB with everything around it
FILES = ("config.yaml", "target.yaml", "manifest.json")
UNREACHABLE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def settings_of(job: JobDescription) -> KubernetesSettings:
    """The target's section kubernetes, with its defaults where there is none."""
    return job.target.kubernetes or KubernetesSettings()


def render(job: JobDescription, attempt: int = 1) -> dict[str, str]:
    """File name -> YAML, as `kubectl apply -f DIR` takes it: what a Job mounts comes before the Job."""
    found = manifests(job, attempt)
    order = {"ConfigMap": "1-configmap.yaml", "Service": "2-service.yaml", "Job": "3-job.yaml"}
    return {order[item["kind"]]: as_yaml(item) for item in found}


def manifests(job: JobDescription, attempt: int = 1) -> list[dict[str, Any]]:
    """ConfigMap, Service and Job of one attempt.

    Raises:
        UserError: The configuration is too large for a ConfigMap, or a secret is not named as `secret/key`.
    """
    return [_config_map(job, attempt), _service(job, attempt), _job(job, attempt)]


def as_yaml(item: dict[str, Any]) -> str:
    """One object as YAML; texts of several lines as blocks."""
    yaml = YAML()
    yaml.width = 4096
    yaml.default_flow_style = False
    yaml.representer.add_representer(str, _represent_text)
    stream = StringIO()
    yaml.dump(item, stream)
    return stream.getvalue()


def warnings_of(job: JobDescription) -> list[str]:
    """What the owner of a target should know before the job starts."""
    settings = settings_of(job)
    found = []
    if not settings.claim and not settings.host_path:
        found.append(
            "the target has neither kubernetes.claim nor kubernetes.host_path: checkpoints and artifacts end with the "
            "pods; only logs, events and metrics come back, and the run can't be resumed or fetched"
        )
    if settings.host_path and job.work.hosts > 1:
        found.append(
            f"kubernetes.host_path {settings.host_path} is a folder of one node: for pods on several use a claim"
        )
    return found


def pod_spec(job: JobDescription, container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    """What pods of the job and the pod that copies files have in common."""
    settings = settings_of(job)
    user = settings.run_as_user
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": user != 0,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "image": settings.image,
                "imagePullPolicy": settings.image_pull_policy,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": volumes,
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    spec["tolerations"] = [*settings.tolerations, *_lost_node_tolerations(settings)]
    return spec


def runs_volume(job: JobDescription) -> dict[str, Any]:
    """The volume of runs: a claim, a folder of the node, or one that ends with the pod."""
    settings = settings_of(job)
    if settings.claim:
        return {"name": "runs", "persistentVolumeClaim": {"claimName": settings.claim}}
    if settings.host_path:
        return {"name": "runs", "hostPath": {"path": settings.host_path, "type": "DirectoryOrCreate"}}
    return {"name": "runs", "emptyDir": {}}


def metadata(job: JobDescription, name: str, role: str, attempt: int | None = None) -> dict[str, Any]:
    """Name, namespace, labels and the run's full id."""
    return {
        "name": name,
        "namespace": settings_of(job).namespace,
        "labels": names.labels(job.id, role, attempt),
        "annotations": {names.RUN_ANNOTATION: job.id},
    }


def pod_job(job: JobDescription, name: str) -> dict[str, Any]:
    """job.json: what the entry point of every pod reads."""
    data = job.work.as_data()
    data["environment"] = dict(sorted(data["environment"].items()))
    data["stop_to"] = str(data["stop_to"])
    data["ranks_per_host"] = job.work.ranks_per_host
    data["master_address"] = f"{name}-0.{name}"
    data["master_port"] = MASTER_PORT
    if brought_inputs(job):
        data["working_directory"] = WORK
    return data


def _config_map(job: JobDescription, attempt: int) -> dict[str, Any]:
    name = names.job_name(job.id, attempt)
    data = {file: (job.run / file).read_text(encoding="utf-8") for file in FILES}
    data["job.json"] = json.dumps(pod_job(job, name), indent=1, sort_keys=True) + "\n"
    size = sum(len(text.encode()) for text in data.values())
    if size > CONFIG_MAP_BYTES:
        raise UserError(
            f"{job.run}: configuration and manifest have {size} bytes",
            expected=f"at most {CONFIG_MAP_BYTES}, the most that a ConfigMap takes",
            action="shorten the recipe, for example by patterns instead of long lists of files",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, name, "ranks", attempt),
        "data": data,
    }


def _service(job: JobDescription, attempt: int) -> dict[str, Any]:
    name = names.job_name(job.id, attempt)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, name, "ranks", attempt),
        "spec": {
            "clusterIP": "None",
            # Ranks look each other up while they start, before any of them could call itself ready.
            "publishNotReadyAddresses": True,
            "selector": names.labels(job.id, "ranks", attempt),
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "targetPort": MASTER_PORT}],
        },
    }


def _job(job: JobDescription, attempt: int) -> dict[str, Any]:
    name = names.job_name(job.id, attempt)
    settings = settings_of(job)
    template = {
        "labels": names.labels(job.id, "ranks", attempt),
        "annotations": {names.RUN_ANNOTATION: job.id, **settings.annotations},
    }
    volumes = [
        {"name": "job", "configMap": {"name": name}},
        runs_volume(job),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    spec = pod_spec(job, _container(job), volumes)
    spec["subdomain"] = name
    spec["terminationGracePeriodSeconds"] = math.ceil(job.work.stop_grace_seconds) + STOP_MARGIN_SECONDS
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(job, name, "ranks", attempt),
        "spec": {
            "completionMode": "Indexed",
            "completions": job.work.hosts,
            "parallelism": job.work.hosts,
            # A pod is never replaced alone: its peers could not go on. The launcher starts the whole job again.
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": settings.keep_finished_seconds,
            "template": {"metadata": template, "spec": spec},
        },
    }


def _container(job: JobDescription) -> dict[str, Any]:
    settings = settings_of(job)
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    if job.target.device == "cuda":
        amounts[settings.gpu_resource] = str(job.work.ranks_per_host)
    return {
        "name": names.CONTAINER,
        "command": ["python", "-m", "launch.host", "pod", JOB, f"{RUNS}/{job.id}"],
        "env": [_secret(variable, reference) for variable, reference in sorted(settings.secrets.items())],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "ports": [{"name": "rendezvous", "containerPort": MASTER_PORT}],
        "volumeMounts": [
            {"name": "job", "mountPath": JOB, "readOnly": True},
            {"name": "runs", "mountPath": RUNS},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def _secret(variable: str, reference: str) -> dict[str, Any]:
    name, key = names.check_secret(variable, reference)
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _lost_node_tolerations(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """The default waits five minutes before a pod on a silent node counts as gone."""
    given = {toleration.get("key") for toleration in settings.tolerations}
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS}
        for key in UNREACHABLE
        if key not in given
    ]


def _represent_text(representer: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)
