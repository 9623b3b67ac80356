"""Reports of tuned and aligned models: numbers by hand, every algorithm, answers that are never trusted."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kit.run.directory import RunDirectory
from reports.answers import answers_table, contains, plain_prompt
from reports.build import build_report
from reports.formats import chance, probability

from .artifacts import HOSTILE
from .page import Page

Report = tuple[RunDirectory, dict[str, Any]]
EVERY_STAGE = ["data_prep", "pretrain", "sft", "reward", "rlhf", "evaluate"]


def rows_of(run: RunDirectory, name: str) -> list[dict[str, str]]:
    with (run.report / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def page_text(run: RunDirectory) -> str:
    return "".join(Page((run.report / "report.html").read_text()).text)


def test_summary_has_every_stage_with_its_figures(aligned_report: Report) -> None:
    _, summary = aligned_report
    stages = summary["stages"]
    assert list(stages) == EVERY_STAGE
    always = {"run_id", "state", "seconds", "reused", "peak_memory_gib"}
    assert all(figures.keys() >= always for figures in stages.values())
    assert [figures["reused"] for figures in stages.values()] == [True, False, False, False, False, False]
    assert stages["data_prep"]["documents_out"] == 60
    assert stages["pretrain"]["validation_loss_after"] == 4.0
    assert (stages["sft"]["loss_after"], stages["sft"]["peak_memory_gib"]) == (0.5, 0.4)
    assert (stages["reward"]["accuracy"], stages["reward"]["pairs"]) == (0.92, 200)
    assert (stages["rlhf"]["share_of_attainable"], stages["rlhf"]["p_value"]) == (0.8, 0.0018310546875)
    assert stages["evaluate"]["models"]["rlhf"]["tasks"] == {"facts": 0.55}
    assert stages["evaluate"]["comparisons"][1]["wins"] == 5


def test_flat_keys_of_alignment(aligned_report: Report) -> None:
    _, summary = aligned_report
    expected = {
        "sft_loss_after": 0.5,
        "sft_reference_contained_after": 0.75,
        "reward_accuracy": 0.92,
        "rlhf_algorithm": "ppo",
        "rule_reward_before": 0.5,
        "rule_reward_after": 0.9,
        "rule_reward_share_of_attainable": 0.8,
        "kl_nats_per_answer": 3.25,
        "win_rate": 0.8,
        "win_p_value": 0.0018310546875,
        "bits_per_byte": 2.0,
        "tensor_parallel": 2,
        "documents_in": 100,
    }
    assert {key: summary[key] for key in expected} == expected


def test_lineage_names_every_parent_by_run_and_digest(aligned_report: Report) -> None:
    run, summary = aligned_report
    assert json.loads((run.report / "summary.json").read_text())["lineage"] == summary["lineage"]
    lineage = {node["id"]: node for node in summary["lineage"]}
    assert list(lineage) == ["data", "pretrain", "sft", "reward", "rlhf", "evaluate"]  # the scaling point is none
    parents = {name: list(node["parents"]) for name, node in lineage.items()}
    assert parents["rlhf"] == ["model", "reward"]
    assert parents["evaluate"] == ["model", "data", "sft", "rlhf"]
    assert lineage["rlhf"]["parents"]["model"] == lineage["sft"]["run_id"]
    assert lineage["rlhf"]["parent_digests"]["reward"].startswith("sha256:abab")
    assert lineage["data"]["inputs"] == {"docs.warc.gz": "ef" * 32}


def test_a_chain_reaches_back_to_runs_from_outside(runs: Any) -> None:
    sft = runs.sft(runs.pretrain(runs.data_prep()))
    reward = runs.reward(sft)
    run = runs.bare("chain", stages=[runs.stage("reward", reward)])
    summary = build_report(run.path)
    assert [node["stage"] for node in summary["lineage"]] == ["data_prep", "pretrain", "sft", "reward"]
    assert list(summary["stages"]) == ["reward"]


def test_the_page_says_what_each_stage_brought(aligned_report: Report) -> None:
    run, _ = aligned_report
    text = page_text(run)
    for words in (
        "From the crawl to the aligned model in 6 runs",
        "75\u00a0% of held-out questions are answered with the fact, 0\u00a0% before",
        "The reward model ranks 92\u00a0% of held-out pairs right",
        "The rule reward rose from 0.50 to 0.90: 80\u00a0% of what was attainable",
        "Win rate over its parent: 80\u00a0%, ties counted half",
        "13 wins, 1 loss, 6 ties",
        "two equally good models would differ so much about once in 546 times (p = 0.002)",
        # The means of the first two and of the last two of 20 steps.
        "Rule reward went from 0.53 to 0.89 in 20 steps",
        "KL went from 0.30 to 3.90 in 20 steps",
    ):
        assert words in text, words
    markdown = (run.report / "report.md").read_text()
    assert "| Rule reward | 0.50 → **0.90** | PPO; 80 % of the way to 1.00; KL 3.25 nats an answer |" in markdown


def test_answers_grow_and_right_ones_are_marked(aligned_report: Report) -> None:
    run, _ = aligned_report
    page = (run.report / "report.html").read_text()
    section = page[page.index('<section id="answers">') : page.index('<section id="sft">')]
    assert section.count(" good") == 3  # sft and rlhf know the first fact, only rlhf the second
    assert "Right of 2: pretrain 0, sft 1, rlhf 2." in section
    table = rows_of(run, "answers")
    assert [row["answer_3"] for row in table] == ["404 means Not Found.", "It means No such file or directory."]
    assert [row["reward_answer_2"] for row in table] == ["0.75", ""]


def test_hostile_answers_are_shown_but_never_markup(aligned_report: Report) -> None:
    run, _ = aligned_report
    page = Page((run.report / "report.html").read_text())
    assert "script" not in page.tags
    assert "".join(page.text).count(HOSTILE) >= 4  # a document, the base model, and both tables before and after
    markdown = (run.report / "report.md").read_text()
    assert "<script>" not in "\n".join(line for line in markdown.splitlines() if line.startswith("|"))


def test_of_many_answers_a_few_are_printed_with_their_marks() -> None:
    rows = [{"prompt": str(n), "reference": "x", "after": "x" if n % 2 == 0 else "y"} for n in range(24)]
    table = answers_table("t", "T", rows, [("after", "after")])
    assert (len(table.rows), table.picked()) == (24, list(range(0, 24, 2)))
    assert [line[0] for line in table.shown()] == [str(n) for n in range(0, 24, 2)]
    assert {row for row, _ in table.good} == set(range(0, 24, 2))
    assert "12 of 24 questions" in table.note
    assert answers_table("t", "T", [], []).shown() == []


def test_models_are_compared_with_error_and_chance(aligned_report: Report) -> None:
    run, _ = aligned_report
    text = page_text(run)
    assert "0.550 ± 0.050" in text
    assert "facts: acc over 60 questions, guessing gets 0.25; ± one standard error." in text
    table = rows_of(run, "models")
    assert [(row["name"], row["facts_stderr"], row["rule_reward"]) for row in table][-1] == ("rlhf", "0.05", "0.9")
    assert [row["p_value"] for row in rows_of(run, "comparisons")] == ["0.0001", "0.7265625"]


def test_predicted_beside_measured(aligned_report: Report) -> None:
    run, _ = aligned_report
    rows = {row["id"]: row for row in rows_of(run, "predicted")}
    assert list(rows) == ["pretrain", "sft"]
    # 0.58 GiB measured over 0.29 predicted; 41 seconds over 82.
    assert float(rows["pretrain"]["memory_ratio"]) == pytest.approx(2.0)
    assert float(rows["pretrain"]["seconds_ratio"]) == pytest.approx(0.5)
    assert [row["bytes"] for row in rows_of(run, "predicted_parts")][:3] == ["5000000.0", "5000000.0", "10000000.0"]
    text = page_text(run)
    assert "mostly optimizer" in text
    assert "Measured memory lies within a factor of 2.00 of the prediction" in text
    assert "· 40 % of the peak.\n· no recomputation." in text
    assert "predicted_cost_usd" not in rows["sft"]


def test_a_prediction_without_numbers_or_of_another_shape(runs: Any) -> None:
    nothing = {"memory_gib_per_device": None, "seconds": None, "cost_usd": 1.5, "assumptions": "none", "reason": "?"}
    run = runs.pretrain(predicted=nothing)
    build_report(run.path)
    assert rows_of(run, "predicted")[0]["predicted_cost_usd"] == "1.5"
    assert not (run.report / "figures" / "predicted-memory.svg").exists()


@pytest.mark.parametrize("algorithm", ["ppo", "dpo", "grpo"])
def test_every_algorithm_has_its_curves(runs: Any, algorithm: str) -> None:
    run = runs.rlhf(runs.bare("sft"), runs.bare("reward"), algorithm)
    summary = build_report(run.path)
    assert (summary["rlhf_algorithm"], summary["steps"]) == (algorithm, 20)
    drawn = {path.stem for path in (run.report / "figures").glob("rlhf-*.svg")}
    sampled = {"rlhf-rewards", "rlhf-kl"}
    assert drawn >= ({"rlhf-preferences", "rlhf-margins"} if algorithm == "dpo" else sampled)
    assert not drawn & (sampled if algorithm == "dpo" else {"rlhf-margins"})
    assert f"({algorithm.upper()})" in page_text(run)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_tuned_run_alone(runs: Any, stage: str) -> None:
    model = runs.pretrain()
    run = runs.sft(model) if stage == "sft" else runs.reward(model)
    summary = build_report(run.path)
    assert list(summary["stages"]) == ["pretrain", stage]
    assert summary["steps"] == 12  # the flat keys of training are those of this run, not of its base model
    # Without training.json, what the stage wrote itself is read.
    assert summary["parameters"] == {"sft": 1_250_000, "reward": 1_250_001}[stage]
    assert {"loss", "lineage"} <= {path.stem for path in (run.report / "figures").glob("*.svg")}


def test_bytes_that_ranks_own(runs: Any) -> None:
    run = runs.zero(runs.data_prep(), ranks=2)
    assert build_report(run.path)["engine"] == "deepspeed"
    rows = rows_of(run, "owned")
    assert [row["parameter_bytes"] for row in rows] == [str(4 * 2**20)] * 2
    assert [int(row["total_bytes"]) for row in rows] == [10 * 2**20 + 512, 10 * 2**20]
    assert "The largest of 2 ranks owns 10.0 MiB" in page_text(run)


def test_bytes_of_many_ranks_are_told_by_the_largest(runs: Any) -> None:
    run = runs.zero(runs.data_prep(), ranks=0)
    with run.metrics_path.open("a") as file:
        owned = {"owned_optimizer_bytes_largest": 2**20, "owned_optimizer_bytes_total": 2**25}
        file.write(json.dumps({"step": 9, "loss": 1.0, **owned}) + "\n")
    build_report(run.path)
    assert rows_of(run, "owned")[2] == {
        "part": "optimizer state", "largest_bytes": str(2.0**20), "total_bytes": str(2.0**25)
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "reward", "rlhf", "evaluate"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"answers": [1, {}], "models": {}, "accuracy": NaN, "p_value": "?"}'])
def test_results_that_are_missing_or_of_another_version_are_told_and_never_break(
    runs: Any, stage: str, content: str
) -> None:
    run = runs.bare(stage, events=[(0, "submitted"), (1, "started"), (4, "stopped")])
    (run.artifacts / f"{stage}.json").write_text(content)
    summary = build_report(run.path)
    assert summary["stages"][stage]["state"] == "stopped"
    assert "not finished" in page_text(run)


def test_a_share_that_was_not_recorded_is_worked_out(runs: Any) -> None:
    run = runs.rlhf(runs.bare("sft"), runs.bare("reward"))
    path: Path = run.artifacts / "rlhf.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "share_of_attainable": None}))
    assert build_report(run.path)["rule_reward_share_of_attainable"] == pytest.approx(0.8)


def test_words_of_chance() -> None:
    assert chance(1e-9) == "less than once in 1,000 times (p < 0.001)"
    assert chance(0.02) == "about once in 50 times (p = 0.020)"
    assert chance(0.5) == "in 50\u00a0% of cases (p = 0.50), so chance may explain it"
    assert (probability(0.0001), probability(0.0456), probability(None)) == ("< 0.001", "0.046", "not measured")


def test_a_fact_counts_only_as_whole_words() -> None:
    assert contains("It means NOT  found!", "Not Found")
    assert not contains("signal 11", "1")
    assert not contains("anything", "")
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is 404?"}]
    assert plain_prompt(messages) == "Be short.\nWhat is 404?"
    assert plain_prompt(None) == ""


def test_predictions_are_left_out_where_nothing_was_foreseen(chain_report: Report) -> None:
    run, _ = chain_report
    assert not (run.report / "tables" / "predicted.csv").exists()
