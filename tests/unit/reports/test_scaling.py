"""The arithmetic of the scaling report against numbers worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.scaling import Measurement, circumstances, peak_disagreement, scaling_points, spread, warm_up_steps


def measurement(rates: list[float], data: int = 1, tensor: int = 1, **more: object) -> Measurement:
    made = Measurement(
        run_id=f"run-{data}-{tensor}",
        data=data,
        tensor=tensor,
        pipeline=1,
        processes=data * tensor,
        rates=tuple(rates),
        threads_per_process=1,
        global_batch_tokens=2048,
        parameters=1000,
        flops_per_token=1e6,
        peak_flops_per_second=1e9 * data * tensor,
    )
    return replace(made, **more)


@pytest.mark.parametrize(("steps", "left_out"), [(0, 0), (1, 0), (3, 0), (4, 1), (8, 2), (20, 5), (1000, 5)])
def test_warm_up_is_a_quarter_and_at_most_five_steps(steps: int, left_out: int) -> None:
    assert warm_up_steps(steps) == left_out


def test_spread_by_hand() -> None:
    # 8 steps: the first 2 are warm-up; of 10 20 30 40 50 60 the median is 35, the quartiles 22.5 and 47.5.
    found = spread([1, 2, 60, 10, 50, 20, 40, 30])
    assert found is not None
    assert (found.low, found.median, found.high) == (22.5, 35, 47.5)
    assert (found.measured, found.warm_up) == (6, 2)


def test_spread_of_little_or_nothing() -> None:
    assert spread([]) is None
    one = spread([7.0])
    assert one is not None
    assert (one.low, one.median, one.high, one.measured, one.warm_up) == (7.0, 7.0, 7.0, 1, 0)


@given(st.lists(st.floats(min_value=1, max_value=1e9), min_size=1, max_size=40))
def test_spread_is_ordered_and_within_what_was_measured(rates: list[float]) -> None:
    found = spread(rates)
    assert found is not None
    slack = 1e-9 * max(rates)
    assert min(rates) - slack <= found.low <= found.median + slack
    assert found.median <= found.high + slack <= max(rates) + 2 * slack
    assert found.measured + found.warm_up == len(rates)


def test_speedup_and_efficiency_by_hand() -> None:
    one, double = measurement([100.0] * 8), measurement([170.0] * 8, data=2)
    four = measurement([240.0] * 8, data=2, tensor=2)
    points = scaling_points([four, double, one])
    assert [p.label for p in points] == ["one process", "data parallel 2", "data parallel 2 x tensor parallel 2"]
    assert [p.speedup for p in points] == [1.0, pytest.approx(1.7), pytest.approx(2.4)]
    assert [p.efficiency for p in points] == [1.0, pytest.approx(0.85), pytest.approx(0.6)]
    assert {p.baseline for p in points} == {"one process"}
    # 170 tokens/s x 1e6 FLOPs / 2e9 FLOP/s
    assert points[1].mfu == pytest.approx(0.085)


def test_without_one_process_the_fastest_of_the_fewest_is_the_baseline() -> None:
    points = scaling_points([measurement([80.0] * 4, tensor=2), measurement([100.0] * 4, data=2)])
    assert {p.baseline for p in points} == {"data parallel 2"}
    assert {p.label: p.efficiency for p in points} == {"data parallel 2": 1.0, "tensor parallel 2": pytest.approx(0.8)}


@pytest.mark.parametrize("other", [{"global_batch_tokens": 3000}, {"parameters": 1}, {"threads_per_process": 2}])
def test_points_that_differ_in_more_than_processes_are_not_compared(other: dict[str, int]) -> None:
    points = scaling_points([measurement([100.0] * 4), measurement([190.0] * 4, data=2, **other)])
    assert points[1].tokens_per_second == 190.0
    assert points[1].speedup is None
    assert points[1].efficiency is None
    assert "not compared with one process" in points[1].note


def test_a_run_without_steps_is_a_point_without_numbers() -> None:
    points = scaling_points([measurement([]), measurement([100.0] * 4, data=2)])
    assert points[0].tokens_per_second is None
    assert points[0].note == "no step was measured"
    assert points[1].baseline == "data parallel 2"
    assert scaling_points([]) == []


def test_circumstances_name_threads_only_where_they_agree() -> None:
    same = scaling_points([measurement([1.0]), measurement([1.0], data=2)])
    mixed = scaling_points([measurement([1.0]), measurement([1.0], data=2, threads_per_process=2)])
    assert "1 thread per process" in circumstances(same)
    assert "thread" not in circumstances(mixed)
    assert "one machine" in circumstances(mixed)


def test_peak_disagreement_is_per_process() -> None:
    one, two = measurement([1.0]), measurement([1.0], data=2)
    assert peak_disagreement([one, two]) == 1.0
    assert peak_disagreement([one, replace(two, peak_flops_per_second=3e9)]) == pytest.approx(1.5)
    assert peak_disagreement([replace(one, peak_flops_per_second=None)]) == 1.0


def test_rounds_are_pooled_and_give_the_range_by_hand() -> None:
    # Round 1: 170 over 100, efficiency .85; round 2: 150 over 120, efficiency .625. Their mean is .7375.
    ones = [measurement([100.0] * 8, run_id="a"), measurement([120.0] * 8, run_id="c")]
    twos = [measurement([170.0] * 8, data=2, run_id="b"), measurement([150.0] * 8, data=2, run_id="d")]
    base, point = scaling_points([ones[0], twos[0], ones[1], twos[1]])
    assert (base.run_ids, point.run_ids, point.runs, point.steps_measured) == (("a", "c"), ("b", "d"), 2, 12)
    assert point.tokens_per_second == 160
    assert point.efficiency == pytest.approx(0.7375)
    assert point.speedup == pytest.approx(1.475)
    assert point.efficiency_low == pytest.approx(150 / 120 / 2)
    assert point.efficiency_high == pytest.approx(170 / 100 / 2)
    assert base.efficiency_low == base.efficiency_high == 1.0


def test_a_point_measured_once_has_no_range() -> None:
    _, point = scaling_points([measurement([100.0] * 4), measurement([190.0] * 4, data=2)])
    assert (point.efficiency_low, point.efficiency_high) == (None, None)
