"""However megatron-core divides the work, the model learns the same: one loss curve for every layout.

The layouts that every engine has, one process and data 2, are in tests/engines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

BF16_TOLERANCE = 1e-2


class Case(NamedTuple):
    """How the work is divided, and what of model and recipe is not as in the other cases."""

    layout: dict[str, Any]
    model: dict[str, Any] = {}
    recipe: dict[str, Any] = {}

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return prod(int(self.layout.get(axis, 1)) for axis in ("data", "tensor", "pipeline", "context"))


TIED = {"tied": True}
GPT2 = {"family": "gpt2"}
FOUR_KV_HEADS = {"kv_heads": 4}  # four tensor ranks need a head each


def micro(samples: int) -> dict[str, Any]:
    """A recipe's micro-batch: a step has global batch / (data x micro-batch) of them."""
    return {"data": {"micro_batch_samples": samples}}


CASES: dict[str, Case] = {
    "1 micro-batch": Case({}, recipe=micro(8)),
    "2 micro-batches": Case({}, recipe=micro(4)),
    "8 micro-batches": Case({}, recipe=micro(1)),
    "recompute full": Case({}, recipe={"recompute": "full"}),
    "recompute selective": Case({}, recipe={"recompute": "selective"}),
    "data 2, plain optimizer": Case({"data": 2}, recipe={"optimizer": {"distributed": False}}),
    "tensor 2": Case({"tensor": 2}),
    "tensor 2, tied": Case({"tensor": 2}, TIED),
    "tensor 2, sequence parallel": Case({"tensor": 2, "sequence": True}),
    "tensor 2, sequence parallel, recompute full": Case({"tensor": 2, "sequence": True}, recipe={"recompute": "full"}),
    "tensor 2, GPT-2": Case({"tensor": 2, "sequence": True}, GPT2),
    "pipeline 2": Case({"pipeline": 2}),
    "pipeline 2, tied": Case({"pipeline": 2}, TIED),
    "pipeline 2, interleaved": Case({"pipeline": 2, "interleave": 2}),
    "pipeline 2, interleaved, tied, recompute selective": Case(
        {"pipeline": 2, "interleave": 2}, TIED, {"recompute": "selective"}
    ),
    "pipeline 2, GPT-2": Case({"pipeline": 2}, GPT2),
    "context 2": Case({"context": 2}),
    "context 2, GPT-2": Case({"context": 2}, GPT2),
    "data 4": Case({"data": 4}),
    "tensor 4": Case({"tensor": 4}, FOUR_KV_HEADS),
    "pipeline 4": Case({"pipeline": 4}),
    "tensor 2 x pipeline 2": Case({"tensor": 2, "pipeline": 2}),
    "tensor 2 x pipeline 2, interleaved": Case({"tensor": 2, "pipeline": 2, "interleave": 2}),
    "context 2 x tensor 2, sequence parallel": Case({"context": 2, "tensor": 2, "sequence": True}),
    "data 2 x pipeline 2, plain optimizer, tied": Case(
        {"data": 2, "pipeline": 2}, TIED, {"optimizer": {"distributed": False}}
    ),
    "data 8": Case({"data": 8}, recipe=micro(1)),
    "tensor 2 x pipeline 2 x data 2": Case({"tensor": 2, "pipeline": 2, "data": 2}),
}


@pytest.fixture(scope="module")
def reference() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What the reference engine tells of a model, in one process."""

    @functools.cache
    def told(items: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
        return run_on_ranks(engine_programs.train_and_tell, 1, "reference", {}, dict(items))[0]

    return lambda model: told(tuple(sorted(model.items())))


@pytest.mark.parametrize("name", CASES)
def test_every_layout_learns_as_the_reference_does(
    reference: Callable[[dict[str, Any]], dict[str, Any]], name: str
) -> None:
    case = CASES[name]
    how = (case.layout, case.model, case.recipe)
    told = run_on_ranks(engine_programs.train_and_tell, case.world_size, "megatron", *how, timeout_seconds=300)
    expected = reference(case.model)
    engine_programs.assert_learns_alike(told, expected)
    engine_programs.assert_counts_alike(told, expected)


@pytest.fixture(scope="module")
def one_process_in_bf16() -> list[tuple[float, float]]:
    return run_on_ranks(engine_programs.train_only, 1, "megatron", {}, {}, {"precision": "bf16"})[0]


@pytest.mark.parametrize(
    "layout",
    [{"data": 2}, {"tensor": 2, "sequence": True}, {"pipeline": 2, "interleave": 2}, {"tensor": 2, "pipeline": 2}],
)
def test_in_bf16_layouts_differ_by_its_rounding(
    one_process_in_bf16: list[tuple[float, float]], layout: dict[str, Any]
) -> None:
    case = Case(layout)
    recipe = {"precision": "bf16"}
    curve = run_on_ranks(engine_programs.train_only, case.world_size, "megatron", layout, {}, recipe)[0]
    losses, alone = np.array(curve)[:, 0], np.array(one_process_in_bf16)[:, 0]
    assert alone[-1] < alone[0] - 1
    assert np.abs(losses - alone).max() < BF16_TOLERANCE
