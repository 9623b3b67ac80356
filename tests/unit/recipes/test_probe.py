"""The probe's tournament, its configuration, and its arithmetic."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import parse
from kit.errors import UserError
from recipes.probe.config import ProbeConfig
from recipes.probe.measure import Measured
from recipes.probe.rounds import rounds_of, turns_of


@given(st.integers(0, 33))
def test_every_pair_meets_once_and_nobody_is_in_two_places(ranks: int) -> None:
    rounds = rounds_of(ranks)
    assert sorted(pair for pairs in rounds for pair in pairs) == list(combinations(range(ranks), 2))
    for pairs in rounds:
        ranks_here = [rank for pair in pairs for rank in pair]
        assert len(set(ranks_here)) == len(ranks_here)
    assert len([pairs for pairs in rounds if pairs]) == (0 if ranks < 2 else ranks - 1 + ranks % 2)


def test_one_by_one_is_one_pair_a_turn() -> None:
    assert [len(pairs) for pairs in turns_of(4, at_once=False)] == [1] * 6
    assert [len(pairs) for pairs in turns_of(4, at_once=True)] == [2] * 3


def test_bandwidths_follow_the_convention() -> None:
    pair = Measured([0, 3], 1000, seconds=0.5, fastest_seconds=0.25, latency_seconds=0.001).as_data()
    assert pair["algorithm_bandwidth_bytes_per_second"] == 2000
    assert pair["bus_bandwidth_bytes_per_second"] == 2000  # 2 (n - 1) / n is 1 for two
    four = Measured([0, 1, 2, 3], 1000, 0.5, 0.25, 0.001).as_data()
    assert four["bus_bandwidth_bytes_per_second"] == 3000


def test_a_probe_has_no_model_to_cut() -> None:
    with pytest.raises(UserError, match="data alone"):
        parse(ProbeConfig, {"name": "x", "layout": {"tensor": 2}}, "x.yaml")
