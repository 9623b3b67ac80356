"""The report of a scaling study: two links, four ways of splitting, strong and weak, three rounds."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import wandb_file

from kit.run.directory import RunDirectory
from reports.build import build_report
from reports.wandb_study import log_study

from .conftest import Runs
from .study import study

LEFT_OUT = {"point": "pipeline-8-slow", "reason": "layout.pipeline is 8, and model.layers is 4"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    run = study(Runs(tmp_path_factory.mktemp("study") / "runs"), left_out=[LEFT_OUT])
    return run, build_report(run.path)


def point(summary: dict[str, Any], link: str, label: str, mode: str) -> dict[str, Any]:
    (found,) = [p for p in summary["scaling"] if (p["link"], p["label"], p["mode"]) == (link, label, mode)]
    return found


def test_every_link_has_its_own_baseline(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    _, summary = built
    bases = [(p["label"], p["link"]) for p in summary["scaling"] if p["mode"] == "baseline"]
    assert sorted(bases) == sorted(
        (label, link) for link in ("slow", "fast") for label in ("one process", "ZeRO-2, one process")
    )
    assert len(summary["scaling"]) == 2 * (2 + 6 + 6 + 1)
    assert summary["scaling_links"] == ["slow", "fast"]
    assert summary["scaling_left_out"] == [LEFT_OUT]


def test_strong_efficiency_by_hand(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    found = point(built[1], "slow", "data parallel 2", "strong")
    # Speed-ups of the rounds: 1.10 - 0.04, 1.10, 1.10 + 0.06; over 2 ranks .53 .55 .58, whose mean is .5533.
    assert found["efficiency"] == pytest.approx((0.53 + 0.55 + 0.58) / 3)
    assert (found["rounds"], found["hosts"], found["processes"]) == (3, 2, 2)
    # Their standard deviation is .025166; t(2) = 4.303: half the interval is 4.303 x .025166 / sqrt(3) = .06252.
    assert found["interval_high"] - found["efficiency"] == pytest.approx(0.06252, abs=1e-5)
    assert found["efficiency"] - found["interval_low"] == pytest.approx(0.06252, abs=1e-5)


def test_weak_efficiency_by_hand(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    found = point(built[1], "fast", "tensor parallel 4", "weak")
    # Rates of the rounds: 4 x (0.5 + 0.5 x 1.84 / 4) = 2.92 times one rank's, times .98, 1 and 1.03.
    assert found["efficiency"] == pytest.approx(0.73 * (0.98 + 1.0 + 1.03) / 3)
    assert found["global_batch_tokens"] == 4 * 2048
    assert built[1]["scaling_efficiency_weak"] == pytest.approx(0.875 * 3.01 / 3)  # data 4 on the fast link


def test_zero_is_compared_with_zero(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    found = point(built[1], "fast", "ZeRO-2, data parallel 2", "strong")
    assert found["baseline"] == "ZeRO-2, one process"
    assert found["efficiency"] == pytest.approx(1.7 * 0.9 * 3.01 / 3 / 2)


def test_parts_of_a_step_and_costs_by_hand(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    found = point(built[1], "slow", "one process", "baseline")
    # 2048 tokens at 1000 tokens/s, 2 ms of them for data, and 10 ms that count for no rate.
    assert found["step_seconds"] == pytest.approx(2.058)
    assert found["compute_seconds"] == pytest.approx(2.046)
    assert found["other_seconds"] == pytest.approx(0.010)
    assert found["communication_seconds"] == 0.0
    # $3 an hour for 3.6 million tokens an hour.
    assert found["usd_per_billion_tokens"] == pytest.approx(3 / 3.6e6 * 1e9)
    four = point(built[1], "fast", "data parallel 4", "strong")
    assert four["usd_per_billion_tokens"] == pytest.approx(4 * 3 / (3000 * 3600) * 1e9)


def test_the_page_says_what_was_measured_on_what(built: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, _ = built
    for name in ("report.html", "report.md"):
        page = re.sub(r"\s+", " ", (run.report / name).read_text())
        for words in (
            "Amdahl 1967",
            "Gustafson 1988",
            "Scaling study",
            "n = 3",
            "Link “slow”, 0.2 Gbit/s: emulated",
            "Left out, pipeline-8-slow: layout.pipeline is 8, and model.layers is 4.",
            "blocked in collectives",
            "convention “megatron”",
            "up to 4 hosts",
            "200 Mbit/s (emulated)",
        ):
            assert words in page, (name, words)
        assert "not measured" not in page
    figures = sorted(path.stem for path in (run.report / "figures").glob("scaling-*.svg"))
    kinds = [f"scaling-efficiency-{mode}-{link}" for mode in ("strong", "weak") for link in ("slow", "fast")]
    assert figures == sorted([*kinds, "scaling-parts-slow", "scaling-parts-fast"])
    rows = list(csv.DictReader((run.report / "tables" / "scaling.csv").open()))
    assert {row["link"] for row in rows} == {"slow", "fast"}
    assert all(float(row["interval_low"]) < float(row["efficiency"]) for row in rows if row["mode"] != "baseline")


def test_without_a_price_the_report_says_so(runs: Any) -> None:
    run = study(runs, price=0.0)
    assert {p["usd_per_billion_tokens"] for p in build_report(run.path)["scaling"]} == {None}
    assert "no target names a price" in (run.report / "report.html").read_text()


def test_a_group_of_wandb_runs(built: tuple[RunDirectory, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, summary = built
    monkeypatch.delenv("WANDB_MODE", raising=False)
    said: list[str] = []
    made = log_study(run.path, "slipway-test", "offline", said.append)
    assert not said
    assert len(made) == len(summary["scaling"]) + 1
    files = {path.stem.removeprefix("run-"): path for path in run.path.glob("wandb/offline-run-*/run-*.wandb")}
    assert set(files) == set(made)
    groups = {
        record.run.run_group for file in files.values() for record in wandb_file.records(file) if record.HasField("run")
    }
    assert groups == {run.id}
    logged = {key for row in wandb_file.history(files[f"{run.id}-summary"]) for key in row}
    assert any(key.startswith("scaling/points") for key in logged)
    assert any(key.startswith("scaling/efficiency_strong") for key in logged)
    assert any(key.startswith("scaling/efficiency_weak") for key in logged)
    table = next(iter(run.path.glob("wandb/offline-run-*/files/media/table/scaling/points*.table.json")))
    rows = json.loads(table.read_text())
    place = rows["columns"].index("efficiency")
    assert [row[place] for row in rows["data"]] == pytest.approx([p["efficiency"] for p in summary["scaling"]])


def test_wandb_that_fails_does_no_harm(
    built: tuple[RunDirectory, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**settings: Any) -> None:
        raise OSError("no disk for wandb")

    monkeypatch.setattr(wandb, "init", refuse)
    said: list[str] = []
    assert log_study(Path(built[0].path), "slipway-test", "offline", said.append) == []
    assert said == ["Warning: Weights & Biases took 0 of 31 runs: OSError: no disk for wandb"]
