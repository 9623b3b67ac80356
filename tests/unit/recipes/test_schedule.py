from __future__ import annotations

import pytest

from recipes.schedule import ScheduleConfig, learning_rate


def test_warm_up_is_linear_and_ends_at_the_highest_rate() -> None:
    config = ScheduleConfig(warmup_steps=4, minimum_ratio=0.1)
    assert [learning_rate(config, 1.0, step, 20) for step in range(1, 5)] == [0.25, 0.5, 0.75, 1.0]


def test_the_cosine_falls_to_its_minimum_at_the_last_step() -> None:
    config = ScheduleConfig(warmup_steps=4, minimum_ratio=0.1)
    rates = [learning_rate(config, 2.0, step, 20) for step in range(4, 21)]
    assert rates == sorted(rates, reverse=True)
    assert rates[8] == pytest.approx(1.1)
    assert rates[-1] == pytest.approx(0.2)


def test_without_warm_up_the_first_step_already_trains() -> None:
    assert learning_rate(ScheduleConfig(), 1.0, 1, 10) > 0.9
