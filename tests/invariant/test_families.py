"""GPT-2 learns the same however megatron-core divides the work, and what is computed again changes nothing.

Llama in every layout is in test_loss_curves.
"""

from __future__ import annotations

from typing import Any

import engine_programs
import half_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

GPT2 = {"family": "gpt2"}

CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "one process": ({}, 1, "none"),
    "data 2": ({"data": 2}, 2, "none"),
    "tensor 2": ({"tensor": 2}, 2, "none"),
    "tensor 2, sequence parallel, full recompute": ({"tensor": 2, "sequence": True}, 2, "full"),
    "pipeline 2, tied across the stages": ({"pipeline": 2}, 2, "none"),
    "pipeline 2, interleaved, full recompute": ({"pipeline": 2, "interleave": 2}, 2, "full"),
    "context 2, selective recompute": ({"context": 2}, 2, "selective"),
}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    told: dict[str, Any] = run_on_ranks(engine_programs.train_and_tell, 1, "reference", {}, GPT2)[0]
    return told


@pytest.mark.parametrize("case", CASES)
def test_gpt2_learns_as_the_reference_does(reference: dict[str, Any], case: str) -> None:
    layout, ranks, recompute = CASES[case]
    recipe = {"recompute": recompute}
    told = run_on_ranks(engine_programs.train_and_tell, ranks, "megatron", layout, GPT2, recipe)
    engine_programs.assert_learns_alike(told, reference)
    engine_programs.assert_counts_alike(told, reference)


def test_gpt2_divided_by_zero_learns_as_the_reference_does(reference: dict[str, Any]) -> None:
    recipe = {"zero": {"stage": 3}}
    told = run_on_ranks(engine_programs.train_and_tell, 2, "deepspeed", {"data": 2}, GPT2, recipe)
    engine_programs.assert_learns_alike(told, reference)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_computed_again_changes_no_bit(family: str) -> None:
    curves = {
        recompute: run_on_ranks(
            engine_programs.train_only, 1, "megatron", {}, {"family": family}, {"recompute": recompute}
        )[0]
        for recompute in ("none", "selective", "full")
    }
    assert curves["selective"] == curves["none"]
    assert curves["full"] == curves["none"]


def test_gpt2_in_bf16_learns_nearly_as_in_fp32(reference: dict[str, Any]) -> None:
    curve = run_on_ranks(engine_programs.train_only, 2, "megatron", {"tensor": 2}, GPT2, {"precision": "bf16"})[0]
    wanted = np.array(reference["curve"])
    assert 0 < np.abs(np.array(curve) - wanted)[:, 0].max() < 1e-2


def test_fp16_leaves_out_what_overflows_and_learns_nearly_as_fp32(reference: dict[str, Any]) -> None:
    told = run_on_ranks(half_programs.overflow_and_learn, 2, {"tensor": 2}, "gpt2")[0]
    for loss, norm, skipped in told["overflows"]:
        assert (norm, skipped) == (float("inf"), True)
        assert abs(loss - reference["curve"][0][0]) < 1e-2, "the loss itself is told unscaled"
    assert told["asked"] == [], "the gate judges gradients, not the loss scale"
    assert told["unchanged"]
    assert (told["first scale"], told["scale"], told["skipped"]) == (2.0**8, 2.0**39, 0)
    wanted = np.array(reference["curve"])[:8, 0]
    assert np.abs(np.array(told["curve"]) - wanted).max() < 1e-2


def test_an_exported_gpt2_has_the_engines_logits(tmp_path: Any) -> None:
    trained, exported = run_on_ranks(engine_programs.train_and_export, 2, {"tensor": 2}, GPT2, str(tmp_path))[0]
    assert np.abs(exported - trained).max() < 1e-5
