"""What hosts run the ranks in, beside an interpreter that is there: an environment made on the host, or an image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import SshBackend
from command import EVERY, Command, events, losses, reach, until
from lab.host_lab import HostLab, lab_or_skip
from lab.machine import ROOT

from kit.config import load
from kit.errors import RunFailure, UserError
from kit.run.directory import list_runs
from kit.run.events import state_of
from kit.target import Target
from launch.executors.container import container_mark, refusal, wrapper

# Where tests/images keeps what it builds; hosts read it there and write beside it.
STORE, IMAGE = Path("/var/tmp/slipway-image-tests"), "localhost/slipway-test:cpu"
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{own}/storage"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = ["{store}/storage"]
"""
KEPT_SECONDS = 15


@pytest.fixture
def host() -> Iterator[HostLab]:
    """One host, gone with all its files after the test."""
    yield from lab_or_skip(1)


def give_packages(host: HostLab) -> None:
    """What the lock names, as wheels that pip on the host finds: the host has no way to an index on the network."""
    wheels, lock = host.folder / "wheels", ROOT / "requirements" / "lock.txt"
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--requirement", str(lock)]
    done = subprocess.run([*words, "--wheel-dir", str(wheels)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip finds no packages here: {done.stderr.strip().splitlines()[-1]}")
    settings = host.home("n1") / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    "SLIPWAY_TEST_VENV" not in os.environ,
    reason="takes 7 to 15 minutes: SLIPWAY_TEST_VENV=1 runs it",
)
def test_an_environment_is_made_on_a_host_and_trains(host: HostLab, command: Command) -> None:
    made_by = f"{sys.base_prefix}/bin/python3.11"
    give_packages(host)
    target = host.target(environment={"mode": "venv", "python": made_by})
    sets = ("--set", "budget.steps=5", "--set", "validation.every_steps=5")
    code, output = command.run("run", "pretrain/tiny", "--on", str(target), *sets, seconds=1500)
    assert code == 0, output
    assert "Make the environment" in output
    run = list_runs(command.runs)[-1]
    assert state_of(run) == "finished" and len(losses(run)) == 5
    (venv,) = (host.home("n1") / "slipway" / "venv").iterdir()
    assert (venv / "slipway-setup").is_file()
    assert list((host.home("n1") / "slipway" / "cache" / "torch_extensions").rglob("*.so"))
    assert host.processes_on("n1") == []

    code, output = command.run("run", "pretrain/tiny", "--on", str(target), *sets)
    assert code == 0, output
    assert "Make the environment" not in output, "it is made once"


def give_engine(lab: HostLab, name: str) -> None:
    """A podman of a host's own; it reads the images that tests/images has built, and has a store for containers."""
    own = lab.folder / name / "containers"
    (own / "etc").mkdir(parents=True)
    (own / "etc" / "containers.conf").write_text((STORE / "containers.conf").read_text())
    (own / "etc" / "storage.conf").write_text(STORAGE_CONF.format(own=own, store=STORE))
    (own / "etc" / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    lab.run_on(name, f"mount --bind {own}/etc /etc/containers")


@pytest.fixture(scope="module")
def engines() -> Iterator[SshBackend]:
    """Two hosts, each with an engine and the CPU image."""
    if lacking := [tool for tool in ("podman", "runc") if shutil.which(tool) is None]:
        pytest.skip(f"runs containers: needs {', '.join(lacking)}")
    for lab in lab_or_skip(2):
        for name in lab.hosts:
            if (STORE / "containers.conf").is_file():
                give_engine(lab, name)
            if "yes" not in lab.run_on(name, f"podman image exists {IMAGE} && echo yes", check=False):
                pytest.skip(f"no image {IMAGE} in {STORE}: `pytest tests/images` builds it")
        yield SshBackend(lab)


def in_containers(hosts: SshBackend, **changes: Any) -> str:
    return hosts.target(environment={"mode": "container", "engine": "podman", "image": IMAGE}, **changes)


def containers(hosts: SshBackend) -> list[str]:
    return [name for host in hosts.lab.hosts for name in hosts.lab.run_on(host, "podman ps -aq").split()]


@pytest.mark.hosts
@pytest.mark.images
@pytest.mark.slow
def test_ranks_in_containers_of_two_hosts_train_as_on_this_machine(
    engines: SshBackend, command: Command, uninterrupted: Callable[[str], list[tuple[int, float]]]
) -> None:
    code, output = command.run("run", command.recipe("zero"), "--on", in_containers(engines))
    assert code == 0, output
    run = list_runs(command.runs)[-1]
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in uninterrupted("zero")], abs=1e-5)
    assert (run.artifacts / "training.json").is_file()
    until(lambda: not containers(engines), KEPT_SECONDS + 30)
    assert engines.processes_left(run) == []


