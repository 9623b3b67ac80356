"""The whole chain through the command line, on real crawl records: two ranks, CPU, minutes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb_file

from kit.metrics import read_metrics

ROOT = Path(__file__).parents[2]
CRAWL = ROOT.parent / "shared" / "data" / "crawl"
SMALL = [
    "pretrain.model.layers=2",
    "pretrain.model.hidden=128",
    "pretrain.model.ffn=352",
    "pretrain.budget.steps=60",
    "pretrain.data.sequence_length=128",
    "pretrain.data.global_batch_samples=8",
    "pretrain.data.micro_batch_samples=8",
    "pretrain.logging.wandb={mode: offline}",
    "sft.budget.steps=40",
    "sft.answers.samples=8",
    "reward.sampling.prompts=64",
    "reward.sampling.rounds=1",
    "reward.budget.steps=6",
    "reward.data.global_batch_samples=8",
    "reward.data.micro_batch_samples=4",
    "rlhf.budget.steps=2",
    "rlhf.data.global_batch_samples=16",
    "rlhf.data.micro_batch_samples=8",
    "rlhf.measure.samples=12",
    "evaluate.instructions.prompts=12",
    "evaluate.tasks.limit=8",
    "scaling-one.budget.steps=6",
    "scaling-data-2.budget.steps=6",
    "scaling-tensor-2.budget.steps=6",
]


def slipway(runs: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """Runs the command; returns its exit code, the JSON of its last line, and everything it said."""
    command = [sys.executable, "-m", "launch.cli", *words, "--runs", str(runs), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stdout + done.stderr


def chain(runs: Path, *sets: str) -> tuple[int, dict[str, Any], str]:
    return slipway(runs, "chain", "demo", *(word for text in (*SMALL, *sets) for word in ("--set", text)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(runs: Path) -> dict[str, Any]:
    """The demo, smaller: a part of the embedded sample, a smaller model, fewer steps."""
    code, answer, said = chain(runs, "data.input.limit=300")
    assert code == 0, said
    return answer


def test_the_report_says_what_the_demo_promises(first: dict[str, Any], runs: Path) -> None:
    code, summary, _ = slipway(runs, "report", "--last")
    assert code == 0
    assert summary["tensor_parallel"] == 2
    assert summary["documents_in"] == 300
    assert 50 < summary["documents_out"] < 300
    assert summary["bits_per_byte"] < summary["bits_per_byte_unigram"] < summary["bits_per_byte_untrained"]
    points = {point["label"]: point for point in summary["scaling"]}
    assert {point["processes"] for point in points.values()} == {1, 2}
    assert all(point["threads_per_process"] == 1 and point["tokens_per_second"] > 0 for point in points.values())
    assert summary["flops_convention"] and summary["peak_flops_per_second"] > 0 and 0 < summary["mfu"] < 1


def test_the_summary_tells_of_every_stage_and_of_the_lineage(first: dict[str, Any], runs: Path) -> None:
    stages = first["stages"]
    assert list(stages) == ["data_prep", "pretrain", "sft", "reward", "rlhf", "evaluate"]
    assert all(stage["state"] == "finished" and stage["seconds"] > 0 for stage in stages.values())
    assert stages["sft"]["loss_after"] < stages["sft"]["loss_before"]
    assert 0 <= stages["reward"]["accuracy"] <= 1
    assert {"rule_reward_before", "rule_reward_after", "kl_nats_per_answer"} <= stages["rlhf"].keys()
    lineage = {entry["stage"]: entry for entry in first["lineage"] if entry["stage"] in stages}
    assert lineage["rlhf"]["parents"].keys() == {"model", "reward"}
    assert lineage["evaluate"]["parents"]["rlhf"] == stages["rlhf"]["run_id"]
    evaluation = json.loads((runs / stages["evaluate"]["run_id"] / "artifacts" / "evaluation.json").read_text())
    assert [model["name"] for model in evaluation["models"]] == ["model", "sft", "rlhf"]
    assert set(evaluation["answers"][0]["answers"]) == {"model", "sft", "rlhf"}


def test_every_run_was_planned_and_wandb_has_every_metric(first: dict[str, Any], runs: Path) -> None:
    for stage in first["stages"].values():
        predicted = json.loads((runs / stage["run_id"] / "manifest.json").read_text())["plan"]["predicted"]
        assert predicted["assumptions"]
    pretrain = runs / first["stages"]["pretrain"]["run_id"]
    (file,) = pretrain.glob("wandb/offline-run-*/*.wandb")
    logged = {entry["step"]: entry for entry in wandb_file.history(file) if "loss" in entry}
    metrics = read_metrics(pretrain / "metrics.jsonl")
    assert len(metrics) == 60
    for record in metrics:
        assert {key: logged[record["step"]][key] for key in record} == record


def test_the_aligned_model_answers_in_the_terminal(first: dict[str, Any], runs: Path) -> None:
    command = [sys.executable, "-m", "launch.cli", "chat", "last:rlhf", "--runs", str(runs), "--json"]
    done = subprocess.run(command, cwd=ROOT, input="Hello\n", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert [turn["prompt"] for turn in said["turns"]] == ["Hello"]


def test_every_stage_left_what_the_next_one_reads(first: dict[str, Any], runs: Path) -> None:
    manifest = json.loads((Path(first["path"]) / "manifest.json").read_text())
    stages = {stage["id"]: stage for stage in manifest["stages"]}
    pretrain = json.loads((Path(stages["pretrain"]["path"]) / "manifest.json").read_text())
    assert pretrain["parents"]["data"]["run_id"] == stages["data"]["run_id"]
    assert pretrain["parents"]["data"]["digest"]
    losses = [record["loss"] for record in read_metrics(Path(stages["pretrain"]["path"]) / "metrics.jsonl")]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 0.5


def test_the_exported_model_speaks_with_plain_transformers(first: dict[str, Any]) -> None:
    manifest = json.loads((Path(first["path"]) / "manifest.json").read_text())
    model = next(Path(stage["path"]) for stage in manifest["stages"] if stage["id"] == "pretrain") / "artifacts/model"
    program = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "ids = tokenizer('The server', return_tensors='pt')\n"
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=12, do_sample=False)[0]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        cwd=model.parent,
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "The server" in done.stdout
    assert len(done.stdout.strip()) > len("The server") + 3


def test_the_report_is_one_file_that_stands_alone(first: dict[str, Any]) -> None:
    page = (Path(first["path"]) / "report" / "report.html").read_text()
    assert page.count("<svg") >= 8
    assert 'src="http' not in page and "<script src" not in page and '<link rel="stylesheet" href' not in page


def test_a_second_start_does_nothing_again(first: dict[str, Any], runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/artifacts/**/*") if path.is_file()}
    code, answer, said = chain(runs, "data.input.limit=300")
    assert code == 0, said
    assert said.count("reused") >= 9
    assert answer["bits_per_byte"] == first["bits_per_byte"]
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/artifacts/**/*") if path.is_file()}
    assert before == after


def test_a_change_redoes_only_what_depends_on_it(first: dict[str, Any], runs: Path) -> None:
    code, answer, said = chain(runs, "data.input.limit=300", "evaluate.samples.new_tokens=8")
    assert code == 0, said
    stages = {s["id"]: s for s in json.loads((Path(answer["path"]) / "manifest.json").read_text())["stages"]}
    assert not stages["evaluate"]["reused"]
    assert all(stage["reused"] for name, stage in stages.items() if name != "evaluate")


@pytest.mark.skipif(not CRAWL.is_dir(), reason="the real crawl records are not beside this checkout")
def test_real_crawl_records_become_shards_that_train(tmp_path: Path) -> None:
    """Common Crawl and other archives as they come, damaged ones among them, to a loss that falls."""
    names = ["cc_main_2020_34_16pages.warc.gz", "cc_clipped_record.warc.gz", "edge_truncated.warc"]
    names += ["cc_main_2024_22_one.warc.wet.gz", "archive_org_2008_299resp.warc.gz", "wget_dolma_0000.warc.gz"]
    paths = json.dumps([str(CRAWL / name) for name in names if (CRAWL / name).exists()])
    code, data, said = slipway(
        tmp_path,
        "run",
        "data_prep/demo",
        *(
            "--set",
            f"input.paths={paths}",
            "--set",
            "tokenizer.vocab_size=1024",
            "--set",
            "split.validation_fraction=0.2",
        ),
    )
    assert code == 0, said
    card = json.loads((Path(data["path"]) / "artifacts" / "card.json").read_text())
    assert data["documents_out"] == card["documents_out"], "--json prints the run's summary"
    assert json.loads((Path(data["path"]) / "report" / "summary.json").read_text())["tokens"] == data["tokens"]
    assert (Path(data["path"]) / "report" / "report.html").is_file()
    assert card["documents_in"] > 20
    assert card["documents_out"] >= 5
    assert card["records_corrupt"] >= 1
    code, trained, said = slipway(tmp_path, "run", "pretrain/tiny", "--set", "layout.tensor=2")
    assert code == 0, said
    losses = [record["loss"] for record in read_metrics(Path(trained["path"]) / "metrics.jsonl")]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
