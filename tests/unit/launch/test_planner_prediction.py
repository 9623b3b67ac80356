"""Predictions: every recipe has one without torch, a manifest keeps it, and none ever stops a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from launch.origin import run_key
from launch.plan import Plan, make_plan
from launch.planner import prediction
from launch.planner.models import UnknownModel, find_model
from launch.planner.prediction import predict, rented
from launch.planner.shown import prediction_lines, warning_lines
from launch.prepare import prepare
from launch.recipe_files import ROOT, recipe_names

FOR_GPUS = {f"pretrain/{name}" for name in ("350m", "1.3b", "7b", "13b", "70b", "175b")} | {"pretrain/124m"}
LARGE = ["devices_per_host=1024"]
NOWHERE = UserError("no run", expected="a run", action="run it")


def missing(plan: Plan) -> dict[str, Any]:
    return dict.fromkeys(plan.parents, NOWHERE)


def test_every_recipe_has_a_prediction_without_torch() -> None:
    program = (
        "import sys, json\n"
        "for name in ('torch', 'transformers', 'megatron', 'deepspeed', 'accelerate', 'trl', 'datatrove'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from launch.plan import make_plan\n"
        "from launch.planner.prediction import predict, rented\n"
        "from launch.verbs.plan import _look_up\n"
        "told = {}\n"
        "for recipe in sys.argv[1:]:\n"
        "    plan = make_plan(recipe, target_sets=['devices_per_host=1024'])\n"
        "    parents = {n: _look_up(Path('none'), n, r, plan) for n, r in plan.parents.items()}\n"
        "    told[recipe] = predict(plan, parents, Path('none')) | {'offers': len(rented(plan, parents))}\n"
        "print(json.dumps(told))\n"
    )
    command = [sys.executable, "-c", program, *recipe_names()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.keys() == recipe_names().keys()
    for recipe, predicted in told.items():
        if recipe.startswith(("data_prep/", "probe/")):
            assert predicted["memory_gib_per_device"] is None
            assert "has no model" in predicted["reason"]
            continue
        assert "reason" not in predicted, (recipe, predicted["reason"])
        assert 0.2 < predicted["memory_gib_per_device"] < (200 if recipe in FOR_GPUS else 4), recipe
        parts = sum(predicted["memory_parts"].values()) / 1024**3
        assert parts == pytest.approx(predicted["memory_gib_per_device"], abs=1e-3)
        assert predicted["cost_usd"] is None, "this machine has no price"
        assert predicted["assumptions"]
        assert predicted["offers"] > 5
        # How long an evaluation takes depends on text that is not there yet.
        assert recipe.startswith("evaluate/") or predicted["seconds"] > 1, recipe


def test_plan_shows_memory_time_and_rented_accelerators(slipway) -> None:
    code, out, _ = slipway("plan", "model.yaml")
    assert code == 0
    for words in ("Memory:     about", "fits: there are", "Time:       about", "no price", "On rented accelerators"):
        assert words in out
    assert "h100-pcie" in out
    code, out, _ = slipway("plan", "model.yaml", "--priced-as", "a100-80g")
    assert code == 0
    assert "h100" not in out.partition("On rented accelerators")[2]
    assert "lambda.ai/pricing, 2026-09-25" in out
    code, _, err = slipway("plan", "model.yaml", "--priced-as", "a100")
    assert code == 2
    assert "did you mean `a100-" in err


def test_plan_as_json_holds_the_prediction(slipway) -> None:
    code, out, _ = slipway("plan", "model.yaml", "--json", "--priced-as", "h100")
    assert code == 0
    told = json.loads(out)
    predicted = told["predicted"]
    assert predicted["memory_gib_per_device"] > 0.2
    # 4 bytes a parameter, and twice that for AdamW's moments.
    assert predicted["memory_parts"]["parameters"] == 4 * told["model"]["parameters"]
    assert predicted["memory_parts"]["optimizer"] == 8 * told["model"]["parameters"]
    assert predicted["flops"] > 0
    (offer,) = told["rented"]
    assert offer["fits"]
    assert offer["date"] == "2026-09-25"
    assert offer["cost_usd"] == pytest.approx(offer["seconds"] / 3600 * offer["usd_per_hour"])


def test_a_zero_recipe_shows_the_json_that_deepspeed_gets(slipway) -> None:
    code, out, _ = slipway("plan", "zero/tiny", "--set", "zero.stage=3", "--json")
    assert code == 0
    shown = json.loads(out)["shown"]["DeepSpeed configuration"]
    assert shown["zero_optimization"]["stage"] == 3
    assert shown["train_batch_size"] == 8


def test_the_manifest_keeps_the_prediction(folder: Path) -> None:
    plan = make_plan("model.yaml")
    run = prepare(plan, folder / "runs", {}, run_key(plan, {}))
    predicted = run.manifest().plan["predicted"]
    assert predicted["memory_gib_per_device"] == predict(plan, {}, folder / "runs")["memory_gib_per_device"]
    assert predicted["seconds"] > 0
    assert predicted["assumptions"]


def test_a_prediction_that_fails_says_why_and_the_run_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "newest_like", lambda *_: 1 / 0)
    plan = make_plan("model.yaml")
    predicted = prepare(plan, folder / "runs", {}, run_key(plan, {})).manifest().plan["predicted"]
    assert predicted["reason"] == "no prediction: ZeroDivisionError: division by zero"
    assert predicted["memory_gib_per_device"] is None
    assert any("no prediction" in line for line in prediction_lines(predicted))


def test_a_model_comes_from_the_parent_or_from_the_recipe_that_would_make_it(folder: Path, past_run) -> None:
    plan = make_plan("sft/tiny")
    shape, source = find_model(plan, missing(plan))
    assert (shape.layers, shape.hidden) == (4, 64)
    assert "pretrain/tiny" in source
    assert shape.sequence_length == plan.config["data"]["sequence_length"]
    parent = past_run("pretrain")
    sizes = {"num_hidden_layers": 3, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 256, "vocab_size": 777, "max_position_embeddings": 64}
    (parent.artifacts / "model").mkdir()
    (parent.artifacts / "model" / "config.json").write_text(json.dumps({**sizes, "tie_word_embeddings": True}))
    shape, source = find_model(plan, {"model": parent})
    assert (shape.layers, shape.kv_heads, shape.head_dim, shape.vocab, shape.tied) == (3, 2, 16, 777, True)
    assert source.endswith("config.json")
    (parent.artifacts / "model" / "config.json").write_text('{"hidden_size": 96}')
    with pytest.raises(UnknownModel, match=r"config\.json"):
        find_model(plan, {"model": parent})
    assert "no prediction of memory" in predict(plan, {"model": parent}, folder)["reason"]


def test_a_gpt_2_directory_is_understood(folder: Path) -> None:
    (folder / "gpt2").mkdir()
    sizes = {"n_layer": 2, "n_embd": 48, "n_head": 4, "n_inner": None, "vocab_size": 300, "n_positions": 128}
    (folder / "gpt2" / "config.json").write_text(json.dumps(sizes))
    plan = make_plan("sft/tiny", sets=["model_path=gpt2"])
    shape, _ = find_model(plan, missing(plan))
    assert (shape.ffn, shape.gated, shape.tied, shape.kv_heads) == (192, False, True, 4)


def test_a_run_that_does_not_fit_is_warned_about_and_told_what_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = (folder / "model.yaml").read_text().replace("engine: reference", "engine: megatron")
    recipe = recipe.replace("hidden: 32", "hidden: 2048").replace("ffn: 64", "ffn: 8192")
    (folder / "model.yaml").write_text(recipe)
    sets = ["data.micro_batch_samples=1", "layout.data=2"]
    plan = make_plan("model.yaml", sets=sets, target_sets=["devices_per_host=2"])
    needed = predict(plan, {}, folder)["memory_gib_per_device"]
    monkeypatch.setattr(prediction, "device_memory_gib", lambda _: needed - 0.2)
    predicted = predict(plan, {}, folder)
    assert predicted["fits"] is False
    (line,) = warning_lines(predicted)
    assert f"needs {needed:.1f} GiB a device" in line
    assert "nearest that fits: layout {tensor: 2}" in line or "nearest that fits: layout {pipeline: 2}" in line
    assert any("DOES NOT FIT" in line for line in prediction_lines(predicted))
    monkeypatch.setattr(prediction, "device_memory_gib", lambda _: 0.01)
    assert "no layout of as many processes fits" in predict(plan, {}, folder)["warning"]


def test_a_large_model_does_not_fit_a_small_accelerator_and_costs_more_on_more(folder: Path) -> None:
    recipe = (folder / "model.yaml").read_text().replace("engine: reference", "engine: megatron\nprecision: bf16")
    recipe = recipe.replace("layers: 2, hidden: 32, heads: 4, kv_heads: 2, ffn: 64", LARGE_MODEL)
    (folder / "model.yaml").write_text(recipe)
    offers = {row["name"]: row for row in rented(make_plan("model.yaml"), {})}
    assert not offers["a100-80g"]["fits"]
    assert offers["b200"]["fits"], "7 billion parameters x 18 bytes, and little else"
    two = {row["name"]: row for row in rented(make_plan("model.yaml", sets=["layout.tensor=2"]), {})}
    assert two["a100-80g"]["fits"]
    assert two["h100"]["devices"] == 2
    assert two["h100"]["needed_gib"] < offers["h100"]["needed_gib"]


LARGE_MODEL = "layers: 32, hidden: 4096, heads: 32, kv_heads: 32, ffn: 11008"


@pytest.fixture
def earlier(folder: Path) -> RunDirectory:
    """A finished run of model.yaml on this machine: 30 steps of 2 seconds, and 12 seconds besides."""
    plan = make_plan("model.yaml")
    run = prepare(plan, folder / "runs", {}, run_key(plan, {}))
    (run.processes / "rank-00000.json").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    lines = [json.dumps({"step": step, "step_seconds": 2.0}) for step in range(1, 31)]
    run.metrics_path.write_text("\n".join(lines) + "\n")
    for event, time in (("submitted", "00:00:00"), ("started", "00:00:02"), ("finished", "00:01:12")):
        append_event(run, event)
        text = run.events_path.read_text().splitlines()
        last = json.loads(text[-1]) | {"time": f"2026-11-22T{time}.000+00:00"}
        run.events_path.write_text("\n".join([*text[:-1], json.dumps(last)]) + "\n")
    return run


def test_time_is_that_of_an_earlier_run_where_there_is_one(folder: Path, earlier: RunDirectory) -> None:
    again = predict(make_plan("model.yaml"), {}, folder / "runs")
    assert again["seconds"] == pytest.approx(72)
    assert any(earlier.id in words for words in again["assumptions"])
    shorter = make_plan("model.yaml", sets=["budget.steps=10"])
    assert predict(shorter, {}, folder / "runs")["seconds"] == pytest.approx(32)


@pytest.mark.parametrize("change", ["data.sequence_length=16", "model.layers=1", "data.micro_batch_samples=2"])
def test_an_earlier_run_of_another_speed_says_nothing(folder: Path, earlier: RunDirectory, change: str) -> None:
    predicted = predict(make_plan("model.yaml", sets=[change]), {}, folder / "runs")
    assert not any(earlier.id in words for words in predicted["assumptions"])


def test_a_run_of_another_machine_or_one_that_was_interrupted_says_nothing(folder: Path, earlier: RunDirectory) -> None:
    record = earlier.processes / "rank-00000.json"
    record.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert not any(
        earlier.id in words for words in predict(make_plan("model.yaml"), {}, folder / "runs")["assumptions"]
    )
    record.write_text(json.dumps({"host": socket.gethostname(), "pid": 1}))
    events = earlier.events_path.read_text().splitlines()
    resumed = json.dumps({"time": "2026-11-22T00:00:30.000+00:00", "event": "resumed", "step": 3})
    earlier.events_path.write_text("\n".join([*events[:-1], resumed, events[-1]]) + "\n")
    assert not any(
        earlier.id in words for words in predict(make_plan("model.yaml"), {}, folder / "runs")["assumptions"]
    )
