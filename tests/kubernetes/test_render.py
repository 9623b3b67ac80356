"""The rendered objects: golden files, the schemas of every supported version, and what no change may lose.

After a wanted change: run it once with SLIPWAY_GOLDEN=write, and read the difference.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kit.errors import UserError
from kit.target import KubernetesSettings, Target
from launch.executors.kubernetes import names
from launch.executors.kubernetes.render import manifests, pod_job, render, warnings_of
from launch.executors.kubernetes.transfer import files_pod
from launch.job import JobDescription, StopTo, Work

GOLDEN = Path(__file__).with_name("golden")
OLDEST = (1, 28)
SCHEMAS = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
FOUND = {re.sub(r"v(\d+\.\d+)\..*", r"\1", path.name) for path in SCHEMAS.glob("v*-strict")}
VERSIONS = sorted((v for v in FOUND if tuple(map(int, v.split("."))) >= OLDEST), key=lambda v: int(v.split(".")[1]))
RUN_ID = "20260102-030405-pretrain-tiny-1a2b"
CPU = KubernetesSettings(claim="slipway-runs", namespace="research")
CUDA = KubernetesSettings(
    host_path="/data/runs",
    image="registry.example.org/slipway:cuda",
    service_account="trainer",
    node_selector={"gpu": "h100"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    secrets={"WANDB_API_KEY": "wandb/api-key"},
    annotations={"k8s.v1.cni.cncf.io/networks": "rdma"},
    shared_memory="64Gi",
    cpu="96",
    memory="900Gi",
)


def job_of(folder: Path, settings: KubernetesSettings, device: Any = "cpu", ranks: int = 1) -> JobDescription:
    run = folder / RUN_ID
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text("stage: pretrain\nname: tiny\n")
    (run / "target.yaml").write_text("kind: kubernetes\n")
    (run / "manifest.json").write_text('{"run_id": "tiny"}\n')
    target = Target(
        kind="kubernetes", device=device, devices_per_host=ranks, threads_per_process=1, kubernetes=settings
    )
    work = Work("recipes", processes=2 * ranks, hosts=2, environment={"SLIPWAY_DEBUG": "1"}, stop_to=StopTo.RANKS)
    return JobDescription(run, target, work)


@pytest.fixture(params=["cpu", "cuda"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> JobDescription:
    if request.param == "cpu":
        return job_of(tmp_path, CPU)
    return job_of(tmp_path, CUDA, "cuda", ranks=8)


def test_the_objects_are_the_golden_ones(job: JobDescription) -> None:
    folder = GOLDEN / job.target.device
    for name, text in render(job).items():
        if os.environ.get("SLIPWAY_GOLDEN") == "write":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        assert text == (folder / name).read_text(encoding="utf-8"), name
    assert sorted(path.name for path in folder.iterdir()) == sorted(render(job))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_objects_are_valid_strictly(job: JobDescription, version: str) -> None:
    for item in [*map(yaml.safe_load, render(job).values()), files_pod(job, "slipway-files-x")]:
        kubernetes_validate.validate(item, version, strict=True)


def test_the_supported_versions_reach_from_the_oldest_to_one_of_today() -> None:
    assert "1.28" in VERSIONS and len(VERSIONS) >= 8


def test_yaml_1_1_readers_such_as_kubectl_read_what_was_meant(job: JobDescription) -> None:
    assert [yaml.safe_load(text) for text in render(job).values()] == manifests(job)


def test_the_pod_may_nothing_that_it_does_not_need(job: JobDescription) -> None:
    spec = manifests(job)[2]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] == 1000
    container = spec["containers"][0]["securityContext"]
    assert container == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False


def test_a_gang_is_never_half_replaced_and_finds_its_first_pod_by_name(job: JobDescription) -> None:
    _, service, body = manifests(job)
    name = body["metadata"]["name"]
    assert (body["spec"]["backoffLimit"], body["spec"]["completions"], body["spec"]["parallelism"]) == (0, 2, 2)
    assert body["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert body["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"] == name
    assert service["spec"]["selector"].items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert pod_job(job, name)["master_address"] == f"{name}-0.{name}"


def test_the_entry_point_can_read_its_job(job: JobDescription, tmp_path: Path) -> None:
    from launch.job import work_from

    config_map, _, body = manifests(job)
    assert work_from(json.loads(config_map["data"]["job.json"])) == job.work
    command = body["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == ["python", "-m", "launch.host", "pod", "/slipway/job", f"/slipway/runs/{RUN_ID}"]


def test_gpus_are_asked_for_by_rank(tmp_path: Path) -> None:
    container = manifests(job_of(tmp_path, CUDA, "cuda", ranks=8))[2]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["env"] == [
        {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "api-key"}}}
    ]


@pytest.mark.parametrize(
    "run_id",
    [
        RUN_ID,
        "20260102-030405-data_prep-A name. with-Capitals-1a2b",
        "20260102-030405-pretrain-" + "long-" * 40 + "1a2b",
    ],
)
def test_names_are_dns_labels_with_room_for_a_pods_index(run_id: str) -> None:
    name = names.job_name(run_id, 12)
    assert len(f"{name}-99999") <= 63 and name.endswith("-a12") and name[0].isalpha()
    assert all(len(value) <= 63 for value in names.labels(run_id, "ranks", 12).values())
    assert names.job_name(run_id, 1) != names.job_name(run_id[:-1] + "c", 1)


def test_a_configuration_that_is_too_large_is_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path, CPU)
    (job.run / "config.yaml").write_text("x: " + "y" * 1_100_000)
    with pytest.raises(UserError, match="have 1100"):
        manifests(job)


def test_a_target_without_a_volume_is_warned_of(tmp_path: Path) -> None:
    assert any("can't be resumed" in words for words in warnings_of(job_of(tmp_path, KubernetesSettings())))
    assert any("a folder of one node" in words for words in warnings_of(job_of(tmp_path, CUDA)))
    assert not warnings_of(job_of(tmp_path, CPU))


def test_inputs_that_lie_here_have_to_be_brought_and_the_pods_start_beside_them(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.jsonl").write_text("{}\n")
    inputs = ("pages", "https://example.org/x.warc.gz", "data_prep/sample/*")
    job = replace(job_of(tmp_path, CPU), working_directory=tmp_path, inputs=inputs)
    assert pod_job(job, "x")["working_directory"] == "/slipway/runs/.work"
    assert "working_directory" not in pod_job(replace(job, inputs=inputs[1:]), "x")
    with pytest.raises(UserError, match="the input /absolute/pages"):
        pod_job(replace(job, inputs=("/absolute/pages",)), "x")
