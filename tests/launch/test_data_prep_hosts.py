"""Data preparation on two hosts that share a folder: the same bytes as on one machine, whatever happens between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from backend import kubernetes_backend
from backends import SshBackend
from command import Command, events, until

from kit.config import dump
from kit.errors import UserError
from kit.run.directory import RunDirectory, list_runs
from kit.run.events import RunState, read_events, state_of
from launch.plan import make_plan, shown_command, work_of_stage

RECIPE = {
    "stage": "data_prep",
    "name": "spread",
    "input": {"paths": ["data_prep/sample/docs.warc.gz"], "limit": 120},
    "tasks": 10,
    "workers": 1,
    "filters": dict.fromkeys(("gopher_repetition", "gopher_quality", "c4", "fineweb")),
    "tokenizer": {"vocab_size": 800},
    "split": {"validation_fraction": 0.1},
}
STORAGE = {"kind": "ssh", "hosts": ["a", "b", "c"], "devices_per_host": 1, "device": "cpu", "storage": "/shared"}
CLUSTER = {"kind": "kubernetes", "devices_per_host": 1, "device": "cpu", "kubernetes": {"claim": "runs"}}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """A recipe and a target in files."""

    def write(target: dict[str, object], hosts: object = "auto") -> tuple[str, str]:
        (tmp_path / "recipe.yaml").write_text(dump(RECIPE | {"execute": {"hosts": hosts}}))
        (tmp_path / "target.yaml").write_text(dump(target))
        return str(tmp_path / "recipe.yaml"), str(tmp_path / "target.yaml")

    return write


@pytest.mark.parametrize(
    ("target", "asked", "hosts"),
    [
        (STORAGE, "auto", 3),
        (STORAGE, 2, 2),
        ({**STORAGE, "storage": None}, "auto", 1),
        (CLUSTER, "auto", 1),
        (CLUSTER, 4, 4),
        ({"kind": "local"}, "auto", 1),
    ],
)
def test_every_host_gets_one_process_that_knows_its_number(
    written: Callable[..., tuple[str, str]], target: dict[str, object], asked: object, hosts: int
) -> None:
    plan = make_plan(*written(target, asked))
    work = work_of_stage(plan.kind, plan.target, plan.processes)
    assert (work.hosts, work.ranks_per_host, list(work.ranks_of(hosts - 1))) == (hosts, 1, [hosts - 1])
    told = ("--host", "0", "--hosts", str(hosts)) if hosts > 1 else ()
    assert shown_command(work, "RUN", plan.target).command[1:] == ("-u", "-m", "data_prep", "RUN", *told)


@pytest.mark.parametrize(
    ("target", "asked", "words"),
    [
        ({**STORAGE, "storage": None}, 2, "set storage in the target"),
        ({**CLUSTER, "kubernetes": {}}, 2, "set kubernetes.claim in the target"),
        (STORAGE, 4, "choose another target"),
        ({"kind": "local"}, 2, "choose another target"),
    ],
)
def test_hosts_that_cannot_work_together_are_refused_before_anything_starts(
    written: Callable[..., tuple[str, str]], target: dict[str, object], asked: int, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        make_plan(*written(target, asked))
    assert f"execute.hosts is {asked}" in refused.value.found


def _products(run: RunDirectory) -> dict[str, bytes]:
    files = [path for path in run.artifacts.rglob("*") if path.is_file() and path.name != "card.json"]
    return {str(path.relative_to(run.artifacts)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Command:
    made = Command(tmp_path_factory.mktemp("spread"))
    (made.folder / "recipe.yaml").write_text(dump(RECIPE | {"keep_intermediate": True}))
    return made


@pytest.fixture(scope="module")
def on_one_machine(spread: Command) -> dict[str, bytes]:
    code, output = spread.run("run", str(spread.folder / "recipe.yaml"))
    assert code == 0, output
    return _products(list_runs(spread.runs)[-1])


@pytest.mark.hosts
@pytest.mark.slow
def test_two_hosts_make_the_same_bytes(hosts: SshBackend, spread: Command, on_one_machine: dict[str, bytes]) -> None:
    shared = hosts.lab.folder / "shared"
    code, output = spread.run("run", str(spread.folder / "recipe.yaml"), "--on", hosts.target(storage=str(shared)))
    run = list_runs(spread.runs)[-1]
    assert code == 0, (output, read_events(run))
    assert _products(run) == on_one_machine
    assert any(name.startswith("shards/") for name in on_one_machine)
    claims = (shared / "runs" / run.id / "work" / "hosts").glob("*/claims-*/*")
    assert {path.read_text() for path in claims} == {"0", "1"}
    told = [(event["block"], event["done"]) for event in events(run, "progress")]
    assert len(told) == len(set(told)), "both hosts have told of the same progress"
    assert hosts.processes_left(run) == []


@pytest.mark.hosts
@pytest.mark.slow
def test_a_stop_and_a_death_lose_nothing(hosts: SshBackend, spread: Command, on_one_machine: dict[str, bytes]) -> None:
    target = hosts.target(storage=str(hosts.lab.folder / "shared"))
    process, run = spread.begin(str(spread.folder / "recipe.yaml"), "--on", target)
    until(lambda: any(event["done"] > 1 for event in events(run, "progress")), 120, lambda: read_events(run))
    code, output = spread.run("stop", run.id)
    assert code == 0, output
    process.communicate(timeout=60)
    assert state_of(run) is RunState.STOPPED
    assert hosts.processes_left(run) == []

    before = len(events(run, "progress"))
    process = spread.start("resume", run.id)
    until(lambda: len(events(run, "progress")) > before + 3, 120, lambda: read_events(run))
    _kill_first(hosts.lab.processes_on("n2"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "killed by SIGKILL" in output or "host 1" in output
    assert hosts.processes_left(run) == []

    code, output = spread.run("resume", run.id)
    assert code == 0, (output, read_events(run))
    assert _products(run) == on_one_machine


def _kill_first(processes: list[psutil.Process]) -> None:
    """Kill the process of data_prep as the system would for want of memory."""
    found = [process for process in processes if "data_prep" in process.cmdline()]
    assert found, (processes, sys.platform)
    os.kill(min(found, key=lambda process: process.create_time()).pid, signal.SIGKILL)


@pytest.mark.hosts
@pytest.mark.slow
def test_two_pods_make_the_same_bytes(
    spread: Command, on_one_machine: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for pods in kubernetes_backend(tmp_path_factory.mktemp("pods")):
        recipe, target = str(spread.folder / "recipe.yaml"), pods.target()
        code, output = spread.run("run", recipe, "--set", "execute.hosts=2", "--on", target)
        run = list_runs(spread.runs)[-1]
        assert code == 0, (output, read_events(run))
        assert _products(run) == on_one_machine
