"""Dropout that is right under every axis: ranks that compute the same drop the same, all others differently."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import dropout_programs
import numpy as np
import pytest
from dropout_programs import DROPOUT, same_tensor_group
from rank_processes import run_on_ranks

LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor 2 x data 2": {"tensor": 2, "data": 2},
    "context 2": {"context": 2},
    "pipeline 2": {"pipeline": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_numbers_follow_from_seed_step_and_place_alone(layout: str) -> None:
    degrees = LAYOUTS[layout]
    told = run_on_ranks(dropout_programs.numbers_drawn, int(np.prod(list(degrees.values()))), degrees)
    for rank in told:
        assert rank["again"] == rank["first"]
        begins = [rank["first"], rank["step"], rank["seed"]]
        assert len({number for begin in begins for number in begin}) == 6
    for one, other in itertools.combinations(told, 2):
        (whole, cut), (other_whole, other_cut) = one["first"], other["first"]
        assert (whole == other_whole) == same_tensor_group(one["place"], other["place"])
        assert cut != other_cut


@pytest.mark.parametrize("sequence", [False, True])
def test_tensor_ranks_drop_alike_where_activations_are_whole(sequence: bool) -> None:
    layout = {"tensor": 2, "sequence": sequence}
    first, second = (
        told["trained"] for told in run_on_ranks(dropout_programs.generators_used, 2, layout, "gpt2", "none")
    )
    assert {kind for kind, _ in first} == {"attention", "hidden"}
    # 4 micro-batches: 4 layers with two sums and one attention each, and the embedding.
    assert len(first) == len(second) == 4 * (4 * 3 + 1)
    for (kind, state), (other_kind, other_state) in zip(first, second, strict=True):
        assert kind == other_kind
        assert (state == other_state) == (kind == "hidden" and not sequence)
    assert len(set(first)) == len(first), "no mask is used twice"


@pytest.mark.parametrize("layout", [{}, {"tensor": 2, "sequence": True}], ids=["one process", "sequence parallel"])
def test_what_is_computed_again_drops_the_same(layout: dict[str, Any]) -> None:
    ranks = layout.get("tensor", 1)
    for recompute, kinds in (("full", {"attention", "hidden"}), ("selective", {"attention"})):
        for told in run_on_ranks(dropout_programs.generators_used, ranks, layout, "llama", recompute):
            drawn = told["trained"]
            twice = {entry for entry in drawn if drawn.count(entry) == 2}
            assert {kind for kind, _ in twice} == kinds
            assert sum(kind in kinds for kind, _ in drawn) >= 2 * len(twice) >= 2 * 4 * 4 * len(kinds)
            assert told["evaluated"] == []


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    told: dict[str, Any] = run_on_ranks(dropout_programs.train, 1, {}, "gpt2", 0.0, "none")[0]
    return told


@pytest.fixture(scope="module")
def dropped() -> dict[str, Any]:
    told: dict[str, Any] = run_on_ranks(dropout_programs.train, 1, {}, "gpt2", DROPOUT, "none")[0]
    return told


def losses(told: dict[str, Any]) -> Any:
    return np.array(told["curve"])[:, 0]


def test_training_drops_and_evaluation_does_not(plain: dict[str, Any], dropped: dict[str, Any]) -> None:
    assert dropped["before"] == plain["before"]
    assert np.abs(losses(dropped) - losses(plain)).max() > 1e-3
    assert np.abs(losses(dropped) - losses(plain)).max() < 0.5


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_losses_with_dropout_are_those_without_recompute(dropped: dict[str, Any], recompute: str) -> None:
    again = run_on_ranks(dropout_programs.train, 1, {}, "gpt2", DROPOUT, recompute)[0]
    assert again["curve"] == dropped["curve"]


@pytest.mark.parametrize("sequence", [False, True])
def test_what_tensor_ranks_share_stays_the_same(sequence: bool) -> None:
    layout = {"tensor": 2, "sequence": sequence}
    first, second = run_on_ranks(dropout_programs.train, 2, layout, "gpt2", DROPOUT, "none")
    names = " ".join(first["shared"])
    assert all(part in names for part in ("position_embeddings", "layernorm.bias", "linear_fc2.bias"))
    for name, weight in first["shared"].items():
        assert np.array_equal(weight, second["shared"][name]), name


@pytest.mark.parametrize("layout", [{}, {"tensor": 2}], ids=["one process", "tensor 2"])
def test_a_run_that_goes_on_drops_what_it_would_have_dropped(tmp_path: Path, layout: dict[str, Any]) -> None:
    went_through, went_on = run_on_ranks(
        dropout_programs.stop_and_go_on, layout.get("tensor", 1), layout, str(tmp_path)
    )[0]
    assert went_on == went_through
