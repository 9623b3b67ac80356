"""The doctor over real hosts: a blocked port, a slow link and a host that is off are named, and nothing else is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.host_lab import HostLab, lab_or_skip

from launch.console import Console
from launch.verbs import doctor
from launch.verbs.arguments import Answer, add_common

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def lab() -> Iterator[HostLab]:
    yield from lab_or_skip(3)


def examine(lab: HostLab, folder: Path, *words: str) -> Answer:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    add_common(parser)
    arguments = parser.parse_args(["--on", str(lab.target()), "--runs", str(folder / "runs"), *words])
    return doctor.execute(arguments, Console())


def bad_places(answer: Answer) -> list[str]:
    return [finding["where"] for finding in answer.data["findings"] if finding["level"] == "bad"]


def test_a_blocked_port_is_named_by_its_pair_and_the_probe_does_not_hang_on_it(lab: HostLab, tmp_path: Path) -> None:
    rule = f"INPUT -p tcp --syn -s {lab.address('n1')} -j DROP"
    lab.run_on("n2", f"iptables -A {rule}")
    try:
        answer = examine(lab, tmp_path)
    finally:
        lab.run_on("n2", f"iptables -D {rule}")
    assert answer.exit_code == 1
    assert bad_places(answer) == ["n1 -> n2"]
    assert "n1 -> n2" in answer.data["left_out"][0]
    assert answer.data["probe"] is None
    for host in lab.hosts:
        assert "probe" not in lab.run_on(host, "ls ~/slipway/runs"), "what was made to ask is taken away again"
        assert lab.processes_on(host) == []


def test_a_slow_link_is_named_with_its_pairs(lab: HostLab, tmp_path: Path) -> None:
    lab.shape("50mbit", "n3")
    try:
        answer = examine(lab, tmp_path, "--set", "bandwidth_bytes=1048576", "--set", "latency_repeats=20")
    finally:
        lab.unshape("n3")
    assert answer.exit_code == 1
    assert set(bad_places(answer)) >= {"n3", "n1 - n3", "n2 - n3"}
    assert "n1 - n2" not in bad_places(answer)
    speeds = {tuple(pair["ranks"]): pair["bus_bandwidth_bytes_per_second"] for pair in answer.data["probe"]["pairs"]}
    assert speeds[0, 2] < 50e6 / 8 * 1.2
    assert answer.data["hosts_of_ranks"] == ["n1", "n2", "n3"]
    for host in lab.hosts:
        assert lab.processes_on(host) == []


def test_a_host_that_is_off_is_named_and_the_others_are_examined(lab: HostLab, tmp_path: Path) -> None:
    lab.poweroff("n3")
    try:
        answer = examine(lab, tmp_path, "--quick")
    finally:
        lab.boot("n3")
    assert answer.exit_code == 1
    assert bad_places(answer) == ["n3"]
    assert set(answer.data["hosts"]) == {"n1", "n2"}
    assert set(answer.data["ports"]) == {"n1", "n2"}
