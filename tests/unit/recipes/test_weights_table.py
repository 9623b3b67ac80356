"""The table between canonical tensors and megatron's parameters, without megatron."""

from __future__ import annotations

import pytest
import torch

from recipes.engines.megatron.weights import export_order, layer_rules, outer_rules
from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor

MODEL = ModelConfig(layers=4, hidden=64, heads=8, kv_heads=4, ffn=96, vocab=128)
GPT2 = ModelConfig.model_validate(
    {"family": "gpt2", "layers": 4, "hidden": 64, "heads": 8, "ffn": 96, "vocab": 128, "positions": 32}
)
RULES = outer_rules(MODEL) | layer_rules(MODEL, 2)
CASES = [(model, name) for model in (MODEL, GPT2) for name in outer_rules(model) | layer_rules(model, 2)]


def numbered(model: ModelConfig, name: str) -> torch.Tensor:
    """A tensor of a model's shape no two of whose numbers are equal."""
    shape = model.tensor_shapes()[name]
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize(("model", "parameter"), CASES, ids=[f"{model.family}-{name}" for model, name in CASES])
def test_splitting_and_joining_gives_the_whole_back(model: ModelConfig, parameter: str, degree: int) -> None:
    rule = (outer_rules(model) | layer_rules(model, 2))[parameter]
    whole = [numbered(model, name) for name in rule.canonical]
    slices = rule.split(whole, degree)
    assert len(slices) == degree
    for back, tensor in zip(rule.join(slices), whole, strict=True):
        assert torch.equal(back, tensor)


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_gpt2_heads_keep_their_own_queries_keys_and_values(kind: str) -> None:
    rule = layer_rules(GPT2, 2)[f"self_attention.linear_qkv.{kind}"]
    whole = numbered(GPT2, rule.canonical[0])
    query, key, value = (part.t() if kind == "weight" else part for part in whole.chunk(3, dim=-1))
    third_rank = rule.split([whole], 4)[2]
    assert torch.equal(third_rank, torch.cat([part[h * 8 : h * 8 + 8] for h in (4, 5) for part in (query, key, value)]))


def test_gpt2_matrices_are_turned_and_biases_of_sums_are_whole() -> None:
    rules = layer_rules(GPT2, 1)
    inner, outer = (numbered(GPT2, f"transformer.h.1.mlp.{name}.weight") for name in ("c_fc", "c_proj"))
    assert torch.equal(rules["mlp.linear_fc1.weight"].split([inner], 2)[1], inner.t()[48:])
    assert torch.equal(rules["mlp.linear_fc2.weight"].split([outer], 2)[1], outer.t()[:, 48:])
    bias = numbered(GPT2, "transformer.h.1.mlp.c_proj.bias")
    assert torch.equal(rules["mlp.linear_fc2.bias"].split([bias], 2)[1], bias)


def test_a_query_group_keeps_its_own_keys_and_values() -> None:
    rule = RULES["self_attention.linear_qkv.weight"]
    query, key, value = (first_tensor(MODEL, 1, name) for name in rule.canonical)
    second = rule.split([query, key, value], 4)[1].view(4, 8, 64)
    assert torch.equal(second[:2].reshape(16, 64), query[16:32])
    assert torch.equal(second[2], key[8:16])
    assert torch.equal(second[3], value[8:16])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", [MODEL, GPT2], ids=["llama", "gpt2"])
def test_export_names_every_tensor_once_in_file_order(family: ModelConfig, tied: bool) -> None:
    model = family.model_copy(update={"tied": tied})
    order = export_order(model, pipeline=2, interleave=2)
    assert [name for names, _ in order for name in names] == list(model.tensor_shapes())


def test_interleaved_chunks_go_round_the_stages() -> None:
    stages = {names[0]: stage for names, stage in export_order(MODEL, pipeline=2, interleave=2)}
    assert [stages[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(4)] == [0, 1, 0, 1]
    plain = {names[0]: stage for names, stage in export_order(MODEL, pipeline=2, interleave=1)}
    assert [plain[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(4)] == [0, 0, 1, 1]
