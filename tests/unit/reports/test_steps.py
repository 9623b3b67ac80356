"""What a report says of the steps of a run: time, steps left out, sources, recomputation."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kit.metrics import JsonlSink, StepRecord
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from reports.build import build_report

SKIPPED, BLEND = 5, {"books": {"weight": 0.75}, "web": {"weight": 0.25}}
FULL = {"recompute": "full", "hardware_flops_per_token": 6_000_000.0}


def step(number: int) -> StepRecord:
    """A step of two seconds, every fifth of which waits for half a second of checkpoint."""
    checkpoint = 0.5 if number % 5 == 0 else 0.0
    parts = {"data": 0.0625, "compute": 1.25, "communication": 0.1875, "checkpoint": checkpoint, "evaluation": 0.0}
    losses = {"loss_books": 5.0 - 0.1 * number, "loss_web": 6.0 - 0.1 * number}
    if number == 10:
        losses |= {"validation_loss_books": 4.25, "validation_loss_web": 5.25}
    return StepRecord(
        step=number,
        loss=math.nan if number == SKIPPED else 5.5 - 0.1 * number,
        grad_norm=1.0,
        tokens=2000,
        step_seconds=2.0,
        tokens_per_second=1000.0,
        skipped_steps=int(number >= SKIPPED),
        idle_seconds=2.0 - sum(parts.values()),
        **{f"{name}_seconds": seconds for name, seconds in parts.items()},
        extra=losses,
    )


@pytest.fixture
def run(runs: Any) -> RunDirectory:
    made: RunDirectory = runs.pretrain(rates=[], training=FULL)
    with JsonlSink(made.metrics_path) as sink:
        for number in range(1, 11):
            sink.write(step(number))
    append_event(made, "data", sources=BLEND)
    for _ in range(2):  # done again after a resume
        told = {"loss": "nan", "grad_norm": "nan", "first_sample": 4 * 16, "samples": 16}
        append_event(made, "step_skipped", step=SKIPPED, reason="not a number", **told)
    return made


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_parts_of_the_time_are_all_of_it(run: RunDirectory) -> None:
    summary = build_report(run.path)
    table = {row["part"]: row for row in rows(run.report / "tables" / "step_time.csv")}
    assert list(table) == ["compute", "communication", "data", "checkpoint", "evaluation", "idle"]
    assert sum(float(row["share"]) for row in table.values()) == pytest.approx(1.0)
    assert float(table["compute"]["share"]) == pytest.approx(1.25 / 2)
    # Ten steps of 2 s, in two of which a checkpoint takes 0.5 s; idle is 0.5 s of the others.
    assert summary["checkpoint_share"] == pytest.approx(1.0 / 20)
    assert summary["idle_share"] == pytest.approx(4.0 / 20)
    assert summary["communication_share"] == pytest.approx(0.1875 / 2)
    page = (run.report / "report.html").read_text()
    assert "of the steps' time was computation" in page.replace("&#39;", "'").replace("&#x27;", "'")
    assert "Checkpoints held training up for 1" in page
    assert "longest in step 5" in page


def test_steps_left_out_are_told_with_their_samples(run: RunDirectory) -> None:
    summary = build_report(run.path)
    assert summary["skipped_steps"] == 1
    (row,) = rows(run.report / "tables" / "skipped_steps.csv")
    assert (row["step"], row["reason"], row["loss"], row["samples"]) == ("5", "not a number", "nan", "64 to 79")
    assert "1 step of 10 left out" in (run.report / "report.html").read_text()


def test_sources_of_a_blend_have_a_figure(run: RunDirectory) -> None:
    build_report(run.path)
    assert "books is easiest to predict (4.25), web hardest (5.25)" in (run.report / "report.html").read_text()


def test_hardware_utilisation_is_with_what_is_computed_again(run: RunDirectory) -> None:
    summary = build_report(run.path)
    # 1000 tokens/s x 5 or 6 MFLOP, of 5e10.
    assert summary["mfu"] == pytest.approx(0.1)
    assert summary["hfu"] == pytest.approx(0.12)
    assert "full recomputation does again: 6.0 MFLOP per token" in (run.report / "report.html").read_text()


def test_a_run_of_before_says_nothing_that_it_does_not_know(runs: Any) -> None:
    old = runs.pretrain()
    summary = build_report(old.path)
    assert [summary[key] for key in ("hfu", "skipped_steps", "idle_share", "checkpoint_share")] == [None] * 4
    page = (old.report / "report.html").read_text()
    assert "held training up" not in page
    assert "left out: the optimizer" not in page
    assert "HFU" not in page or "not measured" in page
    assert json.loads((old.report / "summary.json").read_text()) == summary
