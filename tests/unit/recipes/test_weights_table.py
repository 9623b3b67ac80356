"""The table between canonical tensors and megatron's parameters, without megatron."""

from __future__ import annotations

import pytest
import torch

from recipes.engines.megatron.weights import export_order, layer_rules, outer_rules
from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor

MODEL = ModelConfig(layers=4, hidden=64, heads=8, kv_heads=4, ffn=96, vocab=128)
RULES = outer_rules(MODEL) | layer_rules(MODEL, 2)


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("parameter", RULES)
def test_splitting_and_joining_gives_the_whole_back(parameter: str, degree: int) -> None:
    rule = RULES[parameter]
    whole = [first_tensor(MODEL, 1, name) for name in rule.canonical]
    slices = rule.split(whole, degree)
    assert len(slices) == degree
    for back, tensor in zip(rule.join(slices), whole, strict=True):
        assert torch.equal(back, tensor)


def test_a_query_group_keeps_its_own_keys_and_values() -> None:
    rule = RULES["self_attention.linear_qkv.weight"]
    query, key, value = (first_tensor(MODEL, 1, name) for name in rule.canonical)
    second = rule.split([query, key, value], 4)[1].view(4, 8, 64)
    assert torch.equal(second[:2].reshape(16, 64), query[16:32])
    assert torch.equal(second[2], key[8:16])
    assert torch.equal(second[3], value[8:16])


@pytest.mark.parametrize("tied", [False, True])
def test_export_names_every_tensor_once_in_file_order(tied: bool) -> None:
    model = MODEL.model_copy(update={"tied": tied})
    order = export_order(model, pipeline=2, interleave=2)
    assert [name for names, _ in order for name in names] == list(model.tensor_shapes())


def test_interleaved_chunks_go_round_the_stages() -> None:
    stages = {names[0]: stage for names, stage in export_order(MODEL, pipeline=2, interleave=2)}
    assert [stages[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(4)] == [0, 1, 0, 1]
    plain = {names[0]: stage for names, stage in export_order(MODEL, pipeline=2, interleave=1)}
    assert [plain[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(4)] == [0, 0, 1, 1]
