"""A layout that is not legal is told the nearest whole layouts that are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.config import read_yaml
from kit.errors import UserError
from kit.layout import Layout, nearest_multiples
from launch.plan import make_plan
from launch.planner.legality import check_layout, distance, nearest_layouts, written

SIZES = {"layers": 12, "heads": 8, "kv_heads": 4, "hidden": 64, "ffn": 128}
DATA = {"sequence_length": 48, "global_batch_samples": 48, "micro_batch_samples": 1}
MEGATRON: dict[str, Any] = {"engine": "megatron", "data": DATA}
DEGREES = st.integers(1, 6)
LAYOUTS = st.builds(Layout, data=DEGREES, tensor=DEGREES, pipeline=DEGREES, context=st.integers(1, 2))


def told(layout: Layout, config: dict[str, Any], vocab: int | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        check_layout(layout, config, SIZES, vocab)
    return caught.value


def named(error: UserError) -> list[Layout]:
    """The layouts that an error names, read back as a recipe would be."""
    found = []
    for words in re.findall(r"layout \{(.*?)\}", error.action):
        pairs = [pair.split(": ") for pair in words.split(", ")]
        found.append(
            Layout.model_validate(
                {key: value == "true" if value in ("true", "false") else int(value) for key, value in pairs}
            )
        )
    return found


@settings(deadline=None, max_examples=60)
@given(LAYOUTS)
def test_what_is_named_is_legal_uses_as_many_processes_and_comes_nearest_first(layout: Layout) -> None:
    try:
        check_layout(layout, MEGATRON, SIZES)
    except UserError as error:
        near = named(error)
        every = nearest_layouts(layout, MEGATRON, SIZES, most=10_000)
        assert near == every[:3]
        for found in near:
            assert found.world_size == layout.world_size
            check_layout(found, MEGATRON, SIZES)
        assert [distance(layout, found) for found in every] == sorted(distance(layout, found) for found in every)


@pytest.mark.parametrize(
    ("layout", "found", "first"),
    [
        (Layout(tensor=8), "model.kv_heads is 4", Layout(tensor=4, data=2)),
        (Layout(tensor=3), "model.heads is 8", Layout(data=3)),
        (Layout(pipeline=8), "model.layers is 12", Layout(pipeline=4, data=2)),
        (Layout(tensor=2, context=32), "data.sequence_length is 48", None),
        (Layout(data=2, sequence=True), "layout.sequence is true", Layout(data=2)),
    ],
)
def test_every_degree_that_does_not_divide_is_refused_with_the_nearest(
    layout: Layout, found: str, first: Layout | None
) -> None:
    error = told(layout, MEGATRON)
    assert found in error.found
    if first is not None:
        assert first in named(error)


def test_a_vocabulary_that_the_tensor_degree_does_not_divide() -> None:
    error = told(Layout(tensor=4), MEGATRON, vocab=1026)
    assert "the vocabulary is 1026" in error.found
    assert named(error)[0] in (Layout(tensor=2, data=2), Layout(tensor=2, pipeline=2), Layout(tensor=2, context=2))
    check_layout(Layout(tensor=4), MEGATRON, SIZES, 1024)


def test_interleaving_wants_micro_batches_for_every_stage() -> None:
    config = {"engine": "megatron", "data": {**DATA, "global_batch_samples": 5}}
    error = told(Layout(pipeline=2, interleave=2), config)
    assert "5 micro-batches" in error.found
    assert "4 or 6" in error.action
    assert Layout(pipeline=2) in named(error)


@pytest.mark.parametrize("engine", ["deepspeed", "accelerate"])
def test_engines_that_cut_the_batch_alone_are_told_data(engine: str) -> None:
    error = told(Layout(tensor=2, data=2), {"engine": engine, "data": DATA})
    assert engine in error.found
    assert named(error) == [Layout(data=4)]


def test_a_layout_reads_back_as_it_is_written() -> None:
    assert written(Layout(tensor=2, data=3, sequence=True)) == "layout {data: 3, tensor: 2, sequence: true}"
    assert written(Layout()) == "layout {data: 1}"


def test_batches_that_multiply_out() -> None:
    assert nearest_multiples(10, 4) == [8, 12]
    assert nearest_multiples(3, 4) == [4]


def test_a_plan_names_the_nearest_batch_and_the_nearest_layouts(folder: Path) -> None:
    recipe = (folder / "model.yaml").read_text().replace("engine: reference", "engine: megatron")
    (folder / "model.yaml").write_text(recipe)
    assert read_yaml(folder / "model.yaml")["data"]["global_batch_samples"] == 4
    with pytest.raises(UserError, match="the nearest: 3 or 6"):
        make_plan("model.yaml", sets=["data.micro_batch_samples=3"])
    with pytest.raises(UserError) as caught:
        make_plan("model.yaml", sets=["layout.tensor=4"])
    assert "layout {" in caught.value.action
    make_plan("model.yaml", sets=["layout.data=2", "layout.tensor=2"], target_sets=["devices_per_host=4"])


def test_a_run_is_refused_before_anything_is_made(slipway, past_run, folder: Path) -> None:
    """The vocabulary is known from the parent's card alone."""
    data = past_run("data_prep")
    tokenizer = {"kind": "bpe", "vocab_size": 501, "fingerprint": "x", "file": "t", "eod_id": 2, "pad_id": 3}
    card = {"name": "small", "created_by": "test", "config_digest": "", "documents_in": 1, "documents_out": 1}
    whole = {**card, "schema_version": 1, "splits": {}, "tokenizer": tokenizer, "blocks": []}
    (data.artifacts / "card.json").write_text(json.dumps(whole))
    recipe = (folder / "model.yaml").read_text().replace("engine: reference", "engine: megatron")
    (folder / "model.yaml").write_text(recipe.replace(", vocab: 512", ""))
    before = sorted((folder / "runs").iterdir())
    code, _, err = slipway("run", "model.yaml", "--set", "layout.tensor=2")
    assert code == 2
    assert "the vocabulary is 501" in err
    assert "layout {data: 2}" in err
    assert sorted((folder / "runs").iterdir()) == before
