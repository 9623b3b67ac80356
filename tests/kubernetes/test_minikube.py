"""`make minikube`: what it says where tools are missing, for real; the order of its commands, with RECORDING stand-ins.

The stand-ins are small scripts on PATH that write down how they were called: they show the order and the words of the
commands, not that a cluster takes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.config import load
from kit.target import Target
from launch.recipe_files import ROOT, find_target

RECORDER = """#!/bin/sh
echo "${{0##*/}} $*" >> "$RECORD"
case "$*" in {refuses}) exit 1;; esac
"""
PYTHON = """#!/bin/sh
echo "python $*" >> "$RECORD"
case "$*" in *launch.cli*run*) echo '{{"path": "{run}"}}';; esac
"""


def minikube(path: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/"), **variables}
    command = [sys.executable, "-m", "infra.minikube", *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("cluster", ["minikube", "kind", "k3s"])
def test_every_missing_tool_is_named_with_where_it_comes_from(cluster: str, tmp_path: Path) -> None:
    done = minikube(str(tmp_path), cluster)
    assert done.returncode == 2
    found, expected, action = done.stderr.strip().splitlines()
    assert f"no {cluster}, no kubectl, no driver that works" in found and "docker" in found
    assert cluster in expected
    assert action.count("https://") == 3 and "apt install podman" in action


@pytest.mark.skipif(shutil.which("minikube") is not None, reason="minikube is here")
def test_on_this_machine_it_says_what_is_missing() -> None:
    done = minikube(os.environ["PATH"])
    assert done.returncode == 2 and "no minikube" in done.stderr and "Traceback" not in done.stderr


def test_a_driver_that_does_not_answer_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    stand_ins(tmp_path, "minikube", "kubectl", "docker", refuses="info")
    done = minikube(str(tmp_path), RECORD=str(tmp_path / "record"))
    assert done.returncode == 2 and "docker is installed and doesn't answer" in done.stderr


def stand_ins(folder: Path, *tools: str, refuses: str = "nothing") -> None:
    """RECORDING stand-ins for tools."""
    for tool in tools:
        (folder / tool).write_text(RECORDER.format(refuses=refuses))
        (folder / tool).chmod(0o755)


def calls(folder: Path, cluster: str, refuses: str) -> list[str]:
    """What was called, in order."""
    run = folder / "run"
    (run / "report").mkdir(parents=True)
    (run / "report" / "report.html").write_text("<html></html>\n")
    stand_ins(folder, cluster, "kubectl", "docker", "sudo", "xdg-open", refuses=refuses)
    (folder / "python").write_text(PYTHON.format(run=run))
    (folder / "python").chmod(0o755)
    program = "import sys; sys.executable = sys.argv.pop(1); from infra.minikube import main; sys.exit(main())"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RECORD": str(folder / "record")}
    command = [sys.executable, "-c", program, str(folder / "python"), cluster]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Report: {run}/report/report.html"
    return (folder / "record").read_text().splitlines()


def test_minikube_is_started_where_it_is_off_then_image_folder_recipe_and_report(tmp_path: Path) -> None:
    found = calls(tmp_path, "minikube", refuses="*status*")
    assert [line.split(" --")[0] for line in found[:1]] == ["docker info"]
    assert found[1].endswith("--profile slipway status")
    assert "start --driver docker" in found[2]
    assert "image build --tag docker.io/library/slipway:cpu --file docker/Dockerfile.cpu" in found[3]
    assert "--build-opt=build-arg=PYTHON_IMAGE=" in found[3] and found[3].endswith(" .")
    assert found[4].endswith("ssh -- sudo install -d -o 1000 -g 1000 /var/lib/slipway-runs")
    assert found[5] == "python -m launch.cli run pretrain/demo --on minikube --with-parents --json"
    assert "launch.cli report" in found[6] and found[7].startswith("xdg-open ")


def test_a_cluster_that_runs_is_not_started_again(tmp_path: Path) -> None:
    assert not any(" start " in line for line in calls(tmp_path, "minikube", refuses="nothing"))


def test_kind_and_k3s_take_the_same_path(tmp_path: Path) -> None:
    for cluster, refuses in (("kind", '*"get nodes"*'), ("k3s", "nothing")):
        (tmp_path / cluster).mkdir()
        found = "\n".join(calls(tmp_path / cluster, cluster, refuses))
        assert found.index("infra.images cpu") < found.index("docker save") < found.index("slipway-cpu.tar")
        assert found.index("install -d -o 1000") < found.index(f"run pretrain/demo --on {cluster}")
        assert ("kind create cluster --name slipway" in found) == (cluster == "kind")


@pytest.mark.parametrize("name", ["minikube", "kind", "k3s"])
def test_each_cluster_has_its_target_and_its_folder(name: str) -> None:
    from infra.minikube import RUNS, TAG

    target = load(Target, find_target(name))
    assert target.kubernetes is not None and target.kubernetes.host_path == RUNS
    assert TAG.endswith(f"/{target.kubernetes.image}") and target.kubernetes.image_pull_policy == "Never"
    assert json.dumps(target.model_dump(mode="json"))
