"""Fewer devices than a recipe asks for: the largest layout that fits, the same global batch, and words for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import RunFailure
from kit.layout import Layout
from launch.plan import make_plan
from launch.planner.fallback import accumulation, fall_back, fallback
from launch.planner.legality import check_layout

SIZES = {"layers": 12, "heads": 8, "kv_heads": 4, "hidden": 64, "ffn": 128}
DATA = {"sequence_length": 48, "global_batch_samples": 512, "micro_batch_samples": 8}
MEGATRON: dict[str, Any] = {"engine": "megatron", "data": DATA}
DEGREES = st.sampled_from([1, 2, 4])


def choose(layout: Layout, places: int, **more: Any) -> Layout:
    choice = fallback(layout, MEGATRON, places, SIZES, 512, **{"fits": lambda other, micro: True} | more)
    assert choice is not None
    return choice.layout


def test_data_ranks_go_and_the_accumulation_grows() -> None:
    layout = Layout(data=8, tensor=2)
    chosen = choose(layout, 4)
    assert chosen == Layout(data=2, tensor=2)
    assert accumulation(MEGATRON, chosen, 8) == 4 * accumulation(MEGATRON, layout, 8)


def test_as_many_devices_as_the_batch_allows_and_no_more() -> None:
    assert choose(Layout(data=8), 7).data == 4  # 512 samples in micro-batches of 8 over 7, 6 or 5 ranks don't work out


def test_the_degree_that_memory_needs_is_kept_and_another_may_go() -> None:
    def fits(other: Layout, micro: int) -> bool:
        return other.tensor >= 2

    assert choose(Layout(data=1, tensor=2, pipeline=2), 2, fits=fits) == Layout(tensor=2)
    assert choose(Layout(data=1, tensor=2, pipeline=2), 1) == Layout()


def test_a_model_is_cut_finer_only_where_nothing_else_fits() -> None:
    assert choose(Layout(data=8), 4) == Layout(data=4)
    assert choose(Layout(data=8), 4, fits=lambda other, micro: other.tensor >= 2) == Layout(data=2, tensor=2)


def test_a_smaller_micro_batch_where_no_layout_fits_with_the_recipes() -> None:
    choice = fallback(Layout(data=4), MEGATRON, 2, SIZES, 512, fits=lambda other, micro: micro <= 2)
    assert choice is not None
    assert (choice.layout, choice.micro_samples) == (Layout(data=2), 2)
    assert fallback(Layout(data=4), MEGATRON, 2, SIZES, 512, fits=lambda other, micro: False) is None


def test_what_cuts_the_model_stays_where_nobody_knows_the_memory() -> None:
    assert choose(Layout(data=4, tensor=2), 7, fits=None) == Layout(data=2, tensor=2)
    assert fallback(Layout(data=4, tensor=4), MEGATRON, 3, SIZES, 512, fits=None) is None
    unknown = fallback(Layout(data=4, tensor=2), MEGATRON, 5, {}, None, fits=None)
    assert unknown is not None and unknown.layout == Layout(data=2, tensor=2)


def test_ranks_are_spread_evenly_over_hosts() -> None:
    assert choose(Layout(data=16), 8, even=lambda ranks: ranks in (1, 2)).world_size == 2


@given(st.builds(Layout, data=DEGREES, tensor=DEGREES, pipeline=DEGREES), st.integers(1, 16))
def test_what_is_chosen_is_legal_fits_and_keeps_the_batch(layout: Layout, places: int) -> None:
    chosen = choose(layout, places)
    check_layout(chosen, MEGATRON, SIZES, 512)
    assert chosen.world_size <= places
    assert DATA["global_batch_samples"] % (chosen.data * DATA["micro_batch_samples"]) == 0


def test_a_recipe_that_fits_is_left_alone(folder: Path) -> None:
    assert fall_back("model.yaml", sets=["layout.data=2"]) == (["layout.data=2"], [])


def test_a_recipe_falls_back_on_this_machine_and_says_so(folder: Path) -> None:
    sets = ["layout.data=4", "engine=accelerate"]
    changed, words = fall_back("model.yaml", "laptop", sets, target_sets=["devices_per_host=2"])
    assert changed == [*sets, "layout.data=2"]
    assert words[0] == "layout.data 4 -> 2: global batch 4 kept, 2 times the accumulation (1 -> 2 micro-batches a step)"
    assert words[1].startswith("4 ranks -> 2, about ") and words[1].endswith(" a device by prediction")
    plan = make_plan("model.yaml", "laptop", changed, target_sets=["devices_per_host=2"])
    assert plan.processes == 2


def test_hosts_count_with_their_devices(folder: Path) -> None:
    target = "kind: ssh\nhosts: [a, b]\ndevices_per_host: 2\ndevice: cpu\n"
    (folder / "two.yaml").write_text(target)
    changed, words = fall_back(
        "model.yaml", "two.yaml", ["data.global_batch_samples=8", "layout.data=8", "engine=accelerate"]
    )
    assert changed[-1] == "layout.data=4"
    assert "memory not checked" in words[-1]
    assert make_plan("model.yaml", "two.yaml", changed).processes == 4


def test_what_fits_nowhere_is_said_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.planner.fallback.device_memory_gib", lambda plan: 0.001)
    with pytest.raises(RunFailure, match=r"no layout of model\.yaml fits on 1 devices"):
        fall_back("model.yaml", "laptop", ["layout.data=4", "engine=accelerate"], target_sets=["devices_per_host=1"])
