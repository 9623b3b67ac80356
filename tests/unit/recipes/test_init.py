from __future__ import annotations

import pytest
import torch

from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor

MODEL = ModelConfig(layers=8, hidden=256, heads=8, kv_heads=4, ffn=512, vocab=1000)
GPT2 = ModelConfig.model_validate(
    {"family": "gpt2", "layers": 8, "hidden": 256, "heads": 8, "vocab": 1000, "positions": 512}
)


def test_a_tensor_depends_on_seed_and_name_alone() -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    deeper = MODEL.model_copy(update={"vocab": 77})
    torch.manual_seed(99)
    first = first_tensor(MODEL, 1, name)
    assert torch.equal(first, first_tensor(deeper, 1, name))
    assert not torch.equal(first, first_tensor(MODEL, 2, name))
    assert not torch.equal(first, first_tensor(MODEL, 1, name.replace("3", "4")))


def test_spread_is_as_configured_and_smaller_into_the_residual_stream() -> None:
    assert first_tensor(MODEL, 1, "model.embed_tokens.weight").std().item() == pytest.approx(0.02, rel=0.02)
    assert first_tensor(MODEL, 1, "model.layers.0.mlp.down_proj.weight").std().item() == pytest.approx(0.005, rel=0.02)
    assert torch.equal(first_tensor(MODEL, 1, "model.norm.weight"), torch.ones(256))


def test_gpt2_begins_like_its_paper() -> None:
    assert first_tensor(GPT2, 1, "transformer.wpe.weight").std().item() == pytest.approx(0.02, rel=0.02)
    assert first_tensor(GPT2, 1, "transformer.h.3.attn.c_attn.weight").std().item() == pytest.approx(0.02, rel=0.02)
    for name in ("attn.c_proj.weight", "mlp.c_proj.weight"):
        assert first_tensor(GPT2, 1, f"transformer.h.3.{name}").std().item() == pytest.approx(0.005, rel=0.02)
    assert torch.equal(first_tensor(GPT2, 1, "transformer.ln_f.weight"), torch.ones(256))
    for name in ("transformer.ln_f.bias", "transformer.h.0.mlp.c_fc.bias"):
        assert not first_tensor(GPT2, 1, name).any()


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first_tensor(MODEL, 1, "lm_head.weight")
    assert torch.equal(torch.rand(3), expected)
