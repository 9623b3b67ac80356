"""A plan of a pretraining run that goes on from a directory knows the model by the directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.errors import UserError
from launch.plan import make_plan
from launch.planner.models import check_model_of

from .conftest import Command

RECIPE = """
stage: pretrain
name: goes-on
engine: megatron
start_from: llama
data: {sequence_length: 32, global_batch_samples: 4}
optimizer: {learning_rate: 1e-3}
budget: {steps: 30}
"""
LLAMA = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "vocab_size": 512,
    "rms_norm_eps": 1e-5,
}


@pytest.fixture
def recipe(folder: Path) -> str:
    (folder / "llama").mkdir()
    (folder / "llama" / "config.json").write_text(json.dumps(LLAMA))
    (folder / "goes-on.yaml").write_text(RECIPE)
    return "goes-on.yaml"


def test_memory_is_that_of_the_directorys_model(slipway: Command, recipe: str) -> None:
    code, out, err = slipway("plan", recipe, "--json")
    assert code == 0, err
    assert str(Path("llama") / "config.json") in out


def test_a_layout_that_cannot_cut_it_is_refused_before_a_run_begins(recipe: str) -> None:
    plan = make_plan(recipe, sets=["layout.pipeline=2"], target_sets=["devices_per_host=8"])
    with pytest.raises(UserError, match=r"layout\.pipeline .* is 2, and model\.layers is 3"):
        check_model_of(plan, {})
