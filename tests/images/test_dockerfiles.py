"""Dockerfiles, compose file and pinned versions fit each other and the lock; nothing is built here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from infra import images
from infra.compose import unpack
from infra.images import build_command, declared_arguments, dockerfile, find_engine, read_versions
from kit.config import read_yaml
from kit.errors import UserError

ROOT = Path(__file__).parents[2]
VERSIONS = read_versions()
LOCK = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
COMPOSE = ROOT / "docker" / "compose.yaml"
HADOLINT = Path(sys.executable).with_name("hadolint")
VARIABLES = {"SLIPWAY_JOB": "slipway-x-a1", "SLIPWAY_JOB_FOLDER": "/job", "SLIPWAY_RUN": "x", "SLIPWAY_RUNS": "/runs"}

each_kind = pytest.mark.parametrize("kind", images.KINDS)


def text_of(kind: str) -> str:
    return dockerfile(kind).read_text(encoding="utf-8")


@each_kind
def test_hadolint_has_nothing_to_say(kind: str) -> None:
    done = subprocess.run([HADOLINT, dockerfile(kind)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@each_kind
def test_every_base_image_is_pinned_in_one_place(kind: str) -> None:
    bases = re.findall(r"^FROM (\S+)", text_of(kind), re.M)
    stages = re.findall(r"^FROM \S+ AS (\S+)", text_of(kind), re.M)
    for image in bases:
        assert image in stages or re.fullmatch(r"\$\{[A-Z_]+_IMAGE\}", image), image
    for name in re.findall(r"\$\{([A-Z_]+_IMAGE)\}", text_of(kind)):
        assert re.search(r":[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?$", VERSIONS[name]), f"{name} names no version"


@each_kind
def test_versions_are_written_in_no_second_place(kind: str) -> None:
    for name, value in VERSIONS.items():
        assert value not in text_of(kind) and value not in COMPOSE.read_text(), name


@each_kind
def test_nothing_is_the_latest(kind: str) -> None:
    assert not any(re.search(r":latest\b", text) for text in (text_of(kind), COMPOSE.read_text(), *VERSIONS.values()))


def test_every_pinned_version_is_used() -> None:
    declared = {name for kind in images.KINDS for name in declared_arguments(text_of(kind))}
    assert set(VERSIONS) <= declared
    assert declared - set(VERSIONS) == {"VERSION", "REVISION"}


@each_kind
def test_the_last_stage_runs_as_a_number_that_is_not_root(kind: str) -> None:
    last = text_of(kind).rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.M) == ["1000:1000"]
    assert "HEALTHCHECK NONE" in last and 'ENTRYPOINT ["tini", "--"]' in last


@each_kind
def test_the_lock_is_copied_before_the_code(kind: str) -> None:
    assert text_of(kind).index("requirements/lock.txt") < text_of(kind).index("COPY . /slipway/source")


def test_the_python_is_the_one_that_the_lock_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"python:(3\.\d+)\.\d+-", VERSIONS["PYTHON_IMAGE"])
    assert version and version[1] == "{}.{}".format(*sys.version_info[:2])
    assert f">={version[1]}" in project["requires-python"]


def test_cuda_is_one_version_for_building_and_running() -> None:
    build, ship = (re.search(r"cuda:([\d.]+)-.*-(\w+)", VERSIONS[name]) for name in ("CUDA_BUILD_IMAGE", "CUDA_IMAGE"))
    assert build and ship and build.groups()[0] == ship.groups()[0]
    assert VERSIONS["CUDA_BUILD_IMAGE"].rsplit("-", 1)[1] == VERSIONS["CUDA_IMAGE"].rsplit("-", 1)[1]


def test_what_stays_out_of_images_is_in_the_lock_and_imported_by_no_room() -> None:
    patterns = (ROOT / "docker" / "not-in-images.txt").read_text().splitlines()
    for pattern in patterns:
        assert any(re.match(pattern, line) for line in LOCK), pattern
    names = {pattern.strip("^=").replace("-", "_") for pattern in patterns}
    for room in ("kit", "data_prep", "recipes", "launch", "reports"):
        for path in (ROOT / room).rglob("*.py"):
            imported = set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M))
            assert not imported & names, path


def test_only_what_runs_reaches_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "everything stays out that is not named"
    named = {line[1:] for line in lines if line.startswith("!")}
    assert not named & {".git", ".venv", ".cache", "runs", "tests", "docs", "benchmarks"}
    assert {"kit", "data_prep", "recipes", "launch", "reports", "infra", "requirements"} <= named
    assert all((ROOT / name).exists() for name in named)


def test_both_services_of_compose_run_the_command_of_a_pod() -> None:
    services = read_yaml(COMPOSE)["services"]
    assert [service["environment"]["JOB_COMPLETION_INDEX"] for service in services.values()] == ["0", "1"]
    for service in services.values():
        assert service["entrypoint"][:5] == ["python", "-m", "launch.host", "pod", "/slipway/job"]


def test_compose_reads_its_file(tmp_path: Path) -> None:
    tool = next((words for words in (["docker", "compose"], ["docker-compose"]) if _is_compose(words)), None)
    if tool is None:
        pytest.skip("needs docker compose v2")
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in VARIABLES.items()))
    command = [*tool, "--env-file", str(tmp_path / "env"), "--file", str(COMPOSE), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services["node-1"]["hostname"] == "slipway-x-a1-1"
    assert services["node-0"]["networks"]["ranks"]["aliases"] == ["slipway-x-a1-0.slipway-x-a1"]


def _is_compose(words: list[str]) -> bool:
    if shutil.which(words[0]) is None:
        return False
    done = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.lstrip("v").startswith("2")


@each_kind
def test_the_command_line_passes_every_pin_on(kind: str) -> None:
    command = build_command(kind, "docker", "slipway:x", VERSIONS, ["--no-cache"])
    passed = dict(word.split("=", 1) for before, word in pairwise(command) if before == "--build-arg")
    assert passed["PYTHON_IMAGE"] == VERSIONS["PYTHON_IMAGE"] and passed["VERSION"]
    assert set(passed) == set(declared_arguments(text_of(kind)))
    assert command[-2:] == ["--no-cache", "."]


def test_no_engine_is_told_in_three_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no docker and no podman and no buildah"):
        find_engine(None)
    assert images.main(["cpu"]) == 2
    said = capsys.readouterr().err
    assert all(said.count(part) == 1 for part in ("Found: ", "Expected: ", "Do: "))


def test_a_pin_that_does_not_exist_is_refused(capsys: Any) -> None:
    assert images.main(["cpu", "--set", "PYTON_IMAGE=x"]) == 2
    assert "PYTHON_IMAGE" in capsys.readouterr().err


def test_compose_wants_a_rendered_job_of_two_hosts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks 1-configmap"):
        unpack(tmp_path, tmp_path)
    (tmp_path / "1-configmap.yaml").write_text("data: {}\n")
    (tmp_path / "3-job.yaml").write_text("spec: {completions: 3}\n")
    with pytest.raises(UserError, match="a job of 3 pods"):
        unpack(tmp_path, tmp_path)
