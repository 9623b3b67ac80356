"""What a ZeRO recipe may say, and the DeepSpeed JSON that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.config import load, parse, to_data
from kit.errors import UserError
from recipes.engines.deepspeed.settings import deepspeed_config
from recipes.zero.config import ZeroConfig, shown_with_plan

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes" / "zero").glob("*.yaml"))
MODEL = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64}


def recipe(**changes: Any) -> ZeroConfig:
    data = {
        "name": "test",
        "model": MODEL,
        "layout": {"data": 2},
        "data": {"sequence_length": 16, "global_batch_samples": 24, "micro_batch_samples": 3},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.2, "clip_grad": 0.5},
        "budget": {"steps": 20},
    }
    return parse(ZeroConfig, data | changes, "test.yaml")


def refused(**changes: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        recipe(**changes)
    assert caught.value.expected
    assert caught.value.action
    return caught.value


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_batch_sizes_multiply_out(path: Path) -> None:
    config = load(ZeroConfig, path)
    made = deepspeed_config(config, "cpu")
    product = made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * config.layout.data
    assert made["train_batch_size"] == product == config.data.global_batch_samples


def test_the_optimizer_and_the_clipping_are_the_recipes() -> None:
    made = deepspeed_config(recipe(), "cpu")
    assert made["gradient_clipping"] == 0.5
    wanted = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.2, "torch_adam": True}
    assert made["optimizer"] == {"type": "AdamW", "params": wanted}
    assert made["gradient_accumulation_steps"] == 4
    assert "bf16" not in made


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_what_is_offloaded_lies_on_the_cpu(device: str, pinned: bool) -> None:
    place = {"device": "cpu", "pin_memory": pinned}
    optimizer = deepspeed_config(recipe(zero={"stage": 1, "offload": "optimizer"}), device)
    assert optimizer["zero_optimization"]["offload_optimizer"] == place
    assert "offload_param" not in optimizer["zero_optimization"]
    assert optimizer["optimizer"]["params"]["torch_adam"] is False
    both = deepspeed_config(recipe(zero={"stage": 3, "offload": "optimizer_and_parameters"}), device)
    assert both["zero_optimization"]["offload_param"] == place


def test_bf16_adds_gradients_up_in_fp32() -> None:
    made = deepspeed_config(recipe(precision="bf16"), "cuda")
    assert made["bf16"] == {"enabled": True}
    assert made["data_types"] == {"grad_accum_dtype": "fp32"}


def test_deepspeed_itself_accepts_the_json_of_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    for stage in (0, 1, 2, 3):
        made = deepspeed_config(recipe(layout={"data": 1}, zero={"stage": stage, "whole_below_elements": 77}), "cpu")
        read = DeepSpeedConfig(made)
        assert read.zero_config.stage == stage
        assert read.zero_config.reduce_bucket_size == 20_000_000
        assert (read.zero_config.param_persistence_threshold == 77) == (stage == 3)
        assert (read.train_batch_size, read.gradient_accumulation_steps) == (24, 8)


def test_the_plan_shows_it_without_parents() -> None:
    config = load(ZeroConfig, RECIPES[0].parent / "demo.yaml")
    plan = {key: value for key, value in to_data(config).items() if key != "parents"}
    assert shown_with_plan(plan, "cpu") == {"DeepSpeed configuration": deepspeed_config(config, "cpu")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zero": {"stage": 0, "offload": "optimizer"}}, "needs stage 1 or more"),
        ({"zero": {"stage": 2, "offload": "optimizer_and_parameters"}}, "needs stage 3 or more"),
        ({"zero": {"stage": 0}, "precision": "bf16"}, "bf16 needs zero.stage 1"),
        ({"layout": {"data": 2, "tensor": 2}}, "tensor 2 with engine deepspeed"),
        ({"layout": {"pipeline": 2, "context": 2}}, "pipeline 2 x context 2 with engine deepspeed"),
        ({"layout": {"data": 3}}, "multiple of layout.data 3 x data.micro_batch_samples 3"),
        ({"model": None}, "nowhere"),
        ({"model_path": "somewhere"}, "model and model_path"),
        ({"parents": {"data": "last:data_prep", "model": "last:pretrain"}}, "model and parents.model"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes).found


def test_a_layout_of_another_kind_is_sent_to_megatron() -> None:
    assert "stage pretrain with engine megatron" in refused(layout={"tensor": 2}).found
