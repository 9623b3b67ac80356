"""The policy for steps that go wrong, judged step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from kit.errors import UserError
from recipes.engines.protocol import StepResult
from recipes.instability import Fault, Unstable, Watch, set_gate
from recipes.training.config import InstabilityConfig


def decisions(watch: Watch, losses: Sequence[float], norm: float = 1.0) -> list[Fault | None]:
    """What an engine that asks its gate makes of these losses."""
    faults = []
    for step, loss in enumerate(losses, start=1):
        moved = watch.gate(loss, norm)
        watch.judge(step, StepResult(loss, norm, skipped=not moved))
        faults.append(watch.fault)
    return faults


def skipping(**settings: Any) -> Watch:
    return Watch(InstabilityConfig(action="skip", **settings))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_not_a_number_is_skipped_and_counted(loss: float, norm: float) -> None:
    watch = skipping()
    assert not watch.gate(loss, norm)
    watch.judge(1, StepResult(loss, norm, skipped=True))
    assert (watch.fault, watch.skipped_steps) == (Fault.NOT_A_NUMBER, 1)
    assert decisions(watch, [2.0]) == [None]
    assert watch.skipped_steps == 1


def test_stopping_is_what_happens_if_nobody_says_otherwise() -> None:
    watch = Watch(InstabilityConfig())
    assert not watch.gate(2.0, math.nan), "the weights stay good all the same"
    with pytest.raises(Unstable, match=r"step 7: loss 2\.0, gradient norm nan") as caught:
        watch.judge(7, StepResult(2.0, math.nan, skipped=True))
    assert all(caught.value.parts())
    assert "resume" in caught.value.action
    assert "instability.action=skip" in caught.value.action


def test_a_spike_is_far_above_the_median_of_a_full_window() -> None:
    watch = skipping(spike_factor=2.0, window=4)
    # Before there are four losses nothing is far above anything; 4.1 and 100 are above twice the median of 2.
    assert decisions(watch, [9.0, 2.0, 2.0, 2.0, 4.0, 4.1, 100.0, 2.0]) == [None] * 5 + [Fault.SPIKE] * 2 + [None]
    assert watch.skipped_steps == 2


def test_a_spike_does_not_raise_the_bar_for_the_next_one() -> None:
    watch = skipping(spike_factor=2.0, window=4, most_skips=9)
    decisions(watch, [2.0] * 4)
    assert decisions(watch, [5.0] * 8) == [Fault.SPIKE] * 8


def test_without_a_factor_any_number_will_do() -> None:
    assert decisions(skipping(), [2.0] * 40 + [2e9]) == [None] * 41


def test_a_spike_can_stop_a_run_and_the_error_tells_the_limit() -> None:
    watch = Watch(InstabilityConfig(spike_factor=2.0, window=4))
    with pytest.raises(Unstable, match=r"step 5: loss 7") as caught:
        decisions(watch, [2.0, 2.0, 3.0, 3.0, 7.0])
    assert caught.value.expected == "a loss of at most 5"


def test_too_many_in_a_row_stop_the_run() -> None:
    watch = skipping(most_skips=3)
    decisions(watch, [math.nan, math.nan, 2.0, math.nan, math.nan])
    with pytest.raises(Unstable, match="3 steps in a row") as caught:
        decisions(watch, [math.nan])
    assert "most_skips 3" in caught.value.expected


def test_an_overflow_of_the_loss_scale_is_counted_and_stops_nothing() -> None:
    watch = Watch(InstabilityConfig(most_skips=1))
    for step in range(1, 5):
        # megatron's scaler leaves the step out before anybody is asked.
        watch.judge(step, StepResult(9.0, math.inf, skipped=True))
    assert (watch.fault, watch.skipped_steps) == (Fault.OVERFLOW, 4)
    with pytest.raises(Unstable):
        watch.judge(5, StepResult(math.nan, math.inf, skipped=True))


def test_an_engine_that_does_not_ask_has_done_its_bad_step_and_stops() -> None:
    with pytest.raises(Unstable):
        Watch(InstabilityConfig()).judge(1, StepResult(math.nan, 1.0))


LOSSES = [3.0, 2.9, 7.0, 2.8, 2.7, 2.9, 6.0, 2.6, 3.9, 2.6, 2.5, 8.0, 2.4, 3.7, 2.4]


@pytest.mark.parametrize("cut", range(len(LOSSES)))
def test_a_resumed_run_decides_like_one_that_was_never_cut(cut: int) -> None:
    settings = {"spike_factor": 1.4, "window": 5, "most_skips": 2}
    whole = skipping(**settings)
    expected = decisions(whole, LOSSES)
    assert expected.count(Fault.SPIKE) == 3
    first = skipping(**settings)
    decisions(first, LOSSES[:cut])
    kept = json.loads(json.dumps({"validation_loss_before": 5.5} | first.notes()))
    second = skipping(**settings)
    assert second.take_back(kept) == {"validation_loss_before": 5.5}, "the stage's own notes are left as they were"
    assert decisions(second, LOSSES[cut:]) == expected[cut:]
    assert second.notes() == whole.notes()


def test_the_row_of_skips_goes_on_after_a_resume() -> None:
    first, second = skipping(most_skips=3), skipping(most_skips=3)
    decisions(first, [math.nan, math.nan])
    second.take_back(first.notes())
    with pytest.raises(Unstable):
        decisions(second, [math.nan])


class WithoutGate:
    """An engine that says nothing before its optimizer has moved."""


def test_skipping_is_refused_where_nothing_can_be_skipped() -> None:
    config = InstabilityConfig(action="skip")
    with pytest.raises(UserError, match="engine accelerate") as caught:
        set_gate(Watch(config), config, WithoutGate(), "engine accelerate in stage sft")
    assert all(caught.value.parts())
    set_gate(Watch(InstabilityConfig()), InstabilityConfig(), WithoutGate(), "stopping is always possible")