@pytest.mark.hosts
@pytest.mark.images
@pytest.mark.slow
def test_a_job_in_containers_is_hurt_stopped_and_resumed_as_any_other(engines: SshBackend, command: Command) -> None:
    process, run = command.begin(command.recipe("tensor"), "--on", in_containers(engines))
    reach(run, EVERY + 2, process)
    # The process id is one of the container's.
    pid = json.loads((engines.lab.home("n2") / "slipway/runs" / run.id / "processes/rank-00001.json").read_text())[
        "pid"
    ]
    engines.lab.run_on("n2", f"podman exec $(podman ps -q) sh -c 'kill -9 {pid}'")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "rank 1" in output, output

    process = command.start("resume", run.id)
    until(lambda: events(run, "resumed"), 120)
    known = len(losses(run))
    reach(run, known + 2, process)
    code, output = command.run("stop", run.id)
    assert code == 0, output
    process.communicate(timeout=60)
    assert state_of(run) == "stopped"
    until(lambda: not containers(engines), KEPT_SECONDS + 30)
    assert engines.processes_left(run) == []


def target_of(tmp_path: Path, **environment: str) -> Target:
    path = tmp_path / "target.yaml"
    words = "".join(f"  {key}: {value}\n" for key, value in environment.items())
    path.write_text(
        f"kind: ssh\nhosts: [n1]\ndevices_per_host: 1\ndevice: cuda\nenvironment:\n  mode: container\n{words}"
    )
    return load(Target, path)


@pytest.mark.parametrize(
    ("engine", "gpus"), [("docker", "--gpus all"), ("podman", "--device nvidia.com/gpu=all")], ids=["docker", "podman"]
)
def test_a_container_sees_gpus_folders_and_inputs_and_nothing_else(tmp_path: Path, engine: str, gpus: str) -> None:
    target = target_of(tmp_path, engine=engine, image="slipway:cuda")
    text = wrapper(target, "abc", "/srv/a b/slipway", "/shared", ["/data/crawl/*.warc.gz", "/data/words.txt"])
    assert gpus in text
    mounts = ["'/srv/a b/slipway:/srv/a b/slipway'", "/shared:/shared"]
    mounts += ["/data/crawl:/data/crawl:ro", "/data/words.txt:/data/words.txt:ro"]
    assert " ".join(f"-v {mount}" for mount in mounts) + " -w" in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    inside = subprocess.run(
        ["sh", "-c", text, "sh", "-c", "print(6 * 7)"],
        env={"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "SLIPWAY_CONTAINER": "abc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert inside.stdout == "42\n", "inside it is the image's Python"


def test_another_image_or_another_input_is_another_container(tmp_path: Path) -> None:
    one = target_of(tmp_path, image="slipway:cuda")
    marks = {container_mark(one, []), container_mark(one, ["/data/a"])}
    marks.add(container_mark(target_of(tmp_path, image="slipway:other"), []))
    assert len(marks) == 3
    with pytest.raises(UserError) as caught:
        container_mark(target_of(tmp_path), [])
    assert "environment.image" in caught.value.found


def test_what_a_host_lacks_for_containers_is_said_with_its_name(tmp_path: Path) -> None:
    target = target_of(tmp_path, image="slipway:cuda")
    host = target.hosts[0]
    assert refusal(target, host, "") is None
    for words, kind, found in [
        ("slipway:engine none", UserError, "host n1 has no `docker`"),
        ("slipway:engine permission denied", RunFailure, "permission denied"),
        ("slipway:image manifest unknown", RunFailure, "slipway:cuda"),
        ("slipway:packages No module named 'torch'", RunFailure, "No module named 'torch'"),
    ]:
        error = refusal(target, host, words + "\n")
        assert isinstance(error, kind) and "n1" in error.found and found in error.found
