"""Rank arithmetic, and what an illegal layout is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UserError
from kit.layout import AXES, Coordinates, Layout

DEGREES = st.integers(1, 4)
LAYOUTS = st.builds(Layout, data=DEGREES, tensor=DEGREES, pipeline=DEGREES, context=DEGREES)
MODEL = {"layers": 12, "heads": 8, "kv_heads": 4, "hidden": 64, "ffn": 128, "sequence_length": 24}


@given(LAYOUTS)
def test_rank_of_is_the_inverse_of_coordinates(layout: Layout) -> None:
    places = [layout.coordinates(rank) for rank in range(layout.world_size)]
    assert [layout.rank_of(place) for place in places] == list(range(layout.world_size))
    assert len(set(places)) == layout.world_size


@given(LAYOUTS, st.sampled_from(AXES))
def test_the_groups_of_an_axis_partition_the_ranks_and_run_along_it(layout: Layout, axis: str) -> None:
    groups = layout.groups(axis)
    assert sorted(rank for group in groups for rank in group) == list(range(layout.world_size))
    for group in groups:
        places = [layout.coordinates(rank)._asdict() for rank in group]
        assert [place.pop(axis) for place in places] == list(range(layout.degree(axis)))
        assert all(place == places[0] for place in places)


def test_two_hosts_of_four_are_numbered_by_hand() -> None:
    layout = Layout(tensor=2, data=2, pipeline=2)
    assert layout.world_size == 8
    assert layout.groups("tensor") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.groups("data") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("pipeline") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert layout.coordinates(6) == Coordinates(data=1, tensor=0, pipeline=1, context=0)


@pytest.mark.parametrize(
    ("tensor", "context", "data", "pipeline"), [(2, 1, 2, 2), (1, 2, 3, 2), (2, 2, 2, 2), (4, 1, 1, 2), (3, 2, 1, 1)]
)
def test_ranks_are_numbered_as_megatron_numbers_them(tensor: int, context: int, data: int, pipeline: int) -> None:
    from megatron.core.parallel_state import RankGenerator

    theirs = RankGenerator(tp=tensor, ep=1, dp=data, pp=pipeline, cp=context, order="tp-cp-dp-pp")
    ours = Layout(tensor=tensor, context=context, data=data, pipeline=pipeline)
    for axis, token in {"tensor": "tp", "context": "cp", "data": "dp", "pipeline": "pp"}.items():
        assert sorted(ours.groups(axis)) == sorted(theirs.get_ranks(token))


def test_a_layout_describes_itself() -> None:
    assert Layout().describe() == "one process"
    assert Layout(tensor=2, data=3, sequence=True).describe() == "tensor 2 x data 3 x sequence parallel"


def test_a_world_that_fits_passes_and_another_is_told_what_would_fit() -> None:
    Layout(tensor=2, data=2).check_world(4)
    with pytest.raises(UserError, match=r"needs 4 processes, and there are 8") as caught:
        Layout(tensor=2, data=2).check_world(8)
    assert "layout.data=4" in caught.value.action
    with pytest.raises(UserError) as caught:
        Layout(tensor=4).check_world(6)
    assert "use 4 processes" in caught.value.action
    assert "tensor 3 x data 2" in caught.value.action


@pytest.mark.parametrize(
    ("layout", "model", "words"),
    [
        ({"tensor": 3}, {}, ["layout.tensor is 3", "model.heads is 8", "2 or 4"]),
        ({"tensor": 8}, {}, ["layout.tensor is 8", "model.kv_heads is 4", "set it to 4"]),
        ({"tensor": 2}, {"ffn": 129}, ["model.ffn is 129", "1 or 3"]),
        ({"pipeline": 5}, {}, ["layout.pipeline", "model.layers is 12", "4 or 6"]),
        ({"pipeline": 4, "interleave": 2}, {}, ["is 8", "model.layers is 12", "6 or 12"]),
        ({"interleave": 2}, {}, ["layout.interleave is 2 with layout.pipeline 1"]),
        ({"context": 5}, {}, ["2 x layout.context is 10", "data.sequence_length is 24", "8 or 12"]),
        ({"sequence": True}, {}, ["layout.sequence is true with layout.tensor 1"]),
        ({"tensor": 4, "sequence": True}, {"sequence_length": 30}, ["layout.tensor", "data.sequence_length is 30"]),
        # Each context rank holds 6 tokens, which four tensor ranks cannot share.
        ({"tensor": 4, "context": 2, "sequence": True}, {"sequence_length": 12}, ["data.sequence_length is 12"]),
    ],
)
def test_a_layout_that_cannot_cut_the_model_is_told_the_nearest_that_can(
    layout: dict[str, Any], model: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        Layout(**layout).check_model(**{**MODEL, **model})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"tensor": 4, "sequence": True},
        {"pipeline": 3, "interleave": 2},
        {"context": 3, "tensor": 4, "sequence": True},
        {"tensor": 2, "context": 2},
    ],
)
def test_a_layout_that_cuts_the_model_evenly_passes(layout: dict[str, Any]) -> None:
    Layout(**layout).check_model(**MODEL)
