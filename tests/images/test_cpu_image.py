"""The CPU image, really built, and a job of two containers that find each other by name.

The containers run what a rendered Kubernetes Job says: its command, its user, its mounts, its host names.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from image_store import ImageStore

from infra.compose import unpack
from infra.images import read_versions
from kit.config import read_yaml
from kit.metrics import read_metrics
from kit.run.directory import RunDirectory
from kit.run.events import read_events

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/slipway-test:cpu"
TARGET = f"""
kind: kubernetes
devices_per_host: 1
device: cpu
kubernetes: {{image: "{IMAGE}", host_path: /srv/slipway}}
"""
DATA = ["input.limit=120", "tokenizer.vocab_size=512", "tasks=1"]

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def image(store: ImageStore) -> dict[str, Any]:
    """What `python -m infra.images cpu --json` answers."""
    versions = read_versions()
    store.ensure_base(versions["PYTHON_IMAGE"])
    command = [sys.executable, "-m", "infra.images", "cpu", "--engine", "buildah", "--tag", IMAGE, "--json"]
    if store.finds_torch():
        command += ["--set", "TORCH_CPU_INDEX="]
    command += ["--", "--network", "host", *store.pip_mounts()]
    done = store.run(*command, timeout=1400)
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def network(store: ImageStore, image: dict[str, Any]) -> Iterator[str]:
    name = f"slipway-test-{os.getpid()}"
    store.run("podman", "network", "create", name)
    yield name
    store.run("podman", "network", "rm", "--force", name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one of token shards, made on this machine."""
    runs = tmp_path_factory.mktemp("host") / "runs"
    slipway("run", "data_prep/demo", *(word for text in DATA for word in ("--set", text)), "--runs", str(runs))
    return runs


def inside(store: ImageStore, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new container, through the image's own entry point."""
    return store.run("podman", "run", "--rm", "--network", "none", IMAGE, *words, check=False)


def test_the_image_says_what_it_is(store: ImageStore, image: dict[str, Any]) -> None:
    (found,) = json.loads(store.run("podman", "image", "inspect", IMAGE).stdout)
    assert image["id"] == found["Id"]
    assert image["size_mib"] < 3000 and image["layers"] <= 8
    assert found["Config"]["User"] == "1000:1000", "a number: Kubernetes can't check a name"
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"org.opencontainers.image.version", "org.opencontainers.image.revision"} <= labels.keys()
    print(f"measured: {image}")


def test_it_runs_as_nobody_special_and_has_no_compiler(store: ImageStore, image: dict[str, Any]) -> None:
    script = "id -u; id -g; touch $HOME/a /slipway/runs/a && echo writable; cat /proc/1/comm; ls /slipway/source"
    done = inside(store, "sh", "-c", f"{script}; command -v cc c++ gcc g++ clang; test ! -s /etc/pip.conf")
    words = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert words[:4] == ["1000", "1000", "writable", "tini"]
    assert {"kit", "launch", "recipes", "data_prep"} <= set(words)
    assert not {"tests", "runs", "docs", ".git", ".venv"} & set(words)
    assert not any(word.endswith(("/cc", "/c++", "/gcc", "/g++", "/clang")) for word in words)


def test_the_command_is_there_and_knows_the_recipes(store: ImageStore, image: dict[str, Any]) -> None:
    done = inside(store, "slipway", "plan", "pretrain/tiny", "--json")
    assert "Traceback" not in done.stderr + done.stdout
    assert inside(store, "slipway", "--help").returncode == 0


def test_compiled_operators_load_at_once_and_for_any_processor(store: ImageStore, image: dict[str, Any]) -> None:
    program = """
import time, torch, deepspeed
from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder
from recipes.extensions import portable
began = time.perf_counter()
with portable():
    print(ShareMemCommBuilder().load().__file__, CPUAdamBuilder().load().__file__)
print(time.perf_counter() - began, torch.version.cuda)
"""
    done = inside(store, "env", "DS_ACCELERATOR=cpu", "python", "-c", program)
    assert done.returncode == 0, done.stderr
    files, (seconds, cuda) = (line.split() for line in done.stdout.strip().splitlines()[-2:])
    assert all(file.startswith("/opt/torch_extensions/") for file in files)
    assert float(seconds) < 10 and cuda == "None"
    flags = inside(store, "sh", "-c", "cat /opt/torch_extensions/*/build.ninja").stdout
    assert "-march=" in flags and "native" not in flags


