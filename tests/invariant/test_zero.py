"""However much ZeRO divides, the model learns the same, and every rank owns what the stage leaves it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import engine_programs
import numpy as np
import pytest
import zero_programs
from rank_processes import run_on_ranks

CASES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "stage 0, 2 ranks": ({"stage": 0}, 2, False),
    "stage 1, 2 ranks": ({"stage": 1}, 2, False),
    "stage 2, 2 ranks, tied": ({"stage": 2}, 2, True),
    "stage 2, optimizer offloaded, 2 ranks": ({"stage": 2, "offload": "optimizer"}, 2, False),
    "stage 3, 1 rank": ({"stage": 3}, 1, False),
    "stage 3, 2 ranks, tied": ({"stage": 3}, 2, True),
    "stage 3, all offloaded, 2 ranks": ({"stage": 3, "offload": "optimizer_and_parameters"}, 2, False),
}
"""Stage 2 on one rank and on two, untied, is in tests/engines."""


class Lives(NamedTuple):
    """What every rank told, and the losses of the ranks that went on from the state in the middle."""

    first: list[dict[str, Any]]
    second: list[list[tuple[float, float]]]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lives]:
    @functools.cache
    def lived(case: str) -> Lives:
        zero, ranks, tied = CASES[case]
        folder = str(tmp_path_factory.mktemp("state"))
        first = run_on_ranks(zero_programs.first_life, ranks, zero, tied, folder)
        return Lives(first, run_on_ranks(zero_programs.second_life, ranks, zero, tied, folder))

    return lived


@pytest.fixture(scope="module")
def reference() -> Callable[[bool], dict[str, Any]]:
    @functools.cache
    def told(tied: bool) -> dict[str, Any]:
        return run_on_ranks(engine_programs.train_and_tell, 1, "reference", {}, {"tied": tied})[0]

    return told


each = pytest.mark.parametrize("case", CASES)


@each
def test_it_learns_as_one_process_does(
    lives: Callable[[str], Lives], reference: Callable[[bool], dict[str, Any]], case: str
) -> None:
    told, expected = lives(case).first, reference(CASES[case][2])
    engine_programs.assert_learns_alike(told, expected)
    engine_programs.assert_counts_alike(told, expected)


@each
def test_it_goes_on_bit_by_bit(lives: Callable[[str], Lives], case: str) -> None:
    first, second = lives(case)
    for told, curve in zip(first, second, strict=True):
        assert curve == told["curve"][zero_programs.CUT :]


@each
def test_every_rank_owns_what_the_stage_leaves_it(lives: Callable[[str], Lives], case: str) -> None:
    """Rajbhandari et al. 2020, figure 1; in fp32 4 bytes of weight, 4 of gradient, 12 of optimizer state."""
    zero, ranks, _ = CASES[case]
    told = lives(case).first[0]
    weights, stage = told["parameters"], zero["stage"]
    # Without ZeRO the optimizer steps the weights themselves: no fp32 copy beside them.
    whole = {"parameter": 4 * weights, "gradient": 4 * weights, "optimizer": (12 if stage else 8) * weights}
    divided_from = {"parameter": 3, "gradient": 2, "optimizer": 1}
    for kind, size in whole.items():
        share = size / ranks if stage >= divided_from[kind] else size
        if kind == "gradient" and "offload" in zero:
            # DeepSpeed adds up in one buffer and hands over to the CPU's optimizer in another.
            share += size / ranks
        of_ranks = [told["owned"][f"owned_{kind}_bytes_rank_{rank}"] for rank in range(ranks)]
        for owned in of_ranks:
            assert share <= owned <= share * 1.005 + 64, f"{kind}: {owned} bytes instead of {share}"
        assert told["owned"][f"owned_{kind}_bytes_total"] == sum(of_ranks)
        assert told["owned"][f"owned_{kind}_bytes_largest"] == max(of_ranks)


@each
def test_gradients_that_are_not_finite_are_told(lives: Callable[[str], Lives], case: str) -> None:
    for told in lives(case).first:
        loss, norm = told["endless"]
        assert math.isfinite(loss)
        assert not math.isfinite(norm), "DeepSpeed skips such a step in silence"


@pytest.mark.parametrize("zero", [{"stage": 1}, {"stage": 3}], ids=lambda zero: f"stage {zero['stage']}")
def test_bf16_learns_nearly_as_fp32_does(reference: Callable[[bool], dict[str, Any]], zero: dict[str, Any]) -> None:
    curve = np.array(run_on_ranks(zero_programs.short_run, 2, zero, "bf16")[0])
    wanted = np.array(reference(False)["curve"])[: len(curve)]
    np.testing.assert_allclose(curve[:, 0], wanted[:, 0], atol=0.01, rtol=0)
    np.testing.assert_allclose(curve[:, 1], wanted[:, 1], atol=0, rtol=0.02)


def test_an_engine_that_is_not_what_the_recipe_says_is_refused() -> None:
    for words in run_on_ranks(zero_programs.told_something_else, 2):
        assert "stage 1 instead of 3" in words
        assert "optimizer on the CPU False instead of True" in words


def test_ranks_that_start_from_different_weights_are_refused() -> None:
    for words in run_on_ranks(zero_programs.unequal_weights, 2, 2):
        assert "model.embed_tokens.weight differs between rank 0 and rank 1" in words


def test_stage_3_starts_from_the_weights_of_rank_0() -> None:
    assert run_on_ranks(zero_programs.unequal_weights, 2, 3) == ["", ""]


def test_a_rank_that_cannot_write_fails_all_and_none_waits(tmp_path: Path) -> None:
    words = run_on_ranks(zero_programs.save_with_one_place_taken, 2, str(tmp_path), timeout_seconds=60)
    assert words[0] == words[1]
    assert "rank 1 could not write step-00000001" in words[0]
    assert list(tmp_path.iterdir()) == []
