"""What hosts are given before a job starts, and what is refused by name before anything starts anywhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backends import SshBackend
from command import Command
from lab.machine import HOME, ROOT

from kit.config import dump, load
from kit.errors import RunFailure, SlipwayError, UserError
from kit.files import sha256_file
from kit.run.directory import RunDirectory, find_run, list_runs
from kit.run.events import now
from kit.run.manifest import Manifest, Parent, write_manifest
from kit.target import Target
from launch.executors import pieces
from launch.executors.ssh_prepare import prepare_hosts
from launch.job import JobDescription, Work

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module", autouse=True)
def still_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the code that nobody edits while the tests run: an edit between two jobs is brought to the hosts."""
    folder = tmp_path_factory.mktemp("code")
    for room in pieces.ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "ROOT", folder)
        yield folder


def job_for(command: Command, target: str, folder: Path, **changes: Any) -> JobDescription:
    """A job of two ranks with the dataset as its parent; its ranks are never started."""
    data = find_run(command.runs, "last:data_prep")
    run = RunDirectory.create(folder / "runs", "pretrain", "prepared")
    settled = load(Target, Path(target)).settle(2, 0)
    run.config_path.write_text("stage: pretrain\n")
    run.target_path.write_text(dump(settled))
    parents = {"data": Parent(run_id=data.id, path=str(data.path), digest="sha256:0")}
    facts: dict[str, Any] = {
        "stage": "pretrain",
        "name": "prepared",
        "created": now(),
        "key": "0",
        "config_digest": "0",
    }
    write_manifest(run, Manifest(run_id=run.id, parents=parents, **facts))
    job = JobDescription(run.path, settled, Work("recipes", 2, 2), working_directory=folder, parents=(data.path,))
    return replace(job, **changes)


def prepare(job: JobDescription) -> tuple[list[str], dict[str, Any]]:
    """Prepare; the lines that were said, and the places."""
    said: list[str] = []
    return said, prepare_hosts(job, job.target.hosts, said.append)


def test_every_host_gets_code_parents_and_inputs_once(
    hosts: SshBackend, command: Command, tmp_path: Path, still_code: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.jsonl").write_text('{"text": "one"}\n')
    job = job_for(command, hosts.target(workdir="~/fresh"), tmp_path, inputs=("texts/*.jsonl",))
    said, places = prepare(job)
    assert said[0] == "Preparing n1, n2 ..."
    parent = job.parents[0]
    source = [path.relative_to(still_code) for path in still_code.rglob("*.py")]
    for host in hosts.lab.hosts:
        home = hosts.lab.home(host)
        place = places[host]
        assert place.run == f"{HOME}/fresh/runs/{job.id}"
        assert Path(place.source).parent == HOME / "fresh" / "source"
        assert place.address == hosts.lab.address(host)
        there = home / "fresh"
        assert (there / "work" / "texts" / "one.jsonl").read_text() == '{"text": "one"}\n'
        assert (there / "runs" / job.id / "config.yaml").read_text() == "stage: pretrain\n"
        artifacts = [path for path in (parent / "artifacts").rglob("*") if path.is_file()]
        assert artifacts
        for path in artifacts:
            assert sha256_file(there / "runs" / parent.name / path.relative_to(parent)) == sha256_file(path)
        missing = [name for name in source if not (home / Path(place.source).relative_to(HOME) / name).is_file()]
        assert missing == []
        hosts.lab.run_on(
            host, f"cd {place.working_directory} && PYTHONPATH={place.source} {place.python} -m launch.host --help"
        )

    again = time.monotonic()
    said, _ = prepare(job)
    seconds = time.monotonic() - again
    assert said == [], "a prepared host is left alone"
    assert seconds < 2


def test_only_what_differs_is_brought_again(hosts: SshBackend, command: Command, tmp_path: Path) -> None:
    job = job_for(command, hosts.target(workdir="~/fresh"), tmp_path)
    prepare(job)
    there = hosts.lab.home("n2") / "fresh"
    (damaged,) = (there / "runs" / job.parents[0].name / "artifacts").rglob("card.json")
    damaged.write_text("{}")
    untouched = next(path for path in (there / "source").rglob("job.py"))
    before = untouched.stat().st_mtime_ns
    for stamp in (there / "stamps").glob("parent-*"):
        stamp.unlink()
    said, _ = prepare(job)
    assert said[0] == "Preparing n2 ..."
    original = next((job.parents[0] / "artifacts").rglob("card.json"))
    assert damaged.read_bytes() == original.read_bytes()
    assert untouched.stat().st_mtime_ns == before


def refusal(job: JobDescription) -> SlipwayError:
    with pytest.raises(SlipwayError) as caught:
        prepare(job)
    assert caught.value.expected and caught.value.action
    return caught.value


def test_inputs_that_hosts_can_not_have_are_refused(hosts: SshBackend, command: Command, tmp_path: Path) -> None:
    target = hosts.target(workdir="~/fresh")
    error = refusal(job_for(command, target, tmp_path, inputs=("/data/of/nobody.warc.gz",)))
    assert isinstance(error, UserError)
    assert "host n1" in error.found and "/data/of/nobody.warc.gz" in error.found
    assert "../texts" in refusal(job_for(command, target, tmp_path, inputs=("../texts",))).found


def test_a_python_that_is_not_there_is_named_with_its_host(hosts: SshBackend, command: Command, tmp_path: Path) -> None:
    target = hosts.target(workdir="~/fresh", environment={"python": "/opt/nothing/bin/python"})
    error = refusal(job_for(command, target, tmp_path))
    assert isinstance(error, RunFailure)
    assert "host n" in error.found and "/opt/nothing/bin/python" in error.found


@pytest.mark.parametrize(("key", "words"), [("changed", "another host key"), ("unknown", "does not hold")])
def test_a_host_whose_key_is_wrong_is_refused(
    hosts: SshBackend, command: Command, tmp_path: Path, key: str, words: str
) -> None:
    lines = hosts.lab.known_hosts.read_text().splitlines()
    mine = lines[0].split(" ", 1)[1]
    kept = [lines[0], f"{lines[1].split(' ', 1)[0]} {mine}"] if key == "changed" else [lines[0]]
    known = tmp_path / "known_hosts"
    known.write_text("\n".join(kept) + "\n")
    recipe, before = command.recipe("data"), len(list_runs(command.runs))
    code, output = command.run(
        "run", recipe, "--on", hosts.target(workdir="~/refused", ssh={"known_hosts": str(known)})
    )
    assert code == 2, output
    assert "host n2" in output and words in output
    assert "Traceback" not in output
    assert all(hosts.lab.processes_on(host) == [] for host in hosts.lab.hosts)
    assert not (hosts.lab.home("n1") / "refused").exists()
    assert len(list_runs(command.runs)) == before + 1


def test_a_host_that_does_not_answer_is_named(hosts: SshBackend, command: Command, tmp_path: Path) -> None:
    path = hosts.target()
    target = load(Target, Path(path)).settle(2, 0)
    silent = target.hosts[1].model_copy(update={"address": f"{hosts.lab.network.subnet}.99"})
    job = job_for(command, path, tmp_path)
    error = refusal(replace(job, target=target.model_copy(update={"hosts": [target.hosts[0], silent]})))
    assert "host n2" in error.found and "is not reached" in error.found
