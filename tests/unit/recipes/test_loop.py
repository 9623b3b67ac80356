"""The loop, around the real reference engine on real text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import engine_programs
import pytest
import torch

from kit.errors import RunFailure
from kit.metrics import StepRecord
from recipes.data import batches
from recipes.distributed.processes import Processes
from recipes.instability import Watch
from recipes.loop import Clock, Course, Parts, Speed, StepEnd, train
from recipes.schedule import ScheduleConfig
from recipes.training.communication import Fixed
from recipes.training.config import InstabilityConfig

NO_COMMUNICATION = Fixed(0.0)
ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=1)


class Journal:
    """Everything the loop asked for, in order."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.checkpoints: list[int] = []
        self.settled: list[int] = []
        self.validations, self.asked, self.stop_after = 0, 0, stop_after

    def validate(self) -> float:
        self.validations += 1
        return 1.5

    def settle(self) -> None:
        self.settled.append(len(self.checkpoints))

    def agree(self, communication_seconds: float | None) -> StepEnd:
        self.asked += 1
        return StepEnd(self.asked == self.stop_after, communication_seconds, 0.5)


class Quarter:
    """A clock that calls a quarter of every step communication."""

    def start(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return (time.perf_counter() - self.started) / 4


def records(
    journal: Journal, steps: int = 6, rate: float = 1e-3, clock: Clock = NO_COMMUNICATION, **course: Any
) -> Iterator[StepRecord]:
    engine, _ = engine_programs.started_engine(ALONE, "reference", {}, layers=1)
    settings = {"validate_every": None, "checkpoint_every": None, "schedule": ScheduleConfig(warmup_steps=2)} | course
    return train(
        engine,
        batches(engine_programs.stream(), range(1, steps + 1), 8),
        Course(
            first_step=1,
            steps=steps,
            global_batch_samples=8,
            global_batch_tokens=512,
            highest_rate=rate,
            **settings,
        ),
        Speed(flops_per_token=1e6, peak_flops_per_second=1e12, hardware_flops_per_token=1.25e6),
        watch=Watch(InstabilityConfig()),
        validate=journal.validate,
        checkpoint=journal.checkpoints.append,
        settle=journal.settle,
        agree=journal.agree,
        clock=clock,
    )


def test_records_say_what_the_step_did() -> None:
    done = list(records(Journal()))
    assert [record.step for record in done] == [1, 2, 3, 4, 5, 6]
    assert [record.learning_rate for record in done][:2] == [0.0005, 0.001]
    assert done[-1].tokens_total == 6 * 512
    for record in done:
        assert record.mfu == pytest.approx(record.tokens_per_second * 1e6 / 1e12)
        assert record.hfu == pytest.approx(1.25 * record.mfu)
        assert (record.peak_memory_gib, record.skipped_steps) == (0.5, 0)
    assert done[-1].loss < done[0].loss


PARTS = ("data", "compute", "communication", "checkpoint", "evaluation", "idle")


def test_the_parts_of_the_time_add_up_to_all_of_it() -> None:
    done, going = [], records(Journal(), clock=Quarter(), checkpoint_every=2, validate_every=2)
    began = time.perf_counter()
    for record in going:
        time.sleep(0.02)
        done.append(record)
    whole = time.perf_counter() - began
    for record in done:
        parts = [getattr(record, f"{part}_seconds") for part in PARTS]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(record.step_seconds, rel=1e-12)
    assert min(record.idle_seconds for record in done[1:]) >= 0.02, "whoever writes the records takes time too"
    assert 0.02 * len(done) < sum(record.step_seconds for record in done) < whole, "no time is counted twice"


def test_a_rank_that_waits_less_than_the_mean_has_no_negative_part() -> None:
    times = Parts(data=0.1, training=1.0, communication=1.2, checkpoint=0.0, evaluation=0.0).of(1.5)
    assert (times["communication_seconds"], times["compute_seconds"]) == (1.0, 0.0)
    assert times["idle_seconds"] == pytest.approx(0.4)


def test_communication_is_a_part_of_the_step_and_not_of_its_computation() -> None:
    for record in records(Journal(), clock=Quarter()):
        step = record.compute_seconds + record.communication_seconds
        assert record.communication_seconds == pytest.approx(step / 4, rel=0.02)
        assert record.tokens_per_second == pytest.approx(512 / (step + record.data_seconds), rel=1e-6)


def test_communication_that_nobody_measures_is_absent() -> None:
    record = next(records(Journal(), clock=Fixed(None)))
    assert record.communication_seconds is None
    assert "communication_seconds" not in record.flat()
    assert record.tokens_per_second == pytest.approx(512 / (record.compute_seconds + record.data_seconds), rel=1e-6)


def test_checkpoints_and_validation_come_when_due() -> None:
    journal = Journal()
    done = list(records(journal, checkpoint_every=2, validate_every=3))
    assert journal.checkpoints == [2, 4, 6]
    assert journal.settled == [0, 1, 1, 2, 2, 3], "after every step, and after a checkpoint that is due"
    assert [record.step for record in done if record.validation_loss is not None] == [3], "the last one is the stage's"


def test_an_agreed_stop_checkpoints_and_ends() -> None:
    journal = Journal(stop_after=3)
    assert [record.step for record in records(journal)] == [1, 2, 3]
    assert journal.checkpoints == [3]


def test_a_loss_that_is_not_a_number_names_the_step_and_is_not_kept() -> None:
    journal = Journal()
    with pytest.raises(RunFailure, match=r"step [2-6]: loss") as caught:
        list(records(journal, rate=1e30, schedule=ScheduleConfig(), checkpoint_every=1, validate_every=None))
    assert "learning_rate" in caught.value.action
    assert 6 not in journal.checkpoints