def test_two_containers_train_by_name(store: ImageStore, network: str, data: Path, tmp_path: Path) -> None:
    job, volume, run = render_job("zero/tiny", data, tmp_path, ["budget.steps=6"])
    with containers(store, job, network, tmp_path / "rendered" / "job", volume) as names:
        users = [store.run("podman", "exec", name, "id", "-u").stdout.strip() for name in names]
        codes = [int(store.run("podman", "wait", name).stdout) for name in names]
        logs = [store.run("podman", "logs", name).stdout for name in names]
    assert codes == [0, 0], "\n".join(logs)
    assert users == ["1000", "1000"]
    # Each container tells of its own rank, the first one of the run's metrics too, as frames NAME@OFFSET|line.
    assert "rank-00000@" in logs[0] and "metrics@" in logs[0] and "rank-00001@" in logs[1]
    assert all('@end|{"exit_code": 0}' in log for log in logs), logs
    metrics = read_metrics(run.metrics_path)
    assert [record["step"] for record in metrics] == list(range(1, 7))
    assert all(math.isfinite(record["loss"]) for record in metrics)
    assert metrics[-1]["loss"] < metrics[0]["loss"] < 1.2 * math.log(512)
    text = "".join(path.read_text() for path in sorted(run.logs.glob("*.log")))
    assert "ninja" not in text and "Building extension" not in text
    assert {path.name for path in run.logs.glob("rank-*.log")} == {"rank-00000.log", "rank-00001.log"}
    assert {path.stat().st_uid for path in run.path.rglob("*")} == {1000}


def test_a_terminated_pair_writes_a_checkpoint_and_goes_on_from_it(
    store: ImageStore, network: str, data: Path, tmp_path: Path
) -> None:
    steps = 150
    job, volume, run = render_job("pretrain/tiny", data, tmp_path, [f"budget.steps={steps}", "layout.data=2"])
    with containers(store, job, network, tmp_path / "rendered" / "job", volume) as names:
        wait_for(lambda: run.metrics_path.exists() and len(read_metrics(run.metrics_path)) >= 3, 300)
        for name in names:
            store.run("podman", "kill", "--signal", "TERM", name)
        for name in names:
            store.run("podman", "wait", name)
    stopped = len(read_metrics(run.metrics_path))
    assert 3 <= stopped < steps, "it stopped in the middle"
    assert any((folder / "COMPLETE").exists() for folder in run.checkpoints.iterdir())
    with containers(store, job, network, tmp_path / "rendered" / "job", volume) as names:
        codes = [int(store.run("podman", "wait", name).stdout) for name in names]
        logs = [store.run("podman", "logs", name).stdout for name in names]
    assert codes == [0, 0], "\n".join(logs)
    assert [record["step"] for record in read_metrics(run.metrics_path)] == list(range(1, steps + 1))
    assert "resumed" in json.dumps([event["event"] for event in read_events(run)])


def render_job(recipe: str, data: Path, folder: Path, sets: list[str]) -> tuple[dict[str, Any], Path, RunDirectory]:
    """The rendered Job, the volume that its pods share, and where the run will lie on it."""
    target, rendered, volume = folder / "target.yaml", folder / "rendered", folder / "volume"
    target.write_text(TARGET)
    words = [word for text in ("validation.samples=4", *sets) for word in ("--set", text)]
    slipway("run", recipe, "--on", str(target), *words, "--render", str(rendered), "--runs", str(data))
    variables = unpack(rendered, volume)
    manifest = json.loads((rendered / "job" / "manifest.json").read_text())
    for parent in manifest["parents"].values():
        shutil.copytree(data / parent["run_id"], volume / parent["run_id"])
    subprocess.run(["chown", "-R", "1000:1000", str(volume)], check=True)
    return read_yaml(rendered / "3-job.yaml"), volume, RunDirectory(volume / variables["SLIPWAY_RUN"])


def slipway(*words: str) -> None:
    command = [sys.executable, "-m", "launch.cli", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def containers(store: ImageStore, job: dict[str, Any], network: str, files: Path, volume: Path) -> Iterator[list[str]]:
    """One container a pod of the Job, as the kubelet would start them; removed afterwards."""
    name, spec = job["metadata"]["name"], job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    user = spec["securityContext"]["runAsUser"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    names = []
    try:
        for index in range(job["spec"]["completions"]):
            words = ["--name", f"{name}-{index}", "--hostname", f"{name}-{index}", "--network", network]
            words += ["--network-alias", f"{name}-{index}.{name}", "--env", f"JOB_COMPLETION_INDEX={index}"]
            words += ["--user", f"{user}:{user}", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
            words += ["--volume", f"{files}:{mounts['job']}:ro", "--volume", f"{volume}:{mounts['runs']}"]
            words += ["--shm-size", "1g", "--entrypoint", json.dumps(container["command"])]
            store.run("podman", "run", "--detach", *words, container["image"])
            names.append(f"{name}-{index}")
        yield names
    finally:
        for made in names:
            store.run("podman", "rm", "--force", "--time", "0", made, check=False)


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.3)
