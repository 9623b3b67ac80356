"""The doctor on this machine: really its facts, and really the probe job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.errors import UserError
from kit.run.directory import list_runs
from kit.run.events import RunState, state_of
from launch.console import Console
from launch.verbs import doctor
from launch.verbs.arguments import Answer, add_common

Examine = Callable[..., Answer]


@pytest.fixture
def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """The verb with its own words, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Answer:
        parser = argparse.ArgumentParser()
        doctor.add_arguments(parser)
        add_common(parser)
        arguments = parser.parse_args([*words])
        return doctor.execute(arguments, Console(arguments.json))

    return run


QUICKLY = ("--set", "bandwidth_bytes=65536", "--set", "bandwidth_repeats=2", "--set", "latency_repeats=5")


def test_this_machine_is_examined_and_probed(
    examine: Examine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = examine("--ranks", "2", *QUICKLY)
    told = answer.data
    assert list(told["hosts"]) == ["localhost"]
    assert [pair["ranks"] for pair in told["probe"]["pairs"]] == [[0, 1]]
    assert told["hosts_of_ranks"] == ["localhost", "localhost"]
    (run,) = list_runs(tmp_path / "runs")
    assert (run.id, run.manifest().role, state_of(run)) == (told["run_id"], "probe", RunState.FINISHED)
    assert json.loads((run.artifacts / "probe.json").read_text()) == told["probe"]
    assert answer.exit_code == (0 if told["healthy"] else 1)
    out = capsys.readouterr().out
    assert "localhost rank 0 - localhost rank 1" in out
    assert json.loads(json.dumps(told)) == told


def test_quick_starts_no_job(examine: Examine, tmp_path: Path) -> None:
    told = examine("--quick").data
    assert told["probe"] is None and told["hosts"]["localhost"]["cores"] >= 1
    assert told["left_out"] == ["the probe job: --quick"]
    assert list_runs(tmp_path / "runs") == []


def test_a_probe_that_fails_is_bad(examine: Examine) -> None:
    answer = examine("--ranks", "1", "--target-set", "device=cuda", "--target-set", "devices_per_host=1")
    assert answer.exit_code == 1
    assert {finding["where"] for finding in answer.data["findings"]} == {"localhost", "probe"}


def test_ranks_that_cannot_be_spread_over_the_hosts_are_refused(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("kind: ssh\nhosts: [a, b]\ndevices_per_host: 2\ndevice: cpu\n")
    with pytest.raises(UserError, match="--ranks 3 on 2 hosts"):
        examine("--on", "two.yaml", "--ranks", "3")
