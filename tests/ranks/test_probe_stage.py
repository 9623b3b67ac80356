"""The probe over real processes: every pair is measured once, and all ranks agree on what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rank_processes import run_on_ranks

from recipes.distributed.processes import Processes


def probed(processes: Processes, folder: str, order: str) -> dict[str, Any]:
    from kit.run.directory import RunDirectory
    from recipes.probe.config import ProbeConfig
    from recipes.probe.run import probe

    config = ProbeConfig(
        name="x", order=order, bandwidth_bytes=1 << 16, bandwidth_repeats=2, latency_repeats=5, timeout_minutes=1
    )
    return probe(processes, config, RunDirectory(Path(folder)))


@pytest.mark.parametrize(("ranks", "order"), [(2, "one_by_one"), (3, "one_by_one"), (4, "at_once")])
def test_every_pair_is_measured_once(ranks: int, order: str, tmp_path: Path) -> None:
    told, *others = run_on_ranks(probed, ranks, str(tmp_path), order)
    assert [pair["ranks"] for pair in told["pairs"]] == [[i, j] for i in range(ranks) for j in range(i + 1, ranks)]
    assert all(other["pairs"] == told["pairs"] and other["ranks"] == told["ranks"] for other in others)
    for pair in told["pairs"]:
        assert 0 < pair["latency_seconds"] < 10
        assert 0 < pair["fastest_seconds"] <= pair["seconds"]
        assert pair["bus_bandwidth_bytes_per_second"] == pytest.approx((1 << 16) / pair["seconds"])
    assert [facts["rank"] for facts in told["ranks"]] == list(range(ranks))
    assert all(facts["matmul_flops_per_second"] > 1e8 for facts in told["ranks"])
    assert told["backend"] == "gloo"
    assert (told["everyone"] is None) == (ranks == 2)
    if told["everyone"]:
        assert told["everyone"]["ranks"] == list(range(ranks))
    assert json.loads(json.dumps(told)) == told


def test_one_process_has_facts_and_no_pairs(tmp_path: Path) -> None:
    (told,) = run_on_ranks(probed, 1, str(tmp_path), "one_by_one")
    assert told["pairs"] == [] and told["everyone"] is None and len(told["ranks"]) == 1


def stopped(processes: Processes, folder: str) -> bool:
    from recipes.stop import STOP, Stopped

    STOP.requested = processes.rank == 1
    try:
        probed(processes, folder, "one_by_one")
    except Stopped:
        return True
    return False


def test_a_stop_asked_of_one_rank_stops_all(tmp_path: Path) -> None:
    assert run_on_ranks(stopped, 2, str(tmp_path)) == [True, True]
