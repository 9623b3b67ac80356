"""One dataset for all, uninterrupted runs on this machine to compare with, and the backends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Test modules aren't packages; what several of them share lies here and in tests/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kubernetes"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from backends import BACKENDS, MARKS, Backend, SshBackend, ssh_backend
from command import Command, losses

from kit.run.directory import list_runs

Curve = list[tuple[int, float]]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    made = Command(tmp_path_factory.mktemp("launch"))
    made.make_data()
    yield made
    made.end_all()


@pytest.fixture(scope="session")
def uninterrupted(command: Command) -> Callable[[str], Curve]:
    """The losses of a recipe that ran on this machine without a stop."""
    known: dict[str, Curve] = {}

    def curve(recipe: str) -> Curve:
        if recipe not in known:
            sets = ("--target-set", "devices_per_host=2", "--target-set", "threads_per_process=1")
            code, output = command.run("run", command.recipe(recipe), *sets)
            assert code == 0, output
            known[recipe] = losses(list_runs(command.runs)[-1])
        return known[recipe]

    return curve


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshBackend]:
    yield from ssh_backend(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="session", params=[pytest.param(name, marks=MARKS.get(name, [])) for name in BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    if request.param == "ssh":
        yield request.getfixturevalue("hosts")
        return
    yield from BACKENDS[request.param](tmp_path_factory.mktemp(request.param))
