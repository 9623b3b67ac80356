"""However megatron-core divides the work, the model learns the same: one loss curve for every layout.

The layouts that every engine has, one process and data 2, are in tests/engines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import engine_programs
import pytest
from rank_processes import run_on_ranks

LAYOUTS: dict[str, tuple[dict[str, Any], int]] = {
    "tensor 2": ({"tensor": 2}, 2),
    "tensor 2, sequence parallel": ({"tensor": 2, "sequence": True}, 2),
    "pipeline 2": ({"pipeline": 2}, 2),
    "pipeline 2, interleaved": ({"pipeline": 2, "interleave": 2}, 2),
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
    degrees, world_size = LAYOUTS[layout]
    told = run_on_ranks(engine_programs.train_and_tell, world_size, "megatron", degrees, {"tied": tied})
    engine_programs.assert_learns_alike(told, reference(tied))
    engine_programs.assert_counts_alike(told, reference(tied))
