"""The benchmark of pretraining: its sides take turns, its layouts are legal, and its one line is complete."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.pretrain.__main__ as bench
from benchmarks.pretrain import layouts, speed, stall, two
from benchmarks.pretrain.cases import CASES
from benchmarks.pretrain.shares import KINDS, kind_of
from benchmarks.pretrain.turns import ROOT, Side, Turn
from kit.errors import RunFailure
from kit.run.directory import RunDirectory
from launch.plan import make_plan

ECHO = """
import sys
from benchmarks.pretrain.turns import Pace

pace = Pace()
pace.start(tokens=10)
print("a library that prints")
for step in range(7):
    pace.wait()
    pace.tell(float(step))
sys.exit("no more steps")
"""


def turn(rate: float, loss: float = 1.0, cpu_seconds: float = 1.0) -> Turn:
    return Turn(seconds=1 / rate, cpu_seconds=cpu_seconds, tokens=1, losses=[loss], extra={})


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    pairs = [(turn(2.0), turn(1.0)), (turn(3.0, loss=1.5), turn(2.0)), (turn(4.0), turn(1.0))]
    found = speed.ratio([{"ours": ours, "plain": peer} for ours, peer in pairs], "ours", "plain")
    assert (found["ratio"], found["low"], found["high"], found["pairs"]) == (2.0, 1.5, 4.0, 3)
    assert found["tokens_per_second"] == {"ours": 3.0, "peer": 1.0} and found["max_loss_difference"] == 0.5


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Side:
    (tmp_path / "echo_side.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return Side("echo", "echo_side", RunDirectory.create(tmp_path, "pretrain", "echo"), 1, tmp_path)


def test_a_side_does_as_many_steps_as_it_is_told(echo: Side) -> None:
    with echo:
        assert echo.steps(2).losses == [0.0, 1.0]
        answer = echo.steps(3)
    assert answer.losses == [2.0, 3.0, 4.0] and answer.tokens == 30 and answer.seconds > 0


def test_a_side_that_ends_early_is_an_error_with_its_last_words(echo: Side) -> None:
    with echo, pytest.raises(RunFailure, match="no more steps"):
        echo.steps(20)


def test_both_models_train_what_they_say() -> None:
    for name, case in CASES.items():
        plan = make_plan(case.recipe, "laptop", case.assignments(), {}, ["threads_per_process=1"])
        data = plan.config["data"]
        assert (data["sequence_length"], data["global_batch_samples"]) == (case.length, case.samples), name
        assert plan.layout is not None and plan.layout.world_size == 1 and not plan.config["export"]
        assert plan.config["checkpoint"]["every_steps"] is None and plan.config["precision"] == "fp32"


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_is_legal_and_has_at_most_eight_processes(name: str) -> None:
    cut = layouts.LAYOUTS[name]
    config = layouts.configuration(cut)
    assert config.layout.world_size == cut.ranks <= 8 and config.model is not None
    sizes = {key: getattr(config.model, key) for key in ("layers", "heads", "kv_heads", "hidden", "ffn")}
    config.layout.check_model(**sizes, sequence_length=layouts.LENGTH)


def test_the_quick_layouts_are_some_of_them() -> None:
    assert set(layouts.QUICK) < set(layouts.LAYOUTS)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["aten::mm", "aten::linear"], "matmul"),
        (["aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu"], "attention"),
        (["aten::mul_", "Optimizer.step#AdamW.step"], "optimizer"),
        (["aten::_fused_adamw_"], "optimizer"),
        (["aten::_log_softmax", "aten::cross_entropy_loss"], "loss"),
        (["aten::mul", "FusedRmsNormBackward0"], "norm"),
        (["aten::silu"], "elementwise"),
        (["c10d::allreduce_"], "other"),
    ],
)
def test_an_operator_has_a_kind(names: list[str], kind: str) -> None:
    assert kind in KINDS and kind_of(names) == kind


SPEED = {"ratios": {peer: {"ratio": 1.0} for peer in speed.PEERS}, "mfu": 0.5, "profile": {}, "threads": 1}


def test_every_part_fills_its_keys_and_the_notes_explain_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "text_run", lambda cache: None)
    monkeypatch.setattr(speed, "measure", lambda *_, **__: copy.deepcopy(SPEED))
    monkeypatch.setattr(layouts, "measure", lambda *_: ({"data 2": 0.0}, {}))
    monkeypatch.setattr(stall, "measure", lambda *_: {"asynchronous": {"percent": 1.0}})
    monkeypatch.setattr(two, "measure", lambda *_: {"speedup": dict.fromkeys(two.AXES, 2.0)})
    assert bench.main(["--quick", "--cache", str(tmp_path)]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {key for keys in bench.KEYS.values() for key in keys}
    assert whole.keys() == keys | {"benchmark", "quick", "minutes", "cores"}
    assert all(whole[key] is not None for key in keys)
    assert bench.main(["--quick", "--parts", "stall", "--cache", str(tmp_path)]) == 0
    part = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert part.keys() == whole.keys() and {key for key in keys if part[key] is not None} == set(bench.KEYS["stall"])
    notes = (ROOT / "docs" / "benchmarks-pretrain.md").read_text()
    assert all(f"`{key}`" in notes for key in keys)


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("SLIPWAY_TEST_BENCH") != "1", reason="takes many minutes: SLIPWAY_TEST_BENCH=1 runs it"
)
def test_the_line_at_the_end_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.pretrain", "--quick", "--threads", "1", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert all(result[key] is not None for keys in bench.KEYS.values() for key in keys) and not result["left_out"]
    for key in ("ratio_plain_pytorch", "ratio_hf_trainer"):
        assert set(result[key]) == set(CASES)
        for found in result[key].values():
            assert 0 < found["low"] <= found["ratio"] <= found["high"] and found["pairs"] == 2
            assert found["max_loss_difference"] < 1e-4, "the sides train the same model on the same samples"
    assert max(result["layout_max_loss_difference"].values()) < 1e-5
    assert set(result["speedup_two_processes"]) == {"data", "tensor", "pipeline"}
    assert set(result["profile"]["10m"]) == {"ours", "plain", "trainer"} and 0 < result["mfu"]["10m"] < 1


def test_the_command_line_has_a_quick_mode() -> None:
    assert bench.arguments_of(["--quick"]).quick and bench.arguments_of([]).parts == list(bench.KEYS)
