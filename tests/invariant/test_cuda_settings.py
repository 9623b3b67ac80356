"""What is set on CUDA alone, tried on the CPU over gloo: curve, validation and exported weights stay the same."""

from __future__ import annotations

from typing import Any

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

from recipes.distributed.processes import Processes

LLAMA: dict[str, Any] = {"kv_heads": 4}
GPT2 = {"family": "gpt2"}


def train_as_on_cuda(
    processes: Processes, layout: dict[str, Any], model: dict[str, Any], recipe: dict[str, Any], steps: int
) -> dict[str, Any]:
    """A few steps with CUDA's settings, where whoever reads parameters reads them right after a step."""
    from recipes.engines.megatron import cuda

    cuda.on_cuda = lambda: True
    made, _ = engine_programs.started_engine(processes, "megatron", layout, recipe=recipe, **model)
    settings = made._wrapped[0].ddp_config  # type: ignore[attr-defined]
    return told_of(made, steps) | {"overlap": (settings.overlap_grad_reduce, settings.overlap_param_gather)}


def train_plainly(
    processes: Processes, layout: dict[str, Any], model: dict[str, Any], recipe: dict[str, Any], steps: int
) -> dict[str, Any]:
    made, _ = engine_programs.started_engine(processes, "megatron", layout, recipe=recipe, **model)
    return told_of(made, steps)


def told_of(made: Any, steps: int) -> dict[str, Any]:
    curve, validation, weights = [], [], []
    for step in range(1, steps + 1):
        curve += engine_programs.steps_of(made, step, step)
        weights.append(engine_programs.weights_of(made))
        validation.append(made.mean_loss([engine_programs.batch_of(made, 40)]))
    return {"curve": curve, "validation": validation, "weights": weights}


def assert_alike(layout: dict[str, Any], model: dict[str, Any], recipe: dict[str, Any], ranks: int) -> dict[str, Any]:
    steps = 4
    fused = run_on_ranks(train_as_on_cuda, ranks, layout, model, recipe, steps)
    plain = run_on_ranks(train_plainly, ranks, layout, model, recipe, steps)
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_allclose(one["curve"], other["curve"], atol=engine_programs.TOLERANCE, rtol=0)
        np.testing.assert_allclose(one["validation"], other["validation"], atol=engine_programs.TOLERANCE, rtol=0)
    for one, other in zip(fused[0]["weights"], plain[0]["weights"], strict=True):
        for name, tensor in other.items():
            np.testing.assert_allclose(one[name], tensor, atol=2e-5, rtol=0, err_msg=name)
    return dict(fused[0])


@pytest.mark.parametrize("distributed", [True, False], ids=["distributed optimizer", "plain optimizer"])
def test_overlap_over_the_data_axis_learns_the_same(distributed: bool) -> None:
    recipe = {"optimizer": {"distributed": distributed}}
    told = assert_alike({"data": 2}, LLAMA, recipe, 2)
    assert told["overlap"] == (True, distributed)


def test_overlap_with_interleaved_stages_learns_the_same() -> None:
    told = assert_alike({"data": 2, "pipeline": 2, "interleave": 2}, {"tied": True}, {}, 4)
    assert told["overlap"] == (True, True)


def test_fused_kernels_and_freed_outputs_learn_the_same_for_gpt2() -> None:
    assert_alike({"pipeline": 2}, GPT2, {}, 2)
