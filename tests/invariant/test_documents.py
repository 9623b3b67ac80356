"""Documents of a sample that see themselves alone, and losses by source: the same however the work is divided."""

from __future__ import annotations

from math import prod
from typing import Any

import document_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

TOLERANCE, BF16_TOLERANCE = 1e-5, 5e-2
FAMILIES = {"Llama": {}, "GPT-2": {"family": "gpt2"}}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "1 process": ({}, "none"),
    "recompute full": ({}, "full"),
    "recompute selective": ({}, "selective"),
    "data 2": ({"data": 2}, "none"),
    "tensor 2, sequence parallel": ({"tensor": 2, "sequence": True}, "none"),
    "pipeline 2": ({"pipeline": 2}, "none"),
    "pipeline 2, interleaved": ({"pipeline": 2, "interleave": 2}, "none"),
    "context 2": ({"context": 2}, "none"),
    "context 2, recompute full": ({"context": 2}, "full"),
}


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    """What the reference engine tells, by family."""
    return {
        family: run_on_ranks(document_programs.train_and_tell, 1, "reference", {}, model)[0]
        for family, model in FAMILIES.items()
    }


GPT2_CASES = ("1 process", "pipeline 2", "context 2")
"""Learned positions are a thing of the first stage, and of how a sequence is cut."""


@pytest.mark.parametrize(
    ("family", "name"), [*(("Llama", name) for name in CASES), *(("GPT-2", name) for name in GPT2_CASES)]
)
def test_every_layout_keeps_documents_apart_alike(expected: dict[str, dict[str, Any]], family: str, name: str) -> None:
    layout, recompute = CASES[name]
    ranks = prod(layout.get(axis, 1) for axis in ("data", "tensor", "pipeline", "context"))
    told = run_on_ranks(document_programs.train_and_tell, ranks, "megatron", layout, FAMILIES[family], recompute)
    wanted = expected[family]
    assert np.abs(np.array(told[0]["curve"]) - np.array(wanted["curve"]))[:, 0].max() < TOLERANCE
    assert abs(told[0]["validation"] - wanted["validation"]) < TOLERANCE
    for found, right in zip(told[0]["by source"], wanted["by source"], strict=True):
        assert found.keys() == right.keys()
        assert all(abs(found[key] - right[key]) < TOLERANCE for key in right)
    assert all(other["by source"] == told[0]["by source"] for other in told), "every rank knows the whole job's losses"
    for key, tensor in wanted["weights"].items():
        np.testing.assert_allclose(told[0]["weights"][key], tensor, atol=5e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize("layout", [{}, {"context": 2}])
def test_in_bf16_the_mask_is_of_its_kind(expected: dict[str, dict[str, Any]], layout: dict[str, Any]) -> None:
    told = run_on_ranks(
        document_programs.train_and_tell, layout.get("context", 1), "megatron", layout, {}, "none", "bf16"
    )
    difference = np.array(told[0]["curve"]) - np.array(expected["Llama"]["curve"])
    assert np.abs(difference)[:, 0].max() < BF16_TOLERANCE


def test_losses_by_source_are_those_of_the_sources_samples(expected: dict[str, dict[str, Any]]) -> None:
    blend = document_programs.blended()
    for step, (loss, _), by_source in zip(
        range(document_programs.STEPS), expected["Llama"]["curve"], expected["Llama"]["by source"], strict=True
    ):
        drawn = blend.sources_at(step * document_programs.BATCH, (step + 1) * document_programs.BATCH)
        parts = np.bincount(drawn, minlength=2) / len(drawn)
        names = [f"loss_{name}" for name in document_programs.BLEND]
        assert by_source.keys() == {name for name, part in zip(names, parts, strict=True) if part}
        assert abs(sum(part * by_source.get(name, 0) for name, part in zip(names, parts, strict=True)) - loss) < 1e-5
    assert any(len(by_source) == 2 for by_source in expected["Llama"]["by source"])


@pytest.mark.parametrize("engine", ["reference", "megatron"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_does_not_depend_on_what_stands_before_it(engine: str, family: str) -> None:
    told = run_on_ranks(document_programs.with_other_documents_before, 1, engine, FAMILIES[family])[0]
    np.testing.assert_allclose(told["behind one"], told["behind another"], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(told["behind one"], told["alone"], atol=TOLERANCE, rtol=0)
    assert np.abs(told["behind one"] - told["unmasked"]).max() > 1e-3, "text before it does change it without a mask"


@pytest.mark.parametrize(("masked", "kernel"), [(True, {"mask"}), (False, set())])
def test_a_mask_is_made_only_where_it_is_asked_for(masked: bool, kernel: set[str]) -> None:
    """Without one attention goes through the engine's own kernel, which is causal and takes none."""
    assert run_on_ranks(document_programs.masks_seen, 1, masked)[0] == kernel
