"""However the work is divided, the model learns the same: one loss curve for every layout."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

TOLERANCE = 1e-5
"""On losses of 3 to 6 nats over 20 fp32 steps; sums in another order explain about 5e-7."""

LAYOUTS: dict[str, tuple[dict[str, Any], int]] = {
    "one process": ({}, 1),
    "tensor 2": ({"tensor": 2}, 2),
    "tensor 2, sequence parallel": ({"tensor": 2, "sequence": True}, 2),
    "pipeline 2": ({"pipeline": 2}, 2),
    "pipeline 2, interleaved": ({"pipeline": 2, "interleave": 2}, 2),
    "data 2": ({"data": 2}, 2),
    "context 2": ({"context": 2}, 2),
    "tensor 2 x pipeline 2": ({"tensor": 2, "pipeline": 2}, 4),
}


CASES = [(layout, False) for layout in LAYOUTS] + [("tensor 2", True), ("pipeline 2", True)]
"""Tied weights add something only where the vocabulary or the stages are cut."""


@pytest.fixture(scope="module")
def reference() -> Callable[[bool], dict[str, Any]]:
    @functools.cache
    def told(tied: bool) -> dict[str, Any]:
        return run_on_ranks(engine_programs.train_and_tell, 1, "reference", {}, {"tied": tied})[0]

    return told


@pytest.mark.parametrize(("layout", "tied"), CASES)
def test_every_layout_learns_as_the_reference_does(
    reference: Callable[[bool], dict[str, Any]], layout: str, tied: bool
) -> None:
    expected = reference(tied)
    degrees, world_size = LAYOUTS[layout]
    told = run_on_ranks(engine_programs.train_and_tell, world_size, "megatron", degrees, {"tied": tied})
    curve, wanted = np.array(told[0]["curve"]), np.array(expected["curve"])
    assert wanted[-1, 0] < wanted[0, 0] - 1, "a model that learns nothing would agree whatever the layout"
    assert np.abs(curve - wanted)[:, 0].max() < TOLERANCE
    np.testing.assert_allclose(curve[:, 1], wanted[:, 1], rtol=0, atol=1e-4, err_msg="gradient norms")
    assert abs(told[0]["validation"] - expected["validation"]) < TOLERANCE
    assert all(other["curve"] == told[0]["curve"] for other in told), "every rank knows the whole job's loss"
    assert list(told[0]["weights"]) == list(expected["weights"])
    for name, tensor in expected["weights"].items():
        np.testing.assert_allclose(told[0]["weights"][name], tensor, atol=5e-5, rtol=0, err_msg=name)
    np.testing.assert_allclose(told[0]["logits"], expected["logits"], atol=1e-4, rtol=0)
