from __future__ import annotations

from typing import Any

import pytest

from kit.config import parse
from kit.errors import UserError
from recipes.schedule import ScheduleConfig, learning_rate


def rates(highest: float = 1.0, steps: int = 20, **schedule: Any) -> list[float]:
    config = ScheduleConfig(**schedule)
    return [learning_rate(config, highest, step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_is_linear_and_ends_at_the_highest_rate(kind: str) -> None:
    assert rates(kind=kind, warmup_steps=4)[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates(kind=kind, warmup_ratio=0.2)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_the_cosine_falls_to_its_minimum_at_the_last_step() -> None:
    found = rates(2.0, warmup_steps=4, minimum_ratio=0.1)[3:]
    assert found == sorted(found, reverse=True)
    assert found[8] == pytest.approx(1.1)
    assert found[-1] == pytest.approx(0.2)


def test_the_line_falls_by_the_same_in_every_step() -> None:
    found = rates(kind="linear", warmup_steps=4, minimum_ratio=0.2)[3:]
    assert found == pytest.approx([1.0 - 0.05 * step for step in range(17)])


def test_constant_stays() -> None:
    assert rates(0.3, kind="constant", warmup_steps=2)[1:] == [0.3] * 19


def test_warm_up_stable_decay() -> None:
    # 4 of warm-up, 16 after it, of which the last quarter falls.
    found = rates(kind="wsd", warmup_steps=4, decay_ratio=0.25, minimum_ratio=0.0)
    assert found[3:16] == [1.0] * 13
    assert found[16:] == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_a_longer_run_of_warm_up_stable_decay_begins_like_the_shorter_one() -> None:
    short, long = (rates(steps=steps, kind="wsd", warmup_steps=4, decay_ratio=0.25) for steps in (20, 40))
    assert short[:16] == long[:16]
    assert short[16:] != long[16:20]


def test_without_warm_up_the_first_step_already_trains() -> None:
    assert learning_rate(ScheduleConfig(), 1.0, 1, 10) > 0.9


def test_two_warm_ups_are_refused() -> None:
    with pytest.raises(UserError, match=r"warmup_steps 5 and warmup_ratio 0\.1"):
        parse(ScheduleConfig, {"warmup_steps": 5, "warmup_ratio": 0.1}, "recipe")
