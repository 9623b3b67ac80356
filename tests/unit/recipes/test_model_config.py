"""What a family of models has, what it cannot have, and that the arithmetic counts every tensor."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch

from kit.config import parse
from kit.errors import UserError
from kit.flops import embedding_parameters, flops_per_token, non_embedding_parameters, parameter_count
from recipes.distributed.processes import choose_dtype
from recipes.model.config import ModelConfig

SIZES: dict[str, Any] = {"layers": 3, "hidden": 64, "heads": 4}
GPT2 = SIZES | {"family": "gpt2"}
LLAMA = SIZES | {"kv_heads": 2, "ffn": 176}


def model(data: dict[str, Any]) -> ModelConfig:
    return parse(ModelConfig, data, "the recipe")


def test_gpt2_fills_in_what_the_family_says() -> None:
    made = model(GPT2)
    assert (made.kv_heads, made.ffn, made.tied, made.dropout) == (4, 256, True, 0.0)
    assert model(GPT2 | {"ffn": 100, "tied": False}).ffn == 100
    assert model(GPT2 | {"kv_heads": None}).kv_heads == 4
    assert not model(GPT2 | {"tied": False}).tied
    assert ModelConfig.model_validate(made.model_dump()) == made


def test_positions_are_as_many_as_the_sequence_is_long_unless_stated() -> None:
    assert model(GPT2).with_vocab(100, 32).position_rows == 32
    assert model(GPT2 | {"positions": 48}).with_vocab(100, 32).position_rows == 48
    assert model(LLAMA).with_vocab(100, 32).positions is None
    with pytest.raises(UserError, match=r"model\.positions is 16, and data\.sequence_length is 32"):
        model(GPT2 | {"positions": 16}).with_vocab(100, 32)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GPT2 | {"kv_heads": 2}, "kv_heads 2 must be heads 4"),
        (GPT2 | {"rope_base": 5000.0}, "rope_base is for family llama"),
        (LLAMA | {"positions": 64}, "positions is for family gpt2"),
        (GPT2 | {"heads": 3}, "heads 3"),
        (LLAMA | {"heads": 64, "kv_heads": 64}, "even whole number"),
        (LLAMA | {"dropout": 1.0}, "dropout"),
        (SIZES | {"family": "gpt3"}, "gpt3"),
        (SIZES, "kv_heads"),
    ],
)
def test_what_a_family_cannot_have_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        model(data)
    assert words in str(refused.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("data", [LLAMA, GPT2, GPT2 | {"positions": 48}], ids=["llama", "gpt2", "gpt2 of 48 positions"])
def test_the_parameter_count_is_that_of_all_tensors(data: dict[str, Any], tied: bool) -> None:
    made = model(data | {"tied": tied}).with_vocab(100, 32)
    sizes = {name: prod(shape) for name, shape in made.tensor_shapes().items()}
    shape = made.shape(32)
    assert sum(sizes.values()) == parameter_count(shape)
    outside = ("embed_tokens.weight", "wte.weight", "wpe.weight", "lm_head.weight")
    assert sum(size for name, size in sizes.items() if name.endswith(outside)) == embedding_parameters(shape)
    assert parameter_count(shape) - embedding_parameters(shape) == non_embedding_parameters(shape)


def test_the_small_gpt2_has_124_million_parameters() -> None:
    data = {"family": "gpt2", "layers": 12, "hidden": 768, "heads": 12}
    shape = model(data).with_vocab(50257, 1024).shape(1024)
    assert parameter_count(shape) == 124_439_808
    # Without gates: 12 hidden^2 a layer, and full attention scores.
    matrices = 12 * 12 * 768**2 + 50257 * 768
    assert flops_per_token("megatron", shape) == 6 * matrices + 12 * 12 * 768 * 1024


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_what_a_processor_cannot_compute_in_is_refused(precision: str) -> None:
    with pytest.raises(UserError, match=f"precision {precision} on device cpu"):
        choose_dtype(precision, torch.device("cpu"))


def test_dtypes_by_precision() -> None:
    assert choose_dtype("fp32", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert choose_dtype("fp16", torch.device("cuda", 0)) == torch.float16
