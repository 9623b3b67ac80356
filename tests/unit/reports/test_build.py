"""Reports of realistic small run directories: numbers by hand, every kind and state of run."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.metrics import JsonlSink, StepRecord
from kit.run.directory import RunDirectory
from reports.build import build_report

CHAIN_KEYS = {
    "schema_version", "run_id", "stage", "state", "stages", "runs", "lineage", "bits_per_byte",
    "bits_per_byte_untrained",
    "bits_per_byte_unigram", "perplexity", "tensor_parallel", "documents_in", "documents_out", "tokens_train",
    "parameters", "tokens_per_second", "mfu", "flops_convention", "peak_flops_per_second", "peak_source", "scaling",
    "seconds_by_stage", "peak_memory_gib_by_stage",
}  # fmt: skip
POINT_KEYS = {
    "label", "processes", "data", "tensor", "pipeline", "threads_per_process", "tokens_per_second",
    "tokens_per_second_low", "tokens_per_second_high", "speedup", "efficiency", "mfu", "steps_measured", "run_ids",
    "efficiency_low", "efficiency_high",
}  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_chain_has_every_key_and_the_numbers_by_hand(chain_report: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, summary = chain_report
    assert summary.keys() >= CHAIN_KEYS
    assert json.loads((run.report / "summary.json").read_text()) == summary
    assert (summary["bits_per_byte_untrained"], summary["bits_per_byte"], summary["bits_per_byte_unigram"]) == (5, 2, 3)
    assert summary["bits_per_byte_ratio"] == pytest.approx(0.4)
    assert (summary["documents_in"], summary["documents_out"], summary["tokens_train"]) == (100, 60, 90_000)
    assert summary["tensor_parallel"] == 2
    # 8 steps, 2 of them warm-up: the median of the other six is 1000 tokens/s; 1000 x 5e6 / 1e11 = 5 %.
    assert (summary["tokens_per_second"], summary["steps_measured"], summary["warm_up_steps"]) == (1000.0, 6, 2)
    assert summary["mfu"] == pytest.approx(0.05)
    assert summary["peak_memory_gib"] == pytest.approx(0.58)
    assert summary["peak_memory_gib_by_stage"].keys() == {"train", "one", "dp2", "tp2"}
    assert summary["seconds_by_stage"] == dict.fromkeys(("data", "train", "judge", "one", "dp2", "tp2"), 41.0)
    assert [run["reused"] for run in summary["runs"]] == [True, False, False, False, False, False]
    assert list(summary["stages"]) == ["data_prep", "pretrain", "evaluate"]
    assert summary["stages"]["pretrain"]["run_id"] == summary["runs"][1]["run_id"]  # not that of a scaling point


def test_chain_scaling_by_hand(chain_report: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, summary = chain_report
    points = summary["scaling"]
    assert all(point.keys() >= POINT_KEYS for point in points)
    assert [point["label"] for point in points] == ["one process", "data parallel 2", "tensor parallel 2"]
    assert [point["tokens_per_second"] for point in points] == [1000.0, 1800.0, 1400.0]
    assert [point["speedup"] for point in points] == pytest.approx([1.0, 1.8, 1.4])
    assert [point["efficiency"] for point in points] == pytest.approx([1.0, 0.9, 0.7])
    # One process: 1000 x 5e6 / 5e10; two: 1800 (1400) x 5e6 / 1e11.
    assert [point["mfu"] for point in points] == pytest.approx([0.1, 0.09, 0.07])
    assert {point["baseline"] for point in points} == {"one process"}
    # 1300 1400 1400 1400 1400 1500: three quarters of the way between equal values is 1400.
    assert (points[2]["tokens_per_second_low"], points[2]["tokens_per_second_high"]) == (1400.0, 1400.0)
    table = rows_of(run.report / "tables" / "scaling.csv")
    assert [float(row["efficiency"]) for row in table] == pytest.approx([1.0, 0.9, 0.7])


def test_scaling_points_that_do_not_compare_are_told(runs: Any) -> None:
    one = runs.pretrain()
    other = runs.pretrain(replicas=2, training={"global_batch_tokens": 3000, "peak_flops_per_second": 3e11})
    stages = [runs.stage("one", one, role="scaling"), runs.stage("two", other, role="scaling")]
    run = runs.bare("chain", stages=stages)
    assert build_report(run.path)["scaling"][1]["efficiency"] is None
    page = (run.report / "report.html").read_text()
    assert "data parallel 2: not compared with one process: global batch tokens differ (2048 and 3000)." in page
    assert "differ by a factor of 3.00 per process, so their MFUs do not compare" in page


def test_data_report(runs: Any) -> None:
    run = runs.data_prep()
    summary = build_report(run.path)
    assert (summary["stage"], summary["records_corrupt"], summary["vocab_size"]) == ("data_prep", 3, 4096)
    assert "bits_per_byte" not in summary
    assert "tokens_per_second" not in summary
    funnel = rows_of(run.report / "tables" / "funnel.csv")
    assert [(row["block"], row["documents_out"]) for row in funnel] == [
        ("extract", "90"),
        ("quality", "70"),
        ("minhash", "60"),
    ]
    assert float(funnel[0]["kept"]) == pytest.approx(0.9)
    reasons = {row["reason"]: row["documents"] for row in rows_of(run.report / "tables" / "drop_reasons.csv")}
    assert reasons == {"no text": "10", "too short": "15", "repetition": "5", "near duplicate": "10"}
    page = (run.report / "report.html").read_text()
    assert "60\u00a0% of 100 documents remain" in page
    assert "“too short” dropped the most: 15 documents" in page


def test_pretrain_report_includes_the_data_it_rests_on(runs: Any) -> None:
    run = runs.pretrain(runs.data_prep(), tensor=2)
    summary = build_report(run.path)
    assert (summary["tensor_parallel"], summary["documents_out"], summary["tokens_processed"]) == (2, 60, 16384)
    assert "scaling" not in summary
    page = (run.report / "report.html").read_text()
    assert f"even guess, ln(vocabulary): {math.log(4096):.2f}" in page
    assert "Validation loss fell from 8.50 to 4.00 in 8 steps" in page
    assert "Narayanan et al. 2021" in page
    assert "measured fp32 matmul 1024, one thread a process" in page
    assert "The time for checkpoints and evaluation is not in the rate." in page


def test_the_last_validation_loss_counts_though_no_step_recorded_it(runs: Any) -> None:
    run = runs.pretrain(training={"steps": 9, "validation_loss_after": 3.5})
    build_report(run.path)
    assert "Validation loss fell from 8.50 to 3.50 in 9 steps" in (run.report / "report.html").read_text()


def test_evaluate_report_walks_back_to_model_and_data(runs: Any) -> None:
    summary = build_report(runs.evaluate(runs.pretrain(runs.data_prep())).path)
    assert (summary["bits_per_byte"], summary["parameters"], summary["documents_in"]) == (2.0, 1_250_000, 100)


def test_parents_are_found_beside_the_run_after_a_move(runs: Any) -> None:
    run = runs.pretrain(runs.data_prep())
    moved = runs.root.parent / "elsewhere"
    shutil.move(runs.root, moved)
    assert build_report(moved / run.id)["documents_in"] == 100


def test_a_run_whose_parent_is_gone_still_reports(runs: Any) -> None:
    data = runs.data_prep()
    run = runs.pretrain(data)
    shutil.rmtree(data.path)
    summary = build_report(run.path)
    assert "documents_in" not in summary
    assert summary["tokens_per_second"] == 1000.0


def test_stopped_early_says_so_and_invents_nothing(runs: Any) -> None:
    run = runs.bare("pretrain", events=[(0, "submitted"), (1, "started"), (9, "stopped")])
    with JsonlSink(run.metrics_path) as sink:
        sink.write(StepRecord(step=1, loss=8.0, tokens=100, step_seconds=2.0))
    summary = build_report(run.path)
    assert (summary["state"], summary["seconds"], summary["steps"]) == ("stopped", 9.0, 1)
    assert summary["tokens_per_second"] == 50.0
    assert summary["mfu"] is None
    assert summary["parameters"] is None
    page = (run.report / "report.html").read_text()
    assert "is not finished: its state is “stopped”" in page
    assert "not measured" in page


def test_pauses_do_not_count_as_running_time(runs: Any) -> None:
    events = [(0, "submitted"), (1, "started"), (9, "stopped"), (30, "submitted"), (31, "started"), (41, "finished")]
    assert build_report(runs.pretrain(events=events).path)["seconds"] == 9 + 11


def test_a_killed_stretch_ends_at_its_last_event(runs: Any) -> None:
    events = [(0, "submitted"), (1, "started"), (5, "checkpointed"), (30, "submitted"), (41, "finished")]
    assert build_report(runs.pretrain(events=events).path)["seconds"] == 5 + 11


def test_failed_shows_the_three_parts(runs: Any) -> None:
    details = {"found": "loss is nan in step 3", "expected": "a finite loss", "action": "lower optimizer.lr"}
    run = runs.bare("pretrain", events=[(0, "submitted"), (1, "started"), (2, "failed")], details=details)
    assert build_report(run.path)["state"] == "failed"
    for name in ("report.html", "report.md"):
        text = (run.report / name).read_text()
        assert all(part in text for part in details.values())


def test_empty_and_cut_off_metrics(runs: Any) -> None:
    run = runs.bare("pretrain")
    run.metrics_path.write_text('{"step": 1, "lo')
    summary = build_report(run.path)
    assert summary["tokens_per_second"] is None
    assert "recorded no step" in (run.report / "report.html").read_text()


def test_a_loss_that_diverged_is_told_and_stays_out_of_the_json(runs: Any) -> None:
    run = runs.bare("pretrain")
    (run.artifacts / "training.json").write_text('{"validation_loss_after": NaN}')
    with JsonlSink(run.metrics_path) as sink:
        sink.write(StepRecord(step=1, loss=8.0))
        sink.write(StepRecord(step=2, loss=math.nan))
    summary = build_report(run.path)
    assert summary["loss_last"] == 8.0
    assert summary["validation_loss_after"] is None
    assert "not a finite number in 1 step, first in step 2" in (run.report / "report.html").read_text()


def test_data_and_evaluation_without_results(runs: Any) -> None:
    data = runs.bare("data_prep", events=[(0, "submitted"), (1, "started"), (4, "stopped")])
    assert build_report(data.path)["documents_in"] is None
    judged = runs.bare("evaluate", events=[(0, "submitted"), (1, "started"), (4, "stopped")])
    assert build_report(judged.path)["bits_per_byte"] is None


def test_a_chain_that_only_began(runs: Any) -> None:
    run = runs.bare("chain", events=[(0, "submitted"), (1, "started")])
    summary = build_report(run.path)
    assert summary.keys() >= CHAIN_KEYS
    assert (summary["state"], summary["scaling"], summary["runs"], summary["mfu"]) == ("running", [], [], None)
    assert (summary["stages"], summary["lineage"]) == ({}, [])


def test_a_chain_with_a_vanished_stage(runs: Any) -> None:
    run = runs.chain()
    shutil.rmtree(RunDirectory.open(Path(run.manifest().stages[0].path)).path)
    summary = build_report(run.path)
    assert (summary["runs"][0]["state"], summary["documents_in"]) == (None, None)
    assert summary["stages"]["data_prep"]["state"] is None
    assert "no run directory" in (run.report / "report.html").read_text()


def test_a_second_report_replaces_the_first_with_the_same_bytes(runs: Any) -> None:
    run = runs.pretrain(runs.data_prep())
    build_report(run.path)
    first = {path.name: path.read_bytes() for path in run.report.rglob("*") if path.is_file()}
    build_report(run.path)
    assert {path.name: path.read_bytes() for path in run.report.rglob("*") if path.is_file()} == first


def test_no_run_directory_is_a_user_error(tmp_path: Path, runs: Any) -> None:
    with pytest.raises(UserError):
        build_report(tmp_path)
    run = runs.bare("pretrain")
    (run.artifacts / "training.json").write_text("{")
    with pytest.raises(UserError, match=r"training\.json"):
        build_report(run.path)
