"""metrics.jsonl: what is written, cut off, written again and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import RunFailure
from kit.metrics import JsonlSink, StepRecord, read_metrics


def write(path: Path, *records: StepRecord) -> None:
    with JsonlSink(path) as sink:
        for record in records:
            sink.write(record)


def test_a_record_is_one_flat_line_without_empty_fields(tmp_path: Path) -> None:
    write(tmp_path / "m", StepRecord(step=1, loss=2.5, tokens=64, extra={"experts_dropped": 3.0}))
    assert read_metrics(tmp_path / "m") == [{"step": 1, "loss": 2.5, "tokens": 64, "experts_dropped": 3.0}]
    assert (tmp_path / "m").read_text().count("\n") == 1


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "m")
    sink.write(StepRecord(step=1))
    assert [r["step"] for r in read_metrics(tmp_path / "m")] == [1]
    sink.close()


def test_a_number_that_is_not_finite_becomes_a_word_of_valid_json(tmp_path: Path) -> None:
    write(tmp_path / "m", StepRecord(step=1, loss=float("nan"), grad_norm=float("inf"), extra={"z": float("-inf")}))
    assert read_metrics(tmp_path / "m") == [{"step": 1, "loss": "nan", "grad_norm": "inf", "z": "-inf"}]
    assert float("nan") != float(read_metrics(tmp_path / "m")[0]["loss"])


def test_of_a_repeated_step_the_last_record_counts_and_steps_ascend(tmp_path: Path) -> None:
    write(tmp_path / "m", *(StepRecord(step=s, loss=1.0) for s in (1, 2, 3)))
    write(tmp_path / "m", *(StepRecord(step=s, loss=2.0) for s in (2, 3, 4)))
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path / "m")] == [(1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]


@pytest.mark.parametrize("kept", range(1, 20))
def test_a_cut_off_last_line_costs_only_itself(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "m"
    write(path, StepRecord(step=1, loss=1.0), StepRecord(step=2, loss=2.0))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    assert [r["step"] for r in read_metrics(path)] == [1]
    write(path, StepRecord(step=2, loss=2.5))
    assert [(r["step"], r["loss"]) for r in read_metrics(path)] == [(1, 1.0), (2, 2.5)]


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b'[]\n3\n{"loss": 1}\n{"step": "x"}\n\n{"step": 5}\n\xff\xfe\n\x00\x00')
    assert read_metrics(tmp_path / "m") == [{"step": 5}]


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none") == []


def test_a_full_disk_is_a_failure_in_words_and_keeps_the_lines_before(small_disk: Path) -> None:
    path = small_disk / "m"
    with pytest.raises(RunFailure, match="no space left"):
        write(path, *(StepRecord(step=s, loss=1.0) for s in range(1, 100_000)))
    steps = [record["step"] for record in read_metrics(path)]
    assert len(steps) > 100
    assert steps == list(range(1, len(steps) + 1))
