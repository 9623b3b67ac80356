"""What hosts run the ranks in, beside an interpreter that is there: an environment made on the host, or an image."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command, steps
from lab.host_lab import HostLab, lab_or_skip
from lab.machine import ROOT

from kit.run.directory import list_runs
from kit.run.events import state_of


@pytest.fixture
def host() -> Iterator[HostLab]:
    """One host, gone with all its files after the test."""
    yield from lab_or_skip(1)


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_environment_is_made_on_a_host_and_trains(host: HostLab, command: Command) -> None:
    made_by = f"{sys.base_prefix}/bin/python3.11"
    pin = next(line for line in (ROOT / "requirements" / "lock.txt").read_text().splitlines() if "psutil==" in line)
    asked = f"{made_by} -m pip install --dry-run --no-deps --ignore-installed {pin} 2>&1 || echo it fails"
    answer = host.run_on("n1", asked)
    if "it fails" in answer:
        pytest.skip(f"pip finds no packages from inside a host: {answer.strip().splitlines()[-2]}")
    target = host.target(environment={"mode": "venv", "python": made_by})
    sets = ("--set", "budget.steps=5", "--set", "validation.every_steps=5")
    code, output = command.run("run", "pretrain/tiny", "--on", str(target), *sets, seconds=1500)
    assert code == 0, output
    assert "Make the environment" in output
    run = list_runs(command.runs)[-1]
    assert state_of(run) == "finished" and steps(run) == 5
    (venv,) = (host.home("n1") / "slipway" / "venv").iterdir()
    assert (venv / "slipway-setup").is_file()
    assert list((host.home("n1") / "slipway" / "cache" / "torch_extensions").rglob("*.so"))
    assert host.processes_on("n1") == []

    code, output = command.run("run", "pretrain/tiny", "--on", str(target), *sets)
    assert code == 0, output
    assert "Preparing" not in output, "a host that has the environment is left alone"
