"""Facts made by hand, and what the doctor makes of them: who is named, why, and who is not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from launch.doctor.findings import (
    GIB,
    Finding,
    clock_findings,
    difference_findings,
    host_findings,
    name_findings,
    pod_findings,
    port_findings,
)
from launch.doctor.hosts import least_skew
from launch.doctor.pairs import probe_findings
from launch.host.gpus import read_table, slowed_by, xid_lines


def facts(**changes: Any) -> dict[str, Any]:
    healthy = {
        "hostname": "a",
        "kernel": "6.1",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "cores": 8,
        "memory_bytes": 64 * GIB,
        "workdir": "/data",
        "workdir_writable": True,
        "disk_free_bytes": 100 * GIB,
        "shared_memory_bytes": 8 * GIB,
        "open_files": 20000,
        "own_name": {"addresses": ["10.0.0.1"], "seconds": 0.0},
        "names": {},
        "gpus": [],
    }
    return healthy | changes


def gpu(**changes: Any) -> dict[str, Any]:
    healthy = {
        "index": 0,
        "name": "NVIDIA H100",
        "temperature_celsius": 40,
        "ecc_uncorrected": 0,
        "remapping_failed": False,
        "remapping_pending": False,
        "slowed_by": [],
    }
    return healthy | changes


def of_host(**changes: Any) -> list[Finding]:
    return host_findings("a", facts(**changes), devices=2, cuda=False, several=True)


def of_gpus(*gpus: dict[str, Any], **changes: Any) -> list[Finding]:
    return host_findings("a", facts(gpus=list(gpus), **changes), devices=1, cuda=True, several=True)


def test_a_healthy_host_has_no_findings() -> None:
    assert of_host() == []
    assert of_gpus(gpu()) == []


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"disk_free_bytes": 2 * GIB}, "bad", "2.0 GiB free at /data"),
        ({"shared_memory_bytes": 64 * 2**20}, "bad", "/dev/shm has 64.0 MiB"),
        ({"shared_memory_bytes": None}, "bad", "no /dev/shm"),
        ({"workdir_writable": False}, "bad", "/data may not be written to"),
        ({"open_files": 256}, "bad", "at most 256 open files"),
        ({"versions": {"python": "3.11.7"}}, "bad", "no torch"),
        ({"cores": 1}, "warning", "1 cores for 2 ranks"),
        ({"own_name": {"addresses": ["127.0.1.1"], "seconds": 0.0}}, "warning", "leads to 127.0.1.1"),
    ],
)
def test_a_fault_of_a_host_is_named_alone_and_says_what_to_do(changes: dict[str, Any], level: str, words: str) -> None:
    (found,) = of_host(**changes)
    assert (found.where, found.level) == ("a", level)
    assert words in found.what
    assert found.action


def test_a_machine_that_is_alone_may_call_itself_localhost() -> None:
    alone = facts(own_name={"addresses": ["127.0.0.1"], "seconds": 0.0})
    assert host_findings("a", alone, devices=2, cuda=False, several=False) == []


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"ecc_uncorrected": 3}, "bad", "GPU 0: 3 uncorrected ECC errors"),
        ({"remapping_failed": True}, "bad", "remapping"),
        ({"remapping_pending": True}, "warning", "wait to be remapped"),
        ({"slowed_by": ["hardware thermal"]}, "bad", "hardware thermal"),
        ({"temperature_celsius": 91}, "warning", "91 C"),
    ],
)
def test_a_sick_gpu_is_named(changes: dict[str, Any], level: str, words: str) -> None:
    (found,) = of_gpus(gpu(**changes))
    assert found.level == level and words in found.what


def test_missing_gpus_and_errors_of_the_driver_are_named() -> None:
    (missing,) = of_gpus()
    assert "0 GPUs" in missing.what
    (error,) = of_gpus(gpu(), xid=["NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus."])
    assert "79" in error.what


def test_the_odd_one_out_is_named_and_not_the_others() -> None:
    three = {"a": facts(), "b": facts(), "c": facts(versions={"python": "3.11.7", "torch": "2.12.0"})}
    (found,) = difference_findings(three)
    assert (found.where, found.level, found.what) == ("c", "bad", "torch 2.12.0, and 2.13.0 on a, b")
    (kernel,) = difference_findings({"a": facts(), "b": facts(kernel="5.15")})
    assert (kernel.where, kernel.level) == ("b", "warning")
    assert difference_findings({"a": facts()}) == []


def test_clocks_are_bad_from_a_second_on() -> None:
    found = clock_findings({"a": 0.0, "b": 0.9, "c": -2.5, "d": None})
    assert [(f.where, f.what) for f in found] == [("c", "clock 2.5 s behind")]


def test_a_skew_is_what_cannot_be_explained_by_the_way_there_and_back() -> None:
    assert least_skew(sent=100.0, read=100.5, received=101.0) == 0
    assert least_skew(sent=100.0, read=103.5, received=101.0) == 2.5
    assert least_skew(sent=100.0, read=96.0, received=101.0) == -4


def test_a_name_that_leads_nowhere_is_named_with_who_asked() -> None:
    lost = {"b": {"addresses": [], "error": "Name or service not known", "seconds": 0.1}}
    slow = {"b": {"addresses": ["10.0.0.2"], "seconds": 5.0}}
    (bad,) = name_findings({"a": facts(names=lost)})
    assert (bad.where, bad.level) == ("a -> b", "bad")
    (late,) = name_findings({"a": facts(names=slow)})
    assert late.level == "warning" and "5.0 s" in late.what


def test_a_closed_port_is_named_by_its_direction_and_a_closed_host_by_its_name() -> None:
    good, shut = {"seconds": 0.001}, {"error": "no answer within 4 s"}
    one = {"a": {"b": shut, "c": good}, "b": {"a": good, "c": good}, "c": {"a": good, "b": good}}
    (pair,) = port_findings(one)
    assert pair.where == "a -> b" and pair.blocks
    whole = {"a": {"b": shut, "c": good}, "b": {"a": good, "c": good}, "c": {"a": good, "b": shut}}
    assert [f.where for f in port_findings(whole)] == ["b", "a -> b", "c -> b"]
    assert [f.where for f in port_findings({"a": {"b": shut}, "b": {"a": good}})] == ["a -> b"]


def test_a_pod_is_judged_by_what_its_rank_says() -> None:
    rank = {"disk_free_bytes": 100 * GIB, "shared_memory_bytes": 64 * 2**20, "open_files": 20000}
    (found,) = pod_findings("pod-0", rank)
    assert (found.where, found.what) == ("pod-0", "/dev/shm has 64.0 MiB")


def probe(
    ranks: int, slow: dict[tuple[int, int], float] | None = None, late: Any = None, **rates: float
) -> dict[str, Any]:
    """Every pair at 10 Gbit/s and 1 ms but for those that are given."""
    pairs = [
        {
            "ranks": [*pair],
            "bus_bandwidth_bytes_per_second": (slow or {}).get(pair, 10.0) * 1e9 / 8,
            "latency_seconds": (late or {}).get(pair, 0.001),
        }
        for pair in combinations(range(ranks), 2)
    ]
    return {
        "pairs": pairs,
        "ranks": [{"rank": r, "matmul_flops_per_second": rates.get(f"r{r}", 1e12)} for r in range(ranks)],
    }


def test_equal_pairs_are_no_finding_and_neither_is_noise() -> None:
    assert probe_findings(probe(4), ["a", "b", "c", "d"], None) == []
    assert probe_findings(probe(3, {(0, 1): 6.0}, {(0, 2): 0.004}), ["a", "b", "c"], None) == []
    assert probe_findings(probe(1), ["a"], None) == []


def test_one_slow_pair_is_named_alone() -> None:
    (found,) = probe_findings(probe(4, {(1, 3): 1.0}), ["a", "b", "c", "d"], None)
    assert found.where == "b - d"
    assert "10 % of the usual (10 Gbit/s)" in found.what


@pytest.mark.parametrize("ranks", [3, 4, 5])
def test_a_host_behind_a_slow_link_is_named_before_its_pairs(ranks: int) -> None:
    slow = {(rank, ranks - 1): 0.5 for rank in range(ranks - 1)}
    names = ["a", "b", "c", "d", "e"][:ranks]
    found = probe_findings(probe(ranks, slow), names, None)
    assert [f.where for f in found] == [names[-1], *(f"{name} - {names[-1]}" for name in names[:-1])]


def test_two_hosts_are_compared_with_what_the_target_says_of_the_link() -> None:
    assert probe_findings(probe(2, {(0, 1): 1.0}), ["a", "b"], None) == []
    (found,) = probe_findings(probe(2, {(0, 1): 1.0}), ["a", "b"], 10.0)
    assert found.where == "a - b" and "what the target's link says" in found.what


def test_pairs_inside_a_host_are_not_compared_with_pairs_between_hosts() -> None:
    between = dict.fromkeys([(0, 2), (0, 3), (1, 2), (1, 3)], 1.0)
    assert probe_findings(probe(4, between), ["a", "a", "b", "b"], None) == []
    (found,) = probe_findings(probe(4, between | {(1, 2): 0.1}), ["a", "a", "b", "b"], None)
    assert found.where == "a rank 1 - b rank 2"


def test_a_late_pair_is_named_where_it_is_five_times_the_usual() -> None:
    (found,) = probe_findings(probe(3, late={(0, 2): 0.02}), ["a", "b", "c"], None)
    assert found.where == "a - c" and "20 times the usual" in found.what
    quick = dict.fromkeys(combinations(range(3), 2), 2e-05) | {(0, 2): 300e-6}
    assert probe_findings(probe(3, late=quick), ["a", "b", "c"], None) == []


def test_a_rank_that_computes_slowly_is_a_warning() -> None:
    (found,) = probe_findings(probe(3, r1=2e11), ["a", "b", "c"], None)
    assert (found.where, found.level) == ("b", "warning")


def test_the_drivers_tables_are_read() -> None:
    text = "0, NVIDIA H100 80GB HBM3, GPU-1\n1, NVIDIA H100 80GB HBM3, GPU-2\n"
    rows = read_table(text, ("index", "name", "uuid"))
    assert [row["uuid"] for row in rows] == ["GPU-1", "GPU-2"]
    assert read_table('Field "x" is not a valid field to query.\n', ("index", "name")) == []
    assert slowed_by("0x0000000000000041") == ["hardware thermal"]
    assert slowed_by("[N/A]") == [] and slowed_by("0x0000000000000004") == []
    assert xid_lines("a\n[ 1.0] NVRM: Xid (PCI:0000:1b:00): 79\nb") == ["[ 1.0] NVRM: Xid (PCI:0000:1b:00): 79"]
